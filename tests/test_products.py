"""Whichever library multiplies, a product of float32 matrices is one of float32."""

import pytest

from sdfrecon import products
from sdfrecon.products import ONEDNN, exact_products, product_error


def test_products_are_exact_and_the_setting_is_put_back() -> None:
    before = ONEDNN.fp32_precision
    with exact_products():
        assert product_error() < products.EXACT
    assert ONEDNN.fp32_precision == before


def test_an_inexact_onednn_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "product_error", lambda: 2e-3)
    monkeypatch.setattr(products, "_onednn_is_exact", products._onednn_is_exact.__wrapped__)
    before = ONEDNN.fp32_precision
    with exact_products():
        assert before == ONEDNN.fp32_precision
