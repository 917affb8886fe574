"""Normals from points alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_cleaning import ball

from sdfrecon.files import read_cloud
from sdfrecon.geometry import InputError, PointCloud, unit_vectors
from sdfrecon.normals import estimate_normals
from sdfrecon.shapes import evenly_spread, random_rotation


def test_estimated_normals_of_a_ball_point_outwards_even_far_from_the_origin() -> None:
    cloud = ball()
    estimated = estimate_normals(PointCloud(cloud.points + [4e6, 5e6, 100.0]))
    assert (estimated.normals * cloud.normals).sum(axis=1).min() > 0.95


def test_a_row_far_away_does_not_blur_the_normals_of_others() -> None:
    shell = ball()
    for sky in ([[1e12, 0, 0]], 1e4 * np.random.default_rng(0).normal(size=(15, 3)) + [1e5, 0, 0]):
        estimated = estimate_normals(PointCloud(np.append(shell.points, sky, axis=0)))
        assert (estimated.normals[: len(shell)] * shell.normals).sum(axis=1).min() > 0.95
    with pytest.raises(InputError, match="give the scan another unit"):
        estimate_normals(PointCloud(shell.points * 1e200))


def test_normals_that_a_file_has_do_not_touch_those_that_are_estimated() -> None:
    cloud = ball()
    alone = estimate_normals(PointCloud(cloud.points)).normals
    for normals in (100 * cloud.normals, np.where(np.arange(2000)[:, None] % 7, cloud.normals, np.nan)):
        np.testing.assert_array_equal(estimate_normals(replace(cloud, normals=normals)).normals, alone)


def test_many_points_agree_with_the_nearest_of_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, half = np.random.default_rng(0), np.array([1, 1, 0.3])
    box = rng.uniform(-1, 1, (30_000, 3)) * half
    face = rng.choice(3, len(box), p=[0.2, 0.2, 0.6])
    true = np.eye(3)[face] * rng.choice([-1, 1], (len(box), 1))
    box[np.arange(len(box)), face] = (true * half).sum(axis=1)
    monkeypatch.setattr("sdfrecon.normals.ORIENTED", 3000)
    normals = estimate_normals(PointCloud(box)).normals
    assert ((normals * true).sum(axis=1) > 0).mean() > 0.995


SMALL = evenly_spread(1500)
MANY = np.concatenate([SMALL * 0.3 + place for place in np.ndindex(3, 3, 3)])


@pytest.mark.parametrize("one_by_one", [5, 200])
def test_many_parts_all_look_outwards(monkeypatch: pytest.MonkeyPatch, one_by_one: int) -> None:
    monkeypatch.setattr("sdfrecon.normals.PARTS", one_by_one)
    assert ((estimate_normals(PointCloud(MANY)).normals * np.tile(SMALL, (27, 1))).sum(axis=1) > 0).all()


def test_parts_that_lie_apart_all_look_outwards(ring_and_ball: Path) -> None:
    ball, small = evenly_spread(4000), SMALL
    seen = ball[np.abs(ball[:, 2]) > 0.5]
    plate = np.column_stack([np.random.default_rng(0).uniform(-1, 1, (4000, 2)), np.full(4000, 0.1)])
    shipped = read_cloud(ring_and_ball)
    assert shipped.normals is not None
    for what, points, true in (
        ("two balls", [ball, small * 0.5 + [1.8, 0, 0]], [ball, small]),
        ("a hollow ball", [ball, small * 0.6], [ball, -small]),
        ("a ball whose middle no camera saw", [seen], [seen]),
        ("both sides of a plate", [plate, -plate], [[[0, 0, 1]] * 4000, [[0, 0, -1]] * 4000]),
        ("a ring and a ball", [shipped.points], [shipped.normals]),
    ):
        normals = estimate_normals(PointCloud(np.concatenate(points))).normals
        assert ((normals * np.concatenate(true)).sum(axis=1) > 0).all(), what


def test_where_outside_is_does_not_depend_on_where_points_are_dense() -> None:
    rng = np.random.default_rng(0)
    half = unit_vectors(rng.normal(size=(12_000, 3)))
    half[:, 2] = -np.abs(half[:, 2])
    outer, inner = half[:3000], half[3000:]
    bowl, true = np.concatenate([outer, 0.8 * inner]), np.concatenate([outer, -inner])
    normals = estimate_normals(PointCloud(bowl)).normals
    assert ((normals * true).sum(axis=1) > 0).mean() > 0.99


def test_normals_of_points_on_lines_are_the_surfaces() -> None:
    rng = np.random.default_rng(0)
    height, turn = rng.choice(np.linspace(-2, 2, 61), 40_000), rng.uniform(0, 2 * np.pi, 40_000)
    outwards = np.column_stack([np.cos(turn), np.sin(turn), np.zeros(40_000)])
    points = outwards * (1 - height**2 / 5)[:, None] + height[:, None] * [0, 0, 1] + rng.normal(0, 1e-3, (40_000, 3))
    true = outwards + 2 / 5 * height[:, None] * [0, 0, 1]
    normals = estimate_normals(PointCloud(points)).normals
    cosines = (normals * true).sum(axis=1) / np.linalg.norm(true, axis=1)
    assert cosines.min() > 0.3, "none looks inwards"
    assert (cosines > 0.9).mean() > 0.95, "all but the two lines with nothing beyond"


def test_a_viewpoint_decides_the_side_and_a_plane_needs_one() -> None:
    grid = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0), [0.0]), -1).reshape(-1, 3)
    tilted = grid[:300] @ random_rotation(np.random.default_rng(0))
    for flat in (grid, tilted):
        with pytest.raises(InputError, match="flat, which has no outside: pass --viewpoint"):
            estimate_normals(PointCloud(flat))
    for height in (30.0, -30.0):
        estimated = estimate_normals(PointCloud(grid), viewpoint=(10, 10, height))
        np.testing.assert_allclose(estimated.normals, np.tile([0, 0, np.sign(height)], (400, 1)), atol=1e-6)
    for wrong in ((1.0, 2.0), (1.0, 2.0, np.nan), np.zeros(6)):
        with pytest.raises(InputError, match="a viewpoint is three finite numbers; got"):
            estimate_normals(PointCloud(grid), viewpoint=wrong)
    both = estimate_normals(PointCloud(grid), viewpoint=[(2, 10, 5), (17, 10, -5)])
    np.testing.assert_allclose(both.normals[:, 2], np.where(grid[:, 0] < 9.5, 1, -1), atol=1e-6)
