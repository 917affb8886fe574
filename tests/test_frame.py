import numpy as np
import pytest

from sdfrecon.frame import Frame
from sdfrecon.geometry import InputError, Mesh, PointCloud


@pytest.mark.parametrize(("offset", "size"), [(0.0, 1.0), (4.5e6, 30.0), (1e7, 1e-3), (-3.0, 1e-7)])
def test_round_trip_returns_every_point(offset: float, size: float) -> None:
    points = np.random.default_rng(0).normal(size=(100, 3)) * size + offset
    frame = Frame.around(PointCloud(points))
    mesh = frame.to_world(Mesh(frame.points_to_unit(points), np.array([[0, 1, 2]])))
    np.testing.assert_allclose(mesh.vertices, points, rtol=0, atol=4 * np.spacing(np.abs(points).max()))


def test_the_cloud_fills_the_cube_but_for_the_margin() -> None:
    points = np.random.default_rng(1).uniform(-1, 1, (1000, 3)) * [3, 1, 2] + 100
    unit = Frame.around(PointCloud(points), margin=0.25).points_to_unit(points)
    assert np.abs(unit).max() == pytest.approx(1 / 1.25)


def test_distances_keep_their_ratio_in_every_direction() -> None:
    points = np.random.default_rng(2).uniform(-1, 1, (50, 3)) * [10, 1, 0.1]
    frame = Frame.around(PointCloud(points))
    unit = frame.points_to_unit(points)
    world_lengths = np.linalg.norm(points[1:] - points[:-1], axis=1)
    unit_lengths = np.linalg.norm(unit[1:] - unit[:-1], axis=1)
    np.testing.assert_allclose(unit_lengths, [frame.distance_to_unit(d) for d in world_lengths])
    assert frame.distance_to_world(frame.distance_to_unit(0.7)) == pytest.approx(0.7)


def test_normals_stay() -> None:
    cloud = PointCloud(np.random.default_rng(3).normal(size=(9, 3)), np.ones((9, 3)))
    np.testing.assert_array_equal(Frame.around(cloud).to_unit(cloud).normals, cloud.normals)


def test_one_place_and_none_have_no_frame() -> None:
    with pytest.raises(InputError, match="whose coordinates are finite; got none"):
        Frame.around(PointCloud(np.ones((0, 3))))
    with pytest.raises(InputError, match="all of them at one place"):
        Frame.around(PointCloud(np.ones((5, 3))))
