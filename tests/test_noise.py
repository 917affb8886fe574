"""How dense a scan is, and how noisy."""

import numpy as np
import pytest

from sdfrecon.frame import Frame
from sdfrecon.geometry import PointCloud
from sdfrecon.noise import spacing_and_noise
from sdfrecon.reconstruction import PRESETS, suited


def paraboloid(noise: float, count: int = 20_000) -> PointCloud:
    """Points on z = x^2 + y^2, moved along z by Gaussian noise."""
    rng = np.random.default_rng(3)
    plane = rng.uniform(-1, 1, (count, 2))
    height = np.square(plane).sum(axis=1) + rng.normal(0, noise, count)
    normals = np.column_stack([-2 * plane, np.ones(count)])
    return PointCloud(np.column_stack([plane, height]), normals / np.linalg.norm(normals, axis=1, keepdims=True))


def test_spacing_is_the_radius_that_holds_the_neighbours() -> None:
    cloud = PointCloud(np.column_stack([np.random.default_rng(3).uniform(0, 1, (20_000, 2)), np.zeros(20_000)]))
    assert spacing_and_noise(cloud, 8)[0] == pytest.approx(np.sqrt(8 / (np.pi * 20_000)), rel=0.05)


@pytest.mark.parametrize("noise", [0.001, 0.003])
def test_noise_is_found_whatever_the_curvature(noise: float) -> None:
    cloud = paraboloid(noise)
    assert cloud.normals is not None
    along_normal = noise * np.median(cloud.normals[:, 2])
    assert spacing_and_noise(cloud, 8)[1] == pytest.approx(along_normal, rel=0.1)


def test_what_is_clean_has_none() -> None:
    spacing, noise = spacing_and_noise(paraboloid(0.0), 8)
    assert noise < 0.01 * spacing


def test_both_grow_with_the_units() -> None:
    cloud = paraboloid(0.01)
    metres, millimetres = spacing_and_noise(cloud, 8), spacing_and_noise(PointCloud(1000 * cloud.points), 8)
    np.testing.assert_allclose(millimetres, 1000 * np.array(metres), rtol=1e-6)


def test_a_few_points_have_no_noise() -> None:
    assert spacing_and_noise(PointCloud(np.random.default_rng(3).normal(size=(15, 3))), 8) == (np.inf, 0.0)
    twice = np.repeat(np.random.default_rng(3).normal(size=(8, 3)), 2, axis=0)
    assert np.isfinite(spacing_and_noise(PointCloud(twice), 8)).all()


def test_noisy_points_weigh_less_and_clean_ones_as_before() -> None:
    def weight(noise: float) -> float:
        cloud = paraboloid(noise)
        surface = suited(Frame.around(cloud, 0.1).to_unit(cloud), PRESETS["draft"]).surface
        assert surface is not None
        return surface.final_zero_level

    assert PRESETS["draft"].surface is not None
    assert weight(0.0) == weight(0.001) == PRESETS["draft"].surface.final_zero_level
    assert weight(0.001) > weight(0.01) > weight(0.02) >= PRESETS["draft"].surface.zero_level


def test_the_papers_recipe_knows_nothing_of_it() -> None:
    cloud = paraboloid(0.02)
    assert suited(Frame.around(cloud, 0.1).to_unit(cloud), PRESETS["paper"]) == PRESETS["paper"]
