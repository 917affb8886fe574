"""Whichever library multiplies, a product of float32 matrices is one of float32."""

import threading
from typing import Any

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


@pytest.mark.parametrize("library", [CUBLAS, ONEDNN])
def test_what_is_set_for_all_of_torch_is_not_set_for_one_part(library: Any) -> None:
    whole: Any = torch.backends
    before = whole.fp32_precision
    try:
        whole.fp32_precision = "tf32"
        assert library.fp32_precision == "tf32"
        with exact_products():
            assert CUBLAS.fp32_precision == "ieee"
        assert library.fp32_precision == "tf32"
        whole.fp32_precision = "ieee"
        assert library.fp32_precision == "ieee"
    finally:
        whole.fp32_precision = before


def test_without_onednn_nothing_is_asked_of_it() -> None:
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None), exact_products():
        assert ONEDNN.fp32_precision == "ieee"
        assert product_error() < device.EXACT


def test_a_gpu_that_was_full_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> bool:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "_gpu_computes", full)
    assert device.pick_device("auto").type == "cpu"
    monkeypatch.setattr(device, "_gpu_computes", lambda: True)
    assert device.pick_device("auto").type == "cuda"


def test_threads_that_come_and_go_leave_the_setting_as_it_was() -> None:
    first_in, second_in, first_out = (threading.Event() for _ in range(3))
    seen: dict[str, str] = {}

    def first() -> None:
        with exact_products():
            first_in.set()
            second_in.wait(10)
        first_out.set()

    def second() -> None:
        first_in.wait(10)
        with exact_products():
            second_in.set()
            first_out.wait(10)
            seen["the second is still at work"] = CUBLAS.fp32_precision

    CUBLAS.fp32_precision = "tf32"
    try:
        threads = [threading.Thread(target=work) for work in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert seen == {"the second is still at work": "ieee"}
        assert CUBLAS.fp32_precision == "tf32"
    finally:
        CUBLAS.fp32_precision = "none"


def test_what_is_exact_is_found_out_under_autocast_too() -> None:
    expected = device._onednn_is_exact()
    device._onednn_is_exact.cache_clear()
    with torch.autocast("cpu", dtype=torch.bfloat16), exact_products():
        assert device._onednn_is_exact() is expected
        assert product_error() < device.EXACT


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
