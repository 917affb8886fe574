import numpy as np
import pytest

from sdfrecon.geometry import InputError, Mesh, PointCloud, decimals, unit_vectors

TETRAHEDRON = Mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def test_a_cloud_stays_as_it_was_though_what_was_looked_into_changes() -> None:
    whole = np.zeros((5, 4))
    vertices = np.ones(9).reshape(3, 3)
    cloud, mesh = PointCloud(whole[:, :3]), Mesh(vertices, [[0, 1, 2]])
    whole[:], vertices[:] = np.nan, 2
    assert (cloud.points == 0).all()
    assert (mesh.vertices == 1).all()


def test_shapes_are_checked_by_name() -> None:
    with pytest.raises(InputError, match=r"points must be \(n, 3\); got \(4, 2\)"):
        PointCloud(np.zeros((4, 2)))
    with pytest.raises(InputError, match=r"normals must be \(4, 3\); got \(3, 3\)"):
        PointCloud(np.zeros((4, 3)), np.zeros((3, 3)))
    for ragged in ([[1, 2, 3], [4, 5]], [["a", "b", "c"]], None):
        with pytest.raises(InputError, match="points must be "):
            PointCloud(ragged)
    with pytest.raises(InputError, match="faces must name vertices 0 to 2; got 0 to 3"):
        Mesh(np.zeros((3, 3)), np.array([[0, 1, 3]]))
    with pytest.raises(InputError, match="faces must be whole numbers; got others, of float64"):
        Mesh(np.zeros((3, 3)), [[0.0, 1.9, 2.7]])


def test_vectors_of_any_length_become_unit_vectors_but_zeros() -> None:
    vectors = np.array([[3e-200, 4e-200, 0], [3e200, 0, 4e200], [0, 0, 0]])
    np.testing.assert_allclose(unit_vectors(vectors), [[0.6, 0.8, 0], [0.6, 0, 0.8], [0, 0, 0]])


def test_coordinates_keep_the_digits_that_tell_places_apart() -> None:
    assert decimals([5300123.456789, 0.5], 12.0) == ["5300123.457", "0.500"]
    assert decimals([0.00123456], 0.01) == ["0.001235"]
    assert decimals(5e6, 1e5) == ["5000000"]


def test_shapes_are_told_apart_as_objects() -> None:
    assert len({TETRAHEDRON, TETRAHEDRON, Mesh(TETRAHEDRON.vertices, TETRAHEDRON.faces)}) == 2


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


def test_welding_leaves_no_triangle_with_a_corner_twice() -> None:
    doubled = np.concatenate([TETRAHEDRON.faces, [[1, 1, 2]]])
    normals = np.eye(4, 3)
    welded = Mesh(TETRAHEDRON.vertices, doubled, normals).welded()
    np.testing.assert_array_equal(welded.faces, TETRAHEDRON.faces)
    np.testing.assert_array_equal(welded.normals, normals)


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


@pytest.mark.parametrize("direction", [(1, 0, 0), (1, 2, 3), (-3, 1, -0.5)])
def test_what_is_clipped_along_a_plane_ends_on_it_and_makes_the_whole_with_the_rest(direction: tuple) -> None:
    vertices = TETRAHEDRON.vertices
    colors = np.rint(200 * vertices).astype(np.uint8)
    mesh = Mesh(vertices, TETRAHEDRON.faces, normals=np.tile([0.0, 0, 1], (4, 1)), colors=colors)
    height = vertices @ direction
    height = height - height.mean()
    below, above = mesh.clipped(height), mesh.clipped(-height)
    assert below.areas.sum() + above.areas.sum() == pytest.approx(mesh.areas.sum())
    for part, side in ((below, -1), (above, 1)):
        reached = side * (part.vertices @ direction - (vertices @ direction).mean())
        assert reached.min() == pytest.approx(0, abs=1e-12)
        assert not part.is_watertight
        assert (part.areas > 0).all()
        np.testing.assert_allclose(part.colors, 200 * part.vertices, atol=0.51)
        np.testing.assert_array_equal(part.normals, np.tile([0.0, 0, 1], (len(part.vertices), 1)))
        outward = {tuple(np.round(n / np.linalg.norm(n), 9)) for n in mesh.face_normals}
        assert {tuple(np.round(n / np.linalg.norm(n), 9)) for n in part.face_normals} <= outward


def test_what_is_clipped_at_no_face_or_at_all_is_the_mesh_or_nothing() -> None:
    assert TETRAHEDRON.clipped(np.full(4, -1.0)).is_watertight
    assert TETRAHEDRON.clipped(np.zeros(4)).is_watertight
    assert len(TETRAHEDRON.clipped(np.ones(4)).vertices) == 0


def test_selecting_points_takes_their_normals_and_colours() -> None:
    cloud = PointCloud(np.eye(3), -np.eye(3), np.eye(3, dtype=int) * 255).select(np.array([2, 0]))
    np.testing.assert_array_equal(cloud.points, np.eye(3)[[2, 0]])
    np.testing.assert_array_equal(cloud.normals, -np.eye(3)[[2, 0]])
    np.testing.assert_array_equal(cloud.colors, np.eye(3)[[2, 0]] * 255)


@pytest.mark.parametrize(("count", "every"), [(9, 1), (8, 1), (5, 1), (4, 2), (3, 2), (1, 8)])
def test_thinning_keeps_every_kth_point_and_no_fewer_than_asked_for(count: int, every: int) -> None:
    points = np.arange(24.0).reshape(8, 3)
    np.testing.assert_array_equal(PointCloud(points).thinned(count).points, points[::every])


def test_faces_at_a_rim_have_an_edge_of_their_own() -> None:
    closed, opened = TETRAHEDRON.faces, TETRAHEDRON.faces[:3] + 4
    both = Mesh(np.concatenate([TETRAHEDRON.vertices] * 2), np.concatenate([closed, opened]))
    assert both.at_a_rim.tolist() == [False] * 4 + [True] * 3


def test_points_at_random_are_from_all_parts_in_their_order() -> None:
    taken = PointCloud(np.arange(3000.0).reshape(1000, 3)).at_random(100, np.random.default_rng(0)).points[:, 0]
    assert len(taken) == 100
    assert (np.diff(taken) > 0).all()
    assert np.histogram(taken, 4, (0, 3000))[0].min() > 10


def test_a_vertex_of_no_triangle_is_none_of_a_mesh() -> None:
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1000, 0, 0]])
    assert Mesh(corners, np.array([[0, 1, 2]])).welded().diagonal == pytest.approx(2**0.5)
