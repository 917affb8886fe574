"""A field's values on the points of one integer lattice, taken only in blocks that can contain the surface."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdfrecon.geometry import Floats, InputError, is_whole
from sdfrecon.jet import Jet
from sdfrecon.siren import chunks

BLOCK = 8  # cells along a block's edge: smaller wastes fewer samples, larger has fewer shared faces
SLACK = 1.1  # times the largest gradient sampled: the slope assumed between samples
TILES = 1000  # blocks looked at, or handed to marching cubes, in one call
CORNERS = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), -1).reshape(8, 3)
FACES = np.concatenate([np.eye(3, dtype=np.int64), -np.eye(3, dtype=np.int64)])

Ints = NDArray[np.int64]


class ScalarField(Protocol):
    """A field in unit coordinates, as meshing sees it."""

    @property
    def device(self) -> torch.device:
        """Where it wants its points."""

    def value(self, unit: Tensor) -> Tensor:
        """(n, 1) values at points (n, 3)."""

    def jet(self, unit: Tensor) -> Jet:
        """Value and gradient at points (n, 3)."""


def check_resolution(resolution: int) -> None:
    """Raises InputError for what is no whole number of cells, or fewer than two."""
    if not is_whole(resolution, 2):
        raise InputError(f"the resolution must be a whole number of cells, at least 2; got {resolution}")


class Lattice:
    """The (resolution + 1)^3 points of the cube, of which only those in blocks near the surface get a value.

    A block is BLOCK^3 cells and owns as many lattice points, its lower ones; its upper faces belong to its neighbours.
    So every lattice point is evaluated once and neighbours agree on it to the last bit: no cracks.
    """

    def __init__(self, field: ScalarField, resolution: int, level: float, half: float) -> None:
        resolution = int(resolution)  # of NumPy's, small ones overflow below
        self.field, self.resolution, self.level, self.half = field, resolution, level, half
        self.cell = 2 * half / resolution
        self.blocks = -(-(resolution + 1) // BLOCK)  # along each axis, so that every lattice point is owned
        self.rows = np.full((self.blocks + 1,) * 3, -1, np.int32)  # a block's row in `values`, -1 for none
        self.values = np.empty((0, BLOCK, BLOCK, BLOCK), np.float32)  # with room for more
        self.origins = np.empty((0, 3), np.int64)  # the first lattice point of each row
        self.count = 0  # of the rows in use

    def unit(self, lattice: NDArray) -> Tensor:
        """Lattice coordinates (n, 3) -> unit."""
        return torch.tensor(lattice * self.cell - self.half, dtype=torch.float32, device=self.field.device)

    def candidates(self) -> tuple[Ints, Floats]:
        """(b, 3) blocks that can contain the level, found from coarse to fine, and (b,) the slope assumed in each.

        A block is kept where |f(centre) - level| <= L * half its diagonal. L is the largest gradient at the centres of
        the block's seven siblings, its parent and itself, plus a tenth: sampled, since the product of the layers'
        norms exceeds it a thousandfold. What such a bound misses of a surface, `grow` finds from the rest of it.
        """
        size = 1 << max(0, int(np.log2(self.blocks / 8)))
        count = -(-self.blocks // size)
        blocks = np.stack(np.meshgrid(*[np.arange(count)] * 3, indexing="ij"), -1).reshape(-1, 3)
        family, steepest = np.zeros(len(blocks), np.int64), np.zeros(1)
        while True:
            error, gradient = self.jet(self.unit((blocks + 0.5) * size * BLOCK))
            norm = gradient.norm(dim=-1).cpu().numpy().astype(np.float64)
            np.maximum.at(steepest, family, norm)
            slope = SLACK * steepest[family]
            keep = np.abs(error[:, 0].cpu().numpy()) <= slope * 0.5 * np.sqrt(3) * size * BLOCK * self.cell
            blocks, slope, steepest = blocks[keep], slope[keep], norm[keep]
            if size == 1 or not len(blocks):
                return blocks, slope
            size //= 2
            family = np.repeat(np.arange(len(blocks)), len(CORNERS))
            blocks = (2 * blocks[:, None] + CORNERS).reshape(-1, 3)
            within = (blocks * size < self.blocks).all(1)
            blocks, family = blocks[within], family[within]

    def grow(self, blocks: Ints, slope: Floats) -> Ints:
        """`blocks` (b, 3) and all that the surface reaches from them, evaluated: it never ends at a block's face."""
        active = np.zeros((self.blocks,) * 3, bool)
        steepest = slope.max(initial=0.0)
        while len(blocks):
            active[tuple(blocks.T)] = True
            self.evaluate(blocks, slope)
            beside = active & self._around(blocks)
            blocks = self._reached(np.argwhere(beside), active)
            if not len(blocks) and beside.sum() < active.sum():
                blocks = self._reached(np.argwhere(active), active)
            slope = np.full(len(blocks), steepest)
        return np.argwhere(active)

    def _around(self, blocks: Ints) -> NDArray[np.bool_]:
        """(blocks, blocks, blocks) true for `blocks` (b, 3) and those that touch them."""
        around = np.zeros((self.blocks,) * 3, bool)
        for step in np.ndindex(3, 3, 3):
            around[tuple((blocks + step - 1).clip(0, self.blocks - 1).T)] = True
        return around

    def _reached(self, blocks: Ints, active: NDArray[np.bool_]) -> Ints:
        """(n, 3) those that are not active, but the surface leaves `blocks` (b, 3) into them."""
        self.settle(blocks)
        reached = []
        for part in parts(blocks):
            inside = completed(self.tiles(part)) < 0
            for step in FACES:
                axis = int(np.flatnonzero(step)[0]) + 1
                face = inside.take(BLOCK if step.sum() > 0 else 0, axis=axis).reshape(len(part), -1)
                reached.append(part[face.any(1) & ~face.all(1)] + step)
        found = np.concatenate(reached)
        found = found[((found >= 0) & (found < self.blocks)).all(1)]
        new = np.zeros_like(active)  # np.unique would sort rows, which takes ten times as long
        new[tuple(found.T)] = True
        return np.argwhere(new & ~active)

    def evaluate(self, blocks: Ints, slope: Floats) -> None:
        """Gives values to the lattice points of `blocks` (b, 3) that are corners of a cell with the surface in it.

        First every fourth lattice point, then every second and at last each one, but only beside a coarser one that is
        near enough: the surface passes a cube of the finer lattice with a corner there only where
        |f(corner) - level| <= slope * the cube's diagonal.
        """
        owned = np.zeros(self.rows.shape, bool)
        for corner in CORNERS:
            owned[tuple((blocks + corner).T)] = True
        owners = np.argwhere(owned & (self.rows < 0))
        new = slice(self.count, self.count + len(owners))
        if new.stop > len(self.values):
            more = max(new.stop, self.count * 5 // 4) - len(self.values)
            self.values = np.concatenate([self.values, np.full((more, *[BLOCK] * 3), np.nan, np.float32)])
            self.origins = np.concatenate([self.origins, np.empty((more, 3), np.int64)])
        self.rows[tuple(owners.T)] = np.arange(new.start, new.stop, dtype=np.int32)
        self.origins[new], self.count = owners * BLOCK, new.stop

        self._fill(blocks, [np.ones([BLOCK // 4 + 1] * 3, bool)] * len(parts(blocks)), 4)
        for stride in (2, 1):
            reach = slope * (np.sqrt(3) * stride * self.cell)
            close = [
                np.abs(self.tiles(part)[:, :: 2 * stride, :: 2 * stride, :: 2 * stride]) <= limit
                for part, limit in zip(parts(blocks), parts(reach[:, None, None, None]), strict=True)
            ]
            self._fill(blocks, [_surroundings(points) for points in close], stride)

    def settle(self, blocks: Ints) -> None:
        """Evaluates what `evaluate` only guessed, where its slope was too small: corners of cells that change sign."""
        while True:
            guessed = []
            for part in parts(blocks):
                tiles = self.tiles(part)
                missing, inside = np.isnan(tiles), completed(tiles) < 0
                mixed = _any_corner(inside) & _any_corner(~inside)
                guessed.append(_corners_of(mixed) & missing)
            if not any(mask.any() for mask in guessed):
                return
            self._fill(blocks, guessed, 1)

    def _fill(self, blocks: Ints, masks: list[NDArray[np.bool_]], stride: int) -> None:
        """Evaluates those lattice points of `blocks`, every `stride`-th, where a part's mask is true."""
        used = np.zeros(self.count, bool)
        for corner in CORNERS:
            used[self.rows[tuple((blocks + corner).T)]] = True
        rows = np.flatnonzero(used)
        place = np.empty(len(self.values), np.int32)
        place[rows] = np.arange(len(rows))
        wanted = np.zeros((len(rows), *[BLOCK] * 3), bool)
        for part, mask in zip(parts(blocks), masks, strict=True):
            tile = np.zeros((len(part), *[BLOCK + 1] * 3), bool)
            tile[:, ::stride, ::stride, ::stride] = mask
            for corner in CORNERS:
                inner, layer = _layers(corner)
                wanted[(place[self.rows[tuple((part + corner).T)]], *layer)] |= tile[(slice(None), *inner)]
        for here, part in zip(parts(wanted), parts(rows), strict=True):
            here &= np.isnan(self.values[part])
        todo, shape = np.flatnonzero(wanted), wanted.shape
        del wanted
        for index in parts(todo, 1 << 20):
            at, *cell = np.unravel_index(index, shape)
            row = rows[at]
            lattice = self.origins[row] + np.stack(cell, -1)
            value = self.field.value(self.unit(lattice))[:, 0]
            if value.isnan().any():
                raise InputError("the field's values are no numbers at some places: fit it again")
            # The outermost layer counts as outside: that caps what leaves the cube.
            border = ((lattice <= 0) | (lattice >= self.resolution)).any(1)
            self.values[(row, *cell)] = np.where(border, self.cell, value.cpu().numpy() - np.float32(self.level))

    def tiles(self, blocks: Ints) -> NDArray[np.float32]:
        """(b, BLOCK + 1, BLOCK + 1, BLOCK + 1) values of the blocks (b, 3) with their upper faces, NaN for none."""
        out = np.empty((len(blocks), *[BLOCK + 1] * 3), np.float32)
        for corner in CORNERS:
            inner, layer = _layers(corner)
            out[(slice(None), *inner)] = self.values[(self.rows[tuple((blocks + corner).T)], *layer)]
        return out

    def at(self, lattice: Ints) -> NDArray[np.float32]:
        """(n,) values at lattice points (n, 3)."""
        row = self.rows[tuple((lattice // BLOCK).T)]
        return self.values[(row, *(lattice % BLOCK).T)]

    def jet(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 1) value - level and (n, 3) gradient at unit points (n, 3)."""
        values, gradients = [], []
        for part in chunks(points):
            jet = self.field.jet(part)
            values.append(jet.value)
            gradients.append(jet.gradient[:, 0])
        return torch.cat(values) - self.level, torch.cat(gradients)


def completed(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
    """`tiles`, in which points without a value take that of a coarser one beside them: no surface parts them."""
    for stride in (2, 4):
        down = np.arange(BLOCK + 1) // stride * stride
        np.copyto(tiles, tiles[:, down[:, None, None], down[:, None], down], where=np.isnan(tiles))
    return tiles


def parts(rows: NDArray, size: int = TILES) -> list[NDArray]:
    """Slices of `size` rows: what is looked at in one go."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _layers(corner: Ints) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where the neighbour one step along `corner` lies in a block's tile, and in the neighbour's own values."""
    inner = tuple(slice(BLOCK, None) if step else slice(0, BLOCK) for step in corner)
    return inner, tuple(slice(0, 1) if step else slice(None) for step in corner)


def _any_corner(points: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(b, m + 1, m + 1, m + 1) of lattice points -> (b, m, m, m): whether any corner of each cube is true."""
    for axis in (1, 2, 3):
        low, high = [slice(None)] * 4, [slice(None)] * 4
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        points = points[tuple(low)] | points[tuple(high)]
    return points


def _corners_of(cubes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(b, m, m, m) of cubes -> (b, m + 1, m + 1, m + 1): the lattice points that are corners of a true one."""
    return _any_corner(np.pad(cubes, ((0, 0), (1, 1), (1, 1), (1, 1))))


def _surroundings(points: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(b, m, m, m) of lattice points -> (b, 2 m - 1, ...) of one twice as fine: true ones with all beside them."""
    fine = np.zeros((len(points), *(2 * m + 1 for m in points.shape[1:])), bool)
    fine[:, 1::2, 1::2, 1::2] = points
    return _any_corner(_any_corner(fine))
