"""Whichever library multiplies, a product of float32 matrices is one of float32."""

import pytest
import torch

from sdfrecon import products
from sdfrecon.products import CUBLAS, ONEDNN, exact_products, faster_in_bfloat16, product_error


def test_products_are_exact_and_the_setting_is_put_back() -> None:
    before = ONEDNN.fp32_precision
    CUBLAS.fp32_precision = "tf32"
    try:
        with exact_products():
            assert product_error() < products.EXACT
            assert CUBLAS.fp32_precision == "ieee"
        assert (ONEDNN.fp32_precision, CUBLAS.fp32_precision) == (before, "tf32")
    finally:
        CUBLAS.fp32_precision = "none"


def test_an_inexact_onednn_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "product_error", lambda: 2e-3)
    monkeypatch.setattr(products, "_onednn_is_exact", products._onednn_is_exact.__wrapped__)
    with exact_products():
        assert ONEDNN.fp32_precision == "ieee"


@pytest.mark.parametrize(("seconds", "pays"), [((1.0, 2.0), True), ((2.0, 1.0), False), ((0.95, 1.0), False)])
def test_bfloat16_is_taken_where_its_products_are_well_faster(
    monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float], pays: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(products, "_seconds", dict(zip((torch.bfloat16, torch.float32), seconds, strict=True)).get)
    assert faster_in_bfloat16.__wrapped__(torch.device("cpu")) is pays


def test_bfloat16_is_not_even_timed_where_it_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    monkeypatch.delattr(products, "_seconds")
    assert not faster_in_bfloat16.__wrapped__(torch.device("cpu"))
