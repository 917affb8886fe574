"""Where the time goes: `python benchmarks/speed.py [step] [meshing] [command] [live]`.

step: a whole training step, ours against the same with double backward, and as a share of what this machine's matrix
products reach. meshing: extraction alone, to 2048 cells. command: from file to file, stage by stage, against Poisson.
live: the fit with and without the live view in a browser's place.
Every figure comes from a process of its own; those to be compared take turns.
"""

import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import cases
import numpy as np
import torch
import tyro
from machine import ROOT, heading, timed
from tyro.conf import Positional

from sdfrecon import reconstruction
from sdfrecon.field import Field
from sdfrecon.files import load_field, read_cloud, save_field, write_arrays, write_mesh
from sdfrecon.fit import WATCHED, constraint_terms, fit
from sdfrecon.frame import Frame
from sdfrecon.geometry import PointCloud
from sdfrecon.jet import Jet
from sdfrecon.optimiser import Optimiser
from sdfrecon.problems import SurfaceConfig, surface
from sdfrecon.products import exact_products, faster_in_bfloat16
from sdfrecon.shapes import evenly_spread
from sdfrecon.siren import Siren, SirenConfig
from sdfrecon.tape import Tape

Part = Literal["step", "meshing", "command", "live"]
POINTS = 4096


@dataclasses.dataclass
class Args:
    """Measures the training step, the extraction and the whole command."""

    parts: Positional[tuple[Part, ...]] = ("step", "meshing", "command", "live")
    """What to measure."""
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Of the networks whose step is measured."""
    resolutions: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    """Cells along the box."""
    presets: tuple[str, ...] = ("draft", "standard")
    """Whose whole command is measured."""
    shape: str = "lord_quas"
    """Whose scans the whole command is measured on."""
    device: str = "cpu"
    """Of the step: cpu or cuda."""
    child: tuple[str, ...] = ()
    """Measure this one thing here, in this process, and print it as JSON."""


def main(args: Args) -> None:
    if args.child:
        kind, *rest = args.child
        measures: dict[str, Callable[..., dict[str, float]]] = {
            "step": one_step,
            "mesh": one_mesh,
            "stages": stages,
            "fit": one_fit,
        }
        print(json.dumps(measures[kind](*rest)))
        return
    print(heading(f"python benchmarks/speed.py {' '.join(sys.argv[1:])}".strip()))
    for part in args.parts:
        PARTS[part](args)


def child(*what: object) -> Any:
    """What this file prints when it measures one thing."""
    command = [sys.executable, __file__, "--child", *map(str, what)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return json.loads(next(line for line in printed if line.startswith("{")))  # viser says good-bye after it


def step_table(args: Args) -> None:
    """A step of the surface problem: sampling, loss, derivatives, Muon and Adam."""
    peak = matrix_peak(torch.device(args.device))
    print(f"A step at {POINTS} points, 1 + 3 sine layers, on {args.device}. Float32 products of 2048 x 2048 reach")
    print(f"{peak / 1e9:.0f} GFLOP/s here; share: six products a layer, in shares of that. Best of three, in turns.")
    print(f"Five of ours are in {'bfloat16' if faster_in_bfloat16(torch.device(args.device)) else 'float32, too'}.\n")
    print("| width | ours, ms | k points/s | share | in float32, ms | double backward, ms | times ours | MB | its MB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for width in args.widths:
        runs = [[child("step", how, width, args.device) for how in ("ours", "float32", "double")] for _ in range(3)]
        ours, exact, double = (min(run[i]["seconds"] for run in runs) for i in range(3))
        memory = [runs[0][i]["megabytes"] for i in (0, 2)]
        share = 12 * POINTS * (3 * width**2 + 4 * width) / ours / peak
        print(
            f"| {width} | {ours * 1e3:.1f} | {POINTS / ours / 1e3:.0f} | {share:.0%} | {exact * 1e3:.1f} "
            f"| {double * 1e3:.1f} | {double / ours:.2f} | {memory[0]:.0f} | {memory[1]:.0f} |",
            flush=True,
        )


@exact_products()
def matrix_peak(device: torch.device) -> float:
    """Floating-point operations a second in a large matrix product."""
    a = torch.randn(2048, 2048, device=device)
    out = torch.empty_like(a)
    return 2 * 2048**3 / repeated(lambda: torch.mm(a, a, out=out), device)


def repeated(action: Callable[[], object], device: torch.device, seconds: float = 1.5) -> float:
    """Seconds that the action takes: the least of five means."""
    means = []
    for _ in range(5):
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds / 5 or count < 2:
            action()
            count += 1
            if device.type == "cuda" and count % WATCHED == 0:
                torch.cuda.synchronize()  # as often as the fit waits for it
        if device.type == "cuda":
            torch.cuda.synchronize()
        means.append((time.perf_counter() - start) / count)
    return min(means)


@exact_products()
def one_step(how: str, width: str, device: str) -> dict[str, float]:
    """Seconds of a training step, and what it needs beyond the process before."""
    generator = torch.Generator(device).manual_seed(0)
    ball = evenly_spread(5000)
    sizes = SurfaceConfig(on_surface=POINTS // 2, near_surface=POINTS // 4, in_box=POINTS // 4, pool=10_000)
    problem = surface(PointCloud(ball / 2, ball), sizes, generator)
    field = Siren(3, 1, SirenConfig(int(width), 3), generator)
    rounded = faster_in_bfloat16(torch.device(device))
    optimiser = Optimiser(field, 1e-3, 1e-3, rounded)
    tape = Tape(field, how == "ours" and rounded)

    def step() -> None:
        optimiser.zero_grad()
        at = tape.jet if how != "double" else lambda points: double_backward(field, points)
        terms, _ = constraint_terms(problem, at, generator, 0.5)
        torch.stack(list(terms.values())).sum().backward()
        if how != "double":
            tape.backward()
        optimiser.step(1.0)

    held = peak_bytes(device)
    seconds = repeated(step, torch.device(device), 3.0)
    return {"seconds": seconds, "megabytes": (peak_bytes(device) - held) / 1e6}


def double_backward(field: Siren, points: torch.Tensor) -> Jet:
    """The jet as the original code has it: autograd twice."""
    points = points.requires_grad_()
    value = field(points)

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(value.sum(), points, create_graph=True)[0][:, None]

    return Jet(value, gradient, gradient)


def peak_bytes(device: str) -> float:
    """The most memory this process has held."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def meshing_table(args: Args) -> None:
    """The surface of a ball in a ring, as `draft` fits it."""
    print("\nExtraction alone, of the shipped scan as draft fits it. growth: the exponent of time over cells.\n")
    print("| cells | seconds | growth | peak GB, whole process | of it meshing | triangles |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "field.safetensors"
        cloud = read_cloud(ROOT / "data" / "ring_and_ball.ply")
        save_field(path, reconstruction.reconstruct(cloud, "draft", device="cpu").field)
        before: tuple[int, float] | None = None
        for cells in args.resolutions:
            made = child("mesh", path, cells)
            growth = f"{np.log(made['seconds'] / before[1]) / np.log(cells / before[0]):.2f}" if before else ""
            print(
                f"| {cells} | {made['seconds']:.2f} | {growth} | {made['peak'] / 1e9:.2f} "
                f"| {made['extra'] / 1e9:.2f} | {made['triangles']:,} |",
                flush=True,
            )
            before = cells, made["seconds"]


def one_mesh(path: str, cells: str) -> dict[str, float]:
    """Seconds and memory of `Field.mesh`."""
    field = load_field(Path(path))
    field.mesh(16)
    held, start = peak_bytes("cpu"), time.perf_counter()
    mesh = field.mesh(int(cells))
    seconds, peak = time.perf_counter() - start, peak_bytes("cpu")
    return {"seconds": seconds, "peak": peak, "extra": peak - held, "triangles": len(mesh.faces)}


def command_table(args: Args) -> None:
    """The whole command and its stages, and Open3D's Poisson at depth 9 on the same file."""
    names = ("start", "read", "prepare", "fit", "mesh", "finish", "write")
    print("\nFrom file to file, seconds. start: the interpreter, its imports, and what no other column has. whole: the")
    print("command, timed apart from the stages; times Poisson: against screened Poisson (Open3D, depth 9), a command")
    print("too, just before.\n")
    print(f"| scan | preset | {' | '.join(names)} | mesh, share | whole | Poisson | times Poisson |")
    print(f"|{' --- |' * (len(names) + 6)}")
    with tempfile.TemporaryDirectory() as folder:
        for scan in cases.SCANS:
            source, target = Path(folder) / f"{scan}.npz", Path(folder) / "mesh.ply"
            cloud = cases.SCANS[scan](cases.truth(args.shape), np.random.default_rng(10))
            write_arrays(source, points=cloud.points, normals=np.asarray(cloud.normals))
            rival = [sys.executable, str(ROOT / "benchmarks" / "rivals.py"), "poisson9", str(source), str(target)]
            for preset in args.presets:
                poisson, _ = timed(rival)
                command = [sys.executable, "-m", "sdfrecon.cli", "reconstruct", str(source), "--quiet"]
                whole, _ = timed([*command, "--output", str(target), "--preset", preset])
                spent = child("stages", source, target, preset)
                spent["start"] = whole - sum(spent.values())
                print(
                    f"| {args.shape}, {scan} | {preset} | {' | '.join(f'{spent[name]:.1f}' for name in names)} "
                    f"| {spent['mesh'] / whole:.0%} | {whole:.1f} | {poisson:.1f} | {whole / poisson:.1f} |",
                    flush=True,
                )


def stages(source: str, target: str, preset: str) -> dict[str, float]:
    """Seconds of each stage: those of `reconstruct` are measured where it calls them."""
    spent: dict[str, float] = {}
    prepare = (("clean", "prepare"), ("suited", "prepare"), ("_problem", "prepare"))
    for name, stage in (*prepare, ("fit", "fit"), ("finish", "finish")):
        setattr(reconstruction, name, clocked(spent, stage, getattr(reconstruction, name)))
    Field.mesh = clocked(spent, "mesh", Field.mesh)  # type: ignore[method-assign]
    cloud = clocked(spent, "read", read_cloud)(source)
    result = reconstruction.reconstruct(cloud, preset, device="cpu")
    clocked(spent, "write", write_mesh)(target, result.mesh)
    return spent


def clocked(spent: dict[str, float], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, adding the seconds of every call to spent[name]."""

    def run(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = function(*args, **kwargs)
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
        return result

    return run


def live_table(args: Args) -> None:
    """What watching costs: the server has what it shows computed and packed, whether or not a browser is there."""
    print("\nThe shipped scan's fit, seconds, three times in turns, without and with the live view (viser).\n")
    print("| preset | without | with | ratio of the means |\n| --- | --- | --- | --- |")
    for preset in args.presets:
        runs = [[child("fit", preset, how)["seconds"] for how in ("alone", "watched")] for _ in range(3)]
        alone, watched = zip(*runs, strict=True)
        shown = [" / ".join(f"{s:.1f}" for s in seconds) for seconds in (alone, watched)]
        print(f"| {preset} | {shown[0]} | {shown[1]} | {sum(watched) / sum(alone):.3f} |", flush=True)


def one_fit(preset: str, how: str) -> dict[str, float]:
    """Seconds of the fit of the shipped scan."""
    cloud, config = read_cloud(ROOT / "data" / "ring_and_ball.ply"), reconstruction.preset(preset)
    watch = None
    if how == "watched":
        from sdfrecon.viewer import LiveViewer

        watch = LiveViewer(cloud, Frame.around(cloud, config.margin))
    spent: dict[str, float] = {}
    vars(reconstruction)["fit"] = clocked(spent, "fit", fit)
    reconstruction.reconstruct(cloud, dataclasses.replace(config, resolution=16), device="cpu", watch=watch)
    return {"seconds": spent["fit"]}


PARTS = {"step": step_table, "meshing": meshing_table, "command": command_table, "live": live_table}

if __name__ == "__main__":
    main(tyro.cli(Args))
