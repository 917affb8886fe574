"""A field's value and derivatives at points, each computed once, on first read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from torch import Tensor


class Jet:
    """value (n, c), gradient (n, c, d) and laplacian (n, c) of a field at n points.

    The derivatives are given as functions and run only when a constraint reads them. Splitting gives the jets
    at some of the points each and shares the work: the whole batch is differentiated once, whoever asks first.
    """

    def __init__(self, value: Tensor, gradient: Callable[[], Tensor], laplacian: Callable[[], Tensor]) -> None:
        self.value = value
        self._gradient = gradient
        self._laplacian = laplacian

    @cached_property
    def gradient(self) -> Tensor:
        """(n, c, d): the derivative of every channel along every axis."""
        return self._gradient()

    @cached_property
    def laplacian(self) -> Tensor:
        """(n, c): the sum of every channel's second derivatives."""
        return self._laplacian()

    def split(self, counts: Sequence[int]) -> list[Jet]:
        """The jets at the first `counts[0]` points, the next `counts[1]`, and so on."""
        parts: dict[str, Sequence[Tensor]] = {}

        def part(name: str, index: int) -> Callable[[], Tensor]:
            def taken() -> Tensor:
                if name not in parts:
                    parts[name] = getattr(self, name).split(counts)
                return parts[name][index]

            return taken

        values = enumerate(self.value.split(counts))
        return [Jet(value, part("gradient", i), part("laplacian", i)) for i, value in values]
