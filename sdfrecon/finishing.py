"""After extraction: floating pieces and guesses far from the data go, colours come."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sdfrecon.frame import Frame
from sdfrecon.geometry import Floats, InputError, Mesh, PointCloud, in_parts
from sdfrecon.noise import SOME, apart, evened

if TYPE_CHECKING:
    from sdfrecon.field import Field

LEAST = 10
"""Fewer points make no piece of a surface: those of a range scan's outliers are one to three."""
PLENTY = 1000
"""So many points make a piece, however thinly they lie on it."""
SIXTH = 7
"""The neighbour whose distance tells how far apart points are, of which the first is the point itself."""
REACH = 4 / 3
"""How far a surface goes on around a point, in distances to the sixth neighbour there: fewer than one place in ten
thousand of an even part is farther from all points."""
FARTHEST = 8.0
"""How many times what is usual a surface goes on farther, at most, where points are thin."""
OPEN_SHARE = 0.25
"""A surface with more than this share of its area far from all data is one that the scan shows only in part."""
WORTH_SAYING = 0.005
"""A share of the surface, or of the points, that is worth a line."""


def check_coarser(trim: float | None, cloud: PointCloud) -> None:
    """Raises InputError for a distance that is less than points are apart: what is far from all of them is farther."""
    if trim and trim < (gap := apart(evened(PointCloud(cloud.points)))):
        raise InputError(
            f"--trim {trim:g} is less than the points are apart, {gap:.3g}: "
            f"give at least {3 * gap:.3g}, or 0 to cut nothing"
        )


def finish(
    mesh: Mesh, cloud: PointCloud, trim: float | None = None, cube: Frame | None = None
) -> tuple[Mesh, list[str]]:
    """The mesh without what the scan does not support, with the scan's colours, and notes for the user.

    A note says what was removed, or how much of the surface is a guess.

    trim: cut what lies farther than this from all points, back to half of it (world units; 0 cuts nothing). None
    decides by the data: a surface that the scan covers but for holes stays closed; one with a large part far from any
    point is open, and what lies beyond `open_distance` is cut: next to what was seen the surface mostly goes on.
    Between points that are farther apart than that, or than `trim`, it stays.
    cube: the field's frame. Where the surface leaves it a cap closes it, which goes with what is cut.
    """
    tree, notes = cKDTree(cloud.points), []
    kept, pieces, on_others = supported(mesh, cloud)
    if pieces:
        some = f"{on_others:,}" if on_others else "none"
        notes.append(f"removed {pieces} floating piece{'s' * (pieces > 1)}, on which {some} of the points lie")
        mesh = mesh.keep_faces(kept)

    near, limit = mesh, 0.0
    if trim != 0:
        even = _even(cloud, tree)
        usual = _usual(even, cloud.diagonal)
        limit = usual if trim is None else trim
        excess = _excess(mesh.vertices, tree, even, limit, usual)
        near = mesh.clipped(excess if cube is None else np.maximum(excess, _beyond(mesh.vertices, cloud, cube)))
        if trim and (excess > 0).any():
            near = _without_flaps(near, mesh.clipped(-excess), limit)
    share = 0.0 if near is mesh else 1 - near.areas.sum() / mesh.areas.sum()
    if trim is None:
        trim = limit if share > OPEN_SHARE else 0.0
        if trim:
            notes.append(
                f"open scan: cut {share:.0%} of the surface, farther than {trim:.4g} from any point: --trim 0 keeps it"
            )
        elif share > WORTH_SAYING:
            notes.append(
                f"holes: {share:.1%} of the surface is a guess, farther than {limit:.4g} from any point: "
                f"--trim {limit:.4g} opens it"
            )
    elif share > WORTH_SAYING:
        notes.append(f"cut {share:.1%} of the surface: farther than {trim:.4g} from any point, or where the box ends")
    if trim:
        if not len(near.faces):
            raise InputError(f"no part of the surface lies within {trim:g} of a point: raise --trim")
        mesh = near.keep_faces(~_crumbs(near, np.pi * min(trim, usual) ** 2))
    return mesh if cloud.colors is None else replace(mesh, colors=_colors(mesh, cloud, tree)), notes


def _excess(vertices: Floats, tree: cKDTree, even: cKDTree, limit: float, usual: float) -> Floats:
    """(v,) how much farther than `limit` from all points vertices are; below 0 within it.

    tree: of the points. even: `_even` of them. Where these are so far apart that the surface between them goes beyond
    what is `usual`, or the limit, that goes as much farther: for REACH, of that of a point and its neighbours' the next
    to largest, so that one point alone, beside many, holds nothing; at most FARTHEST.
    """
    bound = limit + FARTHEST * usual
    away, _ = tree.query(vertices, distance_upper_bound=bound, workers=-1)
    away = np.minimum(away, bound)
    excess = np.minimum(away, 2 * limit) - limit
    far = np.flatnonzero((excess > 0) & (away < bound))
    beside, at_vertex = np.unique(even.query(vertices[far], workers=-1)[1], return_inverse=True)
    around = even.query(even.data[beside], k=range(1, SIXTH + 1), workers=-1)[1]
    others, at = np.unique(around.clip(max=even.n - 1), return_inverse=True)
    apart = even.query(even.data[others], k=[SIXTH], workers=-1)[0][:, 0]
    reach = REACH * np.sort(apart[at.reshape(around.shape)], axis=1)[at_vertex, -2]
    farther = np.minimum(reach - min(limit, usual), FARTHEST * usual)
    thin = farther > 0
    excess[far[thin]] = away[far[thin]] - (limit + farther[thin])
    return excess


def _beyond(vertices: Floats, cloud: PointCloud, cube: Frame) -> Floats:
    """(v,) how far vertices are beyond the middle between the points' largest coordinate and the cube's border.

    Where none reaches the border there is no cap, and all are within.
    """
    edge = (1 + np.abs(cube.points_to_unit(cloud.points)).max()) / 2
    size = np.abs(cube.points_to_unit(vertices)).max(axis=1)
    return cube.distance_to_world(size - edge if size.max() > (1 + edge) / 2 else size - 2)


def _without_flaps(near: Mesh, cut: Mesh, limit: float) -> Mesh:
    """`near`, which was cut at `limit` from the points, without the flap that led to what was cut.

    That goes back to half of `limit`. Gaps that stay within `limit` are none: the points' neighbourhood is grown by
    `limit` and shrunk by half of it (a closing, Serra 1982).
    """
    away, _ = cKDTree(cut.vertices).query(near.vertices, distance_upper_bound=limit, workers=-1)
    return near.clipped(limit / 2 - np.minimum(away, limit))


def _colors(mesh: Mesh, cloud: PointCloud, tree: cKDTree) -> NDArray[np.uint8]:
    """(v, 3) the colours of the nearest points whose normals go the vertex's way, weighed by inverse squared distance.

    Shepard 1968. So each side of a thin wall has its own. Where none of eight goes its way they count as they are.
    """
    assert cloud.colors is not None
    mixed = np.empty((len(mesh.vertices), 3), np.uint8)
    for rows in in_parts(len(mixed)):
        away, nearest = tree.query(mesh.vertices[rows], k=range(1, 9), workers=-1)
        weight = 1 / (away + 1e-12 * cloud.diagonal) ** 2
        if cloud.normals is not None and mesh.normals is not None:
            weight *= np.einsum("nd,nkd->nk", mesh.normals[rows], cloud.normals[nearest]).clip(min=1e-6)
        weight /= weight.sum(axis=1, keepdims=True)
        mixed[rows] = np.rint(np.einsum("nk,nkd->nd", weight, cloud.colors[nearest]))
    return mixed


def open_distance(cloud: PointCloud, tree: cKDTree) -> float:
    """How far from all points (world units) an open scan's surface may still go: a few times their usual spacing.

    tree: of its points. The surface goes on between lines of points (`noise.evened`).
    """
    return _usual(_even(cloud, tree), cloud.diagonal)


def _even(cloud: PointCloud, tree: cKDTree) -> cKDTree:
    """The tree of `noise.evened`'s points."""
    even = evened(cloud, tree)
    return tree if even is cloud else cKDTree(even.points)


def _usual(even: cKDTree, diagonal: float) -> float:
    """`open_distance` of a cloud of that diagonal by the tree of an even part of it."""
    spacing = even.query(even.data[:: max(1, even.n // 20_000)], k=[SIXTH], workers=-1)[0]
    return max(2 * float(np.quantile(spacing, 0.9)), 0.005 * diagonal)


def missing(mesh: Mesh, field: Field, cloud: PointCloud, resolution: int) -> list[str]:
    """A warning, where beside some of the points the mesh, as it was extracted, is not where the field has its surface.

    What is thinner than a cell can lie between the places where the field was asked for.
    """
    some, cell = cloud.thinned(SOME).points, field.frame.cell(resolution)
    away = _soon(mesh.vertices).query(some, workers=-1)[0]
    lost = float((away > 2 * (np.abs(field.distance(some)) + cell)).mean())
    if lost <= WORTH_SAYING:
        return []
    thin = f"is it thinner than {cell:.3g}? raise --resolution"
    return [f"warning: {lost:.1%} of the points have no surface near: {thin}"]


def _soon(points: Floats) -> cKDTree:
    """A tree of many points that is asked once: it is built sooner, and slower to ask."""
    return cKDTree(points, balanced_tree=False, compact_nodes=False)


def supported(mesh: Mesh, cloud: PointCloud) -> tuple[NDArray[np.bool_], int, int]:
    """(f,) true for faces of pieces that scan points lie on, how many other pieces, and points on these, about, are.

    At least LEAST of them lie on such a piece, and a tenth of what would lie there evenly.

    PLENTY are always enough, also where a scanner saw one thing from far away and another from near.
    Every point counts for the piece it is nearest to, so that a bubble beside the surface gets none.
    """
    labels = mesh.components()
    count = int(labels.max()) + 1
    if count == 1:
        return np.ones(len(labels), bool), 0, 0
    of_vertex = np.zeros(len(mesh.vertices), np.int64)
    of_vertex[mesh.faces] = labels[:, None]
    stride = max(1, len(cloud) // 500_000)
    _, vertex = _soon(mesh.vertices).query(cloud.points[::stride], workers=-1)
    points = np.bincount(of_vertex[vertex], minlength=count)
    area = np.bincount(labels, weights=mesh.areas, minlength=count)
    best = points.argmax()
    evenly = np.minimum(0.1 * points[best] * area / area[best], PLENTY / stride)
    enough = np.maximum(evenly, min(max(LEAST / stride, 2), points[best]))
    kept = points >= enough
    return kept[labels], int((~kept).sum()), int(points[~kept].sum()) * stride


def _crumbs(mesh: Mesh, area: float) -> NDArray[np.bool_]:
    """(f,) true for faces of pieces that a cut left, smaller than `area`: but for the largest, and for closed ones."""
    labels = mesh.components()
    areas = np.bincount(labels, weights=mesh.areas)
    small = (areas < area) & (np.bincount(labels, weights=mesh.at_a_rim) > 0)
    small[areas.argmax()] = False
    return small[labels]
