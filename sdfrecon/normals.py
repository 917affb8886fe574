"""Normals of a cloud that has none, from its points."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from sdfrecon.cleaning import computable, distinct, enough, together
from sdfrecon.geometry import Floats, InputError, PointCloud
from sdfrecon.meshfiles import open3d
from sdfrecon.noise import evened

PLANE, ORIENTED = 20, 200_000
"""Neighbours through which a plane is laid; and points whose sides are made to agree: a million take gigabytes."""


def estimate_normals(cloud: PointCloud, viewpoint: ArrayLike | None = None) -> PointCloud:
    """The cloud with normals from its points: the plane through each one's 20 nearest (Hoppe et al. 1992, section 3.2).

    Points on lines far apart have that of the nearest of an even part of them (`noise.evened`).
    viewpoint: (3,) or (v, 3) where the scanner stood, or another place that sees the surface, world units: normals look
    at the nearest of them. Without one, neighbouring tangent planes are made to agree along a minimum spanning tree
    (Hoppe et al. 1992, section 3.3), of ORIENTED points with whose nearest the others agree, and the whole to look
    outwards, which can fail on thin or torn scans, and is a guess where there is no outside. What is not finite, and
    copies of a point, are dropped.

    Raises InputError where fewer than 10 points remain, where these cannot be computed with, where without a viewpoint
    all lie in one plane or cannot be made to agree, and for a viewpoint that is not three finite numbers.
    """
    o3d = open3d()
    views = np.atleast_2d(np.asarray(() if viewpoint is None else viewpoint, np.float64))
    if views.size and not (views.ndim == 2 and views.shape[1] == 3 and np.isfinite(views).all()):
        raise InputError(f"a viewpoint is three finite numbers; got {np.squeeze(views)}")
    cloud = distinct(replace(cloud, normals=None))
    enough(cloud)
    computable(cloud.points)
    even = evened(cloud)
    most = together(even.points)
    center = even.points[most].mean(axis=0)
    local = even.points - center
    pcd = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(local))
    pcd.estimate_normals(o3d.geometry.KDTreeSearchParamKNN(PLANE))
    if views.size:
        normals, views = np.asarray(pcd.normals), views - center
        seen = views[cKDTree(views).query(local, workers=-1)[1]] - local
        normals = np.where((normals * seen).sum(axis=1, keepdims=True) < 0, -normals, normals)
    else:
        spread = np.linalg.svd(local[most], compute_uv=False)
        if spread[2] < 1e-7 * spread[0]:
            raise InputError("the points are flat, which has no outside: pass --viewpoint X Y Z")
        few = np.sort(np.random.default_rng(0).permutation(len(local))[:ORIENTED])
        normals = np.asarray(pcd.normals)
        agreed = _agreeing(pcd.select_by_index(few))
        normals = agreed if len(few) == len(local) else normals * _sides(local, normals, local[few], agreed)[:, None]
        normals = normals * (1 if (normals * local)[most].sum() >= 0 else -1)
    if even is not cloud:
        normals = normals[cKDTree(even.points).query(cloud.points, workers=-1)[1]]
    return replace(cloud, normals=normals)


def _agreeing(pcd: Any) -> Floats:
    """(n, 3) the normals of Open3D's points, each on the side of its neighbours'."""
    points = np.asarray(pcd.points)
    size = np.median(np.abs(points - np.median(points, axis=0)))
    # Points that are all on one sphere have no tetrahedra, which the spanning tree is a part of.
    shaken = points + np.random.default_rng(0).normal(0, 1e-7 * size, points.shape)
    pcd.points = open3d().utility.Vector3dVector(shaken)
    try:
        pcd.orient_normals_consistent_tangent_plane(15)
    except RuntimeError:  # of Qhull
        raise InputError("the normals cannot be made to agree: pass --viewpoint X Y Z") from None
    return np.asarray(pcd.normals)


def _sides(points: Floats, normals: Floats, known: Floats, agreed: Floats) -> Floats:
    """(n,) 1, or -1 where normals (n, 3) are to be turned to agree with eight known ones that are near.

    Those on a point's own tangent plane say most; across an edge or a thin wall they say nothing.
    """
    tree, side = cKDTree(known), np.empty(len(points))
    for rows in np.array_split(np.arange(len(points)), 1 + len(points) // 1_000_000):
        distance, index = tree.query(points[rows], k=range(1, 9), workers=-1)
        rise = np.abs(np.einsum("nkd,nd->nk", points[rows, None] - known[index], normals[rows]))
        same = np.einsum("nkd,nd->nk", agreed[index], normals[rows])
        side[rows] = (same * (1 - rise / np.maximum(distance, 1e-300))).sum(axis=1)
    return np.where(side < 0, -1.0, 1.0)
