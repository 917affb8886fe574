from dataclasses import replace

import numpy as np
import pytest

from sdfrecon.cleaning import LEAST, Neighbours, at_a_seam, clean, neighbours, strays, together
from sdfrecon.geometry import InputError, PointCloud
from sdfrecon.shapes import evenly_spread


def ball(count: int = 2000, seed: int = 0) -> PointCloud:
    points = np.random.default_rng(seed).normal(size=(count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return PointCloud(points, points, np.arange(3 * count).reshape(count, 3) % 256)


def test_what_cannot_be_used_is_dropped_and_counted() -> None:
    cloud = ball()
    points, normals = cloud.points.copy(), cloud.normals.copy()
    points[3, 1], points[4, 0], normals[5, 2] = np.nan, np.inf, np.nan
    normals[6:10] = 0
    points[11:16] = points[10]
    cleaned, notes = clean(PointCloud(points, normals, cloud.colors))
    assert notes == [
        "dropped 3 of 2,000 points: coordinates or normals not finite",
        "dropped 4 of 1,997 points: zero normals",
        "dropped 5 of 1,993 points: exact copies of another point",
    ]
    kept = np.r_[0:3, 10, 16:2000]
    np.testing.assert_array_equal(cleaned.points, points[kept])
    np.testing.assert_array_equal(cleaned.colors, cloud.colors[kept])


def test_a_few_points_are_said_to_be_few() -> None:
    assert clean(ball(150))[1] == ["warning: a surface through 150 points is mostly a guess: give it thousands"]
    assert clean(ball(250))[1] == []


@pytest.mark.parametrize("length", [1e-200, 0.3, 1e200])
def test_normals_become_unit_length(length: float) -> None:
    cloud = ball()
    cleaned, notes = clean(PointCloud(cloud.points, cloud.normals * length))
    assert notes == []
    np.testing.assert_allclose(cleaned.normals, cloud.normals, atol=1e-12)


def test_flipped_normals_are_counted() -> None:
    cloud = ball()
    cap = np.where(cloud.points[:, :1] > 0.8, -1, 1)
    half = np.where(cloud.points[:, :1] > 0, -1, 1)
    mixed = np.where(np.random.default_rng(1).random((2000, 1)) < 0.2, -1, 1)
    for flip in (cap, half, mixed):
        flipped = PointCloud(cloud.points, cloud.normals * flip)
        # Those that stand alone among neighbours that are not flipped go; along a seam only the odd one does.
        lost = strays(*around(flipped)).sum()
        assert lost > 200 if flip is mixed else lost < 3
        *dropped, note = clean(flipped)[1]
        assert len(dropped) == 1
        assert "normals are opposite to their neighbours' on the same surface" in note
        assert "--estimate-normals" in note
    assert clean(PointCloud(cloud.points, -cloud.normals))[1] == []  # a room is seen from within


def test_a_thin_wall_is_no_seam() -> None:
    grid = np.stack(np.meshgrid(np.arange(40.0), np.arange(40.0)), -1).reshape(-1, 2)
    sides = [np.column_stack([grid + 0.5 * (z > 0), np.full(len(grid), z)]) for z in (0.0, 0.5)]
    normals = np.repeat([[0, 0, -1.0], [0, 0, 1.0]], len(grid), axis=0)
    assert at_a_seam(neighbours(PointCloud(np.concatenate(sides), normals)), np.zeros(len(normals), bool)) == 0


WILD = np.random.default_rng(1).normal(size=(2, 10, 3))
TWO = np.random.default_rng(0).random((2000, 3)) + [[1000, 0, 0]] * (np.arange(2000) % 2)[:, None]


@pytest.mark.parametrize(
    ("cloud", "message"),
    [
        (PointCloud(np.eye(3)), r"normals must be \(3, 3\); got none: pass --estimate-normals"),
        (PointCloud(np.eye(3), np.zeros((3, 3))), "all normals are zero, or not finite: pass --estimate-normals"),
        (PointCloud(np.eye(3), np.eye(3)), "at least 10 different points; got 3"),
        (PointCloud(np.ones((50, 3)), np.ones((50, 3))), "at least 10 different points; got 1"),
        (PointCloud(np.arange(60).reshape(20, 3), np.ones((20, 3))), "got points on a line"),
        (
            PointCloud(np.eye(3)[np.arange(60) % 3] * np.arange(1, 61)[:, None] * 1e150, np.ones((60, 3))),
            "another unit",
        ),
        (PointCloud(np.random.default_rng(0).random((60, 3)) * 1e-150, np.ones((60, 3))), "another unit"),
        (PointCloud(*WILD), "at least 10 different points; got 8"),
        (PointCloud(TWO, np.ones((2000, 3))), "parts far apart, 50% of the points in the largest: .* --box "),
    ],
)
def test_unusable_clouds_are_refused(cloud: PointCloud, message: str) -> None:
    with pytest.raises(InputError, match=message):
        clean(cloud)


def test_large_coordinates_in_single_precision_are_named() -> None:
    far = replace(ball(), points=50 * ball().points + [5e5, 5.6e6, 100.0])
    assert clean(far)[1] == []
    notes = clean(replace(far, points=far.points.astype(np.float32).astype(np.float64)))[1]
    assert any("stored in single precision, which keeps such large ones to 0.5 only" in note for note in notes)
    assert clean(replace(ball(), points=ball().points.astype(np.float32).astype(np.float64)))[1] == []
    whole = np.insert(np.argwhere(np.ones((20, 20))), 2, 0, axis=1) + [5e6, 5e6, 0]
    assert clean(PointCloud(whole, np.tile([0.0, 0, 1], (400, 1))))[1] == [], "whole by themselves"


def around(cloud: PointCloud) -> tuple[PointCloud, Neighbours]:
    return cloud, neighbours(cloud)


def test_strays_go_and_a_thinly_scanned_part_stays() -> None:
    rng = np.random.default_rng(3)
    shell = ball()
    thin = rng.random(len(shell)) < np.where(shell.points[:, 2] > 0.5, 0.1, 1.0)
    shell = shell.select(thin)
    away = rng.normal(size=(300, 3))
    away *= rng.uniform(1.3, 2.0, (300, 1)) / np.linalg.norm(away, axis=1, keepdims=True)
    wild = rng.normal(size=(300, 3))
    wild /= np.linalg.norm(wild, axis=1, keepdims=True)
    cloud = PointCloud(np.concatenate([shell.points, away]), np.concatenate([shell.normals, wild]))
    lost = strays(*around(cloud))
    assert not lost[: len(shell)].any()
    assert lost[len(shell) :].mean() > 0.85
    cleaned, notes = clean(cloud)
    assert len(cleaned) == (~lost).sum()
    assert notes[0].startswith(f"dropped {lost.sum()} of {len(cloud):,} points: they are no part of the surface")


@pytest.mark.parametrize("away", [50.0, 1e14, 3.4e38, -1.7976931348623157e308])
def test_one_point_far_away_does_not_stop_the_rest(away: float) -> None:
    shell = ball()
    cloud = PointCloud(np.append(shell.points, [[away, 0, 0]], axis=0), np.append(shell.normals, [[0, 1.0, 0]], axis=0))
    if abs(away) < 1 / LEAST:
        np.testing.assert_array_equal(cloud.points[together(cloud.points)], shell.points)
    cleaned, notes = clean(cloud)
    np.testing.assert_array_equal(cleaned.points, shell.points)
    assert len(notes) == 1


def test_a_few_points_far_from_the_rest_go_whatever_their_normals_and_profiles_apart_stay() -> None:
    rng = np.random.default_rng(0)
    ground = np.concatenate([rng.uniform(-1, 1, (3000, 2)), np.zeros((3000, 1))], axis=1)
    speck = rng.uniform(-0.1, 0.1, (20, 3)) * [1, 1, 0] + [50.0, 0, 3]
    points = np.concatenate([ground, speck])
    cleaned, notes = clean(PointCloud(points, np.tile([0, 0, 1.0], (len(points), 1))))
    np.testing.assert_array_equal(cleaned.points, ground)
    assert notes == ["dropped 20 of 3,020 points: they are far from all others"]

    along, angle = np.meshgrid(np.arange(15.0) * 10, np.linspace(0, 2 * np.pi, 40, endpoint=False))
    normals = np.stack([np.zeros(600), np.cos(angle.ravel()), np.sin(angle.ravel())], axis=1)
    assert len(clean(PointCloud(normals + along.reshape(-1, 1) * [1, 0, 0], normals))[0]) == 600


def test_a_small_part_with_most_points_is_named_as_a_box() -> None:
    rng, shell = np.random.default_rng(0), ball()
    cloud = shell.joined(PointCloud(rng.uniform(-50, 50, (40, 3)) * [1, 1, 0], np.tile([0, 0, 1.0], (40, 1))))
    [warning] = [note for note in clean(cloud)[1] if "takes the resolution" in note]
    low, high = np.reshape([float(word) for word in warning.split("--box")[1].split()], (2, 3))
    assert (low < shell.points.min(axis=0)).all()
    assert (shell.points.max(axis=0) < high).all()
    assert (np.abs([low, high]) < 2).all()


@pytest.mark.parametrize("thickness", [2.0, 0.01])
def test_a_point_whose_normal_contradicts_its_neighbours_goes_and_edges_and_thin_walls_stay(thickness: float) -> None:
    rng = np.random.default_rng(4)
    side = np.concatenate([rng.uniform(-1, 1, (3000, 2)), np.zeros((3000, 1))], axis=1)
    axes = (0, 1, 2) if thickness == 2 else (2,)  # a cube, or two planes that are closer than the points
    ways = [np.roll([0, 0, sign], axis + 1) for axis in axes for sign in (-1.0, 1.0)]
    points = np.concatenate([np.roll(side, np.abs(way).argmax() + 1, axis=1) + thickness / 2 * way for way in ways])
    normals = np.repeat(ways, 3000, axis=0)
    assert strays(*around(PointCloud(points, normals))).mean() < 5e-3
    wrong = rng.choice(len(points), 100, replace=False)
    right = normals[wrong].copy()
    normals[wrong] = rng.normal(size=(100, 3))
    normals[wrong] /= np.linalg.norm(normals[wrong], axis=1, keepdims=True)
    lost = strays(*around(PointCloud(points, normals)))
    cosine = (normals[wrong] * right).sum(axis=1)
    across = np.abs(cosine) < 0.3 if thickness < 2 else cosine < 0.3
    assert lost[wrong][across].mean() > 0.6
    assert not lost[wrong][cosine > 0.5].any()
    assert np.delete(lost, wrong).mean() < 5e-3


def test_a_patch_of_the_inner_side_of_a_shell_goes_and_a_shell_of_two_sides_stays() -> None:
    outer, inner = evenly_spread(20_000), evenly_spread(4000)
    patch = 1.001 * inner[inner[:, 2] > 0.8]  # as seen through a hole, and laid before the outer side
    lost = strays(*around(PointCloud(np.concatenate([outer, patch]), np.concatenate([outer, -patch]))))
    np.testing.assert_array_equal(lost, np.arange(len(lost)) >= len(outer))
    both = PointCloud(np.concatenate([outer, 0.97 * outer]), np.concatenate([outer, -outer]))
    assert not strays(*around(both)).any()


@pytest.mark.parametrize("thickness", [0.5, 1.0, 2.0])
def test_the_front_of_a_thin_wall_stays_however_dense_its_back_is(thickness: float) -> None:
    rng = np.random.default_rng(6)
    points = np.append(rng.uniform(0, 100, (12_500, 2)), np.zeros((12_500, 1)), axis=1)
    points[10_000:, 2] = thickness
    normals = np.tile([0, 0, -1.0], (12_500, 1))
    normals[10_000:] *= -1
    assert strays(*around(PointCloud(points, normals)))[10_000:].mean() < 0.06


def test_a_point_beside_a_smooth_surface_goes_and_noise_stays() -> None:
    rng = np.random.default_rng(5)
    shell, lifted = ball(5000), np.arange(0, 5000, 100)  # its eighth neighbours are 0.08 away
    height = np.zeros(5000)
    height[lifted] = rng.choice([-0.12, 0.12], len(lifted))
    lost = strays(*around(replace(shell, points=shell.points * (1 + height[:, None]))))
    assert lost[lifted].mean() > 0.9
    assert np.delete(lost, lifted).mean() < 1e-3
    noise = rng.normal(0, 0.06, (5000, 1))
    assert strays(*around(replace(shell, points=shell.points * (1 + noise)))).mean() < 5e-3
