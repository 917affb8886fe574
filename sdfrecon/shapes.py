"""Exact distance fields and a virtual range scanner: ground truth by theorem."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np

from sdfrecon.geometry import Floats, PointCloud, unit_vectors

Distance = Callable[[Floats], Floats]
"""(n, 3) points -> (n,) exact signed distance, negative inside."""

Cast = Callable[[Floats, Floats], tuple[Floats, Floats]]
"""(n, 3) origins, (n, 3) unit directions -> (n,) distance to the first hit (inf for none), (n, 3) outward normals."""


def sphere(radius: float) -> Distance:
    """A ball."""
    return lambda p: np.linalg.norm(p, axis=-1) - radius


def torus(major: float, minor: float) -> Distance:
    """A ring around the z axis: `major` from the axis to the tube's middle, `minor` the tube's radius."""
    return lambda p: np.hypot(np.hypot(p[..., 0], p[..., 1]) - major, p[..., 2]) - minor


def union(*parts: Distance) -> Distance:
    """All parts as one: exact outside, and inside wherever the parts do not overlap."""
    return lambda p: np.min([part(p) for part in parts], axis=0)


RING_AND_BALL = union(torus(0.7, 0.25), sphere(0.35))
"""A ball in a ring that it does not touch, so exact everywhere: the shape of the scan in data/."""


def gradient(distance: Distance, points: Floats, step: float = 1e-5) -> Floats:
    """(n, 3) central differences of a distance, made unit length: the normals at points of its surface."""
    offsets = np.eye(3) * step
    slope = np.stack([distance(points + o) - distance(points - o) for o in offsets], axis=-1)
    return unit_vectors(slope)


def caster(distance: Distance, far: float) -> Cast:
    """Sphere tracing: every step is as long as the distance allows (Hart 1996)."""

    def cast(origins: Floats, directions: Floats) -> tuple[Floats, Floats]:
        t = np.zeros(len(origins))
        for _ in range(200):
            t = np.minimum(t + distance(origins + t[:, None] * directions), far)
        hit = (t < far) & (distance(origins + t[:, None] * directions) < 1e-6 * far)
        normals = np.zeros_like(origins)
        normals[hit] = gradient(distance, (origins + t[:, None] * directions)[hit])
        return np.where(hit, t, np.inf), normals

    return cast


@dataclass(frozen=True)
class Scanner:
    """Range cameras looking at an object from all sides.

    cameras: how many, spread evenly over a sphere. pixels: each takes pixels x pixels rays.
    noise: standard deviation along the ray, as a share of the object's bounding-box diagonal.
    """

    cameras: int = 10
    pixels: int = 150
    noise: float = 0.001

    def scan(
        self, cast: Cast, low: Floats, high: Floats, rng: np.random.Generator, views: Floats | None = None
    ) -> PointCloud:
        """What all cameras see, as one cloud; see `images`."""
        return reduce(PointCloud.joined, self.images(cast, low, high, rng, views))

    def images(
        self, cast: Cast, low: Floats, high: Floats, rng: np.random.Generator, views: Floats | None = None
    ) -> Iterator[PointCloud]:
        """What each camera sees of an object that fills the box from `low` (3,) to `high` (3,), world units.

        Rays are blocked by the object itself, so that what no camera sees stays empty. Normals are the surface's.
        views: (n, 3) unit directions from the object to the cameras, instead of `cameras` evenly spread ones.
        """
        center, diagonal = (low + high) / 2, float(np.linalg.norm(high - low))
        for view in evenly_spread(self.cameras) @ random_rotation(rng) if views is None else views:
            right = unit_vectors(np.cross(view, np.eye(3)[np.argmin(np.abs(view))]))
            up = np.cross(right, view)
            # A camera 1.5 diagonals away sees the object's bounding sphere (radius 0.5) within half a slope of 0.36.
            slope = np.linspace(-0.36, 0.36, self.pixels)
            u, v = (grid.reshape(-1, 1) for grid in np.meshgrid(slope, slope))
            directions = unit_vectors(u * right + v * up - view)
            origins = np.broadcast_to(center + 1.5 * diagonal * view, directions.shape)
            t, n = cast(origins, directions)
            hit = np.isfinite(t)
            t = t[hit] + rng.normal(0, self.noise * diagonal, hit.sum())
            yield PointCloud(origins[hit] + t[:, None] * directions[hit], n[hit])


def evenly_spread(count: int) -> Floats:
    """(count, 3) unit vectors on a Fibonacci spiral (Gonzalez 2010)."""
    i = np.arange(count) + 0.5
    z = 1 - 2 * i / count
    turn = np.pi * (1 + np.sqrt(5)) * i
    ring = np.sqrt(1 - z * z)
    return np.stack([ring * np.cos(turn), ring * np.sin(turn), z], axis=1)


def random_rotation(rng: np.random.Generator) -> Floats:
    """(3, 3) a rotation, uniform over all of them."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.linalg.det(q)
