"""The main job: cloud -> frame -> problem -> fit -> mesh -> the cloud's own units."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from sdfrecon import __version__
from sdfrecon.cleaning import clean
from sdfrecon.device import learning, pick_device, seeded
from sdfrecon.field import Field
from sdfrecon.finishing import WORTH_SAYING, finish, missing
from sdfrecon.fit import CHECKPOINT_FORMAT, FitConfig, fit, time_step
from sdfrecon.frame import Frame
from sdfrecon.geometry import InputError, Mesh, PointCloud
from sdfrecon.noise import evened, spacing_and_noise
from sdfrecon.problems import Problem, SurfaceConfig, paper_surface, surface
from sdfrecon.run_dir import Losses, RunDir, keep
from sdfrecon.shapes import evenly_spread
from sdfrecon.siren import Siren, SirenConfig


@dataclass(frozen=True)
class ReconstructConfig:
    """Everything that decides the result, but the scan.

    The network's size, its batches, the normals' weight, the points' at last and what is drawn between them are the
    most there may be: few points, and noisy ones, get less (`suited`). Raises InputError for a resolution, a margin or
    a trim that cannot be.
    """

    siren: SirenConfig = field(default_factory=SirenConfig)
    dense_omega_0: float = 60.0
    """To which the first layer's frequency may be raised where points are dense."""
    surface: SurfaceConfig | None = field(default_factory=SurfaceConfig)
    """Samples and weights of our loss; None takes the loss of the SIREN paper, and the rest as it is here."""
    fit: FitConfig = field(default_factory=lambda: FitConfig(decay=1.5, bfloat16=True))
    dense_steps: int | None = None
    """Steps of the fit where points are many: more pay there. None has `fit`'s everywhere."""
    resolution: int = 256
    """Cells along the box's edge when the surface is turned into triangles."""
    margin: float = 0.1
    """Room around the scan, as a share of half its longest side."""
    trim: float | None = None
    """Cut what lies farther than this from all points, back to half of it, in the scan's units; None decides by the
    scan, 0 never cuts."""
    seed: int = 0
    """Of every random draw."""

    def __post_init__(self) -> None:
        if not (isinstance(self.resolution, Integral) and self.resolution >= 2):
            raise InputError(f"the resolution must be a whole number of cells, at least 2; got {self.resolution}")
        for name, value in (("margin", self.margin), ("trim", 0 if self.trim is None else self.trim)):
            if value is None or not 0 <= value < np.inf:
                raise InputError(f"the {name} must be 0 or more; got {value}")


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
    "draft": ReconstructConfig(),
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
CALM, FOLLOWED = 0.16, 0.0025
"""Noise, in distances to the eighth neighbour and in unit coordinates, that the network evens out by itself. From the
larger of the two on the points weigh less: the surface runs between them."""
CLEAR = 0.07
"""Noise, in distances to the eighth neighbour, up to which points between neighbours tell more of the surface."""
WIDTH, LEAST_WIDTH = 8.75, 128
"""Sines in each layer, times the cube root of the number of points, so that 25,000 have 256; and at least."""
MANY = 60_000
"""Points from which on more than two hidden layers pay, heavier normals and more steps: with few they cost a little."""
PLENTY = 300_000
"""Points from which on those between them are not drawn: `fine` comes to each point some forty times at most."""
LEAST_BATCH = 256
MEASURED = 5000
"""Points on which a step's time is measured: more than any preset draws in one."""


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """mesh: the surface, in the cloud's units. field: its signed distance. cloud: the points that were used, clean.

    notes: what was dropped, cut or looks doubtful. losses: by step, every constraint's share of the loss.
    """

    mesh: Mesh
    field: Field
    cloud: PointCloud
    notes: list[str]
    losses: Losses


@learning()
def reconstruct(
    cloud: PointCloud,
    config: ReconstructConfig | str = "draft",
    *,
    device: str = "auto",
    run_dir: str | Path | None = None,
    name: str = "",
    progress: bool = False,
    tell: Callable[[str], None] = lambda line: None,
    watch: Callable[[int, dict[str, float], Field], bool | None] | None = None,
) -> Reconstruction:
    """The surface of an oriented point cloud, as a mesh and as a signed distance field.

    config: a preset's name or a configuration. device: "auto" (a GPU where there is one), "cpu" or "cuda".
    run_dir: a folder for checkpoints; with the same cloud and configuration, the fit goes on from the one it holds.
    name: of the scan, kept in the field. tell: called with each note as it arises. watch: called now and then with the
    steps done, every constraint's share of the loss and the field as it is; if it returns True the fit ends there.

    Raises InputError for a cloud that `clean` refuses, a preset, seed or device that there is not, a run_dir in use, a
    fit without a surface, or a trim that leaves none; fit.Interrupted on Ctrl-C, fit.Diverged where no fit is found.

    >>> result = reconstruct(cloud)                                        # doctest: +SKIP
    >>> result.field.distance([[0.1, 0.2, 0.3]])                           # doctest: +SKIP
    """
    if isinstance(config, str):
        config = preset(config)
    where = pick_device(device)
    generator = seeded(config.seed, where)
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        tell(line)

    cloud, cleaning_notes = clean(cloud)
    for line in cleaning_notes:
        note(line)

    frame = Frame.around(cloud, config.margin)
    unit = frame.to_unit(cloud)
    config, asked = suited(unit, config), config
    if config.surface and asked.surface and config.surface.final_zero_level < asked.surface.final_zero_level:
        note("noisy points: the surface passes between them rather than through each")
    problem = _problem(unit, config.surface, generator)
    siren = Siren(3, 1, config.siren, generator)
    field = Field(siren, frame, describe(cloud, config, name, where))
    run = None if run_dir is None else run_of(field, Path(run_dir))
    losses, done = {} if run is None else run.losses(), config.fit.steps

    def note_losses(step: int, terms: dict[str, float]) -> bool:
        nonlocal done
        keep(losses, step, terms)
        done = step
        if run is not None:
            run.note(step, terms)
        return bool(watch and watch(step, terms, field))

    with run.in_use() if run else nullcontext():
        fit(problem, siren, config.fit, generator, None if run is None else run.checkpoint, progress, note_losses, note)
        field.about["steps"] = done
        if done < config.fit.steps:
            note(f"the fit was ended after {done:,} of {config.fit.steps:,} steps")
        made = field.mesh(config.resolution)
        mesh, finishing_notes = finish(made, cloud, config.trim, frame)
    for line in finishing_notes:
        note(line)
    cell = frame.cell(config.resolution)
    if (lost := missing(made, field, cloud, cell)) > WORTH_SAYING:
        note(
            f"warning: {lost:.1%} of the points have no surface near: is it thinner than {cell:.3g}? raise --resolution"
        )
    if field.inside_out:
        doubt = "warning: " if mesh.is_watertight else ""
        note(f"{doubt}all around the scan is inside, as in a room: an object needs --flip-normals")
    return Reconstruction(mesh, field, cloud, notes, losses)


def _problem(unit: PointCloud, config: SurfaceConfig | None, generator: torch.Generator) -> Problem:
    return paper_surface(unit, generator) if config is None else surface(unit, config, generator)


def suited(unit: PointCloud, config: ReconstructConfig) -> ReconstructConfig:
    """The configuration for a scan: `sized`, as fine as its points in the first layer, and as true to them as they are.

    Points do not tell more than a wave as long as WAVE. Where they are noisy, they weigh less at last, by the square of
    the noise: a surface through all of them would be the noise. So do normals. Between points, none are drawn where
    there is any noise to speak of.
    """
    config = sized(config, len(unit))
    if config.surface is None:
        return config
    tree = cKDTree(unit.points)
    spacing, noise, normal_noise = spacing_and_noise(unit, tree)
    even = evened(unit, tree)
    apart = spacing if even is unit else spacing_and_noise(even)[0]
    omega = max(config.siren.first_omega_0, min(2 * np.pi / (WAVE * apart), config.dense_omega_0))
    weights, calm = config.surface, max(CALM * spacing, FOLLOWED)
    if noise > calm:
        weight = max(weights.zero_level, round(weights.final_zero_level * (calm / noise) ** 2, 0))
        weights = replace(weights, final_zero_level=min(weights.final_zero_level, weight))
    if noise > CLEAR * spacing:
        weights = replace(weights, between=False)
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
    layers, normal, off = net.hidden_layers, weights.normal, weights.normal_noise
    steps = config.dense_steps or config.fit.steps
    if points < MANY:
        layers, steps = min(layers, 2), config.fit.steps
        normal, off = min(normal, SurfaceConfig.normal), max(off, SurfaceConfig.normal_noise)
    between = weights.between and MANY <= points < PLENTY
    return replace(
        config,
        siren=replace(net, width=min(net.width, width), hidden_layers=layers),
        surface=replace(
            weights, on_surface=min(weights.on_surface, batch), between=between, normal=normal, normal_noise=off
        ),
        fit=replace(config.fit, steps=steps),
    )


def preset(name: str) -> ReconstructConfig:
    """The configuration called `name`. Raises InputError for a name that is not in PRESETS."""
    if name not in PRESETS:
        raise InputError(f"expected one of the presets {', '.join(PRESETS)}; got {name!r}")
    return PRESETS[name]


def describe(cloud: PointCloud, config: ReconstructConfig, name: str, where: torch.device) -> dict[str, Any]:
    """What made a field, as plain JSON: the scan's name, size and hash, the configuration, the versions, the device."""
    return {
        "scan": {"name": name, "points": len(cloud), "sha256": digest(cloud)},
        "config": asdict(config),
        "versions": {"sdfrecon": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "device": where.type,
    }


def digest(cloud: PointCloud) -> str:
    """The SHA-256 of the points and normals that are fitted."""
    assert cloud.normals is not None
    return hashlib.sha256(cloud.points.tobytes() + cloud.normals.tobytes()).hexdigest()


def run_key(about: dict[str, Any]) -> str:
    """Digits that only the same scan and the same fit share: what is decided after the fit does not count."""
    config = {k: v for k, v in about["config"].items() if k not in ("resolution", "trim")}
    key = json.dumps(
        [about["scan"], config, about["versions"], about.get("device", "cpu"), CHECKPOINT_FORMAT],
        sort_keys=True,
        default=np.generic.item,
    )
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def run_of(field: Field, folder: Path) -> RunDir:
    """The run in `folder` that makes, or made, a field."""
    return RunDir(folder, run_key(field.about))


@learning()
def seconds_per_step(config: ReconstructConfig, where: torch.device) -> float:
    """How long a step of the fit takes on a device: the mean of a few, on points of a ball."""
    ball = evenly_spread(MEASURED)
    generator = torch.Generator(where).manual_seed(0)
    problem = _problem(PointCloud(ball / 2, ball), config.surface and replace(config.surface, pool=MEASURED), generator)
    return time_step(problem, Siren(3, 1, config.siren, generator), config.fit, generator)
