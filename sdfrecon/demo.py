"""The real scan that comes with scikit-image: a motorcycle by structured light (Scharstein et al. 2014)."""

from __future__ import annotations

import numpy as np

from sdfrecon.geometry import PointCloud

FOCAL, CENTER_X, CENTER_Y, OFFSET, BASELINE = 994.978, 311.193, 254.877, 31.086, 193.001


def motorcycle() -> PointCloud:
    """About 300,000 coloured points of the scene in millimetres: x right, y up, z towards the camera at the origin.

    depth = focal * baseline / (disparity + offset), as scikit-image documents its `stereo_motorcycle`. Normals are
    those of the range grid, towards the camera; points at a jump in depth, where the grid has no normal, are left out.
    """
    from skimage.data import stereo_motorcycle

    image, _, disparity = stereo_motorcycle()
    depth = FOCAL * BASELINE / (disparity.astype(np.float64) + OFFSET)
    rows, columns = np.indices(depth.shape)
    grid = np.stack([(columns - CENTER_X) * depth / FOCAL, -(rows - CENTER_Y) * depth / FOCAL, -depth], axis=-1)

    across = grid[1:-1, 2:] - grid[1:-1, :-2]
    upward = grid[:-2, 1:-1] - grid[2:, 1:-1]
    points = grid[1:-1, 1:-1]
    normals = np.cross(across, upward)
    with np.errstate(invalid="ignore"):  # pixels without a disparity are nowhere
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        towards = -points / np.linalg.norm(points, axis=-1, keepdims=True)
    # A surface seen at less than 8 degrees is mostly the gap between two objects, bridged by the grid.
    good = np.isfinite(normals).all(axis=-1) & ((normals * towards).sum(axis=-1) > 0.14)
    return PointCloud(points[good], normals[good], image[1:-1, 1:-1][good])
