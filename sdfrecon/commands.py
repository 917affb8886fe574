"""What every command does and says. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdfrecon.geometry import InputError, Mesh, PointCloud
from sdfrecon.options import Compare, Demo, Device, Info, MeshCommand, Query, Reconstruct, Report, View

if TYPE_CHECKING:
    from sdfrecon.field import Field
    from sdfrecon.metrics import Comparison
    from sdfrecon.reconstruction import ReconstructConfig, Reconstruction
    from sdfrecon.run_dir import Losses, RunDir
    from sdfrecon.viewer import LiveViewer


def reconstruct(command: Reconstruct) -> None:
    """Scan -> mesh and field."""
    from sdfrecon import files
    from sdfrecon.reconstruction import preset

    scan = command.scan
    output = command.output or scan.with_name(f"{scan.stem}_mesh.ply")
    field = command.field or output.with_suffix(".safetensors")
    run_dir = command.run_dir or output.with_name(f".{output.stem}.run")
    check_places([scan], [output, field, *([output.with_suffix(".html")] if command.report else [])])
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
    _announce(cloud, config, command, tell)
    start = time.monotonic()
    live = _live(cloud, config, command) if command.view else None
    result = _run(cloud, config, command.device, run_dir, scan.name, command.quiet, live)
    files.save_field(field, result.field)
    files.write_mesh(output, result.mesh)
    run = {
        "scan": str(scan.absolute()),
        "mesh": str(output.absolute()),
        "field": str(field.absolute()),
        "command": shlex.join(["sdfrecon", *sys.argv[1:]]),
        "seconds": time.monotonic() - start,
        "notes": result.notes,
    }
    if command.report:
        _write_report(output.with_suffix(".html"), run, result.cloud, result.mesh, result.field, result.losses)
    if command.run_dir is None:
        _run_dir(run_dir, result).remove()
    else:
        files.write_text(run_dir / "run.json", json.dumps(run, indent=2) + "\n")
    used = result.cloud
    error = abs(result.field.distance(used.points[:: max(1, len(used) // 50_000)]))
    tell(f"mesh:  {output} ({len(result.mesh.faces):,} triangles, {_closed(result.mesh)})")
    tell(f"field: {field} ({field.stat().st_size / 1024:.0f} KiB)")
    share = error.mean() / used.diagonal
    tell(f"at the points the field is {error.mean():.4g} from zero on average ({share:.3%} of the scan's size)")
    if command.report:
        tell(f"page:  {output.with_suffix('.html')}")
    if live is not None:
        live.show_mesh(result.mesh)
        say(f"the result stays at {live.address} until Ctrl-C")
        live.wait()


def view(command: View) -> None:
    """File -> page in the browser."""
    from sdfrecon.frame import Frame
    from sdfrecon.viewer import Viewer

    at_least(8, "--resolution", command.resolution, command.resolution)
    if command.file.suffix.lower() == ".safetensors":
        field = _shape(command.file)
        viewer = Viewer(field.frame, command.host, command.port)
        viewer.show_mesh(field.mesh(command.resolution))
        viewer.show_slices(field)
    else:
        loaded = _mesh_or_cloud(command.file)
        cloud = PointCloud(loaded.vertices) if isinstance(loaded, Mesh) else loaded
        viewer = Viewer(Frame.around(cloud), command.host, command.port)
        if isinstance(loaded, Mesh):
            viewer.show_mesh(loaded)
        else:
            viewer.show_cloud(loaded)
    say(f"{command.file} is at {viewer.address} until Ctrl-C")
    viewer.wait()


def report(command: Report) -> None:
    """Run folder -> page."""
    from sdfrecon import files
    from sdfrecon.reconstruction import Reconstruction

    try:
        run = json.loads((command.run_dir / "run.json").read_text())
        scan, mesh_path, field_path = (Path(run[name]) for name in ("scan", "mesh", "field"))
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{command.run_dir} holds no finished run: give `reconstruct` --run-dir {command.run_dir} and let it end"
        ) from None
    output = command.output or command.run_dir / "report.html"
    _check_page(output)
    check_places([scan, mesh_path, field_path], [output])
    cloud, made, field = files.read_cloud(scan), files.read_mesh(mesh_path), _shape(field_path)
    losses = _run_dir(command.run_dir, Reconstruction(made, field, cloud, [], {})).losses()
    _write_report(output, run, cloud, made, field, losses)
    say(f"page: {output}")


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
    """Meshes and reference -> figures."""
    from sdfrecon import files, metrics

    places = [path for path in (command.json, command.report) if path]
    paths = [command.mesh, *command.others]
    check_places([*paths, command.reference], places)
    if command.report:
        _check_page(command.report)
    meshes, reference = {str(path): files.read_mesh(path) for path in paths}, _mesh_or_cloud(command.reference)
    results = {path: metrics.compare(made, reference) for path, made in meshes.items()}
    facts: list[tuple[str, str]] = []
    for path, result in results.items():
        if len(results) > 1:
            say(path)
        say(f"{'':28} {'units':>12} {'% of size':>10}")
        for line in _figures(result):
            say(line)
        facts.append((path, f"Chamfer {result.chamfer:.6g}, Hausdorff {result.hausdorff:.6g}"))
    if command.json is not None:
        figures = {path: asdict(result) for path, result in results.items()}
        only = figures[str(command.mesh)] if len(figures) == 1 else figures
        files.write_text(command.json, json.dumps(only, indent=2) + "\n")
    if command.report is not None:
        from sdfrecon.page import comparison_page

        files.write_text(command.report, comparison_page(f"against {command.reference}", meshes, reference, facts))
        say(f"page: {command.report}")


def _figures(result: Comparison) -> Iterator[str]:
    for name, value in (
        ("accuracy (mesh to ref.)", result.accuracy),
        ("completeness (ref. to mesh)", result.completeness),
        ("Chamfer (mean of the two)", result.chamfer),
        ("99th percentile", result.percentile_99),
        ("Hausdorff (largest)", result.hausdorff),
    ):
        yield f"{name:28} {value:12.6g} {value * 100 / result.diagonal:10.4f}"
    for threshold, value in result.f_score.items():
        yield f"{f'F-score at {threshold} of size':28} {value:12.4f}"
    if result.normal_consistency is not None:
        yield f"{'normal consistency':28} {result.normal_consistency:12.4f}"
    yield f"{'pieces':28} {result.components:12}"
    yield f"{'watertight':28} {'yes' if result.watertight else 'no':>12}"


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
        say(f"mesh: {len(loaded.vertices):,} vertices, {len(loaded.faces):,} triangles, {_closed(loaded)},")
        pieces = int(loaded.components().max()) + 1
        say(f"      {pieces} pieces, area {loaded.areas.sum():.6g}, size {loaded.diagonal:.6g}")
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
    _run_dir(run_dir, result).remove()
    for name in ("glb", "png", "safetensors"):
        say(f"{command.output / 'motorcycle'}.{name}")


def _announce(cloud: PointCloud, config: ReconstructConfig, command: Reconstruct, tell: Callable[[str], None]) -> None:
    """Says what it will take, and refuses what there is no memory for."""
    from sdfrecon.plan import check_memory, plan
    from sdfrecon.reconstruction import pick_device

    where = pick_device(command.device)
    expected, net = plan(cloud, config, where), config.siren
    tell(
        f"{command.preset}: {net.hidden_layers + 1} sine layers of {net.width}, {config.fit.steps:,} steps on {where}, "
        f"meshed over {config.resolution} cells; points {expected.spacing:.3g} apart"
    )
    tell(f"this takes about {_duration(expected.seconds)} for the fit and {expected.memory / 1e9:.1f} GB of memory")
    if command.max_memory is not None and not command.max_memory > 0:
        raise InputError(f"--max-memory must be above 0 GB; got {command.max_memory}")
    check_memory(expected, config.resolution, command.max_memory and command.max_memory * 1e9)


def _live(cloud: PointCloud, config: ReconstructConfig, command: Reconstruct) -> LiveViewer:
    from sdfrecon.cleaning import clean
    from sdfrecon.frame import Frame
    from sdfrecon.viewer import LiveViewer

    cleaned, _ = clean(cloud)
    live = LiveViewer(cleaned, Frame.around(cleaned, config.margin), command.host, command.port)
    say(f"look at it while it fits: {live.address}")
    return live


def _write_report(path: Path, run: dict[str, Any], cloud: PointCloud, made: Mesh, field: Field, losses: Losses) -> None:
    from sdfrecon.files import write_text
    from sdfrecon.metrics import nearest
    from sdfrecon.page import reconstruction_page

    away = nearest(cloud.points[:: max(1, len(cloud) // 50_000)], made)[0]
    net, about = field.siren.config, field.about
    facts = [
        ("scan", f"{run['scan']}: {_describe(cloud)}, {cloud.diagonal:.6g} units across"),
        ("mesh", f"{len(made.faces):,} triangles, {_closed(made)}, {int(made.components().max()) + 1} pieces"),
        ("area", f"{made.areas.sum():.6g} square units"),
        ("scan to mesh", f"{away.mean():.4g} on average, {np.quantile(away, 0.99):.4g} at the 99th percentile, "
                         f"{away.max():.4g} at most (units); {away.mean() / cloud.diagonal:.3%} of the scan's size"),
        ("field", f"{net.hidden_layers + 1} {net.activation} layers of {net.width}, {field.siren.size:,} weights"),
        ("time", _duration(run["seconds"])),
        *(("note", note) for note in run["notes"]),
    ]  # fmt: skip
    settings = json.dumps({"config": about.get("config"), "versions": about.get("versions")}, indent=2)
    title = f"{Path(run['scan']).name}, reconstructed"
    write_text(path, reconstruction_page(title, cloud, made, field, losses, facts, run["command"], settings))


def _check_page(path: Path) -> None:
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"unknown ending of {path}: a page is written as .html")


def _run(
    cloud: PointCloud,
    config: ReconstructConfig,
    device: Device,
    run_dir: Path,
    name: str,
    quiet: bool,
    live: LiveViewer | None = None,
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
            watch=live,
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


def _closed(mesh: Mesh) -> str:
    return "watertight" if mesh.is_watertight else "open"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _run_dir(folder: Path, result: Reconstruction) -> RunDir:
    from sdfrecon.reconstruction import run_key
    from sdfrecon.run_dir import RunDir

    return RunDir(folder, run_key(result.field.about, result.field.device))


def say(line: str) -> None:
    print(line, flush=True)


def _tell(line: str) -> None:
    print(f"sdfrecon: {line}", file=sys.stderr, flush=True)
