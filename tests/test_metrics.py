import numpy as np
import pytest
from test_meshing import Ball

from sdfrecon.geometry import InputError, Mesh, PointCloud
from sdfrecon.meshing import extract_mesh
from sdfrecon.metrics import compare, first_hits, nearest, sample_surface

BALL = extract_mesh(Ball(), 40)
SQUARE = Mesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]])


def moved(mesh: Mesh, by: tuple[float, float, float]) -> Mesh:
    return Mesh(mesh.vertices + np.asarray(by), mesh.faces)


def test_a_mesh_is_at_no_distance_from_itself() -> None:
    same = compare(BALL, BALL, 10_000)
    assert same.hausdorff < 1e-5  # the ray caster works in single precision
    assert same.chamfer < 1e-7
    assert set(same.f_score.values()) == {1.0}
    assert same.normal_consistency == pytest.approx(1, abs=1e-3)
    assert (same.components, same.watertight) == (1, True)


def test_a_plane_and_its_copy_are_as_far_as_it_was_moved() -> None:
    result = compare(moved(SQUARE, (0, 0, 0.25)), SQUARE, 10_000)
    for figure in (result.accuracy, result.completeness, result.chamfer, result.hausdorff, result.percentile_99):
        assert figure == pytest.approx(0.25, rel=1e-5)
    assert set(result.f_score.values()) == {0.0}


def test_the_same_two_have_the_same_figures() -> None:
    other = moved(BALL, (0.1, 0, 0))
    assert compare(other, BALL, 1000) == compare(other, BALL, 1000) != compare(other, BALL, 1000, seed=1)


def test_a_half_is_accurate_and_not_complete() -> None:
    half = SQUARE.keep_faces(np.array([True, False]))
    result = compare(half, SQUARE)
    assert result.accuracy < 1e-6
    # Half of the square lies at x / sqrt(2) from the diagonal: on average sqrt(2) / 6.
    assert result.completeness == pytest.approx(np.sqrt(2) / 6 / 2, rel=0.02)
    assert result.hausdorff == pytest.approx(np.sqrt(0.5), rel=0.02)
    assert result.chamfer == pytest.approx(result.completeness / 2, rel=1e-4)
    # What is farther than d from the diagonal is a triangle of area (1 / sqrt(2) - d)^2.
    assert result.percentile_99 == pytest.approx(np.sqrt(0.5) - 0.1, rel=0.01)
    for share in (0.001, 0.005, 0.01):
        recall = 1 - (np.sqrt(0.5) - share * np.sqrt(2)) ** 2
        assert result.f_score[f"{share:.1%}"] == pytest.approx(2 * recall / (1 + recall), abs=0.003)
    swapped = compare(SQUARE, half)
    assert (swapped.accuracy, swapped.completeness) == pytest.approx((result.completeness, 0), rel=0.01, abs=1e-6)
    assert swapped.percentile_99 == pytest.approx(result.percentile_99, rel=0.01)
    assert swapped.f_score == pytest.approx(result.f_score, abs=0.003)


def test_normals_are_compared_by_their_cosine() -> None:
    x, y, _ = SQUARE.vertices.T
    tilted = Mesh(np.stack([x, y * np.cos(np.radians(60)), y * np.sin(np.radians(60))], axis=1), SQUARE.faces)
    turned = Mesh(tilted.vertices, tilted.faces[:, ::-1])
    for mesh in (tilted, turned):
        assert compare(mesh, SQUARE, 10_000).normal_consistency == pytest.approx(0.5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_figures_have_the_units_of_the_files_and_their_place_does_not_matter(scale: float) -> None:
    reference = Mesh(SQUARE.vertices * scale + [7e6 * scale, 0, 0], SQUARE.faces)
    result = compare(moved(reference, (0, 0, 0.1 * scale)), reference, 10_000)
    assert result.chamfer == pytest.approx(0.1 * scale, rel=1e-4)


def test_against_a_cloud_distances_are_to_its_points() -> None:
    corners = PointCloud(SQUARE.vertices, np.tile([0.0, 0, 1], (4, 1)))
    result = compare(SQUARE, corners)
    assert result.completeness == pytest.approx(0, abs=1e-7)
    assert result.hausdorff == pytest.approx(np.sqrt(0.5), rel=0.02)
    assert result.normal_consistency == pytest.approx(1)
    assert compare(SQUARE, PointCloud(SQUARE.vertices)).normal_consistency is None


def test_normals_of_a_cloud_may_have_any_length_and_unknown_ones_do_not_count() -> None:
    normals = np.array([[0, 0, 3], [0, 0, -0.1], [0, 0, 0], [np.nan, 0, 1]])
    assert compare(SQUARE, PointCloud(SQUARE.vertices, normals)).normal_consistency == pytest.approx(1)
    assert compare(SQUARE, PointCloud(SQUARE.vertices, 0 * normals)).normal_consistency is None


def test_distances_to_triangles_are_exact() -> None:
    points = np.random.default_rng(0).normal(size=(1000, 3))
    outside = np.maximum(np.abs(points[:, :2] - 0.5) - 0.5, 0)
    exact = np.sqrt((outside**2).sum(1) + points[:, 2] ** 2)
    np.testing.assert_allclose(nearest(points, SQUARE)[0], exact, atol=1e-6)


def test_samples_are_uniform_over_the_area() -> None:
    uneven = Mesh([[0, 0, 0], [9, 0, 0], [0, 1, 0], [-1, 0, 0]], [[0, 1, 2], [0, 2, 3]])
    points, normals = sample_surface(uneven, 100_000, np.random.default_rng(0))
    assert (points[:, 0] > 0).mean() == pytest.approx(0.9, abs=0.01)
    np.testing.assert_allclose(points[points[:, 0] > 0].mean(axis=0), [3, 1 / 3, 0], atol=0.02)
    np.testing.assert_allclose(normals, np.tile([0, 0, 1], (100_000, 1)))


def test_rays_hit_the_first_triangle_or_none() -> None:
    two = Mesh(np.concatenate([SQUARE.vertices, SQUARE.vertices - [0, 0, 1]]), [[0, 1, 2], [4, 5, 6]])
    face, weights = first_hits(two, np.array([[0.75, 0.25, 5.0], [3, 3, 5]]), np.tile([0.0, 0, -1], (2, 1)))
    assert face.tolist() == [0, -1]
    np.testing.assert_allclose(weights[0] @ two.vertices[two.faces[0]], [0.75, 0.25, 0], atol=1e-6)


def test_triangles_that_are_nowhere_do_not_count() -> None:
    corners = np.concatenate([SQUARE.vertices, [[np.nan] * 3]])
    torn = Mesh(corners, np.concatenate([SQUARE.faces, [[0, 1, 4]]]))
    assert compare(torn, SQUARE, 1000).chamfer < 1e-7


def test_the_normals_of_slivers_do_not_count() -> None:
    line = np.array([[0.2, 0.5, 1], [0.5, 0.5, 1], [0.8, 0.5, 1]])
    both = Mesh(np.concatenate([SQUARE.vertices, line]), [*SQUARE.faces, [4, 5, 6]])
    reference = PointCloud(both.vertices, np.tile([0.0, 0, 1], (7, 1)))
    assert compare(both, reference, 1000).normal_consistency == pytest.approx(1)


def test_nothing_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="a whole number of samples"):
        compare(SQUARE, SQUARE, 1e5)
    with pytest.raises(InputError, match="a mesh with an area"):
        compare(Mesh(np.zeros((3, 3)), np.empty((0, 3))), SQUARE)
    with pytest.raises(InputError, match="several points"):
        compare(SQUARE, PointCloud(np.full((5, 3), np.nan)))
    gaps = PointCloud(np.concatenate([SQUARE.vertices, np.full((5, 3), np.nan)]))
    assert compare(SQUARE, gaps).completeness == pytest.approx(0, abs=1e-7)
