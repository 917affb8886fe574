"""Where the time goes: `python benchmarks/speed.py [step] [meshing] [command] [live]`.

step: a whole training step, ours against the same with double backward, and as a share of what this machine's matrix
products reach; on a GPU also in other precisions, compiled, not fused, and without a graph. meshing: extraction alone,
to 2048 cells. command: from file to file, stage by stage, against Poisson. live: the fit with and without the live view
in a browser's place.
Every figure comes from a process of its own; those to be compared take turns.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import cases
import numpy as np
import torch
import tyro
from machine import ROOT, SHARED, heading, timed
from tyro.conf import Positional

from sdfrecon import presets, reconstruction, tape
from sdfrecon.cli import SPINS
from sdfrecon.device import CUBLAS, allowed, exact_products, faster_in_bfloat16
from sdfrecon.field import Field
from sdfrecon.fieldfiles import load_field, save_field
from sdfrecon.files import read_cloud, write_arrays, write_mesh
from sdfrecon.fit import WATCHED, draw, fit, residuals
from sdfrecon.frame import Frame
from sdfrecon.geometry import PointCloud
from sdfrecon.jet import Jet
from sdfrecon.memory import held
from sdfrecon.optimiser import Optimiser
from sdfrecon.problems import SurfaceConfig, surface
from sdfrecon.recording import captured
from sdfrecon.shapes import evenly_spread
from sdfrecon.siren import Siren, SirenConfig

Part = Literal["step", "meshing", "command", "live"]
HOWS = {"ours": "as the presets have it", "float32": "the network in float32", "double": "double backward, in float32"}
GPU_HOWS = {
    "launched": "as ours, each kernel launched",
    "tf32": "the network in TensorFloat-32",
    "unfused": "as ours, passes not fused",
    "compiled": "autograd's, by torch.compile, in float32",
    "compiled tf32": "the same in TensorFloat-32",
}


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
    points: int = 4096
    """In a step."""
    turns: int = 3
    """How often each step is measured: the fastest counts."""
    shape: str = "lord_quas"
    """Whose scans the whole command is measured on."""
    scans: tuple[Path, ...] = ()
    """Files to measure the whole command on instead, without Poisson beside it."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Of the step and the whole command."""
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
    print(heading())
    for part in args.parts:
        PARTS[part](args)


def child(*what: object) -> Any:
    """What this file prints when it measures one thing, with threads that wait as the command's do.

    Raises SystemExit where that fails, with the last line of what it said.
    """
    command = [sys.executable, __file__, "--child", *map(str, what)]
    env = {"GOMP_SPINCOUNT": SPINS, **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        raise SystemExit((done.stderr.splitlines() or [f"status {done.returncode}"])[-1])
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))  # viser says good-bye


def step_table(args: Args) -> None:
    """A step of the surface problem: sampling, loss, derivatives, Muon and Adam."""
    device = torch.device(args.device)
    unit, precision = ("TensorFloat-32", "tf32") if device.type == "cuda" else ("float32", "ieee")
    peak = matrix_peak(device, precision)
    print(f"A step at {args.points:,} points, 1 + 3 sine layers, on {args.device}; the best of {args.turns}, in turns.")
    print(
        f"share: six products a layer, in shares of {peak / 1e9:,.0f} GFLOP/s, which large ones of {unit} reach here."
    )
    own = matrix_peak(device, precision, torch.bfloat16) if faster_in_bfloat16(device) else None
    print(f"Five of ours are in {f'bfloat16, which reaches {own / 1e9:,.0f}' if own else 'float32, too'}", end="")
    print(", and where passes are fused all six.\n" if device.type == "cuda" else ".\n")
    print("| width | step | ms | times ours | k points/s | share | MB |\n| --- | --- | --- | --- | --- | --- | --- |")
    hows = HOWS | (GPU_HOWS if device.type == "cuda" else {})
    for width in args.widths:
        runs = [{how: child("step", how, width, args.points, args.device) for how in hows} for _ in range(args.turns)]
        seconds = {how: min(run[how]["seconds"] for run in runs) for how in hows}
        for how, name in hows.items():
            share = 12 * args.points * (3 * width**2 + 4 * width) / seconds[how] / peak
            print(
                f"| {width} | {name} | {seconds[how] * 1e3:.2f} | {seconds[how] / seconds['ours']:.2f} "
                f"| {args.points / seconds[how] / 1e3:,.0f} | {share:.0%} | {runs[0][how]['megabytes']:.0f} |",
                flush=True,
            )


@exact_products()
def matrix_peak(device: torch.device, precision: str = "ieee", dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second in a large matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device, dtype=dtype)
    out = torch.empty_like(a)
    with allowed(CUBLAS, precision):
        return 2 * size**3 / repeated(lambda: torch.mm(a, a, out=out), device)


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
def one_step(how: str, width: str, points: str, device: str) -> dict[str, float]:
    """Seconds of a training step, and what it needs beyond the process before."""
    generator, count = torch.Generator(device).manual_seed(0), int(points)
    ball = evenly_spread(max(5000, count))
    sizes = SurfaceConfig(
        on_surface=count // 2, near_surface=count // 4, in_box=count // 4, pool=max(10_000, count // 2)
    )
    problem = surface(PointCloud(ball / 2, ball), sizes, generator)
    field = Siren(3, 1, SirenConfig(int(width), 3), generator)
    rounded = faster_in_bfloat16(torch.device(device))
    optimiser = Optimiser(field, 1e-3, 1e-3, rounded)
    if how == "unfused":
        tape.FUSED = count + 1
    record = tape.Tape(field, how in ("ours", "launched", "unfused") and rounded)
    weights = torch.tensor([c.weight for c in problem.constraints], device=device)

    def loss(samples: Any, at: Callable[[torch.Tensor], Jet]) -> torch.Tensor:
        return (weights * residuals(problem, samples, at)).sum()

    at = {"double": lambda points: double_backward(field, points)}.get(how, record.jet)
    if how.startswith("compiled"):
        loss, at = torch.compile(loss), field.jet

    def step() -> None:
        optimiser.zero_grad()
        loss(draw(problem, generator), at).backward()
        if at == record.jet:
            record.backward()
        optimiser.step(1.0)

    with allowed(CUBLAS, "tf32" if "tf32" in how else "ieee"):
        take = captured(step, generator) if device == "cuda" and how != "launched" else step
        held = fresh_peak(device)
        seconds = repeated(take, torch.device(device), 3.0)
    return {"seconds": seconds, "megabytes": (peak_bytes(device) - held) / 1e6}


def double_backward(field: Siren, points: torch.Tensor) -> Jet:
    """The jet as the original code has it: autograd twice."""
    points = points.requires_grad_()
    value = field(points)

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(value.sum(), points, create_graph=True)[0][:, None]

    return Jet(value, gradient)


def peak_bytes(device: str) -> float:
    """The most memory this process has held, since `fresh_peak` if that was called."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return held()


def fresh_peak(device: str) -> float:
    """Forgets the peak so far: (bytes) what is held now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes(device)


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
    before, held, start = peak_bytes("cpu"), fresh_peak("cpu"), time.perf_counter()
    mesh = field.mesh(int(cells))
    seconds, peak = time.perf_counter() - start, peak_bytes("cpu")
    return {"seconds": seconds, "peak": max(before, peak), "extra": peak - held, "triangles": len(mesh.faces)}


def command_table(args: Args) -> None:
    """The whole command and its stages, and Open3D's Poisson at depth 9 on the same file."""
    names = ("read", "prepare", "fit", "mesh", "finish", "write", "other")
    print("\nFrom file to file, seconds. stages: all before together, on a GPU the second time in one process. whole:")
    print("the command, timed apart from them, with the interpreter, imports, what it says, and on a GPU its start.")
    print("Poisson: screened Poisson (Open3D, depth 9), a command too, timed around each preset, and once before that")
    print("does not count: the median, least and most; not of --scans.\n")
    print(f"| scan | preset | {' | '.join(names)} | mesh, share | stages | whole | Poisson | times Poisson |")
    print(f"|{' --- |' * (len(names) + 7)}")
    shape = args.shape if args.shape in cases.shapes() else "ring_and_ball"
    if shape != args.shape and not args.scans:
        print(f"no ground truth of {args.shape} in {SHARED}: {shape} instead", file=sys.stderr)
    both: dict[str, list[tuple[float, float]]] = {preset: [] for preset in args.presets}
    with tempfile.TemporaryDirectory() as folder:
        target, named = Path(folder) / "mesh.ply", ((path.stem, path) for path in args.scans)
        for name, source in named if args.scans else virtual_scans(shape, Path(folder)):
            rival = [sys.executable, str(ROOT / "benchmarks" / "rivals.py"), "poisson9", str(source), str(target)]
            poisson = [] if args.scans else [timed(rival)[0] for _ in range(2)][1:]
            ours: list[tuple[float, dict[str, float]]] = []
            for preset in args.presets:
                command = [sys.executable, "-m", "sdfrecon.cli", "reconstruct", str(source)]
                command += ["--output", str(target), "--preset", preset, "--device", args.device]
                ours.append((timed(command)[0], child("stages", source, target, preset, args.device)))
                poisson += [] if args.scans else [timed(rival)[0]]
            middle = float(np.median(poisson)) if poisson else np.nan
            for preset, (whole, spent) in zip(args.presets, ours, strict=True):
                total, beside = sum(spent.values()), "| - | - |"
                if poisson:
                    beside = f"| {middle:.1f} ({min(poisson):.1f} to {max(poisson):.1f}) | {whole / middle:.1f} |"
                    both[preset].append((whole, middle))
                print(
                    f"| {name} | {preset} | {' | '.join(f'{spent[name]:.2f}' for name in names)} "
                    f"| {spent['mesh'] / total:.0%} | {total:.1f} | {whole:.1f} {beside}",
                    flush=True,
                )
    for preset, times in both.items():
        if times:
            mine, rivals = np.transpose(times)
            print(f"\n{preset}: {(mine / rivals).mean():.1f} times Poisson's time in the mean of the ratios,", end=" ")
            print(f"{mine.sum() / rivals.sum():.1f} of the times together.")


def virtual_scans(shape: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Every kind of scan of a shape, by name, as a file in a folder."""
    for scan, make in cases.SCANS.items():
        cloud = make(cases.truth(shape), np.random.default_rng(10))
        write_arrays(folder / f"{scan}.npz", points=cloud.points, normals=np.asarray(cloud.normals))
        yield f"{shape}, {scan}", folder / f"{scan}.npz"


def stages(source: str, target: str, preset: str, device: str) -> dict[str, float]:
    """Seconds of each stage: those of `reconstruct` are measured where it calls them."""
    spent: dict[str, float] = {}
    prepare = (("clean", "prepare"), ("suited", "prepare"), ("_problem", "prepare"))
    for name, stage in (*prepare, ("fit", "fit"), ("finish", "finish")):
        setattr(reconstruction, name, clocked(spent, stage, getattr(reconstruction, name)))
    Field.mesh = clocked(spent, "mesh", Field.mesh)  # type: ignore[method-assign]
    for _ in range(2 if device == "cuda" else 1):
        spent.clear()
        start = time.perf_counter()
        cloud = clocked(spent, "read", read_cloud)(source)
        result = reconstruction.reconstruct(cloud, preset, device=device)
        clocked(spent, "write", write_mesh)(target, result.mesh)
        clocked(spent, "write", save_field)(Path(target).with_suffix(".safetensors"), result.field)
        spent["other"] = time.perf_counter() - start - sum(spent.values())
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
    cloud, config = read_cloud(ROOT / "data" / "ring_and_ball.ply"), presets.preset(preset)
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
