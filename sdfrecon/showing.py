"""Commands that show what there is: figures, pages, and the browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdfrecon.console import (
    at_least,
    check_places,
    closed,
    describe,
    duration,
    load_fitted,
    load_mesh_or_cloud,
    load_scan,
    load_shape,
    pieces,
    say,
)
from sdfrecon.geometry import InputError, Mesh, PointCloud, decimals, finite
from sdfrecon.options import Compare, Info, Report, View

if TYPE_CHECKING:
    from sdfrecon.field import Field
    from sdfrecon.metrics import Comparison
    from sdfrecon.run_dir import Losses
    from sdfrecon.siren import Siren

MOST = 12
"""Meshes on one page: each is a canvas of its own, of which browsers keep some 16."""


def info(command: Info) -> None:
    """What a file holds."""
    from sdfrecon import fieldfiles
    from sdfrecon.cleaning import distinct, oriented, to_fit
    from sdfrecon.device import pick_device
    from sdfrecon.presets import PRESETS, sized
    from sdfrecon.reconstruction import seconds_per_step

    check_places([command.file], [])
    if command.file.suffix.lower() == ".safetensors":
        field = fieldfiles.load_field(command.file)
        about = field.about
        say(f"field: {_network(field.siren)}")
        if field.siren.in_dim == 2:
            say(f"image: {field.width} x {field.height}, {field.siren.out_dim} channels")
            with suppress(KeyError, TypeError):  # what others made says other things of itself
                right, down = (about["window"][name] for name in ("right", "down"))
                say(f"       of the one it is blended into, from {right} {down} on")
            return
        center = " ".join(decimals(field.frame.center, field.frame.scale))
        say(f"cube:  {field.frame.scale * 2:.6g} wide around {center}")
        with suppress(KeyError, TypeError, ValueError):
            scan, config, versions = about["scan"], about["config"], about["versions"]
            steps, used = about.get("steps", config["fit"]["steps"]), [f"{name} {v}" for name, v in versions.items()]
            say(f"scan:  {scan['name'] or '(unnamed)'}, {scan['points']:,} points")
            say(f"made:  {steps} steps, seed {config['seed']}, {', '.join(used)}")
        return
    loaded = load_mesh_or_cloud(command.file)
    if isinstance(loaded, Mesh):
        say(f"mesh: {len(loaded.vertices):,} vertices, {len(loaded.faces):,} triangles, {closed(loaded)},")
        say(f"      {pieces(loaded)}, area {loaded.areas.sum():.6g}, size {loaded.diagonal:.6g}")
        if loaded.is_watertight:
            inside_out = ": inside out, its triangles look inwards" if loaded.volume < 0 else ""
            say(f"      volume {loaded.volume:.6g}{inside_out}")
        loaded, lines = load_scan(command.file, None, None)
        for line in lines:
            say(line)
    say(f"scan: {describe(loaded)}")
    there = distinct(PointCloud(loaded.points))
    if not len(there):
        raise InputError(f"{command.file} has no point whose coordinates are all finite: check the file")
    low, high = there.points.min(axis=0), there.points.max(axis=0)
    told = (decimals(place, (high - low).max()) for place in (low, high))
    say("      " + ", ".join(f"{axis} {a} to {b}" for axis, a, b in zip("xyz", *told, strict=True)))
    if loaded.normals is None or not oriented(loaded).any():
        say("      it has no normals: reconstruct it with --estimate-normals, terrain and rooms with --viewpoint, too")
    where = pick_device(command.device)
    say(f"fitting it on {where} takes about:")
    points = len(to_fit(loaded))
    for name, config in PRESETS.items():
        config = sized(config, points)
        step, steps = seconds_per_step(config, where), config.fit.steps
        say(f"  {name:9} {duration(step * steps):>9} ({steps:,} steps of {step * 1000:.3g} ms)")


def compare(command: Compare) -> None:
    """Meshes and reference -> figures."""
    from sdfrecon import files, metrics

    places = [path for path in (command.json, command.report) if path]
    paths = [command.mesh, *command.others]
    check_places([*paths, command.reference], places)
    if command.report:
        _check_page(command.report)
        if len(paths) > MOST:
            raise InputError(
                f"a page shows at most {MOST} meshes; got {len(paths)}: compare fewer, or without --report"
            )
    meshes, reference = {str(path): files.read_mesh(path) for path in paths}, load_mesh_or_cloud(command.reference)
    if isinstance(reference, PointCloud):
        reference = reference.select(finite(reference.points))
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


def view(command: View) -> None:
    """File -> page in the browser."""
    from sdfrecon.cleaning import together
    from sdfrecon.device import pick_device
    from sdfrecon.frame import Frame
    from sdfrecon.memory import check_memory, meshing_memory
    from sdfrecon.viewer import Viewer, free_port

    check_places([command.file], [])
    free_port(command.host, command.port)
    if command.file.suffix.lower() == ".safetensors":
        at_least(8, "--resolution", command.resolution)
        pick_device(command.device)
        check_memory(meshing_memory(command.resolution), command.resolution)
        field = load_shape(command.file, command.device)
        viewer = Viewer(field.frame, command.host, command.port)
        viewer.show_mesh(field.mesh(command.resolution))
        viewer.show_slices(field)
    elif (command.resolution, command.device) != (View.resolution, View.device):
        raise InputError("--resolution and --device say how a field is meshed: a scan or a mesh is shown as it is")
    else:
        loaded = load_mesh_or_cloud(command.file)
        cloud = PointCloud(loaded.vertices) if isinstance(loaded, Mesh) else loaded
        cloud = cloud.select(finite(cloud.points))
        kept = together(cloud.points)
        if not kept.all():
            how = "the view begins at the others" if isinstance(loaded, Mesh) else "they are left out"
            say(f"{(~kept).sum():,} of {len(kept):,} points are far from all others: {how}")
            cloud = cloud.select(kept)
        viewer = Viewer(Frame.around(cloud), command.host, command.port)
        if isinstance(loaded, Mesh):
            viewer.show_mesh(loaded)
        else:
            viewer.show_cloud(cloud)
    say(f"{command.file} is at {viewer.address} until Ctrl-C")
    viewer.wait()


def report(command: Report) -> None:
    """Run folder -> page."""
    from sdfrecon import files
    from sdfrecon.reconstruction import run_of
    from sdfrecon.run_dir import finished

    if (run := finished(command.run_dir)) is None:
        raise InputError(
            f"{command.run_dir} holds no finished run: give `reconstruct` --run-dir {command.run_dir} and let it end"
        )
    places = [run[name] for name in ("scan", "mesh", "field")]
    if None in places:
        raise InputError(f"the mesh of {command.run_dir} went down a pipe: give --output a file")
    scan, mesh_path, field_path = map(Path, places)
    output = command.output or command.run_dir / "report.html"
    _check_page(output)
    if not scan.exists():
        raise InputError(f"the scan of {command.run_dir}, {scan}, is gone: put it back, or reconstruct again")
    check_places([scan, mesh_path, field_path], [output])
    for name, path in (("mesh", mesh_path), ("field", field_path)):
        if run.get(f"{name}_sha256", "") not in ("", files.sha256(path)):
            gone = f"{path} is no longer what {command.run_dir} made"
            raise InputError(f"{gone}: run it again, with an --output of its own")
    made, field = files.read_mesh(mesh_path), load_shape(field_path, command.device)
    cloud = load_fitted(scan, field)
    losses = run_of(field, command.run_dir).losses()
    losses = {step: terms for step, terms in losses.items() if step <= field.about.get("steps", step)}
    write_report(output, run, cloud, made, field, losses)
    say(f"page: {output}")


def write_report(path: Path, run: dict[str, Any], cloud: PointCloud, made: Mesh, field: Field, losses: Losses) -> None:
    """Writes the page of a run: what was read and made, and `run` as `reconstruct` keeps it."""
    from sdfrecon.files import write_text
    from sdfrecon.metrics import nearest
    from sdfrecon.page import SHOWN_POINTS, reconstruction_page

    away, shown, about = nearest(cloud.points, made)[0], cloud.every(SHOWN_POINTS), field.about
    some = cloud.select(shown)
    residuals = field.distance(some.points)
    error = abs(residuals)
    facts = [
        ("scan", f"{run['scan']}: {describe(cloud)}, {cloud.diagonal:.6g} units across"),
        ("mesh", f"{len(made.faces):,} triangles, {closed(made)}, {pieces(made)}"),
        ("area", f"{made.areas.sum():.6g} square units"),
        ("scan to mesh", f"{away.mean():.4g} on average, {np.quantile(away, 0.99):.4g} at the 99th percentile, "
                         f"{away.max():.4g} at most (units); {away.mean() / cloud.diagonal:.3%} of the scan's size"),
        ("field at the points", f"{error.mean():.4g} from zero on average (units), "
                                f"{error.mean() / cloud.diagonal:.3%} of the scan's size"),
        ("field", _network(field.siren)),
        ("time", duration(run["seconds"]) + ", since it went on" * any("going on after" in n for n in run["notes"])),
        *(("note", note) for note in run["notes"]),
    ]  # fmt: skip
    settings = json.dumps({"config": about.get("config"), "versions": about.get("versions")}, indent=2)
    title = f"{Path(run['scan']).name}, reconstructed"
    command = run["command"]
    page = reconstruction_page(title, some, away[shown], residuals, made, field, losses, facts, command, settings)
    write_text(path, page)


def _network(siren: Siren) -> str:
    net = siren.config
    return f"{net.hidden_layers + 1} {net.activation} layers of {net.width}, {siren.size:,} weights"


def _check_page(path: Path) -> None:
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"unknown ending of {path}: a page is written as .html")
