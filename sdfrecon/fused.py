"""The tape's passes over a large batch on a GPU, with fewer ways through its memory.

At width 256 a product takes no longer than its rows' way from memory and back, and each pass over them beside the
products as long again: so most of them are in the products' kernels. All is in bfloat16, but each factor of the value's
products is a sum of two such numbers: its relative error is about 1e-5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from sdfrecon import kernels

TURN, HALF = 2 * math.pi, torch.bfloat16
KNOWN = 16
"""Columns of what sums over the points weigh them by: the fewest that a product has."""
FIRST = {"BM": 16, "BN": 256, "num_warps": 4}
VALUES = {"BM": 128, "BN": 128, "BK": 64, "num_warps": 8, "num_stages": 3}
ROWS = {"BM": 128, "BN": 256, "BK": 32, "num_warps": 8, "num_stages": 4}
SLOPES = {"BM": 128, "BN": KNOWN, "BK": 128, "num_warps": 4, "num_stages": 2}
ERRORS = {"BM": KNOWN, "BN": 256, "BK": 32, "num_warps": 8, "num_stages": 3}
PRODUCTS = {"BM": 128, "BN": 128, "BK": 32, "num_warps": 4, "num_stages": 3}
"""Tiles, and how many warps and loads under way each has: the fastest of several on an H200 at width 256
(benchmarks/TRIED.md)."""
PROGRAMS, LEAST = 264, 512
"""How many programs share the tiles, or a sum over the points, and the fewest points that are worth one."""


@cache
def usable(device: torch.device) -> bool:
    """Whether it is a Hopper GPU, whose shared memory the tiles are for, and Triton makes kernels here.

    For that it needs a C compiler and Python's headers.
    """
    if torch.cuda.get_device_capability(device)[0] != 9:
        return False
    ones = torch.ones(KNOWN, KNOWN, device=device, dtype=torch.float32)
    try:
        _first([ones.to(HALF) for _ in range(3)], ones[:, :3].contiguous(), ones, ones)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # without a compiler, say, the passes go on as they were
        return False
    return True


class Fused:
    """The jet of a SIREN of one channel and two or more sine layers at many points, and the way back from it."""

    def __init__(self, room: Callable[..., Tensor]) -> None:
        """room: a tensor by name, shape and dtype, in the same memory at every step."""
        self.room = room

    def value(self, points: Tensor, scaled: list[tuple[Tensor, Tensor]], rounded: list[Tensor]) -> Tensor:
        """(n, 1) at points (n, d), by the layers' weights and biases times their omega; rounded: the weights again."""
        *sines, (weight, bias) = scaled
        n, self.width, self.last = len(points), weight.shape[1], len(sines) - 1
        self.points, self.rounded = points.contiguous(), rounded
        self.sine, self.cosine = self._rooms("waves", 2, self.last + 1)
        rest = self._rooms("rest", 2)
        shares = self.room("shares", -(-self.width // VALUES["BN"]), n)
        turns = [(w / TURN, b / TURN) for w, b in sines]
        _first([self.sine[0], self.cosine[0], rest[0]], self.points, *turns[0])
        for layer, (w, b) in enumerate(turns[1:], 1):
            into = w.T.contiguous()
            high = into.to(HALF)
            made = _blocks(VALUES, "BM", "BN", self.sine[layer], self.cosine[layer], rest[layer % 2])
            given = _blocks(VALUES, "BM", "BK", self.sine[layer - 1], rest[(layer - 1) % 2])
            factors = _blocks(VALUES, "BK", "BN", high, (into - high).to(HALF))
            last = {"LAST": layer == self.last}
            self._over(kernels.values, VALUES, self.width, *made, shares, *given, *factors, b, weight, **last)
        return shares.sum(0)[:, None] + bias

    def gradient(self) -> Tensor:
        """(n, d) there, by rows from the output back."""
        rows, self.after = self._rooms("down", 2, self.last)
        self.before = [*rows, self.rounded[-1]]
        for layer in range(self.last, 0, -1):
            self._turned(rows[layer - 1], self.after[layer - 1], self.before[layer], layer, self.rounded[layer])
        gradient = self.room("gradient", len(self.points), KNOWN)
        self._turned(gradient, None, self.before[0], 0, _padded(self.rounded[0]))
        return gradient[:, : self.points.shape[1]].contiguous()

    def backward(self, error: Tensor, slope: Tensor, weights: list[Tensor], biases: list[Tensor]) -> None:
        """Adds to what the scaled parameters get what a loss's derivatives by value (n, 1) and gradient (n, d) bring.

        Through the gradient up (Griewank and Walther 2008, chapter 3), as far as each cosine, and by the value down.
        """
        through, below = self._rooms("through", self.last + 1), self._rooms("below", self.last)
        upper, errors = self._rooms("errors", 2)
        error, slope, d = error.contiguous(), slope.contiguous(), slope.shape[1]
        torch.mm(_padded(slope), _padded(self.rounded[0]).T, out=through[0])
        for layer in range(self.last):
            into = self.rounded[layer + 1].T.contiguous()
            self._turned(through[layer + 1], below[layer], through[layer], layer, into)
        biases[-1] += error.sum(0)
        for layer in range(self.last, -1, -1):
            ends = {"TOP": layer == self.last, "BOTTOM": layer == 0}
            given = self.sine[layer], self.cosine[layer], self.before[layer], through[layer]
            blocks = _blocks(ERRORS, "BK", "BN", errors, upper, *given)
            sums = self._summed(kernels.errors, ERRORS, KNOWN, *blocks, error, self.points, slope, D=d, **ends)
            biases[layer] += sums[0]
            if layer == self.last:
                weights[-1] += sums[1]
            if layer:
                left = _blocks(PRODUCTS, "BK", "BM", self.after[layer - 1], errors)
                right = _blocks(PRODUCTS, "BK", "BN", below[layer - 1], self.sine[layer - 1])
                weights[layer] += self._summed(kernels.products, PRODUCTS, self.width, *left, *right)
                torch.mm(errors, self.rounded[layer], out=upper)
            else:
                weights[0] += sums[1 : 1 + d].T

    def _rooms(self, name: str, *count: int) -> Tensor:
        """(..., n, width): so many arrays of the points' and sines' size."""
        return self.room(name, *count, len(self.points), self.width, dtype=HALF)

    def _turned(self, out: Tensor, kept: Tensor | None, given: Tensor, layer: int, weight: Tensor) -> None:
        """Rows, or one for all, times a layer's cosine, which may be kept, times a weight."""
        columns = out.shape[1]
        tile = SLOPES if kept is None else ROWS
        out, weight = *_blocks(tile, "BM", "BN", out), *_blocks(tile, "BK", "BN", weight)
        kept, given, cosine = _blocks(tile, "BM", "BK", kept, given, self.cosine[layer])
        top = isinstance(given, Tensor)
        self._over(kernels.rows, tile, columns, out, kept, given, cosine, weight, TOP=top, N=columns)

    def _over(self, kernel: Any, tile: dict[str, int], columns: int, *given: object, **flags: int) -> None:
        """Runs a kernel on all tiles of the (n, columns) that it makes."""
        tiles = -(-len(self.points) // tile["BM"]) * -(-columns // tile["BN"])
        kernel[(min(tiles, PROGRAMS),)](*given, len(self.points), W=self.width, **flags, **tile)

    def _summed(self, kernel: Any, tile: dict[str, int], high: int, *given: object, **flags: int) -> Tensor:
        """(high, width): a kernel's sums over chunks of the points, together."""
        n, tiles = len(self.points), -(-high // tile["BM"]) * -(-self.width // tile["BN"])
        chunk = max(LEAST, -(-n * tiles // PROGRAMS // tile["BK"]) * tile["BK"])
        shares = -(-n // chunk)
        part = self.room(f"sums {high}", shares, high, self.width)
        kernel[(shares * tiles,)](part, *given, n, CHUNK=chunk, W=self.width, **flags, **tile)
        return part.sum(0)


def _first(made: list[Tensor], points: Tensor, weight: Tensor, bias: Tensor) -> None:
    """The first layer's sine, cosine and rest (n, width) at points (n, d)."""
    n, width = made[0].shape
    tiles = -(-n // FIRST["BM"]) * -(-width // FIRST["BN"])
    blocks = _blocks(FIRST, "BM", "BN", *made)
    kernels.first[(tiles,)](*blocks, points, weight, bias, n, D=points.shape[1], W=width, **FIRST)


def _blocks(tile: dict[str, int], rows: str, columns: str, *arrays: Tensor | None) -> list[Any]:
    """Arrays as kernels read and write them, so many rows and columns at a time; single rows and none as they are."""
    size = [tile[rows], tile[columns]]
    return [a if a is None or len(a) == 1 else TensorDescriptor.from_tensor(a, size) for a in arrays]


def _padded(known: Tensor) -> Tensor:
    """(n, KNOWN) in bfloat16: a product's rows are read one number at a time where they are no 16 bytes."""
    return F.pad(known.to(HALF), (0, KNOWN - known.shape[1]))
