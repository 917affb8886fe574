"""The main job: cloud -> frame -> problem -> fit -> mesh -> the cloud's own units."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdfrecon import __version__
from sdfrecon.cleaning import clean
from sdfrecon.device import learning, pick_device, seeded
from sdfrecon.field import Field
from sdfrecon.finishing import check_coarser, finish, missing
from sdfrecon.fit import CHECKPOINT_FORMAT, fit, time_step
from sdfrecon.frame import Frame
from sdfrecon.geometry import Mesh, PointCloud
from sdfrecon.presets import ReconstructConfig, preset, suited
from sdfrecon.problems import Problem, SurfaceConfig, paper_surface, surface
from sdfrecon.run_dir import Losses, RunDir, keep
from sdfrecon.shapes import evenly_spread
from sdfrecon.siren import Siren

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
    run_dir: a folder for checkpoints; with the same cloud, name, device and configuration (resolution and trim aside),
    the fit goes on from the one it holds. name: of the scan, kept in the field. progress: show a bar. tell: called with
    each note as it arises. watch: called now and then with the steps done, every constraint's share of the loss and the
    field as it is; if it returns True the fit ends there.

    Raises InputError for a cloud that `clean` refuses, a preset, seed or device that there is not, a run_dir in use, a
    fit without a surface, or a trim that is finer than the points or leaves none; fit.Interrupted on Ctrl-C,
    fit.Diverged where no fit is found.

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

    check_coarser(config.trim, cloud)
    frame = Frame.around(cloud, config.margin)
    unit = frame.to_unit(cloud)
    config, asked = suited(unit, config), config
    if config.surface and asked.surface and config.surface.surface_eikonal > asked.surface.surface_eikonal:
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
    for line in (*finishing_notes, *missing(made, field, cloud, config.resolution)):
        note(line)
    if field.inside_out:
        doubt = "warning: " if mesh.is_watertight else ""
        note(f"{doubt}all around the scan is inside, as in a room: of an object the normals must point "
             "the other way: add --flip-normals, or drop it")  # fmt: skip
    return Reconstruction(mesh, field, cloud, notes, losses)


def _problem(unit: PointCloud, config: SurfaceConfig | None, generator: torch.Generator) -> Problem:
    return paper_surface(unit, generator) if config is None else surface(unit, config, generator)


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
