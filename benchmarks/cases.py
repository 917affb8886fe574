"""The benchmark's shapes and the scans that are made of them: known surfaces, so that every error can be measured."""

from collections.abc import Callable
from functools import reduce

import numpy as np
import torch
from machine import SHARED
from torch import Tensor

from sdfrecon.files import read_mesh
from sdfrecon.geometry import Floats, Mesh, PointCloud, unit_vectors
from sdfrecon.jet import Jet
from sdfrecon.meshing import extract_mesh
from sdfrecon.metrics import first_hits, nearest, sample_surface
from sdfrecon.shapes import RING_AND_BALL, Cast, Scanner, evenly_spread, gradient, random_rotation

FAR, UNSEEN = 0.03, 0.1


class RingAndBall:
    """The exact distance to the project's own shape, as meshing sees a field."""

    device = torch.device("cpu")

    def value(self, unit: Tensor) -> Tensor:
        return torch.from_numpy(RING_AND_BALL(unit.double().numpy())[:, None])

    def jet(self, unit: Tensor) -> Jet:
        slope = torch.from_numpy(gradient(RING_AND_BALL, unit.double().numpy())[:, None])
        return Jet(self.value(unit), lambda: slope)


def shapes() -> list[str]:
    """Names of the shapes: the exact one, and the ground-truth meshes where there are any."""
    return ["ring_and_ball", *sorted(path.stem for path in (SHARED / "gt").glob("*.ply"))]


def truth(shape: str) -> Mesh:
    """The surface to be found."""
    return extract_mesh(RingAndBall(), 256) if shape == "ring_and_ball" else read_mesh(SHARED / "gt" / f"{shape}.ply")


def caster(mesh: Mesh) -> Cast:
    """Rays against a mesh, whose normals are turned towards the ray's start."""

    def cast(origins: Floats, directions: Floats) -> tuple[Floats, Floats]:
        face, weights = first_hits(mesh, origins, directions)
        hits = np.einsum("nk,nkd->nd", weights, mesh.vertices[mesh.faces[face]])
        distance = np.where(face >= 0, np.linalg.norm(hits - origins, axis=1), np.inf)
        normals = unit_vectors(mesh.face_normals[face])
        return distance, normals * -np.sign((normals * directions).sum(axis=1, keepdims=True))

    return cast


def clean(mesh: Mesh, rng: np.random.Generator) -> PointCloud:
    """100,000 points on the surface."""
    return PointCloud(*sample_surface(mesh, 100_000, rng))


def scan(mesh: Mesh, rng: np.random.Generator) -> PointCloud:
    """Ten range cameras all around, noise of 0.1% of the diagonal along the ray, and what no camera sees is missing."""
    return Scanner().scan(caster(mesh), *_box(mesh), rng)


def noisy(mesh: Mesh, rng: np.random.Generator) -> PointCloud:
    """50,000 points moved by noise of 0.5% of the diagonal along the normal, and the normals turned by 10 degrees."""
    points, normals = sample_surface(mesh, 50_000, rng)
    sideways = unit_vectors(np.cross(normals, rng.normal(size=normals.shape)))
    turned = np.cos(np.radians(10)) * normals + np.sin(np.radians(10)) * sideways
    return PointCloud(points + rng.normal(0, 0.005 * mesh.diagonal, (len(points), 1)) * normals, turned)


def sparse(mesh: Mesh, rng: np.random.Generator) -> PointCloud:
    """3,000 points on the surface."""
    return PointCloud(*sample_surface(mesh, 3_000, rng))


def unseen(mesh: Mesh, rng: np.random.Generator) -> PointCloud:
    """Ten range cameras on one side: the widest cap of directions that leaves a tenth of the surface far from a point.

    Far is 3% of the diagonal. The cap is found by halving; the narrowest is taken where even that leaves less.
    """
    towards, low, high = random_rotation(rng), 0.1, 2.0  # of the sphere's height: 2 is all of it
    samples, _ = sample_surface(mesh, 10_000, np.random.default_rng(0))
    kept = None
    while kept is None or high - low > 0.02:
        cap = low if kept is None else (low + high) / 2
        views = evenly_spread(10)
        z = 1 - cap * (1 - views[:, 2]) / 2
        ring = views[:, :2] / np.linalg.norm(views[:, :2], axis=1, keepdims=True)
        directions = np.concatenate([ring * np.sqrt(1 - z**2)[:, None], z[:, None]], axis=1) @ towards
        cloud = Scanner().scan(caster(mesh), *_box(mesh), rng, directions)
        enough = (nearest(samples, cloud)[0] > FAR * mesh.diagonal).mean() >= UNSEEN
        if enough or kept is None:
            kept, low = cloud, cap
        else:
            high = cap
    return kept


def outliers(mesh: Mesh, rng: np.random.Generator) -> PointCloud:
    """The range scan, and 5% more points anywhere in its box with random normals."""
    cloud, (low, high) = scan(mesh, rng), _box(mesh)
    count = len(cloud) // 20
    return cloud.joined(PointCloud(rng.uniform(low, high, (count, 3)), unit_vectors(rng.normal(size=(count, 3)))))


def misaligned(mesh: Mesh, rng: np.random.Generator) -> PointCloud:
    """The range scan, each camera's image moved by 0.3% of the diagonal and turned by 0.3 degrees about the middle."""
    low, high = _box(mesh)
    center, images = (low + high) / 2, []
    for image in Scanner().images(caster(mesh), low, high, rng):
        assert image.normals is not None
        axis, shift = unit_vectors(rng.normal(size=(2, 3)))
        k = np.cross(np.eye(3), axis) * np.radians(0.3)
        turn = np.eye(3) + k + k @ k / 2  # a rotation up to the third power of so small an angle
        moved = (image.points - center) @ turn + center + 0.003 * mesh.diagonal * shift
        images.append(PointCloud(moved, unit_vectors(image.normals @ turn)))
    return reduce(PointCloud.joined, images)


def lines(mesh: Mesh, rng: np.random.Generator) -> PointCloud:
    """Points on parallel planes 2% of the diagonal apart, 20 times as dense there, moved by 0.1% along the normal."""
    apart, band = 0.02 * mesh.diagonal, 0.0005 * mesh.diagonal
    points, normals = sample_surface(mesh, int(mesh.areas.sum() / (apart / 20 * band)), rng)
    on_a_line = (points @ random_rotation(rng)[0]) % apart < band
    points, normals = points[on_a_line], normals[on_a_line]
    return PointCloud(points + rng.normal(0, 0.001 * mesh.diagonal, (len(points), 1)) * normals, normals)


SCANS: dict[str, Callable[[Mesh, np.random.Generator], PointCloud]] = {
    scan.__name__: scan for scan in (clean, scan, noisy, sparse, unseen, outliers, misaligned)
}
ALL = SCANS | {"lines": lines}
"""Lines are measured apart: what is asked of the mean is asked of the others."""


def _box(mesh: Mesh) -> tuple[Floats, Floats]:
    return mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
