"""Normals of a cloud that has none, from its points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree

from sdfrecon.cleaning import computable, distinct, enough, together
from sdfrecon.geometry import Floats, InputError, PointCloud, in_parts, numbers, unit_vectors
from sdfrecon.libraries import open3d
from sdfrecon.noise import evened

PLANE, ORIENTED = 20, 200_000
"""Neighbours through which a plane is laid; and points whose sides are made to agree: a million take gigabytes."""
AROUND, ALONG = 15, 0.5
"""Neighbours to which a side is handed on, and up to which sine of the angle to both tangent planes."""
PARTS = 200
"""The largest parts, which are joined one by one, each to the nearest of those before; the others to these."""
SPARSE = 3.0
"""How many times the median distance to the last neighbour counts at most in a point's share of the area."""


def estimate_normals(cloud: PointCloud, viewpoint: ArrayLike | None = None) -> PointCloud:
    """The cloud with normals from its points: the plane through each one's 20 nearest (Hoppe et al. 1992, section 3.2).

    Points on lines far apart have that of the nearest of an even part of them (`noise.evened`).
    viewpoint: (3,) or (v, 3) where the scanner stood, or another place that sees the surface, world units: normals look
    at the nearest of them. Without one, neighbouring tangent planes are made to agree along a minimum spanning tree
    (Hoppe et al. 1992, section 3.3), of ORIENTED points with whose nearest the others agree, separate parts to bound
    the same space between them, and the whole to look outwards, which can fail on torn scans and where a wall is hardly
    thicker than its points are apart, and is a guess where there is no outside. What is not finite, and copies of a
    point, are dropped.

    Raises InputError where fewer than 10 points remain, where these cannot be computed with, where without a viewpoint
    all lie in one plane, and for a viewpoint that is not three finite numbers.
    """
    o3d = open3d()
    views = np.atleast_2d(numbers("a viewpoint", () if viewpoint is None else viewpoint))
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
        near = range(2, min(AROUND, len(few) - 1) + 2)
        distance, index = cKDTree(local[few]).query(local[few], k=near, workers=-1)
        agreed = _agreeing(local[few], normals[few], index)
        agreed *= _outwards(local[few], agreed, distance[:, -1], most[few])
        normals = agreed if len(few) == len(local) else normals * _sides(local, normals, local[few], agreed)[:, None]
    if even is not cloud:
        normals = normals[cKDTree(even.points).query(cloud.points, workers=-1)[1]]
    return replace(cloud, normals=normals)


def _agreeing(points: Floats, normals: Floats, index: NDArray[np.integer]) -> Floats:
    """(n, 3) normals (n, 3), turned to the side of their neighbours', `index` (n, k), along the surface.

    Between two parts of a scan the shortest way runs through a body or outside of all: the normal at its end is the
    mirror image of that at its beginning, as where it bridges a gap in one surface (Koenig and Gumhold 2009, section 3,
    have that of all neighbours). A few points apart are noise: they agree with the nearest.
    """
    start, end = np.repeat(np.arange(len(points)), index.shape[1]), index.ravel()
    pairs = np.unique(np.minimum(start, end) * len(points) + np.maximum(start, end))
    ways = np.stack(np.divmod(pairs, len(points)), axis=1)

    def compared(ways: NDArray[np.integer]) -> tuple[Floats, Floats, Floats]:
        """(n,) cosines between the normals at ways' ends, of the mirror image and the other, and the larger sine."""
        (one, other), along = normals[ways.T], unit_vectors(points[ways[:, 1]] - points[ways[:, 0]])
        cosine, up, down = (np.einsum("nd,nd->n", a, b) for a, b in ((one, other), (one, along), (other, along)))
        return cosine, cosine - 2 * up * down, np.maximum(np.abs(up), np.abs(down))

    cosine, _, rise = compared(ways)
    ways, weights = ways[rise < ALONG], 1 - np.abs(cosine[rise < ALONG])
    tree = minimum_spanning_tree(coo_array((weights + 1e-9, ways.T), (len(points), len(points)))).tocoo()
    part = connected_components(tree, directed=False)[1]
    links, large = _links(points, part)
    ways = np.concatenate([np.stack([tree.row, tree.col], axis=1), links])
    order, before = breadth_first_order(coo_array((np.ones(len(ways)), ways.T), tree.shape), 0, directed=False)
    ways = np.stack([before[order[1:]], order[1:]], axis=1)
    cosine, mirrored, _ = compared(ways)
    across = (part[ways[:, 0]] != part[ways[:, 1]]) & large[ways].all(axis=1)
    side = [1.0] * len(points)
    for (at, to), turned in zip(ways.tolist(), (np.where(across, mirrored, cosine) < 0).tolist(), strict=True):
        side[to] = -side[at] if turned else side[at]
    return normals * np.array(side)[:, None]


def _outwards(points: Floats, normals: Floats, reach: Floats, most: NDArray[np.bool_]) -> int:
    """1, or -1 where the normals of `most` of the points look inwards; reach: (n,) how far their last neighbours are.

    A closed surface's position times its normal sums up to three times what it encloses, if each point counts as its
    share of the area: by the square of that reach.
    """
    share = reach.clip(max=SPARSE * np.median(reach)) ** 2
    return 1 if (share * np.einsum("nd,nd->n", points, normals))[most].sum() >= 0 else -1


def _links(points: Floats, part: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(m, 2) the shortest ways that join all parts, by the number `part` (n,) of each point, to the largest one.

    And (n,) which points are of a large part: others, of a few points, are joined to the nearest of these, and so are
    all beyond PARTS.
    """
    size = np.bincount(part)
    largest = np.argsort(-size, kind="stable")[: max(1, min(PARTS, int((size > PLANE).sum())))]
    large, links, joined = np.isin(part, largest), list[tuple[int, int]](), largest[0]
    left = np.flatnonzero(large)
    away, nearest = np.full(len(left), np.inf), np.zeros(len(left), np.int64)
    while (others := part[left] != joined).any():
        left, away, nearest = left[others], away[others], nearest[others]
        rows = np.flatnonzero(part == joined)
        distance, index = cKDTree(points[rows]).query(points[left], distance_upper_bound=away.max(), workers=-1)
        closer = distance < away
        away[closer], nearest[closer] = distance[closer], rows[index[closer]]
        first = away.argmin()
        links.append((nearest[first], left[first]))
        joined = part[left[first]]
    few, rows = np.flatnonzero(~large), np.flatnonzero(large)
    distance, index = cKDTree(points[rows]).query(points[few], workers=-1)
    closest = np.argsort(distance)
    of_each = closest[np.unique(part[few][closest], return_index=True)[1]]
    links += zip(rows[index[of_each]], few[of_each], strict=True)
    return np.array(links, int).reshape(-1, 2), large | (size > PLANE)[part]


def _sides(points: Floats, normals: Floats, known: Floats, agreed: Floats) -> Floats:
    """(n,) 1, or -1 where normals (n, 3) are to be turned to agree with eight known ones that are near.

    Those on a point's own tangent plane say most; across an edge or a thin wall they say nothing.
    """
    tree, side = cKDTree(known), np.empty(len(points))
    for rows in in_parts(len(points)):
        distance, index = tree.query(points[rows], k=range(1, 9), workers=-1)
        rise = np.abs(np.einsum("nkd,nd->nk", points[rows, None] - known[index], normals[rows]))
        same = np.einsum("nkd,nd->nk", agreed[index], normals[rows])
        side[rows] = (same * (1 - rise / np.maximum(distance, 1e-300))).sum(axis=1)
    return np.where(side < 0, -1.0, 1.0)
