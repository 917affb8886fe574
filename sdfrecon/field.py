"""A fitted shape: its signed distance anywhere, in the scan's own units, and its surface at any resolution."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sdfrecon.frame import Frame
from sdfrecon.geometry import Floats, InputError, Mesh
from sdfrecon.jet import Jet
from sdfrecon.meshing import extract_mesh
from sdfrecon.siren import Siren, evaluate


@dataclass(frozen=True, eq=False)
class Field:
    """A signed distance function: negative inside, in the scan's units.

    siren: the network, unit coordinates -> unit distance. frame: world <-> unit. about: what made it (plain JSON).

    The network knows the cube that `frame` puts around the scan. Beyond it the field goes on as the value at the
    cube's nearest point, and the way there with its sign: no nearer to zero than the true distance, outside of an
    object and inside of what surrounds it, as a room's walls and the ground do.
    """

    siren: Siren
    frame: Frame
    about: dict[str, Any] = field(default_factory=dict)

    def distance(self, points: ArrayLike) -> Floats:
        """(n,) signed distances at points (n, 3), both world units. Raises InputError where the shape differs."""
        return self.frame.distance_to_world(self._map(points, lambda unit: self.value(unit)[:, 0]))

    def gradient(self, points: ArrayLike) -> Floats:
        """(n, 3) unit vectors at points (n, 3), world units: the way in which the distance grows fastest.

        Raises InputError where the shape differs.
        """
        return self._map(points, lambda unit: torch.nn.functional.normalize(self.jet(unit).gradient[:, 0], dim=-1))

    def mesh(self, resolution: int = 256, level: float = 0.0) -> Mesh:
        """The surface at distance `level` (world units, outside is positive), over `resolution` cells along an axis.

        Watertight, outward, with unit normals, which are the field's gradient, on a cap at the cube's border too. The
        cube grows by a level that lies on the side on which all around it is.
        Raises InputError where there is no such surface or the field is no number, for a level that is not finite, and
        for a resolution that is no whole number or below 2.
        """
        if not np.isfinite(level):
            raise InputError(f"the level must be a finite distance; got {level}")
        unit = self.frame.distance_to_unit(level)
        grows = max(-unit if self.inside_out else unit, 0.0)
        try:
            return self.frame.to_world(extract_mesh(self, resolution, unit, half=1 + grows))
        except InputError as error:
            raise InputError(f"{error} (level {level:g} in the scan's units)" if level else str(error)) from None

    @property
    def inside_out(self) -> bool:
        """Whether all around the cube is inside, as of a room."""
        corners = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), axis=-1).reshape(-1, 3)
        return bool((self.distance(self.frame.points_to_world(corners)) < 0).all())

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return self.siren.weights[0].device

    def value(self, unit: Tensor) -> Tensor:
        """(n, 1) unit distances at unit points (n, 3)."""
        inside = unit.clamp(-1, 1)
        value = self.siren(inside)
        return value + value.sign() * _length(unit - inside)

    def jet(self, unit: Tensor) -> Jet:
        """The field's jet at unit points (n, 3); beyond the cube, the gradient of the continuation."""
        inside = unit.clamp(-1, 1)
        jet, beyond = self.siren.jet(inside), unit - inside
        length = _length(beyond)

        def gradient() -> Tensor:
            away = jet.value.sign() * (beyond / length.clamp(min=1e-30))
            return (jet.gradient * (beyond == 0)[:, None]) + away[:, None]

        return Jet(jet.value + jet.value.sign() * length, gradient)

    def _map(self, points: ArrayLike, function: Callable[[Tensor], Tensor]) -> Floats:
        return evaluate(function, points, self.frame, self.device)

    def on(self, device: torch.device) -> Field:
        """The same field with a copy of its network on `device`."""
        return replace(self, siren=copy.deepcopy(self.siren).to(device))


def _length(vectors: Tensor) -> Tensor:
    """(n, 1) of vectors (n, 3), whose squares may be more than float32 holds."""
    return torch.linalg.vector_norm(vectors, dim=-1, keepdim=True, dtype=torch.float64).to(vectors.dtype)
