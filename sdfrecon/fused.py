"""The tape's passes over a large batch on a GPU, with half as many ways through its memory.

At width 256 a product takes no longer than its rows' way from memory and back, and each pass over them beside the
products as long again: so they are in the products' kernels. The value's products take sums of two numbers in bfloat16
for each factor, which are as good as float32 to 1e-5; all else is in bfloat16.
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

TURN = 2 * math.pi
KNOWN = 16
"""Columns of what sums over the points weigh them by: the fewest that a product has."""
FIRST = {"BM": 64, "BN": 64, "num_warps": 4}
VALUES = {"BM": 128, "BN": 128, "BK": 64, "num_warps": 8, "num_stages": 3}
ROWS = {"BM": 128, "BN": 256, "BK": 32, "num_warps": 8, "num_stages": 4}
SLOPES = {"BM": 64, "BN": KNOWN, "BK": 64, "num_warps": 4, "num_stages": 3}
BENT = {"BM": KNOWN, "BN": 128, "BK": 32, "num_warps": 8, "num_stages": 3}
PRODUCTS = {"BM": 128, "BN": 128, "BK": 32, "num_warps": 4, "num_stages": 3}
"""Tiles, and how many warps and loads under way each has: the fastest of several, on an H200 at width 256."""
SHARED = 200_000
"""Bytes of shared memory that the largest tiles take, less than an H100 has."""
PROGRAMS, LEAST = 264, 512
"""How many programs share a sum over the points, and the fewest points that are worth one."""


@cache
def usable() -> bool:
    """Whether the GPU has room for the tiles, and Triton all to make kernels with: a C compiler, Python's headers."""
    properties: Any = torch.cuda.get_device_properties("cuda")
    try:
        if properties.shared_memory_per_block_optin < SHARED:
            return False
        ones = torch.ones(KNOWN, 3, device="cuda", dtype=torch.float32)
        waves = [ones.bfloat16() for _ in range(3)]
        kernels.first[(1,)](*waves, ones, ones, ones, 1, D=3, W=3, **FIRST)
    except Exception:  # whatever it is that fails, the passes can go on without
        return False
    return True


class Fused:
    """The jet of a SIREN of one channel and two or more sine layers at many points, and the way back from it."""

    def __init__(self, room: Callable[..., Tensor]) -> None:
        """room: a tensor by name, shape and dtype, in the same memory at every step."""
        self.room = room

    def value(self, points: Tensor, scaled: list[tuple[Tensor, Tensor]]) -> Tensor:
        """(n, 1) at points (n, d), by the layers' weights and biases, times their omega."""
        *sines, (weight, bias) = scaled
        n, self.width, self.last = len(points), weight.shape[1], len(sines) - 1
        self.points, self.rounded = points.contiguous(), [w.bfloat16() for w, _ in scaled]
        self.sine, self.cosine = self.room("waves", 2, len(sines), n, self.width, dtype=torch.bfloat16)
        rest = self.room("rest", 2, n, self.width, dtype=torch.bfloat16)
        shares = self.room("shares", -(-self.width // VALUES["BN"]), n)
        turns = [(w / TURN, b / TURN) for w, b in sines]
        self._over(
            kernels.first, FIRST, self.sine[0], self.cosine[0], rest[0], self.points, *turns[0], n, D=points.shape[1]
        )
        for layer, (w, b) in enumerate(turns[1:], 1):
            into = w.T.contiguous()
            high = into.bfloat16()
            made = self.sine[layer], self.cosine[layer], rest[layer % 2], shares
            given = self.sine[layer - 1], rest[(layer - 1) % 2], high, (into - high).bfloat16(), b, weight, n
            self._over(kernels.values, VALUES, *made, *given, LAST=layer == self.last)
        return shares.sum(0)[:, None] + bias

    def gradient(self) -> Tensor:
        """(n, d) there, by rows from the output back."""
        rows, after = self.room("down", 2, *self.sine.shape, dtype=torch.bfloat16)
        self.before, self.after, gradient = [*rows[:-1], self.rounded[-1]], after, torch.empty_like(self.points)
        for layer in range(self.last, 0, -1):
            self._turned(rows[layer - 1], after[layer], self.before[layer], layer, self.rounded[layer])
        self._turned(gradient, None, self.before[0], 0, self.rounded[0])
        return gradient

    def backward(self, error: Tensor, slope: Tensor, weights: list[Tensor], biases: list[Tensor]) -> None:
        """Adds to what the scaled parameters get what a loss's derivatives by value (n, 1) and gradient (n, d) bring.

        Through the gradient up (Griewank and Walther 2008, chapter 3), as far as each cosine, and by the value down.
        """
        through, below = self.room("up", 2, *self.sine.shape, dtype=torch.bfloat16)
        upper, bent = self.room("bent", 2, *self.sine.shape[1:], dtype=torch.bfloat16)
        slope, d = slope.contiguous(), slope.shape[1]
        torch.mm(_padded(slope), _padded(self.rounded[0]).T, out=through[0])
        for layer in range(1, self.last + 1):
            into = self.rounded[layer].T.contiguous()
            self._turned(through[layer], below[layer], through[layer - 1], layer - 1, into)
        biases[-1] += error.sum(0)
        for layer in range(self.last, -1, -1):
            waves = self.sine[layer], self.cosine[layer]
            given = *waves, self.before[layer], through[layer], error.contiguous(), self.points, slope
            ends = {"TOP": layer == self.last, "BOTTOM": layer == 0, "STRIDE": _stride(self.before[layer])}
            sums = self._summed(kernels.bent, BENT, KNOWN, bent, upper, *given, D=d, **ends)
            biases[layer] += sums[0]
            if layer == self.last:
                weights[-1] += sums[1]
            if layer:
                kept = self.after[layer], below[layer], bent, self.sine[layer - 1]
                weights[layer] += self._summed(kernels.products, PRODUCTS, self.width, *kept)
                torch.mm(bent, self.rounded[layer], out=upper)
            else:
                weights[0] += sums[1 : 1 + d].T

    def _turned(self, out: Tensor, kept: Tensor | None, given: Tensor, layer: int, weight: Tensor) -> None:
        """Rows times a layer's cosine, which are kept, times a weight."""
        tile = ROWS if out.shape[1] == self.width else SLOPES
        rows = out if kept is None else kept, given, self.cosine[layer], weight
        flags = {"STRIDE": _stride(given), "KEEP": kept is not None, "N": out.shape[1]}
        self._over(kernels.rows, tile, out, *rows, len(out), **flags)

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
        kernel[(shares * tiles,)](part, *given, n, chunk, W=self.width, **flags, **tile)
        return part.sum(0)


def _stride(rows: Tensor) -> int:
    """From one row to the next: none where there is one for all."""
    return rows.shape[1] if len(rows) > 1 else 0


def _padded(known: Tensor) -> Tensor:
    """(n, KNOWN) in bfloat16: a product's rows are read one number at a time where they are no 16 bytes."""
    return F.pad(known.bfloat16(), (0, KNOWN - known.shape[1]))
