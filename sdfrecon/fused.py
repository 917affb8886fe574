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

from sdfrecon import kernels

TURN, HALF = 2 * math.pi, torch.bfloat16
KNOWN = 16
"""Columns of what sums over the points weigh them by: the fewest that a product has."""
FIRST = {"BM": 64, "BN": 64, "num_warps": 4}
VALUES = {"BM": 128, "BN": 128, "BK": 64, "num_warps": 8, "num_stages": 3}
ROWS = {"BM": 128, "BN": 256, "BK": 32, "num_warps": 8, "num_stages": 4}
SLOPES = {"BM": 64, "BN": KNOWN, "BK": 64, "num_warps": 4, "num_stages": 3}
ERRORS = {"BM": KNOWN, "BN": 128, "BK": 32, "num_warps": 8, "num_stages": 3}
PRODUCTS = {"BM": 128, "BN": 128, "BK": 32, "num_warps": 4, "num_stages": 3}
"""Tiles, and how many warps and loads under way each has: the fastest of several on an H200 at width 256, while the
kernels were tried (benchmarks/TRIED.md)."""
PROGRAMS, LEAST = 264, 512
"""How many programs share a sum over the points, and the fewest points that are worth one."""


@cache
def usable(device: torch.device) -> bool:
    """Whether it is a Hopper GPU, whose shared memory the tiles are for, and Triton makes kernels here.

    For that it needs a C compiler and Python's headers.
    """
    if torch.cuda.get_device_capability(device)[0] != 9:
        return False
    ones = torch.ones(KNOWN, 3, device=device, dtype=torch.float32)
    waves = [ones.to(HALF) for _ in range(3)]
    try:
        kernels.first[(1,)](*waves, ones, ones, ones, 1, D=3, W=3, **FIRST)
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
        made = self.sine[0], self.cosine[0], rest[0]
        self._over(kernels.first, FIRST, *made, self.points, *turns[0], n, D=points.shape[1])
        for layer, (w, b) in enumerate(turns[1:], 1):
            into = w.T.contiguous()
            high = into.to(HALF)
            made = self.sine[layer], self.cosine[layer], rest[layer % 2]
            given = self.sine[layer - 1], rest[(layer - 1) % 2], high, (into - high).to(HALF), b, weight, n
            self._over(kernels.values, VALUES, *made, shares, *given, LAST=layer == self.last)
        return shares.sum(0)[:, None] + bias

    def gradient(self) -> Tensor:
        """(n, d) there, by rows from the output back."""
        gradient, top = torch.empty_like(self.points), self.rounded[-1].expand(len(self.points), -1)
        rows, self.after = self._rooms("down", 2, self.last)
        self.before = [*rows, top]
        for layer in range(self.last, 0, -1):
            self._turned(rows[layer - 1], self.after[layer - 1], self.before[layer], layer, self.rounded[layer])
        self._turned(gradient, None, self.before[0], 0, self.rounded[0])
        return gradient

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
            before = self.before[layer]
            given = self.sine[layer], self.cosine[layer], before, through[layer], error, self.points, slope
            ends = {"TOP": layer == self.last, "BOTTOM": layer == 0, "STRIDE": before.stride(0)}
            sums = self._summed(kernels.errors, ERRORS, KNOWN, errors, upper, *given, D=d, **ends)
            biases[layer] += sums[0]
            if layer == self.last:
                weights[-1] += sums[1]
            if layer:
                kept = self.after[layer - 1], below[layer - 1], errors, self.sine[layer - 1]
                weights[layer] += self._summed(kernels.products, PRODUCTS, self.width, *kept)
                torch.mm(errors, self.rounded[layer], out=upper)
            else:
                weights[0] += sums[1 : 1 + d].T

    def _rooms(self, name: str, *count: int) -> Tensor:
        """(..., n, width): so many arrays of the points' and sines' size."""
        return self.room(name, *count, len(self.points), self.width, dtype=HALF)

    def _turned(self, out: Tensor, kept: Tensor | None, given: Tensor, layer: int, weight: Tensor) -> None:
        """Rows times a layer's cosine, which may be kept, times a weight."""
        tile, stride = ROWS if out.shape[1] == self.width else SLOPES, given.stride(0)
        rows = given, self.cosine[layer], weight, len(out)
        self._over(kernels.rows, tile, out, kept, *rows, STRIDE=stride, N=out.shape[1])

    def _over(self, kernel: Any, tile: dict[str, int], *given: object, **flags: int) -> None:
        """Runs a kernel on all tiles of what it makes."""
        tiles = -(-len(self.points) // tile["BM"]) * -(-flags.get("N", self.width) // tile["BN"])
        kernel[(tiles,)](*given, W=self.width, **flags, **tile)

    def _summed(self, kernel: Any, tile: dict[str, int], high: int, *given: object, **flags: int) -> Tensor:
        """(high, width): a kernel's sums over chunks of the points, together."""
        n, tiles = len(self.points), -(-high // tile["BM"]) * -(-self.width // tile["BN"])
        chunk = max(LEAST, -(-n * tiles // PROGRAMS // tile["BK"]) * tile["BK"])
        shares = -(-n // chunk)
        part = self.room(f"sums {high}", shares, high, self.width)
        kernel[(shares * tiles,)](part, *given, n, CHUNK=chunk, W=self.width, **flags, **tile)
        return part.sum(0)


def _padded(known: Tensor) -> Tensor:
    """(n, KNOWN) in bfloat16: a product's rows are read one number at a time where they are no 16 bytes."""
    return F.pad(known.to(HALF), (0, KNOWN - known.shape[1]))
