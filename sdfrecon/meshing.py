"""Zero level -> triangles: marching cubes on the blocks of a lattice, each vertex then drawn onto the level."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import marching_cubes
from torch import Tensor

from sdfrecon.device import exact_products
from sdfrecon.geometry import InputError, Mesh
from sdfrecon.lattice import BLOCK, Ints, Lattice, ScalarField, check_resolution, completed, parts

SNAP = 0.02  # share of a cell that vertices keep from lattice points, so that no triangle collapses onto one


@exact_products()
@torch.inference_mode()
def extract_mesh(field: ScalarField, resolution: int = 256, level: float = 0.0, half: float = 1.0) -> Mesh:
    """The surface `field = level` as triangles, watertight and oriented towards larger values.

    resolution: cells along each axis of the cube [-half, half]^3 (unit coordinates). A surface that leaves the cube is
    closed by a cap within a cell of its border. Marching cubes (Lewiner et al. 2003) runs on blocks around the surface;
    each vertex is then drawn onto the level by Newton's method along the exact gradient; the last one is its normal,
    too. Time and memory grow with the surface, resolution^2, but for a table of the (resolution / 8)^3 blocks. Where
    all of the border is below the level, as around a room, its shell is found or not, as the blocks lie: no data
    support it.

    Raises InputError where the field nowhere takes the level or its values are no numbers, and for a resolution that
    cannot be.
    """
    check_resolution(resolution)
    lattice = Lattice(field, resolution, level, half)
    blocks = lattice.grow(*lattice.candidates())
    vertices, faces = polygonise(lattice, blocks)
    if not len(faces):
        raise InputError(
            f"the field has no surface at level {level:g}, or one thinner than a cell: choose "
            f"{'a level nearer to zero, ' if level else ''}a higher resolution, or a longer fit"
        )
    return project(lattice, vertices, faces)


def polygonise(lattice: Lattice, blocks: Ints) -> tuple[NDArray[np.float64], Ints]:
    """(v, 3) vertices in lattice coordinates, on the lattice's edges, and (f, 3) triangles of the blocks (b, 3)."""
    found, triangles, count = [np.empty(0, np.int64)], [np.empty((0, 3), np.int32)], 0
    for part in parts(blocks):
        edges, faces = _march(lattice, part)
        found.append(edges)
        triangles.append((faces + count).astype(np.int32))  # half the memory of int64, and enough up to 100 GB
        count += len(edges)
    # Two parts make the same vertex on their common face; it is known by its edge.
    keys, vertex = np.unique(np.concatenate(found), return_inverse=True)
    faces = vertex[np.concatenate(triangles)]
    return np.concatenate([np.empty((0, 3)), *(_cuts(lattice, part) for part in parts(keys, 1 << 20))]), faces


def _march(lattice: Lattice, blocks: Ints) -> tuple[Ints, Ints]:
    """(e,) the edges that the surface cuts in these blocks, each as one number, and (f, 3) triangles over them.

    An edge's number is twice its middle in lattice coordinates, unrolled.
    """
    tiles = completed(lattice.tiles(blocks))
    inside = (tiles < 0).reshape(len(blocks), -1)
    crossed = inside.any(axis=1) & ~inside.all(axis=1)
    if not crossed.any():
        return np.empty(0, np.int64), np.empty((0, 3), np.int64)
    blocks, values = blocks[crossed], np.clip(tiles[crossed] / lattice.cell, -1, 1)
    edge, side = BLOCK + 1, int(np.ceil(len(blocks) ** (1 / 3)))
    # Marching cubes needs the signs and, for ambiguous faces, the sizes. Kept within one cell and off zero, they
    # put every vertex well inside its edge, where it can be told from the lattice points.
    values = np.where(values < 0, np.minimum(values, -2 * SNAP), np.maximum(values, 2 * SNAP))

    def stack(tiles: NDArray) -> NDArray:  # (side^3, edge, edge, edge) -> (side * edge, ...) in one volume
        grid = tiles.reshape(side, side, side, edge, edge, edge)
        return grid.transpose(0, 3, 1, 4, 2, 5).reshape((side * edge,) * 3)

    volume = np.ones((side**3, edge, edge, edge), np.float32)
    volume[: len(blocks)] = values
    # scikit-image runs the cell below each true lattice point: none between two tiles.
    cells = np.zeros(volume.shape, bool)
    cells[: len(blocks), 1:, 1:, 1:] = True
    points, faces, _, _ = marching_cubes(
        stack(volume), 0.0, mask=stack(cells), gradient_direction="descent", allow_degenerate=True
    )
    tile, local = np.divmod(points.astype(np.float64), edge)
    block = blocks[np.ravel_multi_index(tuple(tile.astype(np.int64).T), (side, side, side))]
    nearest = np.rint(local)
    middle = np.where(np.abs(local - nearest) > SNAP / 2, 2 * np.floor(local) + 1, 2 * nearest)
    return np.ravel_multi_index(tuple((2 * BLOCK * block + middle.astype(np.int64)).T), _span(lattice)), faces


def _cuts(lattice: Lattice, edges: Ints) -> NDArray[np.float64]:
    """(e, 3) where the surface cuts these edges (e,), in lattice coordinates."""
    middle = np.stack(np.unravel_index(edges, _span(lattice)), -1)
    low, high = middle // 2, (middle + 1) // 2
    below, above = lattice.at(low), lattice.at(high)
    with np.errstate(divide="ignore", invalid="ignore"):
        along = below / (below - above)
    # A vertex inside a cell (Lewiner's case 13 and others) has no edge: it starts from the cell's middle.
    along = np.where((middle % 2).sum(1) == 1, along, 0.5)
    return low + np.clip(along, SNAP, 1 - SNAP)[:, None] * (high - low)


def _span(lattice: Lattice) -> tuple[int, int, int]:
    return (2 * lattice.blocks * BLOCK + 1,) * 3


def project(lattice: Lattice, vertices: NDArray[np.float64], faces: Ints) -> Mesh:
    """The mesh in unit coordinates, its vertices drawn onto the level, with the field's gradient as normals."""
    points, normals = [], []
    for part in parts(vertices, 1 << 20):
        # A cap lies where the cube ends, not where the field is zero.
        inner = ((part > 1) & (part < lattice.resolution - 1)).all(1, keepdims=True)
        here = lattice.unit(part)
        free = torch.from_numpy(inner).to(here.device)
        error, gradient = lattice.jet(here)
        step = _newton(error, gradient, 0.5 * lattice.cell) * free
        here = here + step
        # Most vertices were nearly there, and a second step would move them by less than rounding does.
        again = torch.nonzero(step.norm(dim=-1) > 0.02 * lattice.cell)[:, 0]
        error, gradient[again] = lattice.jet(here[again])
        here[again] += _newton(error, gradient[again], 0.05 * lattice.cell)
        points.append(here.cpu().numpy())
        normals.append(torch.nn.functional.normalize(gradient, dim=-1).cpu().numpy())
    return Mesh(np.concatenate(points), faces, np.concatenate(normals))


def _newton(error: Tensor, gradient: Tensor, longest: float) -> Tensor:
    """(n, 3) steps along the gradient (n, 3) that undo the error (n, 1), each at most `longest`."""
    step = -error * gradient / gradient.square().sum(-1, keepdim=True).clamp(min=1e-12)
    return step * (longest / step.norm(dim=-1, keepdim=True).clamp(min=1e-30)).clamp(max=1)
