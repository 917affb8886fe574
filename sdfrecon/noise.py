"""How dense a scan is, how even and how noisy."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from sdfrecon.geometry import Floats, PointCloud, unit_vectors

SOME = 10_000
EIGHTH, FITTED = 8, 16
"""The neighbour whose distance is the spacing, and how many points, the nearest, a quadric is fitted to."""
ACROSS, LEAST_EVEN = 0.5, 200
"""How far, at least, what is nearest to most points spreads across the direction that it spreads in most, as a share of
that (random points have 0.7, those at random on lines three times as far apart as they are on them 0.4, four times
0.2); and how many points must be left."""


def evened(cloud: PointCloud, tree: cKDTree | None = None) -> PointCloud:
    """The cloud, or where its points lie on lines far apart, as some scanners leave them, an even part of it.

    On such lines all that is near a point is beside it on the line, and says nothing of the surface between two of
    them. Half of the points are taken, and half of these, until most have neighbours all around: then they are not much
    closer along the lines than across them. Where no part is even, it is the cloud. tree: of its points.
    """
    rng, even = np.random.default_rng(0), cloud
    while len(even) >= LEAST_EVEN:
        some = even.thinned(SOME)
        index = (tree or cKDTree(even.points)).query(some.points, k=range(2, EIGHTH + 2), workers=-1)[1]
        offset = even.points[index] - some.points[:, None]
        if some.normals is not None:  # else noise, too, counts as spread
            offset -= np.einsum("nkd,nd->nk", offset, some.normals)[..., None] * some.normals[:, None]
        spread = np.linalg.svd(offset, compute_uv=False)
        if (spread[:, 1] > ACROSS * spread[:, 0]).mean() > 0.5:
            return even
        even, tree = even.at_random(len(even) // 2, rng), None
    return cloud


def apart(cloud: PointCloud) -> float:
    """The median distance from a point to the nearest other one, in the cloud's units; 0 where there is none."""
    if len(cloud) < 2:
        return 0.0
    return float(np.median(cKDTree(cloud.points).query(cloud.thinned(SOME).points, k=[2], workers=-1)[0]))


def spacing_and_noise(cloud: PointCloud, tree: cKDTree | None = None) -> tuple[float, float]:
    """Medians over some points of an oriented cloud, in its units: the distance to the eighth neighbour, and the noise.

    The noise is the standard deviation along the normal of 16 points from the quadric that fits them best: curvature is
    not noise, and where they are of two sides of a thin sheet it is not asked for. Noise beyond the spacing is
    underestimated. Fewer than 16 points have none; where there are not eight neighbours, the distance is infinite.
    tree: of the points.
    """
    some = cloud.thinned(SOME)
    assert cloud.normals is not None
    assert some.normals is not None
    distance, index = (tree or cKDTree(cloud.points)).query(some.points, k=range(1, FITTED + 1), workers=-1)
    spacing = float(np.median(distance[:, EIGHTH]))
    if len(cloud) < FITTED:
        return spacing, 0.0
    one_side = (np.einsum("nkd,nd->nk", cloud.normals[index], some.normals) > 0).all(axis=1)
    if not one_side.any():
        return spacing, 0.0
    patches = cloud.points[index[one_side]] - some.points[one_side, None]
    return spacing, float(np.median(_deviation(patches, some.normals[one_side])))


def _deviation(patches: Floats, normals: Floats) -> Floats:
    """(n,): how far the points of patches (n, k, 3) are from a quadric over the plane of their normals (n, 3)."""
    least = np.eye(3)[np.argmin(np.abs(normals), axis=1)]
    across = unit_vectors(np.cross(normals, least))
    x, y, z = (np.einsum("nkd,nd->nk", patches, axis) for axis in (across, np.cross(normals, across), normals))
    # The last diagonal entry of R is the length of what the columns before leave of the last one.
    quadric = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y, z], axis=2)
    r = np.asarray(np.linalg.qr(quadric, mode="r"))
    return np.abs(r[:, -1, -1]) / np.sqrt(patches.shape[1] - 6)
