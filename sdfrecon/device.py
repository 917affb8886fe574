"""Where it is computed, from which random numbers, and how exactly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch

from sdfrecon.geometry import InputError, is_whole

ONEDNN: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
CUBLAS: Any = torch.backends.cuda.matmul
EXACT = 1e-6
"""Relative error of a product of 256 x 256 in float32; one in bfloat16 has a thousand times as much."""
_LOCK, _USE = threading.Lock(), SimpleNamespace(count=0, settings=ExitStack())


def seeded(seed: int, where: torch.device) -> torch.Generator:
    """Random numbers on a device. Raises InputError for a seed that is none."""
    if not (is_whole(seed, 0) and seed < 1 << 63):
        raise InputError(f"the seed must be a whole number from 0 to 2^63 - 1; got {seed}")
    return torch.Generator(where).manual_seed(int(seed))


def pick_device(name: str) -> torch.device:
    """ "auto", "cpu" or "cuda" as a device. Raises InputError where there is no such one."""
    if name == "auto":
        return torch.device("cuda" if _has_gpu() else "cpu")
    if name not in ("cpu", "cuda"):
        raise InputError(f"expected one of the devices auto, cpu, cuda; got {name!r}")
    if name == "cuda" and not _has_gpu():
        raise InputError(
            "no CUDA device was found that computes: pass --device cpu, or auto to take one where there is"
        )
    return torch.device(name)


def _has_gpu() -> bool:
    """Whether there is a GPU that computes: it may be full, or too old for this torch, which only warns of that."""
    try:
        return torch.cuda.is_available() and _gpu_computes()
    except RuntimeError:
        return False


@cache
def _gpu_computes() -> bool:
    """That it does is kept, what fails is asked again."""
    return torch.ones(1, device="cuda").add(1).item() == 2


@contextmanager
def exact_products() -> Iterator[None]:
    """Products of float32 matrices as exact as float32 is, and by oneDNN instead of MKL where that is, too.

    On a GPU none are in TensorFloat-32, and nowhere in what `torch.autocast` chooses, whatever the program around this
    allows. On a CPU MKL leaves half of an AMD processor's vector width alone. torch hands float32 to oneDNN only where
    it may round to bfloat16; without hardware for that it does not, and is up to 2.4 times as fast. With such hardware
    nothing changes. The settings are the process's: the first thread to come makes them, the last to go undoes them.
    Meanwhile `torch.get_float32_matmul_precision` raises where they are not all alike.
    """
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        with _LOCK:
            if not _USE.count:
                with ExitStack() as settings:
                    settings.enter_context(allowed(CUBLAS, "ieee"))
                    exact = torch.backends.mkldnn.enabled and _onednn_is_exact()
                    settings.enter_context(allowed(ONEDNN, "bf16" if exact else "ieee"))
                    _USE.settings = settings.pop_all()
            _USE.count += 1
        try:
            yield
        finally:
            with _LOCK:
                _USE.count -= 1
                if not _USE.count:
                    _USE.settings.close()


@contextmanager
def learning() -> Iterator[None]:
    """Gradients are taken here, whatever the program around this has switched off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@cache
def _onednn_is_exact() -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    with allowed(ONEDNN, "bf16"):
        return product_error() < EXACT


@contextmanager
def allowed(library: Any, precision: str) -> Iterator[None]:
    """A library's products of float32 in a precision: "ieee", "tf32", "bf16"."""
    before, library.fp32_precision = library.fp32_precision, precision
    try:
        yield
    finally:
        library.fp32_precision = "none"  # so that it has what all of torch has, as it mostly did
        if library.fp32_precision != before:
            library.fp32_precision = before


def product_error() -> float:
    """The relative error of a product of float32 matrices, as it is made now."""
    a, b = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0), device="cpu", dtype=torch.float32)
    true = a.double() @ b.double()
    return float((a @ b - true).norm() / true.norm())


def faster_in_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 are well faster than float32's on a device.

    By its kind alone: by a clock the same seed would give another mesh where the machine is busy. AVX-512 has them at
    twice float32's rate on AMD's processors and at half of it on Intel's, which have AMX for them.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or (able.get("avx512_bf16") and "AMD" in able.get("cpu_name", "")))
