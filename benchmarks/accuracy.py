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
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import cases
import numpy as np
import tyro
from machine import ROOT, SHARED, commit, heading, machine, timed
from rivals import RIVALS, trimmed
from scipy.spatial import cKDTree

from sdfrecon.cleaning import clean
from sdfrecon.files import read_mesh, write_arrays
from sdfrecon.finishing import finish, open_distance
from sdfrecon.frame import Frame
from sdfrecon.geometry import Floats, Mesh, PointCloud
from sdfrecon.metrics import compare, nearest
from sdfrecon.pictures import write_image
from sdfrecon.reconstruction import PRESETS, pick_device, seconds_per_step
from sdfrecon.report import render

OUT = ROOT / "out" / "accuracy"
OURS = ("draft", "standard", "fine")
TARGETS = {"draft": (0.85, 0.85, 0.6), "standard": (0.75, 0.75, 0.5), "fine": (0.7, 0.7, 0.45)}
ON_CLEAN = {"draft": (2.0, np.inf, np.inf), "standard": (1.0, 1.0, 1.0), "fine": (0.75, 0.75, 0.75)}
WORST = 0.01  # share of the diagonal at which the error maps' colours end
Row = dict[str, Any]


@dataclasses.dataclass
class Args:
    """Measures reconstructions of virtual scans against the known surfaces.

    Seeds 0 to 9 were used while tuning, 10 for the last checks of some choices (TRIED.md).
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
    """Three shapes, two scans, Poisson at depth 8 and 9 and draft: about five minutes on two cores."""
    samples: int = 100_000
    """Points on each surface from which distances are measured."""
    report: bool = False
    """Measure nothing: make tables and pictures of what was measured."""


def main(args: Args) -> None:
    if args.quick:
        args = replace(args, shapes=("ring_and_ball", "anchor", "lord_quas"), scans=("scan", "noisy"))
        args = replace(args, methods=("poisson8", "poisson9", "draft"))
    OUT.mkdir(parents=True, exist_ok=True)
    shapes = [shape for shape in args.shapes or cases.shapes() if shape in cases.shapes()]
    if missing := set(args.shapes) - set(shapes):
        print(f"no ground truth of {', '.join(sorted(missing))} in {SHARED}: not measured", file=sys.stderr)
    results = Results(OUT / "results.jsonl", args.samples)
    if not args.report:
        for seed, shape, scan, method in product(args.seeds, shapes, args.scans, args.methods):
            if not results.has(shape, scan, seed, method):
                measure(results, shape, scan, seed, method)
    rows = [r for r in results.rows if r["shape"] in shapes and r["scan"] in args.scans and r["seed"] in args.seeds]
    rows = [r for r in rows if r["method"].removesuffix("_trimmed") in args.methods]
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
        """More, all or none."""
        rows = [{**row, "samples": self.samples} for row in rows]
        self._take(rows)
        with self.path.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))

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
            preset = method.partition(":")[0].partition("_")[0]
            command += ["--seed", str(seed), "--preset", preset, *steps(results, shape, scan, seed, method)]
        case: Row = {"shape": shape, "scan": scan, "seed": seed, "points": len(cloud)}
        case |= {"commit": commit(), "machine": machine()}
        print(f"{method}: {shape}, {scan}, {seed}", file=sys.stderr)
        try:
            seconds, memory = timed([sys.executable, *command])
        except SystemExit as failure:
            print(f"failed: {failure}", file=sys.stderr)
            results.add([{**case, "method": method, "failed": str(failure)}])
            return
        whole, dense = read_mesh(target), target.with_suffix(".npz")
        meshes = {method: whole}
        if dense.exists():
            meshes[f"{method}_trimmed"] = trimmed(dense)
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
    if draft is None or "seconds" not in draft:
        raise SystemExit(f"{method} is given draft's time: measure draft first")
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


def trio(row: Row) -> Floats:
    """Chamfer and Hausdorff as shares of the diagonal, and 1 - NC."""
    chamfer, hausdorff, nc, diagonal = (row[k] for k in ("chamfer", "hausdorff", "normal_consistency", "diagonal"))
    return np.array([chamfer / diagonal, hausdorff / diagonal, 1 - nc])


def tables(rows: list[Row]) -> None:
    """Prints what each method does on each kind of scan, and how ours compares to the best Poisson variant."""
    print("\nMeans over the shapes and seeds. Distances are exact from point to triangle: accuracy from mesh to truth,")
    print(
        "completeness from truth to mesh, CD (Chamfer) the mean of the two, 99% the larger 99th percentile, in 1e-3 of"
    )
    print("the diagonal; H (Hausdorff) in 1e-2. F at 0.1% and 0.5% of it. NC the mean |cos| between normals.")
    print("closed, genus: how many meshes are watertight, and of the true genus of those that have one. Seconds from")
    print("file to file, the median.\n")
    names = (
        "accuracy",
        "completeness",
        "CD",
        "99%",
        "H",
        "F 0.1%",
        "F 0.5%",
        "NC",
        "pieces",
        "closed",
        "genus",
        "s",
        "GB",
    )
    print(f"| scan | method | cases | {' | '.join(names)} |\n|{' --- |' * (len(names) + 3)}")
    good = [r for r in rows if "failed" not in r]
    for scan in dict.fromkeys(r["scan"] for r in rows):
        for method in dict.fromkeys(r["method"] for r in rows):
            mine = [r for r in good if (r["scan"], r["method"]) == (scan, method)]
            failed = sum("failed" in r for r in rows if (r["scan"], r["method"]) == (scan, method))
            if mine or failed:
                cells = averages(mine) if mine else " | ".join("-" * len(names))
                print(f"| {scan} | {method} | {len(mine)}{f', {failed} failed' * bool(failed)} | {cells} |")
    ratios(good)
    print(
        "\nSurface Reconstruction Benchmark's convention, on `scan`: dC / dH in the scan's units, means of the seeds.\n"
    )
    for shape in ("anchor", "lord_quas"):
        found = [r for r in good if (r["shape"], r["scan"]) == (shape, "scan")]
        figures = []
        for method in dict.fromkeys(r["method"] for r in found):
            mine = [r for r in found if r["method"] == method]
            both = [np.mean([r[key] for r in mine]) for key in ("chamfer", "hausdorff")]
            figures.append(f"{method} {both[0]:.3f} / {both[1]:.2f}")
        print(f"- {shape}: {', '.join(figures)}")


def averages(rows: list[Row]) -> str:
    """The cells of a line."""

    def mean(key: str) -> float:
        return float(np.mean([r[key] for r in rows]))

    def share(key: str) -> float:
        return float(np.mean([r[key] / r["diagonal"] for r in rows])) * 1e3

    distances = [f"{share(key):.3f}" for key in ("accuracy", "completeness", "chamfer", "percentile_99")]
    f = [np.mean([r["f_score"][k] for r in rows]) for k in ("0.1%", "0.5%")]
    closed, right = (
        sum(bool(r["watertight"]) for r in rows),
        sum(r["genus"] == r["true_genus"] is not None for r in rows),
    )
    whole = sum(r["true_genus"] is not None for r in rows)
    cells = [
        *distances,
        f"{share('hausdorff') / 10:.2f}",
        f"{f[0]:.3f}",
        f"{f[1]:.3f}",
        f"{mean('normal_consistency'):.4f}",
    ]
    cells += [f"{mean('components'):.1f}", f"{closed}/{len(rows)}", f"{right}/{whole}"]
    return " | ".join([*cells, f"{np.median([r['seconds'] for r in rows]):.1f}", f"{mean('gigabytes'):.2f}"])


def ratios(rows: list[Row]) -> None:
    """Ours to the best Poisson variant of each case, which is the one with the least Chamfer distance."""
    print("\nOurs to the best Poisson variant of the case, that of least CD: mean ratio of CD / H / 1 - NC, below 1 is")
    print("better; and of the seconds to Poisson's at depth 9 on the same machine. (Targets.) phantoms: H over 5%, and")
    print("Poisson's under half. or trimmed: ours with `--trim` at `open_distance` where its CD is less, as theirs.\n")
    kinds = list(dict.fromkeys(r["scan"] for r in rows))
    print(f"| method | {' | '.join(kinds)} | all but clean | time | phantoms | cases |\n|{' --- |' * (len(kinds) + 5)}")
    for method in [m for m in (*OURS, "paper", "paper_x10") if any(r["method"] == m for r in rows)]:
        ratio_line(method, rows, kinds)
        if any(r["method"] == f"{method}_trimmed" for r in rows):
            ratio_line(method, rows, kinds, or_trimmed=True)


def ratio_line(method: str, rows: list[Row], kinds: list[str], or_trimmed: bool = False) -> None:
    """A line of that table; or_trimmed: of the cases that were trimmed, too, with the mesh that is the better."""
    by_scan: dict[str, list[Floats]] = {kind: [] for kind in kinds}
    times, phantoms = [], 0
    for row in [r for r in rows if r["method"] == f"{method}{'_trimmed' * or_trimmed}"]:
        same = [r for r in rows if all(r[k] == row[k] for k in ("shape", "scan", "seed"))]
        mine = closest([r for r in same if r["method"] in (method, row["method"])])
        rivals = [r for r in same if r["method"].startswith(("poisson", "meshlab"))]
        if rivals:
            best = closest(rivals)
            by_scan[row["scan"]].append(mine / best)
            phantoms += bool(mine[1] > 0.05 and best[1] < mine[1] / 2)
        times += [
            row["seconds"] / r["seconds"] for r in same if (r["method"], r["machine"]) == ("poisson9", row["machine"])
        ]
    hard = [ratio for kind in kinds if kind != "clean" for ratio in by_scan[kind]]
    target = f" ({slashed(TARGETS[method])})" if method in TARGETS else ""
    on_clean = f" ({slashed(ON_CLEAN[method])})" if method in TARGETS else ""
    cells = [slashed(by_scan[kind]) + on_clean * (kind == "clean") for kind in kinds]
    print(
        f"| {method}{', or trimmed' * or_trimmed} | {' | '.join(cells)} | {slashed(hard)}{target} "
        f"| {np.mean(times or np.nan):.1f} | {phantoms} | {sum(map(len, by_scan.values()))} |"
    )


def closest(rows: list[Row]) -> Floats:
    """The `trio` of the least Chamfer distance."""
    return min(map(trio, rows), key=lambda figures: figures[0])


def slashed(ratios: Iterable[object]) -> str:
    values = np.array(list(ratios), np.float64)
    if not len(values):
        return ""
    return " / ".join("-" if np.isinf(v) else f"{v:.2f}" for v in (values if values.ndim == 1 else values.mean(axis=0)))


def plot(rows: list[Row]) -> None:
    """Error against time, a panel for each kind of scan: medians over the shapes and seeds."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullLocator, ScalarFormatter

    families = {
        "sdfrecon": (OURS, "tab:blue", "o-"),
        "screened Poisson (Open3D)": (("poisson8", "poisson9", "poisson10"), "tab:orange", "s-"),
        "PoissonRecon (MeshLab)": (("meshlab8",), "tab:red", "s-"),
        "ball pivoting": (("pivoting",), "tab:green", "^-"),
        "SIREN paper's loss": (("paper", "paper_x10"), "tab:purple", "v-"),
    }
    known = {method for methods, _, _ in families.values() for method in methods}
    good = [r for r in rows if "failed" not in r and r["method"] in known]
    if not good:
        return
    kinds = list(dict.fromkeys(r["scan"] for r in good))
    seconds = [r["seconds"] for r in good]
    columns = min(4, len(kinds))
    figure, axes = pyplot.subplots(
        -(-len(kinds) // columns), columns, figsize=(4 * columns, 3.4 * -(-len(kinds) // columns)), squeeze=False
    )
    for panel, kind in zip(axes.flat, kinds, strict=False):
        for label, (methods, color, style) in families.items():
            points = []
            for method in methods:
                found = [r for r in good if (r["scan"], r["method"]) == (kind, method)]
                if found:
                    middle = np.median([r["seconds"] for r in found])
                    points.append((middle, np.median([trio(r)[0] for r in found]) * 1e3))
            if points:
                panel.semilogx(*zip(*points, strict=True), style, color=color, label=label)
        panel.set(title=kind, xlabel="seconds, file to file", ylabel="Chamfer, 1e-3 of the diagonal")
        panel.set_ylim(0, 1.15 * panel.dataLim.y1)
        panel.set_xticks([1, 2, 5, 10, 20, 50, 100, 200, 500], minor=False)
        panel.xaxis.set_major_formatter(ScalarFormatter())
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xlim(0.8 * min(seconds), 1.3 * max(seconds))
        panel.grid(which="both", alpha=0.25)
    for panel in axes.flat[len(kinds) :]:
        panel.axis("off")
    handles = {name: h for ax in axes.flat for h, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="lower right")
    figure.tight_layout()
    figure.savefig(OUT / "error_time.png", dpi=100)
    pyplot.close(figure)


def error_maps(shape: str, scans: tuple[str, ...], seed: int, methods: tuple[str, ...]) -> None:
    """One picture of a shape: a row for each kind of scan, a column for each method, coloured by distance."""
    from matplotlib import colormaps, pyplot
    from matplotlib.colors import Normalize

    shown = [m for m in ("poisson9", "meshlab8", "pivoting", *OURS, "paper", "paper_x10") if m in methods]
    tiles = {(s, m): OUT / f".{shape}-{s}-{seed}-{m}.png" for s in scans for m in shown}
    shown = [m for m in shown if any(tiles[s, m].exists() for s in scans)]
    if not shown:
        return
    figure, axes = pyplot.subplots(
        len(scans), len(shown), figsize=(2.6 * len(shown) + 1, 2.4 * len(scans)), squeeze=False, layout="constrained"
    )
    for i, scan in enumerate(scans):
        for j, method in enumerate(shown):
            axes[i, j].set(xticks=[], yticks=[], title=method * (not i), ylabel=scan * (not j))
            axes[i, j].spines[:].set_visible(False)
            if tiles[scan, method].exists():
                axes[i, j].imshow(pyplot.imread(tiles[scan, method]))
    scale = pyplot.cm.ScalarMappable(Normalize(0, 100 * WORST), colormaps["viridis"])
    figure.colorbar(scale, ax=axes, shrink=0.5, label="distance to the truth, % of the diagonal", extend="max")
    figure.savefig(OUT / f"{shape}.png", dpi=80)
    pyplot.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Args))
