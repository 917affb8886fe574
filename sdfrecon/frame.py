"""The similarity between a signal's own units (world) and the cube [-1, 1]^d in which fields are fitted (unit)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from sdfrecon.geometry import Floats, InputError, Mesh, PointCloud

Length = TypeVar("Length", float, Floats)


@dataclass(frozen=True)
class Frame:
    """unit = (world - center) / scale: one scale for all axes, since any other would destroy distances.

    center: the cube's middle, world units. scale: half the cube's edge, world units.
    """

    center: tuple[float, ...]
    scale: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.center).all() and np.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"a frame needs a finite centre and a scale above 0; got {self.center}, {self.scale}")

    @classmethod
    def around(cls, cloud: PointCloud, margin: float = 0.1) -> Frame:
        """The frame whose cube holds the cloud with `margin` (a share of the cloud's half extent) to spare.

        Raises InputError for a cloud without extent.
        """
        if not len(cloud):
            raise InputError("expected points whose coordinates are finite; got none: check the file")
        low, high = cloud.points.min(axis=0), cloud.points.max(axis=0)
        x, y, z = (low + high) / 2
        half = float((high - low).max()) / 2
        if not half > 0:
            raise InputError("the points must spread over space; got all of them at one place: check the file")
        return cls((float(x), float(y), float(z)), half * (1 + margin))

    def points_to_unit(self, points_world: Floats) -> Floats:
        """(n, d) world -> unit. The centre is subtracted in float64, so that large coordinates keep their digits."""
        return (points_world - np.asarray(self.center)) / self.scale

    def points_to_world(self, points_unit: Floats) -> Floats:
        """(n, d) unit -> world."""
        return points_unit * self.scale + np.asarray(self.center)

    def distance_to_unit(self, distance_world: Length) -> Length:
        """A length or many, world -> unit."""
        return distance_world / self.scale

    def distance_to_world(self, distance_unit: Length) -> Length:
        """A length or many, unit -> world."""
        return distance_unit * self.scale

    def cell(self, resolution: int) -> float:
        """The edge, world units, of one of so many cells along the cube."""
        return 2 * self.scale / resolution

    def to_unit(self, cloud: PointCloud) -> PointCloud:
        """The cloud in unit coordinates; its normals stay, since a similarity without rotation keeps directions."""
        return replace(cloud, points=self.points_to_unit(cloud.points))

    def to_world(self, mesh: Mesh) -> Mesh:
        """The mesh in world coordinates."""
        return replace(mesh, vertices=self.points_to_world(mesh.vertices))
