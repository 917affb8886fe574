"""What decides a fit: its configuration, the presets, and what a scan makes of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.spatial import cKDTree

from sdfrecon.fit import FitConfig
from sdfrecon.geometry import InputError, PointCloud
from sdfrecon.lattice import check_resolution
from sdfrecon.noise import evened, spacing_and_noise
from sdfrecon.problems import SurfaceConfig
from sdfrecon.siren import SirenConfig


@dataclass(frozen=True)
class ReconstructConfig:
    """Everything that decides the result, but the scan.

    The network's size, its batches, Muon's step, the weights of points and normals and what is drawn between points are
    the most there may be: few points, and noisy ones, get less; a momentum, the normals' noise and the eikonal term at
    the points the least; few points lower the first frequency, and dense ones raise it (`suited`). Raises InputError
    for a resolution, a margin or a trim that cannot be.
    """

    siren: SirenConfig = field(default_factory=SirenConfig)
    dense_omega_0: float = 60.0
    """To which the first layer's frequency may be raised where points are dense."""
    surface: SurfaceConfig | None = field(default_factory=SurfaceConfig)
    """Samples and weights of our loss; None takes the loss of the SIREN paper, and the rest as it is here, whatever the
    scan."""
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(640, muon_learning_rate=2.2e-3, muon_momentum=0.9, decay=1.5, bfloat16=True)
    )
    dense_steps: int | None = None
    """Steps of the fit where points are many, in place of `fit`'s: more pay there. None has `fit`'s everywhere,
    as a fit of one's own should."""
    resolution: int = 256
    """Cells along the box's edge when the surface is turned into triangles."""
    margin: float = 0.1
    """Room around the scan, as a share of half its longest side; at least 0.01, for what leaves it to be told."""
    trim: float | None = None
    """Cut what lies farther than this from all points, back to half of it, in the scan's units; None decides by the
    scan, 0 never cuts."""
    seed: int = 0
    """Of every random draw."""

    def __post_init__(self) -> None:
        check_resolution(self.resolution)
        for name, value, least in (("margin", self.margin, 0.01), ("trim", self.trim or 0, 0)):
            if value is None or not least <= value < np.inf:
                raise InputError(f"the {name} must be {least} or more; got {value}")


# Muon's step moves every singular value alike; what that does to a layer's output grows with sqrt(width). A network
# that can hold the detail learns it sooner from the normals; a small one would lose sight of the whole over it.
_WEIGHTS = SurfaceConfig(on_surface=2048, normal=3000.0, normal_noise=3.0)
_STANDARD = ReconstructConfig(
    SirenConfig(width=256, hidden_layers=3),
    surface=_WEIGHTS,
    fit=FitConfig(steps=1000, muon_learning_rate=1.3e-3, decay=1.5, bfloat16=True),
    dense_steps=2000,
    resolution=448,
)
PRESETS = {
    "draft": ReconstructConfig(dense_steps=800),
    "standard": _STANDARD,
    "fine": replace(
        _STANDARD,
        surface=replace(_WEIGHTS, between=True),
        fit=replace(_STANDARD.fit, steps=2000),
        dense_steps=6000,
        resolution=512,
    ),
    "paper": ReconstructConfig(
        SirenConfig(256, hidden_layers=3, hidden_omega_0=30.0),
        surface=None,
        fit=FitConfig(10_000, learning_rate=1e-4, muon_learning_rate=None, warmup=0, final_rate=1.0, clip=1.0),
    ),
}
WAVE = 10.5
"""Length of a wave of the first layer's frequency, in distances to the eighth neighbour (of lines, of an even part)."""
FEW_WAVE = 7.0
"""Length of the shortest wave, in distances to the eighth neighbour (of all points), that the first layer has where
points are too few for its own frequency: shorter ones invent what is between them."""
CALM = 0.09
"""Noise, in distances to the eighth neighbour, up to which it may be detail: clean points have some, too."""
FOLLOWED = 0.0025
"""Noise, in unit coordinates, up to which the network evens it out by itself. Points with more than both are noisy."""
NOISY_EIKONAL = 100.0
"""What the eikonal term weighs at noisy points: where f cannot be 0, a flat field is nearer to it."""
WIDTH, LEAST_WIDTH = 8.75, 128
"""Sines in each layer, times the cube root of the number of points, so that 25,000 have 256; and at least."""
MANY = 60_000
"""Points from which on more than two hidden layers pay, heavier normals, more steps, and a calmer momentum with larger
ones: with few these cost a little, most where parts are unseen."""
FEW_RATE = 1.95e-3
"""Muon's step, at most, with fewer."""
PLENTY = 300_000
"""Points from which on those between them are not drawn: `fine` comes to each point some forty times at most."""
LEAST_BATCH = 256


def suited(unit: PointCloud, config: ReconstructConfig) -> ReconstructConfig:
    """The configuration for a scan: `sized`, as fine as its points in the first layer, and as true to them as they are.

    The first frequency is raised to a wave of WAVE where points are dense, and lowered to one of FEW_WAVE where they
    are few. Where they are noisy, a surface through all of them would be the noise: they weigh the more, the more they
    are and the less noisy, by the square root of both, and the eikonal term more. Noisy normals weigh less, by the
    square. Between points, none are drawn where there is any noise to speak of.
    """
    config = sized(config, len(unit))
    if config.surface is None:
        return config
    tree = cKDTree(unit.points)
    spacing, noise, normal_noise = spacing_and_noise(unit, tree)
    even = evened(unit, tree)
    apart = spacing if even is unit else spacing_and_noise(even)[0]
    few = min(config.siren.first_omega_0, 2 * np.pi / (FEW_WAVE * np.clip(spacing, 1e-9, 1.0)))
    omega = max(few, min(2 * np.pi / max(WAVE * apart, 1e-9), config.dense_omega_0))
    weights = config.surface
    if noise > CALM * spacing:
        weights = replace(weights, between=False)
        if noise > FOLLOWED:
            last = min(weights.final_zero_level, round(math.sqrt(len(unit) / noise), 0))
            first, eikonal = min(weights.zero_level, last), max(weights.surface_eikonal, NOISY_EIKONAL)
            weights = replace(weights, zero_level=first, final_zero_level=last, surface_eikonal=eikonal)
    off = math.degrees(normal_noise)
    if off > weights.normal_noise:
        weights = replace(weights, normal=round(weights.normal * (weights.normal_noise / off) ** 2, 0))
    return replace(config, siren=replace(config.siren, first_omega_0=omega), surface=weights)


def sized(config: ReconstructConfig, points: int) -> ReconstructConfig:
    """The configuration for so many points: what few can tell, a smaller network and smaller batches hold as well."""
    if config.surface is None:
        return config
    net, weights, batch = config.siren, config.surface, max(LEAST_BATCH, points // 4)
    width = max(LEAST_WIDTH, 16 * round(WIDTH * points ** (1 / 3) / 16))
    layers, fit = net.hidden_layers, config.fit
    if points < MANY:
        layers, rate = min(layers, 2), fit.muon_learning_rate
        fit = replace(
            fit,
            muon_learning_rate=rate and min(rate, FEW_RATE),
            muon_momentum=max(fit.muon_momentum, FitConfig.muon_momentum),
        )
        normal, off = min(weights.normal, SurfaceConfig.normal), max(weights.normal_noise, SurfaceConfig.normal_noise)
        weights = replace(weights, normal=normal, normal_noise=off)
    elif config.dense_steps is not None:
        fit = replace(fit, steps=config.dense_steps)
    between = weights.between and MANY <= points < PLENTY
    return replace(
        config,
        siren=replace(net, width=min(net.width, width), hidden_layers=layers),
        surface=replace(weights, on_surface=min(weights.on_surface, batch), between=between),
        fit=fit,
    )


def preset(name: str) -> ReconstructConfig:
    """The configuration called `name`. Raises InputError for a name that is not in PRESETS."""
    if name not in PRESETS:
        raise InputError(f"expected one of the presets {', '.join(PRESETS)}; got {name!r}")
    return PRESETS[name]
