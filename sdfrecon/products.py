"""How matrices are multiplied: by which library, and whether bfloat16 is faster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

ONEDNN: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
EXACT = 1e-6
"""Relative error of a product of 256 x 256 in float32; one in bfloat16 has a thousand times as much."""


@contextmanager
def exact_products() -> Iterator[None]:
    """Products of float32 matrices by oneDNN instead of MKL, where they are as exact.

    MKL leaves half of an AMD processor's vector width alone. torch hands float32 to oneDNN only where it may round to
    bfloat16; without hardware for that it does not, and is up to 2.4 times as fast. With such hardware nothing changes.
    """
    with _allowed("bf16" if _onednn_is_exact() else ONEDNN.fp32_precision):
        yield


@cache
def _onednn_is_exact() -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    with _allowed("bf16"):
        return product_error() < EXACT


@contextmanager
def _allowed(precision: str) -> Iterator[None]:
    before, ONEDNN.fp32_precision = ONEDNN.fp32_precision, precision
    try:
        yield
    finally:
        ONEDNN.fp32_precision = before


def product_error() -> float:
    """The relative error of a product of float32 matrices, as it is made now."""
    a, b = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0))
    true = a.double() @ b.double()
    return float((a @ b - true).norm() / true.norm())


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16, with about twice the speed of float32's."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
