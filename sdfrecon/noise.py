"""How dense a scan is, and how noisy."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from sdfrecon.geometry import Floats, PointCloud, unit_vectors

SOME, LEAST_EVEN = 10_000, 200
EIGHTH, FITTED = 8, 16
"""The neighbour whose distance is the spacing, and how many points, the nearest, a quadric is fitted to."""
ACROSS = 0.5
"""How far the nearest points spread across the direction that they spread in most, as a share of that, at least:
random ones have 0.7, those on lines three times as far apart as they are on them 0.4, four times 0.2."""


def evened(cloud: PointCloud) -> PointCloud:
    """The cloud, or where its points lie on lines far apart, as some scanners leave them, an even part of it.

    On such lines all that is near a point is beside it on the line, and says nothing of the surface between two of
    them. Half of the points are taken, and half of these, until most have neighbours all around: then they are as far
    apart along the lines as across them. Where no part is even, it is the cloud.
    """
    rng, even = np.random.default_rng(0), cloud
    while len(even) >= LEAST_EVEN:
        if _across(even) > ACROSS:
            return even
        even = even.select(np.sort(rng.permutation(len(even))[: len(even) // 2]))
    return cloud


def _across(cloud: PointCloud) -> float:
    """The median spread of eight neighbours in their second direction, by the first; along the surface, if known."""
    some = cloud.thinned(SOME)
    index = cKDTree(cloud.points).query(some.points, k=range(2, EIGHTH + 2), workers=-1)[1]
    offset = cloud.points[index] - some.points[:, None]
    if some.normals is not None:
        offset -= np.einsum("nkd,nd->nk", offset, some.normals)[..., None] * some.normals[:, None]
    spread = np.linalg.svd(offset, compute_uv=False)
    return float(np.median(spread[:, 1] / spread[:, 0]))


def spacing_and_noise(cloud: PointCloud) -> tuple[float, float]:
    """Medians over some points of an oriented cloud, in its units: the distance to the eighth neighbour, and the noise.

    The noise is the standard deviation along the normal of 16 points from the quadric that fits them best: curvature is
    not noise, and where they are of two sides of a thin sheet it is not asked for. Noise beyond the spacing is
    underestimated. Fewer than 16 points have none; where there are not eight neighbours, the distance is infinite.
    """
    some = cloud.thinned(SOME)
    assert cloud.normals is not None
    assert some.normals is not None
    distance, index = cKDTree(cloud.points).query(some.points, k=range(1, FITTED + 1), workers=-1)
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
