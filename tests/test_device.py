"""Whichever library multiplies, a product of float32 matrices is one of float32."""

import pytest
import torch

from sdfrecon import device
from sdfrecon.device import CUBLAS, ONEDNN, exact_products, faster_in_bfloat16, product_error


def test_products_are_exact_and_the_setting_is_put_back() -> None:
    before = ONEDNN.fp32_precision
    CUBLAS.fp32_precision = "tf32"
    try:
        with exact_products():
            assert product_error() < device.EXACT
            assert CUBLAS.fp32_precision == "ieee"
        assert (ONEDNN.fp32_precision, CUBLAS.fp32_precision) == (before, "tf32")
    finally:
        CUBLAS.fp32_precision = "none"


def test_threads_that_come_and_go_leave_the_setting_as_it_was() -> None:
    CUBLAS.fp32_precision = "tf32"
    try:
        first, second = exact_products(), exact_products()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert CUBLAS.fp32_precision == "ieee", "the second is still at work"
        second.__exit__(None, None, None)
        assert CUBLAS.fp32_precision == "tf32"
    finally:
        CUBLAS.fp32_precision = "none"


def test_an_inexact_onednn_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "product_error", lambda: 2e-3)
    monkeypatch.setattr(device, "_onednn_is_exact", device._onednn_is_exact.__wrapped__)
    with exact_products():
        assert ONEDNN.fp32_precision == "ieee"


@pytest.mark.parametrize(
    ("able", "pays"),
    [
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC 9R14"}, True),
        ({"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, True),
        ({"avx512_bf16": True, "amx_bf16": False, "cpu_name": "Intel Xeon"}, False),
        ({"avx512_bf16": False, "cpu_name": "AMD EPYC 7B13"}, False),
        ({}, False),
    ],
)
def test_bfloat16_is_taken_by_the_kind_of_processor(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, object], pays: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert faster_in_bfloat16(torch.device("cpu")) is pays
