"""How dense a scan is, and how noisy."""

from dataclasses import replace

import numpy as np
import pytest

from sdfrecon.frame import Frame
from sdfrecon.geometry import Floats, InputError, PointCloud, unit_vectors
from sdfrecon.noise import evened, spacing_and_noise
from sdfrecon.presets import CALM, NOISY_EIKONAL, PRESETS, ReconstructConfig, sized, suited
from sdfrecon.problems import SurfaceConfig


def places(count: int, seed: int = 3) -> Floats:
    """(count, 2) anywhere in the square [-1, 1]^2."""
    return np.random.default_rng(seed).uniform(-1, 1, (count, 2))


def paraboloid(noise: float, plane: Floats | None = None) -> PointCloud:
    """Points on z = x^2 + y^2 over 20,000 places of a square or those given, moved along the normal."""
    plane = places(20_000) if plane is None else plane
    normals = unit_vectors(np.column_stack([-2 * plane, np.ones(len(plane))]))
    points = np.column_stack([plane, np.square(plane).sum(axis=1)])
    return PointCloud(points + np.random.default_rng(4).normal(0, noise, (len(plane), 1)) * normals, normals)


def weights(cloud: PointCloud, config: ReconstructConfig = PRESETS["draft"]) -> SurfaceConfig:
    surface = suited(Frame.around(cloud, 0.1).to_unit(cloud), config).surface
    assert surface is not None
    return surface


def test_spacing_is_the_radius_that_holds_the_neighbours() -> None:
    points = np.column_stack([places(20_000), np.zeros(20_000)])
    spacing, noise, _ = spacing_and_noise(PointCloud(points, np.tile([0.0, 0.0, 1.0], (20_000, 1))))
    assert spacing == pytest.approx(np.sqrt(8 * 4 / (np.pi * 20_000)), rel=0.05)
    assert noise < 1e-12


@pytest.mark.parametrize("noise", [0.001, 0.003, 0.01])
def test_noise_is_found_whatever_the_curvature(noise: float) -> None:
    assert spacing_and_noise(paraboloid(noise))[1] == pytest.approx(noise, rel=0.1)


def test_what_is_clean_has_none() -> None:
    spacing, noise, _ = spacing_and_noise(paraboloid(0.0))
    assert noise < 0.01 * spacing


def test_noise_is_found_on_scan_lines() -> None:
    # Three of the quadric's six terms need a width, which a line has not, and fit noise: 7 of 10 degrees are left.
    along, across = places(20_000).T
    lines = np.column_stack([along, np.floor(5 * across) / 5])
    assert spacing_and_noise(paraboloid(0.002, lines))[1] == pytest.approx(0.7**0.5 * 0.002, rel=0.05)


def on_lines(count: int, noise: float = 0.0) -> PointCloud:
    """20,000 points of the paraboloid on so many lines across its square."""
    along, across = places(20_000).T
    return paraboloid(noise, np.column_stack([along, (np.floor(count * (across + 1) / 2) + 0.5) * 2 / count - 1]))


@pytest.mark.parametrize("noise", [0.0, 0.005])
@pytest.mark.parametrize("count", [30, 50])
def test_points_on_lines_are_evened_and_others_stay(count: int, noise: float) -> None:
    lines = on_lines(count, noise)
    even = evened(lines)
    as_many = paraboloid(noise, places(len(even)))
    assert spacing_and_noise(even)[0] == pytest.approx(spacing_and_noise(as_many)[0], rel=0.15)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 100)] * 2), axis=-1).reshape(-1, 2)
    for cloud in (paraboloid(noise), paraboloid(noise, grid)):
        assert evened(cloud) is cloud
        assert evened(bare := PointCloud(cloud.points)) is bare
    assert set(map(tuple, even.points)) < set(map(tuple, lines.points))
    np.testing.assert_array_equal(even.points, evened(lines).points)


def test_the_first_layer_sees_lines_as_far_apart_as_they_are() -> None:
    def omega(cloud: PointCloud) -> float:
        config = replace(PRESETS["draft"], siren=replace(PRESETS["draft"].siren, first_omega_0=1.0))
        return suited(Frame.around(cloud, 0.1).to_unit(cloud), config).siren.first_omega_0

    assert omega(on_lines(50)) < omega(paraboloid(0.0)) / 1.5


def test_what_is_a_line_at_every_scale_stays() -> None:
    turn = np.linspace(0, 20, 5000)
    helix = np.column_stack([np.cos(turn), np.sin(turn), turn])
    cloud = PointCloud(helix, helix * [1, 1, 0])
    assert evened(cloud) is cloud


def test_a_thin_sheet_is_not_noisy() -> None:
    top, bottom = paraboloid(0.0), paraboloid(0.0, places(20_000, seed=5))
    below = bottom.points - [0, 0, 0.5 * spacing_and_noise(top)[0]]
    sheet = PointCloud(np.concatenate([top.points, below]), np.concatenate([top.normals, -bottom.normals]))
    assert weights(sheet).final_zero_level == SurfaceConfig.final_zero_level


def test_distances_grow_with_the_units_and_stay_far_from_the_origin() -> None:
    cloud = paraboloid(0.01)
    moved = replace(cloud, points=1000 * cloud.points + [4.5e6, 5.5e6, 200.0])
    scaled = np.array(spacing_and_noise(cloud)) * [1000, 1000, 1]
    np.testing.assert_allclose(spacing_and_noise(moved), scaled, rtol=1e-5)


def test_few_points_have_no_noise() -> None:
    few = paraboloid(0.1, places(15))
    assert spacing_and_noise(few)[1] == 0.0
    assert spacing_and_noise(few)[2] == 0.0
    assert spacing_and_noise(few.select(np.arange(8))) == (np.inf, 0.0, 0.0)


def test_noisy_points_weigh_less_and_clean_ones_as_before() -> None:
    for exact in (paraboloid(0.0), paraboloid(0.002), paraboloid(0.0, places(3000)), paraboloid(0.004, places(3000))):
        assert weights(exact) == sized(PRESETS["draft"], len(exact)).surface
    for noise, count in ((0.01, 20_000), (0.02, 20_000), (0.01, 3000), (0.005, 100_000)):
        unit = Frame.around(cloud := paraboloid(noise, places(count)), 0.1).to_unit(cloud)
        noisy = weights(cloud)
        assert noisy.surface_eikonal == NOISY_EIKONAL
        assert noisy.final_zero_level == pytest.approx((count / spacing_and_noise(unit)[1]) ** 0.5, abs=0.5)
        assert noisy.zero_level == min(SurfaceConfig.zero_level, noisy.final_zero_level), "never above the last"
    light = replace(PRESETS["draft"], surface=SurfaceConfig(final_zero_level=1000.0, surface_eikonal=200.0))
    assert weights(paraboloid(0.01), light).final_zero_level == 1000.0, "never above what is asked"
    assert weights(paraboloid(0.01), light).surface_eikonal == 200.0, "never below what is asked"


def test_noise_too_fine_to_follow_does_not_count() -> None:
    dense = paraboloid(0.002, places(200_000))
    spacing, noise, _ = spacing_and_noise(dense)
    assert noise > CALM * spacing, "more than would count if it were coarser"
    assert weights(dense).final_zero_level == SurfaceConfig.final_zero_level


def turned(cloud: PointCloud, degrees: float) -> PointCloud:
    """The cloud with normals off by about so much in each direction."""
    off = np.random.default_rng(6).normal(0, np.radians(degrees), cloud.normals.shape)
    off -= (off * cloud.normals).sum(axis=1, keepdims=True) * cloud.normals
    return replace(cloud, normals=unit_vectors(cloud.normals + off))


@pytest.mark.parametrize("degrees", [1.0, 4.0, 10.0])
@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_noise_of_normals_is_found_whatever_the_curvature(degrees: float, noise: float) -> None:
    assert np.degrees(spacing_and_noise(turned(paraboloid(noise), degrees))[2]) == pytest.approx(degrees, rel=0.1)


@pytest.mark.parametrize(
    ("name", "count", "degrees", "from_on"),
    [
        ("draft", 20_000, 6, 8),
        ("draft", 20_000, 12, 8),
        ("draft", 100_000, 6, 8),
        ("standard", 20_000, 6, 8),
        ("standard", 100_000, 2, 3),
        ("standard", 100_000, 6, 3),
    ],
)
def test_noisy_normals_weigh_less_and_clean_ones_as_before(
    name: str, count: int, degrees: float, from_on: float
) -> None:
    cloud = turned(paraboloid(0.0, places(count)), degrees)
    off = np.degrees(spacing_and_noise(cloud)[2])
    whole = sized(PRESETS[name], count).surface.normal
    weight = weights(cloud, PRESETS[name]).normal
    assert weight == pytest.approx(whole * min(1, (from_on / off) ** 2), rel=1e-3)
    assert (weight < whole) == (degrees > from_on)


def test_points_at_nearly_one_place_have_a_frequency() -> None:
    flat = np.column_stack([places(200), np.zeros(200)])
    far = np.concatenate([flat, [[1e20, 0, 0], [0, 1e20, 0]]])
    unit = Frame.around(cloud := PointCloud(far, np.tile([0.0, 0, 1], (202, 1))), 0.1).to_unit(cloud)
    assert suited(unit, PRESETS["draft"]).siren.first_omega_0 == PRESETS["draft"].dense_omega_0


@pytest.mark.parametrize("name", ["on_surface", "near_surface", "in_box", "pool"])
@pytest.mark.parametrize("count", [0, 2.5])
def test_of_every_domain_some_samples_are_drawn(name: str, count: float) -> None:
    with pytest.raises(InputError, match=f"{name} must be a whole number, at least 1; got {count}"):
        SurfaceConfig(**{name: count})


def test_weights_that_grow_by_factors_are_above_zero() -> None:
    for name in ("zero_level", "final_zero_level"):
        with pytest.raises(InputError, match=f"{name}, from or to which a weight grows, must be above 0; got 0"):
            SurfaceConfig(**{name: 0})


def test_the_papers_recipe_knows_nothing_of_it() -> None:
    cloud = turned(paraboloid(0.02), 20)
    assert suited(Frame.around(cloud, 0.1).to_unit(cloud), PRESETS["paper"]) == PRESETS["paper"]


def test_between_points_that_are_noisy_few_or_plenty_none_are_drawn() -> None:
    def between(noise: float, count: int) -> bool:
        return weights(paraboloid(noise, places(count)), PRESETS["fine"]).between

    assert [between(noise, 80_000) for noise in (0.0, 0.0005, 0.0015)] == [True, True, False]
    assert [between(0.0, count) for count in (50_000, 350_000)] == [False, False]
