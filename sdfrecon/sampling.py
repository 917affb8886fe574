"""Domains: where the constraints of a problem are sampled, all on one device from one torch.Generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sdfrecon.geometry import InputError

Attributes = Mapping[str, Tensor]
PATCH = 256


class Domain(Protocol):
    """A set to draw from: every draw gives points (n, d) and what is known at each of them, (n, ...) tensors."""

    def sample(self, generator: torch.Generator) -> tuple[Tensor, Attributes]:
        """Points of this domain, fresh at every call, with their attributes."""


@dataclass(frozen=True)
class Pool:
    """A table of points (p, d) with attributes (p, ...), of which `count` rows are drawn, with replacement.

    Where that is as many as there are, every draw is the whole table. Raises InputError for an empty one.
    """

    points: Tensor
    attributes: Attributes
    count: int

    def __post_init__(self) -> None:
        if not len(self.points):
            raise InputError("there is nothing to draw from: a domain needs a point")

    def sample(self, generator: torch.Generator) -> tuple[Tensor, Attributes]:
        if self.count >= len(self.points):
            return self.points, self.attributes
        device = self.points.device
        return self.at(torch.randint(len(self.points), (self.count,), generator=generator, device=device))

    def at(self, rows: Tensor) -> tuple[Tensor, Attributes]:
        """These rows of the table."""
        return self.points[rows], {name: values[rows] for name, values in self.attributes.items()}


@dataclass(frozen=True)
class Patches(Pool):
    """A table of which about `count` rows are drawn in whole patches.

    It is in Z-order (Morton 1966), so that PATCH rows in a row fill a small patch. A draw takes a patch from each of
    count / PATCH equal parts of the table, or all of it where that is as many as there are.
    """

    @classmethod
    def of(cls, points: Tensor, attributes: Attributes, count: int) -> Patches:
        """Of points in any order."""
        return cls(*Pool(points, attributes, count).at(z_order(points)), count)

    def sample(self, generator: torch.Generator) -> tuple[Tensor, Attributes]:
        patches, wanted = -(-len(self.points) // PATCH), max(1, self.count // PATCH)
        if wanted >= patches:
            return self.points, self.attributes
        device = self.points.device
        shift = torch.rand(wanted, generator=generator, device=device, dtype=torch.float32)
        parts = torch.arange(wanted, device=device) + shift
        first = ((parts * (patches / wanted)).long() * PATCH).clamp_max(len(self.points) - PATCH)
        return self.at((first[:, None] + torch.arange(PATCH, device=device)).flatten())


@dataclass(frozen=True)
class Raster:
    """A picture (h, w, c) over the rectangle between corners (2, 2), and `count` places drawn anywhere in it.

    What is known there, its `value`, is interpolated as in Catmull and Rom 1974: it passes through the pixels, and at
    them has the slopes of central differences.
    """

    picture: Tensor
    corners: Tensor
    count: int

    def sample(self, generator: torch.Generator) -> tuple[Tensor, Attributes]:
        height, width, _ = self.picture.shape
        share = torch.rand(self.count, 2, generator=generator, device=self.picture.device, dtype=torch.float32)
        place = torch.stack([share[:, 0] * width, share[:, 1] * height], dim=1) - 0.5  # from the first pixel's centre
        first = place.floor()
        weights = _catmull_rom(place - first)
        four = first.long()[..., None] + torch.arange(-1, 3, device=share.device)
        columns, rows = four[:, 0].clamp(0, width - 1), four[:, 1].clamp(0, height - 1)
        around = self.picture[rows[:, :, None], columns[:, None]]
        value = torch.einsum("nrsc,nr,ns->nc", around, weights[:, 1], weights[:, 0])
        return self.corners[0] + share * (self.corners[1] - self.corners[0]), {"value": value}


@dataclass(frozen=True)
class Box:
    """`count` points uniform in [-1, 1]^dim."""

    dim: int
    count: int

    def sample(self, generator: torch.Generator) -> tuple[Tensor, Attributes]:
        return uniform_points(self.count, self.dim, generator), {}


def _catmull_rom(t: Tensor) -> Tensor:
    """(..., 4): what the samples at -1, 0, 1 and 2 weigh at t (...) between 0 and 1."""
    return 0.5 * torch.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], dim=-1
    )


def z_order(points: Tensor) -> Tensor:
    """(n,) the order of points (n, d) in [-1, 1]^d along the Z-order curve, which keeps neighbours together."""
    cells = ((points + 1) * 32767).long().clamp(0, 65535)
    key = torch.zeros(len(points), dtype=torch.long, device=points.device)
    for bit in range(16):
        for axis in range(points.shape[1]):
            key |= (cells[:, axis] >> bit & 1) << (bit * points.shape[1] + axis)
    return key.argsort()


def uniform_points(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """(count, dim) uniform in [-1, 1]^dim, on the generator's device."""
    return torch.rand(count, dim, generator=generator, device=generator.device, dtype=torch.float32) * 2 - 1


def moved(points: Tensor, spread: Tensor, generator: torch.Generator) -> Tensor:
    """(n, d): points (n, d), each moved by a Gaussian of its own deviation, spread (n,), but not out of the box."""
    noise = torch.randn(points.shape, generator=generator, device=generator.device, dtype=points.dtype)
    return (points + noise * spread[:, None]).clamp(-1, 1)
