"""A field's value and derivatives at points, each computed once, on first read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from torch import Tensor


class Jet:
    """value (n, c), gradient (n, c, d) and laplacian (n, c) of a field at n points.

    The derivatives are given as functions and run only when a constraint reads them. Slicing gives the jet
    at some of the points and shares the work: the whole batch is differentiated once, whoever asks first.
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

    def __getitem__(self, rows: slice) -> Jet:
        return Jet(self.value[rows], lambda: self.gradient[rows], lambda: self.laplacian[rows])
