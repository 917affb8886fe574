"""After extraction: floating pieces and guesses far from the data go, colours come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sdfrecon.geometry import InputError, Mesh, PointCloud
from sdfrecon.noise import evened

LEAST = 10
"""Fewer points make no piece of a surface: those of a range scan's outliers are one to three."""
PLENTY = 1000
"""So many points make a piece, however thinly they lie on it."""
OPEN_SHARE = 0.25
"""A surface with more than this share of its area far from all data is one that the scan shows only in part."""
WORTH_SAYING = 0.005
"""A share of the surface that is worth a line where holes were closed."""


def finish(mesh: Mesh, cloud: PointCloud, trim: float | None = None) -> tuple[Mesh, list[str]]:
    """The mesh without what the scan does not support, with the scan's colours, and notes for the user.

    A note says what was removed, or how much of the surface is a guess.

    trim: cut what lies farther than this from all points, back to half of it (world units; 0 cuts nothing). None
    decides by the data: a surface that the scan covers but for holes stays closed; one with a large part far from any
    point is open, and what lies beyond `open_distance` is cut: next to what was seen the surface mostly goes on.
    """
    tree, notes = cKDTree(cloud.points), []
    kept = supported(mesh, cloud)
    if not kept.all():
        pieces = len(np.unique(mesh.components()[~kept]))
        notes.append(f"removed {pieces} floating piece{'s' * (pieces > 1)} that hardly a point lies on")
        mesh = mesh.keep_faces(kept)

    limit = open_distance(cloud, tree) if trim is None else trim
    near = trimmed(mesh, tree, limit, back=trim is not None) if limit else mesh
    if trim is None:
        share = 1 - near.areas.sum() / mesh.areas.sum()
        trim = limit if share > OPEN_SHARE else 0.0
        if trim:
            notes.append(f"open scan: cut {share:.0%} of the surface, farther than {trim:.4g} from any point")
        elif share > WORTH_SAYING:
            notes.append(
                f"holes: {share:.1%} of the surface is a guess, farther than {limit:.4g} from any point: "
                f"--trim {limit:.4g} opens it"
            )
    if trim:
        if not len(near.faces):
            raise InputError(f"no part of the surface lies within {trim:g} of a point: raise --trim")
        crumbs = _crumbs(near, np.pi * trim**2)
        mesh = near if crumbs.all() else near.keep_faces(~crumbs)
    return mesh if cloud.colors is None else replace(mesh, colors=_colors(mesh, cloud, tree)), notes


def trimmed(mesh: Mesh, tree: cKDTree, limit: float, back: bool) -> Mesh:
    """The part within `limit` of the points in the tree, cut across the triangles so that its rim is smooth.

    back: cut the flap, too, that led to what was cut, to half of `limit` from the points. Gaps that stay within
    `limit` are none: the points' neighbourhood is grown by `limit` and shrunk by half of it (a closing, Serra 1982).
    """
    away, _ = tree.query(mesh.vertices, distance_upper_bound=2 * limit, workers=-1)
    beyond = np.minimum(away, 2 * limit) - limit
    near = mesh.clipped(beyond)
    if near is mesh or not back:
        return near
    cut = cKDTree(mesh.clipped(-beyond).vertices)
    away, _ = cut.query(near.vertices, distance_upper_bound=limit, workers=-1)
    return near.clipped(limit / 2 - np.minimum(away, limit))


def _colors(mesh: Mesh, cloud: PointCloud, tree: cKDTree) -> NDArray[np.uint8]:
    """(v, 3) the colours of the four nearest points, weighed by inverse distance (Shepard 1968)."""
    assert cloud.colors is not None
    away, nearest = tree.query(mesh.vertices, k=range(1, 5), workers=-1)
    weight = 1 / (away + 1e-12 * cloud.diagonal)
    mixed = np.einsum("nk,nkd->nd", weight, cloud.colors[nearest]) / weight.sum(axis=1, keepdims=True)
    return np.rint(mixed).astype(np.uint8)


def open_distance(cloud: PointCloud, tree: cKDTree) -> float:
    """How far from all points (world units) an open scan's surface may still go: a few times their usual spacing.

    tree: of its points. The surface goes on between lines of points (`noise.evened`).
    """
    even = evened(cloud, tree)
    spacing = (tree if even is cloud else cKDTree(even.points)).query(even.thinned(20_000).points, k=[7], workers=-1)[0]
    return max(2 * float(np.quantile(spacing, 0.9)), 0.005 * cloud.diagonal)


def supported(mesh: Mesh, cloud: PointCloud) -> NDArray[np.bool_]:
    """(f,) true for faces of pieces that scan points lie on: LEAST of them, and a tenth of what would lie there evenly.

    PLENTY are always enough, also where a scanner saw one thing from far away and another from near.
    Every point counts for the piece it is nearest to, so that a bubble beside the surface gets none.
    """
    labels = mesh.components()
    count = int(labels.max()) + 1
    if count == 1:
        return np.ones(len(labels), bool)
    of_vertex = np.zeros(len(mesh.vertices), np.int64)
    of_vertex[mesh.faces] = labels[:, None]
    stride = max(1, len(cloud) // 100_000)
    _, vertex = cKDTree(mesh.vertices).query(cloud.points[::stride], workers=-1)
    points = np.bincount(of_vertex[vertex], minlength=count)
    area = np.bincount(labels, weights=mesh.areas, minlength=count)
    best = points.argmax()
    evenly = np.minimum(0.1 * points[best] * area / area[best], PLENTY / stride)
    enough = np.maximum(evenly, min(LEAST / stride, points[best]))
    return (points >= enough)[labels]


def _crumbs(mesh: Mesh, area: float) -> NDArray[np.bool_]:
    """(f,) true for faces of pieces that a cut left, smaller than `area`; a closed one was not cut."""
    labels = mesh.components()
    small = np.bincount(labels, weights=mesh.areas) < area
    small &= np.bincount(labels, weights=mesh.at_a_rim) > 0
    return small[labels]
