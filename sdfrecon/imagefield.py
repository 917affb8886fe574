"""A fitted image: its colour, slopes and Laplacian anywhere between the pixels, and its picture at any size."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sdfrecon.frame import Frame
from sdfrecon.geometry import Floats, InputError
from sdfrecon.images import pixel_centers
from sdfrecon.siren import Siren, evaluate

Region = tuple[float, float, float, float]


def image_frame(height: int, width: int) -> Frame:
    """Pixels <-> the square [-1, 1]^2 around an image of that size: its longer side spans it."""
    return Frame((width / 2, height / 2), max(width, height) / 2)


@dataclass(frozen=True, eq=False)
class ImageField:
    """A function of the place in an image, in pixels (`sdfrecon.images`), whose value is the colour, 0 to 1.

    siren: the network, from the square [-1, 1]^2 around the image to 2 * colour - 1. height, width: the image's size,
    pixels. about: what made it (plain JSON).
    """

    siren: Siren
    height: int
    width: int
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def frame(self) -> Frame:
        """Pixels <-> [-1, 1]^2."""
        return image_frame(self.height, self.width)

    def value(self, xy: ArrayLike) -> Floats:
        """(n, c) colours at places (n, 2), pixels. Raises InputError where the shape differs."""
        return (self._map(xy, self.siren) + 1) / 2

    def gradient(self, xy: ArrayLike) -> Floats:
        """(n, c, 2) slopes of every channel to the right and down, a pixel, at places (n, 2), pixels.

        Raises InputError where the shape differs.
        """
        return self._map(xy, lambda unit: self.siren.jet(unit).gradient) / 2 / self.frame.scale

    def laplacian(self, xy: ArrayLike) -> Floats:
        """(n, c) Laplacian of every channel, a square pixel, at places (n, 2), pixels.

        Raises InputError where the shape differs.
        """
        return self._map(xy, lambda unit: self.siren.jet(unit).laplacian) / 2 / self.frame.scale**2

    def toned(self, gain: ArrayLike, offset: ArrayLike) -> ImageField:
        """The field whose colours are gain * colour + offset, (c,) each or one for all channels."""
        made = copy.deepcopy(self.siren)
        weight, bias = made.weights[-1], made.biases[-1]
        times, plus = (torch.as_tensor(a, dtype=bias.dtype, device=bias.device) for a in (gain, offset))
        with torch.no_grad():
            weight.mul_(times.reshape(-1, 1))
            bias.mul_(times).add_(times + 2 * plus - 1)
        return replace(self, siren=made)

    def render(self, height: int, width: int, region: Region | None = None) -> Floats:
        """(height, width, c) colours, about 0 to 1: of all or of a region (x0, y0, x1, y1), pixels of the image.

        Raises InputError where the region is not in the image.
        """
        colours = self.value(pixel_centers(height, width, self.check_region(region)))
        return colours.reshape(height, width, -1)

    def check_region(self, region: Region | None) -> Region:
        """The region, if there is none all of the image. Raises InputError for one that is not in it."""
        x0, y0, x1, y1 = (0, 0, self.width, self.height) if region is None else region
        if not (0 <= x0 < x1 <= self.width and 0 <= y0 < y1 <= self.height):
            raise InputError(
                f"the region must lie in the image, 0 0 {self.width} {self.height}, as X0 Y0 X1 Y1 with X0 < X1 and "
                f"Y0 < Y1; got {x0:g} {y0:g} {x1:g} {y1:g}"
            )
        return x0, y0, x1, y1

    def levels(self) -> tuple[Floats, Floats, Floats]:
        """Value (h, w, c), gradient (h, w, c, 2) and Laplacian (h, w, c) at the pixels, a pixel."""
        places, shape = pixel_centers(self.height, self.width), (self.height, self.width)
        levels = self.value(places), self.gradient(places), self.laplacian(places)
        return tuple(level.reshape(*shape, *level.shape[1:]) for level in levels)  # type: ignore[return-value]

    def _map(self, xy: ArrayLike, function: Callable[[Tensor], Tensor]) -> Floats:
        return evaluate(function, xy, self.frame, self.siren.weights[0].device)
