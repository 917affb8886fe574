"""Every shape, every kind of scan, every method, side by side: `python benchmarks/accuracy.py [--quick]`.

Each method runs as a command of its own on the same file, so that its seconds go from file to file, imports included,
and its memory is its own. Results go to out/accuracy/results.jsonl, row by row: the same command goes on where it
was stopped. At the end come the tables, the plots of error against time (error_time.png) and, for each shape, error
maps (SHAPE.png). MeshLab's methods need `pip install -e '.[bench]'`, all shapes but one the ground truth (README.md).
"""

import dataclasses
import json
import sys
import tempfile
from dataclasses import asdict, replace
from functools import cache
from itertools import product
from pathlib import Path

import cases
import numpy as np
import tyro
from machine import ROOT, SHARED, commit, heading, machine, timed
from rivals import RIVALS, trimmed
from scipy.spatial import cKDTree
from tables import OURS, OUT, WORST, Row, error_maps, plot, tables

from sdfrecon.cleaning import clean
from sdfrecon.device import pick_device
from sdfrecon.files import read_mesh, write_arrays
from sdfrecon.finishing import finish, open_distance
from sdfrecon.frame import Frame
from sdfrecon.geometry import InputError, Mesh, PointCloud
from sdfrecon.metrics import compare, nearest
from sdfrecon.pictures import write_image
from sdfrecon.presets import PRESETS
from sdfrecon.reconstruction import seconds_per_step
from sdfrecon.render import render


@dataclasses.dataclass
class Args:
    """Measures reconstructions of virtual scans against the known surfaces.

    Seeds 0 to 9 were used while tuning, 10 and 11 for the last checks of some choices (TRIED.md), 12 for none.
    """

    shapes: tuple[str, ...] = ()
    """Which shapes; all that there are if none is named."""
    scans: tuple[str, ...] = tuple(cases.SCANS)
    """Which kinds of scan; `lines` is one more."""
    seeds: tuple[int, ...] = (10,)
    """Of the scans' random draws and our own."""
    methods: tuple[str, ...] = (*RIVALS, *OURS, "paper", "paper_x10")
    """Which methods. PRESET:STEPS or PRESET:STEPS:CELLS is a preset of so many steps, meshed over so many cells; paper
    and paper_x10 are the SIREN paper's recipe for as long as draft took, and ten times that."""
    quick: bool = False
    """Three shapes, two scans, Poisson at depth 7 and 9 and draft, whatever else is asked for: about five minutes."""
    samples: int = 100_000
    """Points on each surface from which distances are measured."""
    report: bool = False
    """Measure nothing: make tables and pictures of what was measured."""


def main(args: Args) -> None:
    if args.quick:
        args = replace(args, shapes=("ring_and_ball", "anchor", "lord_quas"), scans=("scan", "noisy"))
        args = replace(args, methods=("poisson7", "poisson9", "draft"))
    OUT.mkdir(parents=True, exist_ok=True)
    results = Results(OUT / "results.jsonl", args.samples)
    known = list(dict.fromkeys(r["shape"] for r in results.rows)) if args.report else cases.shapes()
    shapes = [shape for shape in args.shapes or known if shape in known]
    if missing := set(args.shapes) - set(shapes):
        names = ", ".join(sorted(missing))
        missed = f"ground truth of {names} in {SHARED}: not measured"
        print("no", f"rows of {names} in {results.path}" if args.report else missed, file=sys.stderr)
    if not args.report:
        for seed, shape, scan, method in product(args.seeds, shapes, args.scans, args.methods):
            if not results.has(shape, scan, seed, method):
                measure(results, shape, scan, seed, method)
    rows = [r for r in results.rows if r["shape"] in shapes and r["scan"] in args.scans and r["seed"] in args.seeds]
    rows = [r for r in rows if r["method"].removesuffix("_trimmed") in args.methods]
    if not rows:
        raise SystemExit(f"no rows of these in {results.path}: measure them, or copy benchmarks/accuracy.jsonl there")
    print(heading())
    for what in ("commit", "machine"):
        print(f"Rows measured at {what} {', '.join(sorted({r[what] for r in rows}))}.")
    tables(rows)
    plot(rows)
    for shape in shapes:
        error_maps(shape, args.scans, args.seeds[0], args.methods)


class Results:
    """Rows of so many samples in a file of JSON lines, one a mesh, written as they come."""

    def __init__(self, path: Path, samples: int) -> None:
        self.path, self.samples = path, samples
        self.found: dict[tuple[object, ...], Row] = {}
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # of a line that was cut short nothing is taken
        if whole != text:
            path.write_text(whole)
        self._take([row for row in map(json.loads, whole.splitlines()) if row["samples"] == samples])

    @property
    def rows(self) -> list[Row]:
        """All of them, of each case the last."""
        return list(self.found.values())

    def has(self, *case: object) -> bool:
        """Whether (shape, scan, seed, method) was measured, and did not fail."""
        row = self.find(*case)
        return row is not None and "failed" not in row

    def find(self, *case: object) -> Row | None:
        """The row of (shape, scan, seed, method)."""
        return self.found.get(case)

    def add(self, rows: list[Row]) -> None:
        """More: METHOD's own last, so that what is cut short here counts as not measured."""
        rows = [{**row, "samples": self.samples} for row in rows]
        self._take(rows)
        with self.path.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in reversed(rows)))

    def _take(self, rows: list[Row]) -> None:
        self.found |= {(r["shape"], r["scan"], r["seed"], r["method"]): r for r in rows}


def measure(results: Results, shape: str, scan: str, seed: int, method: str) -> None:
    """Makes the scan, runs the method on it as a command, and adds a row for every mesh it wrote.

    And one for ours with its holes opened by their distance from the points, as Poisson's is trimmed by density.
    """
    truth, cloud = made(shape, scan, seed)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "cloud.npz", Path(folder) / "mesh.ply"
        write_arrays(source, points=cloud.points, normals=np.asarray(cloud.normals))
        if method in RIVALS:
            command = [str(ROOT / "benchmarks" / "rivals.py"), method, str(source), str(target)]
        else:
            command = ["-m", "sdfrecon.cli", "reconstruct", str(source), "--output", str(target), "--quiet"]
            command += ["--seed", str(seed), "--preset", method.partition(":")[0].partition("_")[0]]
        case: Row = {"shape": shape, "scan": scan, "seed": seed, "points": len(cloud)}
        case |= {"commit": commit(), "machine": machine()}
        print(f"{method}: {shape}, {scan}, {seed}", file=sys.stderr)
        try:
            command += steps(results, shape, scan, seed, method)
            seconds, memory = timed([sys.executable, *command])
            whole = read_mesh(target)
        except (SystemExit, InputError) as failure:
            print(f"failed: {failure}", file=sys.stderr)
            results.add([{**case, "method": method, "failed": str(failure)}])
            return
        meshes = {method: whole}
        if target.with_suffix(".npy").exists():
            meshes[f"{method}_trimmed"] = trimmed(target)
        if method not in RIVALS:
            used, _ = clean(cloud)
            limit = open_distance(used, cKDTree(used.points))
            meshes[f"{method}_trimmed"] = finish(whole, used, limit, Frame.around(used))[0]
        rows: list[Row] = []
        for name, mesh in meshes.items():
            figures = asdict(compare(mesh, truth, results.samples)) | {"genus": genus(mesh), "true_genus": genus(truth)}
            rows.append({**case, "method": name, "seconds": seconds, "gigabytes": memory, **figures})
            picture = render(coloured(mesh, truth), (-1, 0.6, -0.5), (0, 0, 1), 320)
            write_image(OUT / f".{shape}-{scan}-{seed}-{name}.png", picture)
        results.add(rows)


@cache
def made(shape: str, scan: str, seed: int) -> tuple[Mesh, PointCloud]:
    """The truth and the scan of it, the same for every method."""
    truth = cases.truth(shape)
    return truth, cases.ALL[scan](truth, np.random.default_rng(seed))


def steps(results: Results, shape: str, scan: str, seed: int, method: str) -> list[str]:
    """--steps and --resolution that the method names, or the paper's steps for (ten times) the time of `draft` here."""
    _, *counts = method.split(":")
    if counts:
        return [word for pair in zip(("--steps", "--resolution"), counts, strict=False) for word in pair]
    if not method.startswith("paper"):
        return []
    draft = results.find(shape, scan, seed, "draft")
    if draft is None or "seconds" not in draft or draft["machine"] != machine():
        raise SystemExit(f"{method} is given draft's time here: measure draft first, without another machine's row")
    budget = draft["seconds"] * (10 if method == "paper_x10" else 1)
    step = max(seconds_per_step(PRESETS["paper"], pick_device("auto")), 1e-4)
    return ["--steps", str(round(budget / step))]


def genus(mesh: Mesh) -> int | None:
    """The number of handles, of all pieces together; None where the surface is not closed."""
    if not mesh.is_watertight:
        return None
    edges = len(np.unique(np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0))
    euler = len(np.unique(mesh.faces)) - edges + len(mesh.faces)
    return int(mesh.components().max()) + 1 - euler // 2


def coloured(mesh: Mesh, truth: Mesh) -> Mesh:
    """The mesh, from dark blue where it lies on the truth to yellow at WORST."""
    from matplotlib import colormaps

    share = nearest(mesh.vertices, truth)[0] / truth.diagonal / WORST
    return replace(mesh, colors=(255 * colormaps["viridis"](np.clip(share, 0, 1))[:, :3]).astype(np.uint8))


if __name__ == "__main__":
    main(tyro.cli(Args))
