"""After extraction: floating pieces and guesses far from the data go, colours come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from sdfrecon.geometry import Floats, Mesh, PointCloud

OPEN_SHARE = 0.25
"""A surface with more than this share of its area far from all data is one that the scan shows only in part."""


def finish(mesh: Mesh, cloud: PointCloud, trim: float | None = None) -> tuple[Mesh, list[str]]:
    """The mesh without what the scan does not support, with the scan's colours, and a line for each thing removed.

    trim: cut what lies farther than this from all points (world units; 0 cuts nothing). None decides by the data:
    a surface that the scan covers but for holes stays closed; one with a large part far from any point is open,
    and what lies beyond `open_distance` is cut.
    """
    tree = cKDTree(cloud.points)
    away, nearest = tree.query(mesh.vertices, k=[1, 2, 3, 4], workers=-1)
    if cloud.colors is not None:
        weight = 1 / (away + 1e-12)
        mixed = (cloud.colors[nearest] * weight[..., None]).sum(1) / weight.sum(1, keepdims=True)
        mesh = replace(mesh, colors=np.rint(mixed).astype(np.uint8))
    notes = []

    kept = supported(mesh, cloud)
    if not kept.all():
        pieces = len(np.unique(mesh.components()[~kept]))
        notes.append(f"removed {pieces} floating piece{'s' * (pieces > 1)} far from any data")

    far = away[:, 0][mesh.faces].max(axis=1)
    if trim is None:
        limit = open_distance(cloud, tree)
        share = mesh.areas[kept & (far > limit)].sum() / mesh.areas[kept].sum()
        trim = limit if share > OPEN_SHARE else 0.0
        if trim:
            notes.append(
                f"open scan: {share:.0%} of the surface lies farther than {trim:.4g} from any point and was cut"
            )
    if trim:
        kept &= far <= trim
        mesh = mesh.keep_faces(kept)
        crumbs = _small(mesh, np.pi * trim**2)
        return (mesh.keep_faces(~crumbs) if not crumbs.all() else mesh), notes
    return mesh.keep_faces(kept), notes


def open_distance(cloud: PointCloud, tree: cKDTree) -> float:
    """How far from all points (world units) an open scan's surface may still go: a few times their usual spacing."""
    picked = cloud.points[:: max(1, len(cloud) // 20_000)]
    spacing = tree.query(picked, k=[7], workers=-1)[0]
    return max(3 * float(np.quantile(spacing, 0.9)), 0.005 * cloud.diagonal)


def supported(mesh: Mesh, cloud: PointCloud) -> np.ndarray:
    """(f,) true for faces of pieces that scan points lie on: they cover at least a tenth of what they would evenly.

    Every point counts for the piece it is nearest to, so that a bubble beside the surface gets none.
    """
    labels = mesh.components()
    count = int(labels.max()) + 1
    if count == 1:
        return np.ones(len(labels), bool)
    of_vertex = np.zeros(len(mesh.vertices), np.int64)
    of_vertex[mesh.faces] = labels[:, None]
    _, vertex = cKDTree(mesh.vertices).query(cloud.points, workers=-1)
    points = np.bincount(of_vertex[vertex], minlength=count) / len(cloud)
    area = np.bincount(labels, weights=mesh.areas, minlength=count)
    good = points >= 0.1 * area / area[points.argmax()]
    good[points.argmax()] = True
    return good[labels]


def _small(mesh: Mesh, area: Floats | float) -> np.ndarray:
    labels = mesh.components()
    return (np.bincount(labels, weights=mesh.areas) < area)[labels]
