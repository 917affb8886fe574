import numpy as np
import pytest
import torch
from test_meshing import Ball
from torch import Tensor

from sdfrecon.field import Field
from sdfrecon.frame import Frame
from sdfrecon.geometry import InputError
from sdfrecon.jet import Jet
from sdfrecon.siren import Siren, SirenConfig


class BallNetwork(Siren):
    """A network that happens to be the exact distance to a sphere of radius 0.6."""

    def __init__(self) -> None:
        super().__init__(3, 1, SirenConfig(1, 0))

    def forward(self, x: Tensor) -> Tensor:
        return Ball().value(x)

    def jet(self, x: Tensor) -> Jet:
        return Ball().jet(x)


CENTER, SCALE = np.array([1e6, 2e6, -50.0]), 10.0
FIELD = Field(BallNetwork(), Frame((1e6, 2e6, -50.0), SCALE))
POINTS = np.random.default_rng(0).uniform(-1, 1, (200, 3)) * SCALE + CENTER
RADIUS = np.linalg.norm(POINTS - CENTER, axis=1)


def test_distances_and_directions_are_in_the_scans_units() -> None:
    np.testing.assert_allclose(FIELD.distance(POINTS), RADIUS - 6, atol=1e-5)
    np.testing.assert_allclose(FIELD.gradient(POINTS), (POINTS - CENTER) / RADIUS[:, None], atol=1e-5)
    assert FIELD.distance([[1e6, 2e6, -50.0]]).tolist() == pytest.approx([-6])


def test_beyond_the_box_the_field_goes_on_without_a_jump() -> None:
    side = CENTER + [SCALE, 3, 2]
    before, after = FIELD.distance([side - [1e-3, 0, 0], side + [1e-3, 0, 0]])
    assert after - before == pytest.approx(2e-3, rel=0.2)
    far = CENTER + np.array([[30.0, 0, 0], [20, 20, 20], [-15, 12, 3]])
    assert (FIELD.distance(far) >= np.linalg.norm(far - CENTER, axis=1) - 6 - 1e-4).all()
    far = np.append(far, [[1e20, 0, 0], [0, -1e25, 1e25]], axis=0)  # what stands for nothing in some files
    np.testing.assert_allclose(np.linalg.norm(FIELD.gradient(far), axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(FIELD.distance(far[-2:]), [1e20, 2**0.5 * 1e25], rtol=1e-5)


def test_what_is_inside_all_around_is_so_beyond_the_box() -> None:
    class Room(BallNetwork):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -super().forward(x)

    far = CENTER + np.array([[30.0, 0, 0], [20, 20, 20], [-15, 12, 3]])
    assert (Field(Room(), FIELD.frame).distance(far) <= 6 - np.linalg.norm(far - CENTER, axis=1) + 1e-4).all()


def test_a_room_is_inside_all_around_and_terrain_on_one_side() -> None:
    class Ground(BallNetwork):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, 2:]

    class Inward(BallNetwork):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -super().forward(x)

    assert Field(Inward(), FIELD.frame).inside_out
    assert not FIELD.inside_out
    assert not Field(Ground(), FIELD.frame).inside_out


def test_a_level_behind_a_rooms_walls_has_its_surface_beyond_the_box() -> None:
    class Room(BallNetwork):
        def forward(self, x: Tensor) -> Tensor:
            return 0.9 - x.abs().amax(dim=1, keepdim=True)

        def jet(self, x: Tensor) -> Jet:
            way = -x.sign() * (x.abs() == x.abs().amax(dim=1, keepdim=True))
            return Jet(self(x), lambda: way[:, None])

    room = Field(Room(), FIELD.frame)
    assert room.inside_out
    mesh = room.mesh(64, level=-3.0)
    assert mesh.is_watertight
    away = np.abs(mesh.vertices - CENTER).max(axis=1)
    surface = away < 12.5  # the rest is the cap at the grown cube's border
    assert surface.mean() > 0.3
    assert away[surface].max() == pytest.approx(12, abs=0.05)


def test_a_program_around_it_that_computes_coarsely_or_finely_changes_nothing() -> None:
    field = Field(Siren(3, 1, SirenConfig(32, 2), torch.Generator().manual_seed(0)), FIELD.frame)
    expected = field.distance(POINTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(field.distance(POINTS), expected)
        assert not field.inside_out
    torch.set_default_dtype(torch.float64)
    try:
        again = Field(Siren(3, 1, SirenConfig(32, 2), torch.Generator().manual_seed(0)), FIELD.frame)
        np.testing.assert_array_equal(again.distance(POINTS), expected)
        assert FIELD.mesh(16).is_watertight
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_gradient_is_that_of_the_distance_inside_and_beyond() -> None:
    local = Field(BallNetwork(), Frame((0.0, 0.0, 0.0), 1.0))
    points = np.random.default_rng(1).uniform(-2, 2, (100, 3))
    steps = np.eye(3) * 1e-3
    slope = np.stack([local.distance(points + s) - local.distance(points - s) for s in steps], axis=1) / 2e-3
    smooth = np.abs(np.abs(points) - 1).min(axis=1) > 2e-3
    slope /= np.linalg.norm(slope, axis=1, keepdims=True)
    np.testing.assert_allclose(local.gradient(points)[smooth], slope[smooth], atol=5e-3)


@pytest.mark.parametrize(("level", "radius"), [(0.0, 6.0), (1.5, 7.5), (-2.0, 4.0), (8.0, 14.0)])
def test_a_level_is_the_surface_at_that_distance(level: float, radius: float) -> None:
    mesh = FIELD.mesh(64, level)
    found = np.linalg.norm(mesh.vertices - CENTER, axis=1)
    inside = (np.abs(mesh.vertices - CENTER) < SCALE).all(axis=1)
    np.testing.assert_allclose(found[inside], radius, atol=1e-4)
    assert (found[~inside] <= radius + 1e-4).all(), "beyond the box the distance is never too small"
    assert mesh.is_watertight


def test_levels_without_surface_name_the_scans_units() -> None:
    with pytest.raises(InputError, match=r"\(level -7 in the scan's units\)"):
        FIELD.mesh(32, -7.0)


@pytest.mark.parametrize("resolution", [1, 512.0])
def test_cells_are_whole_and_at_least_two(resolution: float) -> None:
    with pytest.raises(InputError, match=r"whole number of cells, at least 2; got (1|512\.0)$"):
        FIELD.mesh(resolution)


def test_points_must_be_rows_of_three() -> None:
    with pytest.raises(InputError, match=r"points must be \(n, 3\); got \(3,\)"):
        FIELD.distance([1.0, 2.0, 3.0])
    assert len(FIELD.distance(np.empty((0, 3)))) == 0


def test_another_device_gets_a_copy() -> None:
    field = Field(Siren(3, 1), Frame((0.0, 0.0, 0.0), 1.0))
    assert field.on(torch.device("meta")).device.type == "meta"
    assert field.device.type == "cpu"


def test_levels_are_finite() -> None:
    with pytest.raises(InputError, match="must be a finite distance; got inf"):
        FIELD.mesh(32, np.inf)
