import numpy as np
import pytest

from sdfrecon.geometry import InputError, Mesh, PointCloud

TETRAHEDRON = Mesh(
    [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]],
    [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]],
)


def test_shapes_are_checked_by_name() -> None:
    with pytest.raises(InputError, match=r"points must be \(n, 3\); got \(4, 2\)"):
        PointCloud(np.zeros((4, 2)))
    with pytest.raises(InputError, match=r"normals must be \(4, 3\); got \(3, 3\)"):
        PointCloud(np.zeros((4, 3)), np.zeros((3, 3)))
    with pytest.raises(InputError, match="faces must name vertices 0 to 2; got 0 to 3"):
        Mesh(np.zeros((3, 3)), np.array([[0, 1, 3]]))


@pytest.mark.parametrize("colors", [np.full((4, 3), 0.5), np.full((4, 3), 256), np.full((4, 3), -1)])
def test_colours_are_bytes(colors: np.ndarray) -> None:
    with pytest.raises(InputError, match="colors must be whole numbers from 0 to 255"):
        PointCloud(np.zeros((4, 3)), colors=colors)


def test_a_tetrahedron_is_closed_outward_and_has_its_volume() -> None:
    assert TETRAHEDRON.is_watertight
    assert TETRAHEDRON.volume == pytest.approx(1 / 6)
    assert TETRAHEDRON.areas.sum() == pytest.approx(1.5 + np.sqrt(3) / 2)


def test_volume_is_that_of_the_shape_wherever_it_lies() -> None:
    far = Mesh(TETRAHEDRON.vertices + 1e7, TETRAHEDRON.faces[:, ::-1])
    assert far.volume == pytest.approx(-1 / 6)


def test_a_missing_or_turned_face_is_not_watertight() -> None:
    assert not TETRAHEDRON.keep_faces(np.array([True, True, True, False])).is_watertight
    turned = TETRAHEDRON.faces.copy()
    turned[0] = turned[0, ::-1]
    assert not Mesh(TETRAHEDRON.vertices, turned).is_watertight


def test_components_are_what_shares_vertices_and_can_be_kept_alone() -> None:
    two = Mesh(
        np.concatenate([TETRAHEDRON.vertices, TETRAHEDRON.vertices + 5]),
        np.concatenate([TETRAHEDRON.faces, TETRAHEDRON.faces + 4]),
        colors=np.arange(24).reshape(8, 3),
    )
    labels = two.components()
    assert labels.tolist() == [0] * 4 + [1] * 4
    second = two.keep_faces(labels == 1)
    assert second.is_watertight
    np.testing.assert_array_equal(second.vertices, TETRAHEDRON.vertices + 5)
    np.testing.assert_array_equal(second.colors, np.arange(12, 24).reshape(4, 3))


def test_selecting_points_takes_their_normals_and_colours() -> None:
    cloud = PointCloud(np.eye(3), -np.eye(3), np.eye(3, dtype=int) * 255).select(np.array([2, 0]))
    np.testing.assert_array_equal(cloud.points, np.eye(3)[[2, 0]])
    np.testing.assert_array_equal(cloud.normals, -np.eye(3)[[2, 0]])
    np.testing.assert_array_equal(cloud.colors, np.eye(3)[[2, 0]] * 255)
