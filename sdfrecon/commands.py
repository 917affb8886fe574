"""What the commands that make something do and say. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sdfrecon.console import (
    adding,
    at_least,
    beside,
    check_box,
    check_places,
    check_trim,
    closed,
    describe,
    duration,
    flipped,
    load_fitted,
    load_scan,
    load_shape,
    note,
    say,
    with_steps,
)
from sdfrecon.geometry import Floats, InputError, PointCloud, finite
from sdfrecon.options import Demo, Device, MeshCommand, Query, Reconstruct

if TYPE_CHECKING:
    from sdfrecon.field import Field
    from sdfrecon.presets import ReconstructConfig
    from sdfrecon.reconstruction import Reconstruction
    from sdfrecon.viewer import LiveViewer

Tell = Callable[[str], None]


def reconstruct(command: Reconstruct) -> None:
    """Scan -> mesh and field."""
    from sdfrecon import fieldfiles, files, libraries
    from sdfrecon.cleaning import check_normals, to_fit
    from sdfrecon.reconstruction import run_of
    from sdfrecon.run_dir import FINISHED, check_folder

    scan, config = command.scan, _config(command)
    check_places([scan], [])
    output = command.output or scan.with_name(f"{scan.stem}_mesh.ply")
    files.check_mesh_ending(output)
    streamed = output == files.STREAM
    if streamed and command.view:
        raise InputError("--view shows the result until Ctrl-C: give --output a file")
    named_after = scan if streamed else output
    field = command.field or (None if streamed else output.with_suffix(".safetensors"))
    page = named_after.with_suffix(".html") if command.report else None
    run_dir = command.run_dir or named_after.with_name(f".{named_after.stem}.run")
    if field is not None and field.suffix.lower() != ".safetensors":
        raise InputError(f"--field must end in .safetensors; got {field}")
    check_places([scan], [path for path in (None if streamed else output, field, page) if path])
    check_folder(run_dir)
    tell = (lambda line: None) if command.quiet else partial(say, to=beside(output))
    cloud, lines = load_scan(scan, command.box, command.max_points)
    for line in lines:
        tell(line)
    if not command.estimate_normals:
        check_normals(cloud)
    used = to_fit(PointCloud(cloud.points) if command.estimate_normals else cloud)
    files.check_precision(output, used.points)
    if page is not None:
        libraries.open3d()
    tell(f"{scan}: {describe(cloud)}")
    _announce(used, config, command, tell)
    if command.estimate_normals:
        from sdfrecon.normals import estimate_normals

        side = "outwards: terrain and rooms need --viewpoint X Y Z, a place that sees the surface"
        tell(f"estimating normals, {'towards the viewpoint' if command.viewpoint else side}")
        read, cloud = len(cloud), estimate_normals(cloud, command.viewpoint)
        if len(cloud) < read:
            tell(f"dropped {read - len(cloud):,} of {read:,} points: not finite, or copies of another point")
    if command.flip_normals:
        cloud = flipped(cloud)

    start = time.monotonic()
    live = _live(cloud, config, command) if command.view else None
    result = _run(cloud, config, command.device, run_dir, scan.name, command.quiet, live)
    took = duration(time.monotonic() - start)
    result.field.about.update(box=command.box, max_points=command.max_points)
    if command.flip_normals:
        result.field.about["flipped_normals"] = True
    if command.estimate_normals:
        result.field.about["estimated_normals"] = {"viewpoint": command.viewpoint}
    kept = f"with --run-dir {shlex.quote(str(run_dir))}, too, the fit is not made again"
    with adding(kept):
        if field is not None:
            fieldfiles.save_field(field, result.field)
        files.write_mesh(output, result.mesh)  # after the field: who reads a stream may have gone
    places = {"mesh": None if streamed else output, "field": field}
    stay = {name: path if path and path.is_file() else None for name, path in places.items()}
    run = {
        "scan": str(scan.absolute()),
        **{name: path and str(path.absolute()) for name, path in stay.items()},
        "command": shlex.join(["sdfrecon", *sys.argv[1:]]),
        "seconds": time.monotonic() - start,
        "notes": result.notes,
    }
    if page is not None:
        from sdfrecon.showing import write_report

        with adding(kept):
            write_report(page, run, result.cloud, result.mesh, result.field, result.losses)
    left = command.run_dir is None and run_of(result.field, run_dir).remove()
    if command.run_dir is not None:
        run |= {f"{name}_sha256": path and files.sha256(path) for name, path in stay.items()}
        run |= {"triangles": len(result.mesh.faces), "watertight": result.mesh.is_watertight}
        files.write_text(run_dir / FINISHED, json.dumps(run, indent=2) + "\n")
    tell(f"fitted and meshed in {took}")
    if left:
        tell(f"{run_dir} still holds an interrupted run of another scan or with other options: delete it if not wanted")
    if not command.quiet:
        _conclude(result, output, field, page, tell)
    if live is not None:
        live.show_result(result.mesh, result.field, result.losses)
        tell(f"the result stays at {live.address} until Ctrl-C")
        live.wait()


def _config(command: Reconstruct) -> ReconstructConfig:
    from sdfrecon.device import pick_device, seeded
    from sdfrecon.presets import preset

    seeded(command.seed, pick_device(command.device))
    if command.view:
        from sdfrecon.viewer import free_port

        free_port(command.host, command.port)
    elif (command.host, command.port) != (Reconstruct.host, Reconstruct.port):
        raise InputError("--host and --port say where --view listens: pass --view, too")
    if command.max_memory is not None and not command.max_memory > 0:
        raise InputError(f"--max-memory must be above 0 GB; got {command.max_memory}")
    if command.viewpoint and not command.estimate_normals:
        raise InputError("--viewpoint tells --estimate-normals which side is outside: pass both")
    check_trim(command.trim)
    check_box(command.box)
    at_least(10, "--max-points", command.max_points)
    config = _of_steps(preset(command.preset), command.steps)
    return replace(
        config,
        resolution=at_least(8, "--resolution", command.resolution) or config.resolution,
        trim=command.trim,
        seed=command.seed,
    )


def _of_steps(config: ReconstructConfig, steps: int | None) -> ReconstructConfig:
    """The same with so many steps, if they are given, for however many points."""
    fit = with_steps(config.fit, steps)
    return config if steps is None else replace(config, fit=fit, dense_steps=None)


def mesh(command: MeshCommand) -> None:
    """Field -> mesh."""
    from sdfrecon import files
    from sdfrecon.finishing import check_coarser, finish, missing
    from sdfrecon.memory import check_memory, meshing_memory

    streamed = command.output == files.STREAM
    check_places([path for path in (command.field, command.scan) if path], [] if streamed else [command.output])
    files.check_mesh_ending(command.output)
    at_least(8, "--resolution", command.resolution)
    check_trim(command.trim)
    if command.trim is not None and command.scan is None:
        raise InputError("--trim is a distance from the points: give the --scan that was fitted, too")
    if command.trim and command.level:
        raise InputError("--trim cuts the surface that the points lie on: pass either it or --level")
    field = load_shape(command.field, command.device)
    files.check_precision(command.output, field.frame.points_to_world(np.array([[-1.0] * 3, [1.0] * 3])))
    config = field.about.get("config", {})
    resolution = command.resolution or config.get("resolution", 256)
    trim = config.get("trim") if command.trim is None else command.trim
    trim = 0.0 if command.level else trim  # at a distance from the points, distances from them say nothing
    check_memory(meshing_memory(resolution), resolution)
    cloud = load_fitted(command.scan, field) if command.scan else None
    if cloud is not None:
        check_coarser(command.trim, cloud)
    shown = made = field.mesh(resolution, command.level)
    if cloud is not None:
        shown, notes = finish(made, cloud, trim, field.frame)
        for line in notes if command.level else (*notes, *missing(made, field, cloud, resolution)):
            note(line)
    files.write_mesh(command.output, shown)
    _warn_beyond(shown.vertices, field)
    say(f"mesh: {command.output} ({len(shown.faces):,} triangles, {closed(shown)})", to=beside(command.output))


def query(command: Query) -> None:
    """Field and points -> distances and directions."""
    from sdfrecon import files

    if command.output.suffix.lower() != ".npz":
        raise InputError(f"--output must end in .npz; got {command.output}")
    check_places([command.field, command.points], [command.output])
    field = load_shape(command.field, command.device)
    points = files.read_cloud(command.points).points
    asked = np.where(finite(points)[:, None], points, np.nan)
    distance = field.distance(asked)
    files.write_arrays(command.output, points=points, distance=distance, gradient=field.gradient(asked))
    _warn_beyond(asked, field)
    if unknown := int(np.isnan(distance).sum()):
        note(f"warning: {unknown:,} points have coordinates that are not finite: their distances are NaN")
    say(f"{command.output}: {len(points):,} points, {(distance < 0).sum():,} of them inside")


def _warn_beyond(points: Floats, field: Field) -> None:
    """Says how many points lie where a field tells no more than a bound."""
    beyond = int((np.abs(field.frame.points_to_unit(points)) > 1 + 1e-6).any(axis=1).sum())
    if beyond:
        note(f"warning: {beyond:,} of {len(points):,} points lie beyond the cube around the scan, where distances are "
             "told up to 1.4 times too large")  # fmt: skip


def demo(command: Demo) -> None:
    """The embedded scan -> mesh, field and picture."""
    from sdfrecon import fieldfiles, files, libraries
    from sdfrecon.demo import motorcycle
    from sdfrecon.device import pick_device
    from sdfrecon.pictures import write_image
    from sdfrecon.presets import preset
    from sdfrecon.reconstruction import run_of
    from sdfrecon.render import render

    libraries.open3d()
    pick_device(command.device)
    config = _of_steps(preset("draft"), command.steps)
    files.make_folder(command.output)
    mesh, picture, field = made = [command.output / f"motorcycle.{name}" for name in ("glb", "png", "safetensors")]
    check_places([], made)
    cloud = motorcycle()
    say(f"stereo_motorcycle of scikit-image: {describe(cloud)}, millimetres")
    run_dir = command.output / ".motorcycle.run"
    start = time.monotonic()
    result = _run(cloud, config, command.device, run_dir, "stereo_motorcycle")
    took = duration(time.monotonic() - start)
    files.write_mesh(mesh, result.mesh)
    fieldfiles.save_field(field, result.field)
    write_image(picture, render(result.mesh, (0.25, -0.1, -1), (0, 1, 0), 900))
    run_of(result.field, run_dir).remove()
    say(f"fitted and meshed in {took}")
    for path in made:
        say(str(path))


def _announce(cloud: PointCloud, config: ReconstructConfig, command: Reconstruct, tell: Tell) -> None:
    """Says what the usable points (no normals) will take, and refuses what there is no memory for."""
    from sdfrecon.cleaning import computable
    from sdfrecon.device import pick_device
    from sdfrecon.finishing import check_coarser
    from sdfrecon.frame import Frame
    from sdfrecon.memory import A_POINT, check_memory, meshing_memory
    from sdfrecon.noise import apart
    from sdfrecon.presets import sized
    from sdfrecon.reconstruction import seconds_per_step

    memory = A_POINT * len(cloud) + meshing_memory(config.resolution)
    check_memory(memory, config.resolution, command.max_memory and command.max_memory * 1e9)
    if len(cloud):
        computable(cloud.points)
    if not command.quiet:
        where, suited = pick_device(command.device), sized(config, len(cloud))
        net, steps = suited.siren, suited.fit.steps
        cell = Frame.around(cloud, config.margin).cell(config.resolution)
        tell(
            f"{command.preset}: {net.hidden_layers + 1} sine layers of {net.width}, {steps:,} steps on "
            f"{where}, meshed over {config.resolution} cells of {cell:.3g}; points {apart(cloud):.3g} apart"
        )
        seconds = steps * seconds_per_step(suited, where)
        tell(f"this takes about {duration(seconds)} for the fit and {memory / 1e9:.1f} GB of memory")
    check_coarser(command.trim, cloud)


def _conclude(result: Reconstruction, output: Path, field: Path | None, page: Path | None, tell: Tell) -> None:
    """Says what was made, and how well the field goes through the points."""
    from sdfrecon.page import SHOWN_POINTS

    used = result.cloud
    error = abs(result.field.distance(used.thinned(SHOWN_POINTS).points)).mean()
    cell = result.field.frame.cell(result.field.about["config"]["resolution"])
    tell(f"mesh:  {output} ({len(result.mesh.faces):,} triangles, {closed(result.mesh)}, cells of {cell:.3g})")
    if field is not None:
        tell(f"field: {field} ({field.stat().st_size / 1024:.0f} KiB)")
    share = error / used.diagonal
    tell(f"the surface passes within {error:.4g} of the points on average, {share:.3%} of the scan's size")
    if page is not None:
        tell(f"page:  {page}")


def _live(cloud: PointCloud, config: ReconstructConfig, command: Reconstruct) -> LiveViewer:
    from sdfrecon.cleaning import clean
    from sdfrecon.frame import Frame
    from sdfrecon.viewer import LiveViewer

    cleaned, _ = clean(cloud)
    live = LiveViewer(cleaned, Frame.around(cleaned, config.margin), command.host, command.port)
    say(f"look at it while it fits: {live.address}")
    return live


def _run(
    cloud: PointCloud,
    config: ReconstructConfig,
    device: Device,
    run_dir: Path,
    name: str,
    quiet: bool = False,
    live: LiveViewer | None = None,
) -> Reconstruction:
    from sdfrecon.fit import Interrupted
    from sdfrecon.reconstruction import reconstruct

    try:
        return reconstruct(
            cloud,
            config,
            device=device,
            run_dir=run_dir,
            name=name,
            progress=not quiet and sys.stderr.isatty(),
            tell=lambda line: None if quiet and not line.startswith("warning") else note(line),
            watch=live,
        )
    except Interrupted as stopped:
        print(f"\nsdfrecon: {stopped}, kept in {run_dir}: give the same command again to go on", file=sys.stderr)
        sys.exit(130)
