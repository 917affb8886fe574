import numpy as np
import pytest

from sdfrecon.shapes import (
    RING_AND_BALL,
    Distance,
    Scanner,
    caster,
    evenly_spread,
    gradient,
    random_rotation,
    sphere,
    torus,
    union,
)

POINTS = np.random.default_rng(0).uniform(-2, 2, (500, 3))


@pytest.mark.parametrize("shape", [sphere(0.5), torus(0.7, 0.2), RING_AND_BALL])
def test_distances_grow_by_one_for_each_unit_and_lead_to_the_surface(shape: Distance) -> None:
    # |f(a) - f(b)| <= |a - b|, and the point one distance back along the gradient lies on the surface.
    other = POINTS + np.random.default_rng(1).normal(0, 0.1, POINTS.shape)
    assert (np.abs(shape(POINTS) - shape(other)) <= np.linalg.norm(POINTS - other, axis=1) + 1e-12).all()
    outside = POINTS[shape(POINTS) > 0.01]
    landed = outside - shape(outside)[:, None] * gradient(shape, outside)
    assert np.quantile(np.abs(shape(landed)), 0.99) < 1e-6


def test_known_distances() -> None:
    points = np.array([[2.0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(sphere(0.5)(points), [1.5, -0.5])
    np.testing.assert_allclose(torus(1, 0.25)(points), [0.75, 0.75])
    np.testing.assert_allclose(union(sphere(0.5), sphere(1.0))(points), [1, -1])


def test_a_noiseless_scan_lies_on_the_surface_and_sees_its_outside_alone() -> None:
    hollow = union(sphere(0.8), sphere(0.2))  # the inner ball is hidden
    low, high = np.full(3, -0.8), np.full(3, 0.8)
    cloud = Scanner(pixels=40, noise=0.0).scan(caster(hollow, 10), low, high, np.random.default_rng(0))
    assert len(cloud) > 1000
    np.testing.assert_allclose(np.linalg.norm(cloud.points, axis=1), 0.8, atol=1e-4)
    np.testing.assert_allclose(cloud.normals, cloud.points / 0.8, atol=1e-3)


def test_noise_is_a_share_of_the_diagonal_along_the_ray() -> None:
    low, high = np.full(3, -1.0), np.full(3, 1.0)
    cast = caster(sphere(1.0), 10)
    exact, noisy = (Scanner(4, 80, noise).scan(cast, low, high, np.random.default_rng(1)) for noise in (0.0, 0.01))
    moved = np.linalg.norm(exact.points[: len(exact) // 4] - noisy.points[: len(exact) // 4], axis=1)
    assert np.sqrt((moved**2).mean()) == pytest.approx(0.01 * np.sqrt(12), rel=0.05)


def test_views_are_unit_and_spread() -> None:
    views = evenly_spread(10)
    np.testing.assert_allclose(np.linalg.norm(views, axis=1), 1)
    between = views @ views.T - 2 * np.eye(10)
    assert between.max() < np.cos(np.radians(40))
    turn = random_rotation(np.random.default_rng(2))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
