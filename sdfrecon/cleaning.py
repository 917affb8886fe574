"""Before the fit: what cannot be used is dropped and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sdfrecon.geometry import Floats, InputError, PointCloud, decimals, finite, in_parts, places, unit_vectors

NEIGHBOURS = 8
LEAST = 1e-70
"""Below it, and above its inverse, squares of areas vanish or overflow."""
LEAST_POINTS = 10
SLABS = 32
STRAY_SHARE, CROWDED = 0.01, 0.2
"""The share of the points that may be dropped at a time where they are far from the rest; and the share of the scan's
width that is little for nine tenths of them."""
FEW = 200
"""Fewer points say little of a surface, however simple it is."""
THIN = 1e-6
"""The share of a scan's length below which its width is rounding in its file."""
BEHIND = 0.3
"""The sine from which on a point is behind a neighbour's tangent plane, as a thin wall's front is behind its back."""
Neighbours = tuple[NDArray[np.int64], Floats, Floats, Floats]


def clean(cloud: PointCloud) -> tuple[PointCloud, list[str]]:
    """The usable points, with unit normals, and one line for each thing that was dropped or looks wrong.

    Dropped: rows that are not finite, points whose normal is zero, exact copies of a point, `strays`, and, of more than
    some hundred points, what lies far from the rest, a hundredth or less at a time. Colours stay.
    Raises InputError where the cloud has no normals, where fewer than 10 points remain, and where these cannot be a
    surface: they lie on a line, in parts far apart, or beyond what can be computed with.
    """
    check_normals(cloud)
    assert cloud.normals is not None
    notes = []

    def keep(mask: NDArray[np.bool_], what: str) -> None:
        nonlocal cloud
        if not mask.all():
            notes.append(f"dropped {(~mask).sum():,} of {len(mask):,} points: {what}")
            cloud = cloud.select(mask)

    keep(_usable(cloud.points) & finite(cloud.normals), "coordinates or normals not finite")
    keep(oriented(cloud), "zero normals")
    keep(first_of_each(cloud.points), "exact copies of another point")
    enough(cloud, notes)
    computable(cloud.points)
    cloud = replace(cloud, normals=unit_vectors(cloud.normals))
    around = neighbours(cloud)
    lost = strays(cloud, around)
    keep(~lost, "they are no part of the surface that their neighbours show")
    enough(cloud, notes)
    keep(together(cloud.points), "they are far from all others")
    if (far := _far(cloud.points)).any():
        raise InputError(
            f"expected one scan; got parts far apart, {1 - far.mean():.0%} of the points in the largest: "
            f"reconstruct each on its own; that one is --box {_box(cloud.points[~far], 0.01)}"
        )
    spread = np.linalg.svd(cloud.points - cloud.points.mean(axis=0), compute_uv=False)
    if not spread[1] > THIN * spread[0]:
        raise InputError("expected points of a surface; got points on a line: check the columns of the file")
    if (seam := at_a_seam(around, lost)) > 0.25 * len(cloud) ** 0.5:
        notes.append(
            f"warning: {seam:,} normals are opposite to their neighbours' on the same surface: some parts look "
            "flipped, and the surface will suffer: orient them first, or pass --estimate-normals; where it was passed, "
            "--viewpoint X Y Z, a place that sees the surface, too (a wall far thinner than the points are apart "
            "looks so with right ones)"
        )
    if step := _single_step(cloud.points, float(np.median(around[1][:, 0]))):
        notes.append(
            f"warning: the coordinates are stored in single precision, which keeps such large ones to {step:.2g} only: "
            "export them as doubles, or nearer to the origin"
        )
    middle = np.quantile(cloud.points, (0.05, 0.95), axis=0)
    if (width := np.ptp(middle, axis=0).max() / np.ptp(cloud.points, axis=0).max()) < CROWDED:
        notes.append(
            f"warning: along each axis nine tenths of the points are in {width:.0%} of the scan's width, and what is "
            f"around them takes the resolution: to have them alone, pass --box {_box(middle, 0.25)}"
        )
    if len(cloud) < FEW:
        notes.append(f"warning: a surface through {len(cloud)} points is mostly a guess: give it thousands")
    return cloud, notes


def strays(cloud: PointCloud, around: Neighbours) -> NDArray[np.bool_]:
    """(n,) true for outliers: points that are no part of the surface that their neighbours show.

    Alone in space, where the eighth neighbour is more than twice as far as is usual in this cloud: over the
    neighbours, the mean cosine between the normals less the mean sine of the angle to the neighbour's tangent plane
    is under a quarter; on a smooth surface it is close to one, for a random normal anywhere it is -1/2 on average.
    A point of a thinly scanned surface is alone, but agrees with its neighbours, and stays. Elsewhere: no neighbour
    has a normal within 70 degrees of its own, as some do beside a sharp edge and even on a wall of no thickness; or it
    is off a surface that is smooth but for it: the mean sine is above 0.6 and three times the neighbours'; or three
    times as many neighbours are of the other side of its own surface as of its side, which is what a scanner sees
    through a hole of the inner side of a thin shell, and what images that do not fit together lay before the outer one.

    The front of a thin wall has its back alone for neighbours where that was scanned more densely: what a point lies
    behind is not heard against it, if others of which that is true agree with it.
    """
    _, _, cosine, rise = around
    heard = (cosine > -0.7) | (rise > -BEHIND)
    lost = _contradicted(around, np.ones_like(heard))
    if heard.all():
        return lost
    spared = np.flatnonzero(lost & ~_contradicted(around, heard))
    if len(spared) > NEIGHBOURS:
        _, _, cosine, rise = neighbours(cloud.select(spared))
        lost[spared[((cosine > 0.7) & (np.abs(rise) < BEHIND)).mean(axis=1) > 0.5]] = False
    return lost


def _contradicted(around: Neighbours, heard: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,) true for those of `strays` by the neighbours (n, k) that are heard."""
    index, distance, cosine, rise = around
    told = heard.any(axis=1)
    count = np.maximum(heard.sum(axis=1), 1)

    def mean(values: Floats) -> Floats:
        return (values * heard).sum(axis=1) / count

    steep = mean(np.abs(rise))
    alone = distance[:, -1] > 2 * np.median(distance[:, -1])
    apart = told & (mean(cosine) - steep < 0.25)
    contradicted = told & (np.where(heard, cosine, -1).max(axis=1) < np.cos(np.radians(70)))
    off = (steep > 0.6) & (steep > 3 * mean(steep[index]))
    lost = alone & apart | contradicted | off
    agree, oppose = heard & (cosine > 0.7), heard & (cosine < -0.7) & (np.abs(rise) < 0.6)
    some = np.flatnonzero(oppose.any(axis=1))
    index, agree, oppose = index[some], agree[some], oppose[some]
    while True:  # what is lost no longer speaks for those beside it
        speak = ~lost[index]
        outnumbered = some[(oppose & speak).sum(axis=1) > 3 * (agree & speak).sum(axis=1)]
        if lost[outnumbered].all():
            return lost
        lost[outnumbered] = True


def _single_step(points: Floats, spacing: float) -> float:
    """How far apart single precision's numbers are where points lie, if all are of these and that shows; else 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        step = float(np.spacing(np.float32(np.abs(points).max())))
        lost = np.abs(points - points.astype(np.float32)).max()  # some, where they were written as text
        rounded = step > 0.25 * spacing and lost < 0.01 * step
    return step if rounded and (step >= 1 or (points % 1).any()) else 0.0  # whole numbers are whole by themselves


def at_a_seam(around: Neighbours, lost: NDArray[np.bool_]) -> int:
    """How many points that are not lost are on the tangent planes of two neighbours or more that are turned over.

    On a surface with an inside and an outside there are none, unless a wall is thinner than a fifth of the way to its
    points on the other side. Where one part of a scan is flipped they line its rim, which grows with the root of the
    number of points.
    """
    index, _, cosine, rise = around
    opposite = (cosine < -0.7) & (np.abs(rise) < 0.2) & ~lost[index]
    return int((opposite.sum(axis=1) > 1)[~lost].sum())


def neighbours(cloud: PointCloud) -> Neighbours:
    """(n, k) the nearest other points, distances to them, cosines between normals, and sines of how far each point is
    above their tangent planes."""
    assert cloud.normals is not None
    k = min(NEIGHBOURS, len(cloud) - 1)
    distance, index = cKDTree(cloud.points).query(cloud.points, k=range(2, k + 2), workers=-1)
    cosine, rise = np.empty((2, *distance.shape))
    for rows in in_parts(len(cloud)):
        normals = cloud.normals[index[rows]]
        offset = cloud.points[rows, None] - cloud.points[index[rows]]
        rise[rows] = np.einsum("nkd,nkd->nk", offset, normals) / distance[rows]
        cosine[rows] = np.einsum("nd,nkd->nk", cloud.normals[rows], normals)
    return index, distance, cosine, rise


def _far(points: Floats) -> NDArray[np.bool_]:
    """(n,) true for those of many points that are not of the largest part, where there are parts far apart.

    These leave more than half of the way along the longest axis empty, and a quarter of it at once.
    """
    none = np.zeros(len(points), bool)
    if len(points) <= 10 * SLABS or not 0 < (extent := np.ptp(points, axis=0)).max() < np.inf:
        return none
    along = points[:, extent.argmax()]
    slab = ((along - along.min()) / extent.max() * SLABS).astype(int).clip(max=SLABS - 1)
    filled = np.unique(slab)
    if len(filled) >= SLABS / 2:
        return none
    last = filled[:-1][np.diff(filled) > SLABS / 4]
    part = np.searchsorted(last, slab)
    return part != np.bincount(part).argmax()


def together(points: Floats) -> NDArray[np.bool_]:
    """(n,) true for all but the points that are far from the rest, a hundredth of them or less at a time."""
    kept = np.arange(len(points))
    while 0 < (far := _far(points[kept])).sum() <= STRAY_SHARE * len(kept):
        kept = kept[~far]
    mask = np.zeros(len(points), bool)
    mask[kept] = True
    return mask


def _box(points: Floats, room: float) -> str:
    """What `--box` takes to keep points (n, 3), and around them `room`, a share of their extent."""
    low, high = points.min(axis=0), points.max(axis=0)
    extent = (high - low).max()
    return " ".join(decimals([low - room * extent, high + room * extent], extent))


def check_normals(cloud: PointCloud) -> None:
    """Raises InputError where a cloud has none, or none but zeros."""
    if not len(cloud):
        enough(cloud)
    if cloud.normals is None:
        raise InputError(
            f"normals must be ({len(cloud)}, 3); got none: pass --estimate-normals, and for terrain or a room "
            "--viewpoint X Y Z, a place that sees the surface"
        )
    if not oriented(cloud).any():
        raise InputError("all normals are zero, or not finite: pass --estimate-normals")


def oriented(cloud: PointCloud) -> NDArray[np.bool_]:
    """(n,) true for points that have a normal."""
    assert cloud.normals is not None
    return finite(cloud.normals) & cloud.normals.any(axis=1)


def enough(cloud: PointCloud, notes: Sequence[str] = ()) -> None:
    """Raises InputError where too few points are left, after what the notes say."""
    if len(cloud) < LEAST_POINTS:
        lost = "".join(f", {note}" for note in notes)
        raise InputError(
            f"expected a scan of at least {LEAST_POINTS} different points; got {len(cloud)}{lost}: check the file"
        )


def computable(points: Floats) -> None:
    """Raises InputError where points (n, 3), at least one, are too small or too large to be computed with."""
    if not LEAST <= np.abs(points).max() <= 1 / LEAST:
        raise InputError(f"expected coordinates from {LEAST:g} to {1 / LEAST:g}: give the scan another unit")


def _usable(points: Floats) -> NDArray[np.bool_]:
    """(n,) true for rows that are finite, and not so large that they stand for nothing, unless all are."""
    sound = finite(points)
    small = sound & (np.abs(points) <= 1 / LEAST).all(axis=1)
    return small if small.any() else sound


def to_fit(cloud: PointCloud) -> PointCloud:
    """The places of a cloud's points that `clean` will keep, but for `strays`: of all, where none has a normal."""
    used = PointCloud(cloud.points)
    if cloud.normals is not None and (facing := oriented(cloud)).any():
        used = used.select(facing)
    used = distinct(used)
    return used.select(together(used.points))


def distinct(cloud: PointCloud) -> PointCloud:
    """The points whose coordinates are finite, of those at one place the first."""
    cloud = cloud.select(_usable(cloud.points))
    return cloud.select(first_of_each(cloud.points))


def first_of_each(points: Floats) -> NDArray[np.bool_]:
    """(n,) true for every point that no earlier one equals."""
    first = np.zeros(len(points), bool)
    first[places(points)[0]] = True
    return first
