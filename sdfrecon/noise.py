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
    spacing, (x, y, z), _ = _patches(cloud, tree)
    return spacing, float(np.median(_left(z, np.ones_like(x), x, y, x * x, x * y, y * y))) if len(x) else 0.0


def normal_noise(cloud: PointCloud, tree: cKDTree | None = None) -> float:
    """By how much the normals of an oriented cloud are off: the median over some of its points, radians.

    The standard deviation, in each direction, of 16 normals from what changes evenly along the surface: curvature is
    not noise. Facets as small as the points are apart are, and whatever else they are too few to show. Where
    `spacing_and_noise` has no noise, neither has this. tree: of the points.
    """
    _, (x, y, _), tilted = _patches(cloud, tree)
    both = [_left(tilt, np.ones_like(x), x, y) for tilt in tilted[:2]]
    return float(np.median(np.hypot(*both)) / np.sqrt(2)) if len(x) else 0.0


def _patches(cloud: PointCloud, tree: cKDTree | None) -> tuple[float, Floats, Floats]:
    """The spacing; and where FITTED points beside some lie, and what their normals are, each (3, n, FITTED).

    By two tangents of the point in the middle and its normal. Those of one side alone, none where there are too few.
    """
    some = cloud.thinned(SOME)
    assert cloud.normals is not None
    assert some.normals is not None
    distance, index = (tree or cKDTree(cloud.points)).query(some.points, k=range(1, FITTED + 1), workers=-1)
    spacing = float(np.median(distance[:, EIGHTH]))
    if len(cloud) < FITTED:
        return spacing, *np.zeros((2, 3, 0, FITTED))
    one_side = (np.einsum("nkd,nd->nk", cloud.normals[index], some.normals) > 0).all(axis=1)
    index, points, normals = index[one_side], some.points[one_side], some.normals[one_side]
    across = unit_vectors(np.cross(normals, np.eye(3)[np.argmin(np.abs(normals), axis=1)]))
    axes = np.stack([across, np.cross(normals, across), normals])
    offsets = cloud.points[index] - points[:, None]
    return spacing, np.einsum("nkd,and->ank", offsets, axes), np.einsum("nkd,and->ank", cloud.normals[index], axes)


def _left(values: Floats, *columns: Floats) -> Floats:
    """(n,) the standard deviation of values (n, k) from the best sum of multiples of columns (n, k)."""
    # The last diagonal entry of R is the length of what the columns before leave of the last one.
    r = np.asarray(np.linalg.qr(np.stack([*columns, values], axis=2), mode="r"))
    return np.abs(r[:, -1, -1]) / np.sqrt(values.shape[1] - len(columns))
