"""Work on a GPU that is the same at every call: recorded once, and launched as one from then on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch

T = TypeVar("T")
RECORDING = threading.Lock()
"""CUDA records one graph at a time, and nothing may be launched beside it on its stream."""
WARM = 3
"""Calls before one is recorded: the first few allocate, and choose how to multiply."""


def captured(take: Callable[[], T], generator: torch.Generator) -> Callable[[], T]:
    """`take`, which works on a GPU with draws from `generator`, replayed as a CUDA graph after the first WARM calls.

    A step is hundreds of kernels, most of them shorter than their launches; the graph has one launch. What it
    gives is the same tensors at every replay, with what they hold then; it must not wait for the device, and what
    differs from call to call must be there.
    """
    graph, calls = torch.cuda.CUDAGraph(), 0
    given: list[T] = []

    def replayed() -> T:
        nonlocal calls
        calls += 1
        if calls <= WARM + 1:
            around = torch.cuda.current_stream(generator.device)
            stream = _stream(around.device)  # the generator's may be "cuda", whichever that is now
            with RECORDING:
                stream.wait_stream(around)
                with torch.cuda.stream(stream):
                    if calls <= WARM:
                        given[:] = [take()]
                    else:
                        graph.register_generator_state(generator)
                        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                            given[:] = [take()]
                around.wait_stream(stream)
        if calls > WARM:
            graph.replay()
        return given[0]

    return replayed


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all: a stream that has multiplied matrices keeps the memory for it, 32 MB on a recent GPU, for good."""
    return torch.cuda.Stream(device)
