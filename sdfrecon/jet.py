"""A field's value and derivatives at points, each computed once, on first read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from torch import Tensor

Derivative = Callable[[], Tensor]


class Jet:
    """value (n, c), gradient (n, c, d) and laplacian (n, c) of a field at n points.

    The derivatives are given as functions and run only when a constraint reads them. Splitting gives the jets
    at some of the points each and shares the work: the whole batch is differentiated once, whoever asks first.
    """

    def __init__(
        self, value: Tensor, gradient: Derivative, laplacian: Derivative | None = None, slope: Derivative | None = None
    ) -> None:
        """laplacian: None where nobody asks for it. slope: None has it from the gradient."""
        self.value = value
        self._gradient, self._laplacian, self._slope = gradient, laplacian, slope

    @cached_property
    def gradient(self) -> Tensor:
        """(n, c, d): the derivative of every channel along every axis."""
        return self._gradient()

    @cached_property
    def laplacian(self) -> Tensor:
        """(n, c): the sum of every channel's second derivatives."""
        if self._laplacian is None:
            raise NotImplementedError("this field has no second derivatives")
        return self._laplacian()

    @cached_property
    def slope(self) -> Tensor:
        """(n, c): the size of the gradient. A norm has no derivative at 0; the small constant gives it one there."""
        return self._slope() if self._slope else (self.gradient.square().sum(-1) + 1e-12).sqrt()

    def split(self, counts: Sequence[int]) -> list[Jet]:
        """The jets at the first `counts[0]` points, the next `counts[1]`, and so on."""
        parts: dict[str, Sequence[Tensor]] = {}

        def part(name: str, index: int) -> Derivative:
            def taken() -> Tensor:
                if name not in parts:
                    parts[name] = getattr(self, name).split(counts)
                return parts[name][index]

            return taken

        values = enumerate(self.value.split(counts))
        return [Jet(value, *(part(name, i) for name in ("gradient", "laplacian", "slope"))) for i, value in values]
