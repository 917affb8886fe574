from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from sdfrecon.geometry import InputError
from sdfrecon.jet import Jet
from sdfrecon.lattice import BLOCK, Lattice, ScalarField
from sdfrecon.meshing import extract_mesh, polygonise
from sdfrecon.siren import Siren, SirenConfig


class Ball:
    """The exact distance to a sphere, counting how often it is asked."""

    device = torch.device("cpu")

    def __init__(self, radius: float = 0.6, center: tuple[float, float, float] = (0, 0, 0)) -> None:
        self.radius, self.center, self.asked = radius, torch.tensor(center), 0

    def value(self, unit: Tensor) -> Tensor:
        self.asked += len(unit)
        return (unit - self.center).norm(dim=-1, keepdim=True) - self.radius

    def jet(self, unit: Tensor) -> Jet:
        way = unit - self.center
        return Jet(self.value(unit), lambda: torch.nn.functional.normalize(way, dim=-1)[:, None])


class Network:
    """A SIREN as it is born: waves everywhere, nothing like a distance; half the cube is inside."""

    device = torch.device("cpu")

    def __init__(self, seed: int, width: int = 32, layers: int = 2, omega: float = 10.0) -> None:
        self.siren = Siren(3, 1, SirenConfig(width, layers, omega, 30.0), torch.Generator().manual_seed(seed))
        points = torch.rand(1000, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        with torch.no_grad():
            self.siren.biases[-1] -= self.siren(points).median()
        self.value = self.siren.forward
        self.jet = self.siren.jet


@pytest.mark.parametrize("resolution", [9, 32, 50])
def test_a_sphere_is_closed_outward_and_on_its_level(resolution: int) -> None:
    mesh = extract_mesh(Ball(), resolution)
    assert mesh.is_watertight
    assert mesh.components().max() == 0
    assert 0 < mesh.volume < 4 / 3 * np.pi * 0.6**3
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 0.6, atol=1e-6)
    np.testing.assert_allclose(mesh.normals, mesh.vertices / 0.6, atol=1e-5)
    assert mesh.areas.min() > 0


def test_a_spheres_mesh_error_falls_with_the_square_of_the_cell() -> None:
    def error(resolution: int) -> float:
        mesh = extract_mesh(Ball(), resolution)
        middles = mesh.vertices[mesh.faces].mean(axis=1)
        return float(np.abs(np.linalg.norm(middles, axis=1) - 0.6).max())

    errors = [error(n) for n in (24, 48, 96)]
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(4, rel=0.25)


def test_work_grows_with_the_surface_not_the_volume() -> None:
    def asked(resolution: int) -> int:
        ball = Ball()
        extract_mesh(ball, resolution)
        return ball.asked

    assert asked(256) / asked(64) < 4**2 * 1.1


def triangles(lattice: Lattice, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    vertices, faces = polygonise(lattice, blocks)
    first = faces.argmin(axis=1)[:, None]
    turned = np.take_along_axis(faces, (first + np.arange(3)) % 3, axis=1)
    return vertices, turned[np.lexsort(turned.T)]


@pytest.mark.parametrize("field", [Network(0), Network(1, layers=1, omega=20.0), Ball(0.3, (0.31, -0.2, 0.1))])
@pytest.mark.parametrize("level", [0.0, 0.02])
@torch.inference_mode()
def test_sparse_and_dense_agree_triangle_for_triangle(field: ScalarField, level: float) -> None:
    sparse, dense = (Lattice(field, 50, level, 1.0) for _ in range(2))
    every = np.argwhere(np.ones([dense.blocks] * 3, bool))
    dense.grow(every, np.full(len(every), np.inf))
    assert np.isfinite(dense.values[dense.rows[:-1, :-1, :-1].ravel()]).all(), "dense means every lattice point"
    ours, all_of_them = triangles(sparse, sparse.grow(*sparse.candidates())), triangles(dense, every)
    np.testing.assert_array_equal(ours[1], all_of_them[1])
    # A matrix product rounds a row by where in the batch it stands.
    np.testing.assert_allclose(ours[0], all_of_them[0], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_a_surface_found_anywhere_is_followed_to_its_end() -> None:
    whole = Lattice(Ball(), 64, 0.0, 1.0)
    blocks = whole.grow(*whole.candidates())
    part = Lattice(Ball(), 64, 0.0, 1.0)
    one = np.array([[0.6, 0.0, 0.0]])
    start = ((one + 1) / part.cell // BLOCK).astype(np.int64)
    # A slope of zero promises that no cell holds the surface but where a sample shows it.
    followed = part.grow(start, np.zeros(1))
    for a, b in zip(triangles(whole, blocks), triangles(part, followed), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", range(5))
def test_any_network_gives_a_closed_mesh_without_degenerate_triangles(seed: int) -> None:
    mesh = extract_mesh(Network(seed), 40)
    assert mesh.is_watertight
    assert mesh.areas.min() > 0
    with torch.no_grad():
        outwards = mesh.face_normals / np.linalg.norm(mesh.face_normals, axis=1, keepdims=True)
        middle = torch.tensor(mesh.vertices[mesh.faces].mean(axis=1), dtype=torch.float32)
        slope = Network(seed).jet(middle).gradient[:, 0].numpy()
    inner = (middle.abs().max(dim=1).values < 0.9).numpy()
    assert ((outwards * slope).sum(axis=1) > 0)[inner].mean() > 0.99, "triangles look towards larger values"


def test_vertices_of_a_network_lie_on_its_level() -> None:
    network = Network(3)
    mesh = extract_mesh(network, 96, level=0.01)
    inner = np.abs(mesh.vertices).max(axis=1) < 0.95
    with torch.no_grad():
        value = network.value(torch.tensor(mesh.vertices[inner], dtype=torch.float32))[:, 0].numpy()
    assert np.quantile(np.abs(value - 0.01), 0.99) < 1e-5


def test_what_leaves_the_cube_is_capped() -> None:
    mesh = extract_mesh(Ball(0.7, (0.6, 0, 0)), 40)
    assert mesh.is_watertight
    assert mesh.vertices[:, 0].max() == pytest.approx(1, abs=2 / 40)


def test_a_larger_cube_holds_an_offset_surface() -> None:
    mesh = extract_mesh(Ball(0.9), 64, level=0.5, half=1.5)
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 1.4, atol=1e-5)


def test_values_that_are_no_numbers_are_an_error() -> None:
    class Overflowing(Ball):
        def value(self, unit: Tensor) -> Tensor:
            return torch.where(unit[:, :1] > 0.3, torch.nan, super().value(unit))

    with pytest.raises(InputError, match="values are no numbers at some places"):
        extract_mesh(Overflowing(), 32)


def test_no_surface_is_an_error() -> None:
    with pytest.raises(InputError, match="no surface at level 9"):
        extract_mesh(Ball(), 32, level=9.0)
    with pytest.raises(InputError, match="at least 2; got 1"):
        extract_mesh(Ball(), 1)
