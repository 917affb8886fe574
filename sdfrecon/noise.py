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


def spacing_and_noise(cloud: PointCloud, tree: cKDTree | None = None) -> tuple[float, float, float]:
    """Medians over some points of an oriented cloud: the distance to the eighth neighbour, the noise, and the normals'.

    The noise, in the cloud's units, is the standard deviation along the normal of 16 points from the quadric that fits
    them best: curvature is not noise, and where they are of two sides of a thin sheet it is not asked for. Noise beyond
    the spacing is underestimated. The normals', in radians, is the standard deviation, in each direction, of these 16
    from what changes evenly along the surface. Facets as small as the points are apart are such noise, and whatever
    else they are too few to show. Fewer than 16 points have none of either; where there are not eight neighbours, the
    distance is infinite. tree: of the points.
    """
    some = cloud.thinned(SOME)
    assert cloud.normals is not None
    assert some.normals is not None
    distance, index = (tree or cKDTree(cloud.points)).query(some.points, k=range(1, FITTED + 1), workers=-1)
    spacing = float(np.median(distance[:, EIGHTH]))
    if len(cloud) < FITTED:
        return spacing, 0.0, 0.0
    one_side = (np.einsum("nkd,nd->nk", cloud.normals[index], some.normals) > 0).all(axis=1)
    if not one_side.any():
        return spacing, 0.0, 0.0
    index, points, normals = index[one_side], some.points[one_side], some.normals[one_side]
    across = unit_vectors(np.cross(normals, np.eye(3)[np.argmin(np.abs(normals), axis=1)]))
    axes = np.stack([across, np.cross(normals, across), normals])
    x, y, z = np.einsum("nkd,and->ank", cloud.points[index] - points[:, None], axes)
    tilts, one = np.einsum("nkd,and->ank", cloud.normals[index], axes[:2]), np.ones_like(x)
    noise = _left(z, one, x, y, x * x, x * y, y * y)
    normal_noise = np.hypot(*(_left(tilt, one, x, y) for tilt in tilts)) / np.sqrt(2)
    return spacing, float(np.median(noise)), float(np.median(normal_noise))


def _left(values: Floats, *columns: Floats) -> Floats:
    """(n,) the standard deviation of values (n, k) from the best sum of multiples of columns (n, k)."""
    # The last diagonal entry of R is the length of what the columns before leave of the last one.
    r = np.asarray(np.linalg.qr(np.stack([*columns, values], axis=2), mode="r"))
    return np.abs(r[:, -1, -1]) / np.sqrt(values.shape[1] - len(columns))
