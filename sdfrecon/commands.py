"""What every command does and says. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sdfrecon.geometry import InputError, Mesh, PointCloud
from sdfrecon.options import Compare, Demo, Device, Info, MeshCommand, Query, Reconstruct

if TYPE_CHECKING:
    from sdfrecon.field import Field
    from sdfrecon.reconstruction import ReconstructConfig, Reconstruction


def reconstruct(command: Reconstruct) -> None:
    """Scan -> mesh and field."""
    from sdfrecon import files
    from sdfrecon.reconstruction import preset

    scan = command.scan
    output = command.output or scan.with_name(f"{scan.stem}_mesh.ply")
    field = command.field or output.with_suffix(".safetensors")
    run_dir = command.run_dir or output.with_name(f".{output.stem}.run")
    check_places([scan], [output, field])
    files.check_mesh_ending(output)
    if command.viewpoint is not None and not command.estimate_normals:
        raise InputError("--viewpoint tells --estimate-normals which side is outside: pass both")
    config = preset(command.preset)
    config = replace(
        config,
        fit=replace(config.fit, steps=at_least(1, "--steps", command.steps, config.fit.steps)),
        resolution=at_least(8, "--resolution", command.resolution, config.resolution),
        trim=command.trim,
        seed=command.seed,
    )
    if command.trim is not None and not 0 <= command.trim < float("inf"):
        raise InputError(f"--trim must be a distance of 0 or more; got {command.trim}")
    tell = (lambda line: None) if command.quiet else say
    cloud = files.read_cloud(scan)
    tell(f"{scan}: {_describe(cloud)}")
    if command.estimate_normals:
        from sdfrecon.cleaning import estimate_normals

        tell("estimating normals")
        cloud = estimate_normals(cloud, command.viewpoint)
    result = _run(cloud, config, command.device, run_dir, scan.name, command.quiet)
    files.save_field(field, result.field)
    files.write_mesh(output, result.mesh)
    if command.run_dir is None:
        _remove(run_dir, result)
    closed = "watertight" if result.mesh.is_watertight else "open"
    used = result.cloud
    error = abs(result.field.distance(used.points[:: max(1, len(used) // 50_000)]))
    tell(f"mesh:  {output} ({len(result.mesh.faces):,} triangles, {closed})")
    tell(f"field: {field} ({field.stat().st_size / 1024:.0f} KiB)")
    share = error.mean() / used.diagonal
    tell(f"at the points the field is {error.mean():.4g} from zero on average ({share:.3%} of the scan's size)")


def mesh(command: MeshCommand) -> None:
    """Field -> mesh."""
    from sdfrecon import files
    from sdfrecon.reconstruction import pick_device

    check_places([command.field], [command.output])
    files.check_mesh_ending(command.output)
    at_least(8, "--resolution", command.resolution, command.resolution)
    field = _shape(command.field).on(pick_device(command.device))
    made = field.mesh(command.resolution, command.level)
    files.write_mesh(command.output, made)
    say(f"mesh: {command.output} ({len(made.faces):,} triangles)")


def query(command: Query) -> None:
    """Field and points -> distances and directions."""
    from sdfrecon import files
    from sdfrecon.reconstruction import pick_device

    if command.output.suffix.lower() != ".npz":
        raise InputError(f"--output must end in .npz; got {command.output}")
    check_places([command.field, command.points], [command.output])
    field = _shape(command.field).on(pick_device(command.device))
    points = files.read_cloud(command.points).points
    distance = field.distance(points)
    files.write_arrays(command.output, points=points, distance=distance, gradient=field.gradient(points))
    say(f"{command.output}: {len(points):,} points, {(distance < 0).sum():,} of them inside")


def compare(command: Compare) -> None:
    """Mesh and reference -> figures."""
    from sdfrecon import files, metrics

    check_places([command.mesh, command.reference], [command.json] if command.json else [])
    ours = files.read_mesh(command.mesh)
    result = metrics.compare(ours, _mesh_or_cloud(command.reference))
    share = 100 / result.diagonal
    say(f"{'':28} {'units':>12} {'% of size':>10}")
    for name, value in (
        ("accuracy (mesh to ref.)", result.accuracy),
        ("completeness (ref. to mesh)", result.completeness),
        ("Chamfer (mean of the two)", result.chamfer),
        ("99th percentile", result.percentile_99),
        ("Hausdorff (largest)", result.hausdorff),
    ):
        say(f"{name:28} {value:12.6g} {value * share:10.4f}")
    for threshold, value in result.f_score.items():
        say(f"{f'F-score at {threshold} of size':28} {value:12.4f}")
    if result.normal_consistency is not None:
        say(f"{'normal consistency':28} {result.normal_consistency:12.4f}")
    say(f"{'pieces':28} {result.components:12}")
    say(f"{'watertight':28} {'yes' if result.watertight else 'no':>12}")
    if command.json is not None:
        files.write_text(command.json, json.dumps(asdict(result), indent=2) + "\n")


def info(command: Info) -> None:
    """What a file holds."""
    from sdfrecon import files
    from sdfrecon.reconstruction import PRESETS, pick_device, seconds_per_step

    if command.file.suffix.lower() == ".safetensors":
        field = files.load_field(command.file)
        c, about = field.siren.config, field.about
        say(f"field: {c.hidden_layers + 1} {c.activation} layers of {c.width}, {field.siren.size:,} weights")
        if field.siren.in_dim == 2:
            say(f"image: {field.width} x {field.height}, {field.siren.out_dim} channels")
            return
        say(f"box:   {field.frame.scale * 2:.6g} wide around {field.frame.center}")
        if about:
            say(f"scan:  {about['scan']['name'] or '(unnamed)'}, {about['scan']['points']:,} points")
            say(f"made:  {about['config']['fit']['steps']} steps, seed {about['config']['seed']}, {about['versions']}")
        return
    loaded = _mesh_or_cloud(command.file)
    if isinstance(loaded, Mesh):
        closed = "watertight" if loaded.is_watertight else "open"
        pieces = int(loaded.components().max()) + 1
        say(f"mesh: {len(loaded.vertices):,} vertices, {len(loaded.faces):,} triangles, {closed}, {pieces} pieces,")
        say(f"      area {loaded.areas.sum():.6g}, size {loaded.diagonal:.6g}")
        loaded = files.read_cloud(command.file)
    say(f"scan: {_describe(loaded)}")
    low, high = np.nanmin(loaded.points, axis=0), np.nanmax(loaded.points, axis=0)
    say("      " + ", ".join(f"{axis} {a:.6g} to {b:.6g}" for axis, a, b in zip("xyz", low, high, strict=True)))
    if loaded.normals is None:
        say("      it has no normals: reconstruct it with --estimate-normals")
    where = pick_device(command.device)
    say(f"fitting it on {where} takes about:")
    for name, config in PRESETS.items():
        step = seconds_per_step(config, where)
        say(f"  {name:9} {_duration(step * config.fit.steps):>9} ({config.fit.steps:,} steps of {step * 1000:.3g} ms)")


def demo(command: Demo) -> None:
    """The embedded scan -> mesh, field and picture."""
    from sdfrecon import files
    from sdfrecon.demo import motorcycle
    from sdfrecon.pictures import write_image
    from sdfrecon.reconstruction import preset
    from sdfrecon.report import render

    files.make_folder(command.output)
    config = preset("draft")
    config = replace(
        config,
        fit=replace(config.fit, steps=at_least(1, "--steps", command.steps, config.fit.steps)),
    )
    cloud = motorcycle()
    say(f"stereo_motorcycle of scikit-image: {_describe(cloud)}, millimetres")
    run_dir = command.output / ".motorcycle.run"
    result = _run(cloud, config, "auto", run_dir, "stereo_motorcycle", quiet=False)
    files.save_field(command.output / "motorcycle.safetensors", result.field)
    files.write_mesh(command.output / "motorcycle.glb", result.mesh)
    write_image(command.output / "motorcycle.png", render(result.mesh, (0.25, -0.1, -1), (0, 1, 0), 900))
    _remove(run_dir, result)
    for name in ("glb", "png", "safetensors"):
        say(f"{command.output / 'motorcycle'}.{name}")


def _run(
    cloud: PointCloud, config: ReconstructConfig, device: Device, run_dir: Path, name: str, quiet: bool
) -> Reconstruction:
    from sdfrecon.fit import Interrupted
    from sdfrecon.reconstruction import reconstruct

    start = time.monotonic()
    try:
        result = reconstruct(
            cloud,
            config,
            device=device,
            run_dir=run_dir,
            name=name,
            progress=not quiet and sys.stderr.isatty(),
            tell=lambda line: None if quiet and not line.startswith("warning") else _tell(line),
        )
    except Interrupted as stopped:
        print(
            f"\nsdfrecon: stopped after {stopped.step} of {config.fit.steps} steps, kept in {run_dir}: "
            "give the same command again to go on",
            file=sys.stderr,
        )
        sys.exit(130)
    if not quiet:
        say(f"fitted and meshed in {_duration(time.monotonic() - start)}")
    return result


def _shape(path: Path) -> Field:
    from sdfrecon.field import Field
    from sdfrecon.files import load_field

    field = load_field(path)
    if not isinstance(field, Field):
        raise InputError(f"{path} is an image's field: make a picture of it with `sdfrecon image render`")
    return field


def _mesh_or_cloud(path: Path) -> Mesh | PointCloud:
    """A file with triangles as a mesh, any other as a scan."""
    from sdfrecon import files

    if path.suffix.lower() in files.MESH_READERS:
        try:
            return files.read_mesh(path)
        except InputError:
            if path.suffix.lower() != ".ply":
                raise
    return files.read_cloud(path)


def check_places(inputs: list[Path], outputs: list[Path]) -> None:
    """What is read exists, and nothing that is written takes its place or another output's: the scan above all."""
    from sdfrecon.files import check_place

    for path in inputs:
        if not path.exists():
            raise InputError(f"no such file: {path}: check the name")
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in taken:
            raise InputError(f"{path} would be overwritten: choose another output")
        check_place(path)
        taken.add(path.resolve())


def at_least(least: int, option: str, given: int | None, default: int) -> int:
    if given is not None and given < least:
        raise InputError(f"{option} must be at least {least}; got {given}")
    return default if given is None else given


def _describe(cloud: PointCloud) -> str:
    normals = "no normals" if cloud.normals is None else "normals"
    return f"{len(cloud):,} points, {normals}, {'no colours' if cloud.colors is None else 'colours'}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _remove(run_dir: Path, result: Reconstruction) -> None:
    """The finished run's checkpoint, and its folder if nothing else is in it."""
    from sdfrecon.reconstruction import checkpoint_name

    (run_dir / checkpoint_name(result.field.about, result.field.device)).unlink()
    if not any(run_dir.iterdir()):
        run_dir.rmdir()


def say(line: str) -> None:
    print(line, flush=True)


def _tell(line: str) -> None:
    print(f"sdfrecon: {line}", file=sys.stderr, flush=True)
