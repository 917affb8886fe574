"""How dense a scan is, and how noisy."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from sdfrecon.geometry import Floats, PointCloud

SOME = 10_000
FITTED = 16
"""Points, the nearest, to which a quadric is fitted."""


def spacing_and_noise(cloud: PointCloud, neighbours: int) -> tuple[float, float]:
    """Medians over some of the points, in their units: the distance to so many `neighbours` (below 16), and the noise.

    The noise is the standard deviation of 16 points from the quadric that fits them best: curvature is not noise. Of
    what goes beyond the distance between the points it sees a part. Fewer than 16 points: infinite distance, no noise.
    """
    if len(cloud) < FITTED:
        return np.inf, 0.0
    some = cloud.points[:: max(1, len(cloud) // SOME)]
    distance, index = cKDTree(cloud.points).query(some, k=FITTED, workers=-1)
    return float(np.median(distance[:, neighbours])), float(np.median(_deviation(cloud.points[index])))


def _deviation(patches: Floats) -> Floats:
    """(n,): how far the points of patches (n, k, 3) are from z = a quadratic polynomial of x, y, along their normal."""
    local = patches - patches.mean(axis=1, keepdims=True)
    _, axes = np.linalg.eigh(local.transpose(0, 2, 1) @ local)  # ascending: the first is the normal
    z, x, y = np.moveaxis(local @ axes, 2, 0)
    basis, _ = np.linalg.qr(np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=2))
    rest = z - np.einsum("nkb,njb,nj->nk", basis, basis, z)
    deviation: Floats = np.sqrt(np.square(rest).sum(axis=1) / (patches.shape[1] - 6))
    return deviation
