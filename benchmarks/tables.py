"""What `accuracy.py` has measured: tables, plots of error against time, and pictures of where the errors are."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from machine import ROOT
from rivals import MESHLAB, OPEN3D

from sdfrecon.geometry import Floats

OUT = ROOT / "out" / "accuracy"
OURS = ("draft", "standard", "fine")
TARGETS = {"draft": (0.85, 0.85, 0.6), "standard": (0.75, 0.75, 0.5), "fine": (0.7, 0.7, 0.45)}
ON_CLEAN = {"draft": (2.0, np.inf, np.inf), "standard": (1.0, 1.0, 1.0), "fine": (0.75, 0.75, 0.75)}
WORST = 0.01  # share of the diagonal at which the error maps' colours end
Row = dict[str, Any]
Figure = Callable[[list[Row]], str]
"""What a table says of some rows."""


def mean(key: str, digits: int) -> Figure:
    """That of what the rows have."""
    return lambda rows: f"{np.mean([r[key] for r in rows]):.{digits}f}"


def share(key: str, digits: int, of: float) -> Figure:
    """The mean of distances, in so many parts of the diagonal."""
    return lambda rows: f"{np.mean([r[key] / r['diagonal'] for r in rows]) * of:.{digits}f}"


def f_score(threshold: str) -> Figure:
    return lambda rows: f"{np.mean([r['f_score'][threshold] for r in rows]):.3f}"


def right_genus(rows: list[Row]) -> str:
    whole = [r for r in rows if r["true_genus"] is not None]
    return f"{sum(r['genus'] == r['true_genus'] for r in whole)}/{len(whole)}"


COLUMNS: dict[str, Figure] = {
    "accuracy": share("accuracy", 3, 1e3),
    "completeness": share("completeness", 3, 1e3),
    "CD": share("chamfer", 3, 1e3),
    "99%": share("percentile_99", 3, 1e3),
    "H": share("hausdorff", 2, 1e2),
    "F 0.1%": f_score("0.1%"),
    "F 0.5%": f_score("0.5%"),
    "NC": mean("normal_consistency", 4),
    "pieces": mean("components", 1),
    "closed": lambda rows: f"{sum(bool(r['watertight']) for r in rows)}/{len(rows)}",
    "genus": right_genus,
    "s": lambda rows: f"{np.median([r['seconds'] for r in rows]):.1f}",
    "GB": mean("gigabytes", 2),
}


def trio(row: Row) -> Floats:
    """Chamfer and Hausdorff as shares of the diagonal, and 1 - NC."""
    chamfer, hausdorff, nc, diagonal = (row[k] for k in ("chamfer", "hausdorff", "normal_consistency", "diagonal"))
    return np.array([chamfer / diagonal, hausdorff / diagonal, 1 - nc])


def tables(rows: list[Row]) -> None:
    """Prints what each method does on each kind of scan, and how ours compares to the best Poisson variant."""
    print("\nMeans over the shapes and seeds. Distances are of random points (--samples) on each surface, exact from")
    print("point to triangle: accuracy from mesh to truth, completeness from truth to mesh, CD (Chamfer) the mean of")
    print("the two, 99% the larger 99th percentile, in 1e-3 of the diagonal; H (Hausdorff), the largest of them, in")
    print("1e-2. F at 0.1% and 0.5% of it. NC the mean |cos| between normals. pieces, and GB at most: means. closed,")
    print("genus: how many meshes are watertight, and of the true genus of those that have one. Seconds from file to")
    print("file, the median, on whichever of these machines.\n")
    print(f"| scan | method | cases | {' | '.join(COLUMNS)} |\n|{' --- |' * (len(COLUMNS) + 3)}")
    good = [r for r in rows if "failed" not in r]
    for scan in dict.fromkeys(r["scan"] for r in rows):
        for method in dict.fromkeys(r["method"] for r in rows):
            mine = [r for r in good if (r["scan"], r["method"]) == (scan, method)]
            failed = sum("failed" in r for r in rows if (r["scan"], r["method"]) == (scan, method))
            if mine or failed:
                cells = [figure(mine) if mine else "-" for figure in COLUMNS.values()]
                print(f"| {scan} | {method} | {len(mine)}{f', {failed} failed' * bool(failed)} | {' | '.join(cells)} |")
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


def ratios(rows: list[Row]) -> None:
    """Ours to the best Poisson variant of each case, which is the one with the least Chamfer distance."""
    print("\nOurs to the best Poisson variant of the case, that of least CD: mean ratio of CD / H / 1 - NC, below 1 is")
    print("better; and of the seconds to Poisson's at depth 9, of so many cases that both took on the same machine.")
    print("In parentheses what was asked for. phantoms: H over 5%, and Poisson's under half; of how many over 5%.")
    print("or trimmed: ours with `--trim` at `open_distance` where its CD is less, as theirs. to each best: all but")
    print("clean, to the least CD, the least H and the least 1 - NC of any variants of theirs.\n")
    kinds = list(dict.fromkeys(r["scan"] for r in rows))
    print(f"| method | {' | '.join(kinds)} | all but clean | to each best | time | phantoms | cases |")
    print(f"|{' --- |' * (len(kinds) + 6)}")
    for method in [m for m in (*OURS, "paper", "paper_x10") if any(r["method"] == m for r in rows)]:
        ratio_line(method, rows, kinds)
        if any(r["method"] == f"{method}_trimmed" for r in rows):
            ratio_line(method, rows, kinds, or_trimmed=True)


def ratio_line(method: str, rows: list[Row], kinds: list[str], or_trimmed: bool = False) -> None:
    """A line of that table; or_trimmed: of the cases that were trimmed, too, with the mesh that is the better."""
    by_scan: dict[str, list[Floats]] = {kind: [] for kind in kinds}
    each, times, phantoms, far = list[Floats](), list[float](), 0, 0
    for row in [r for r in rows if r["method"] == f"{method}{'_trimmed' * or_trimmed}"]:
        same = [r for r in rows if all(r[k] == row[k] for k in ("shape", "scan", "seed"))]
        mine = closest([r for r in same if r["method"] in (method, row["method"])])
        rivals = [r for r in same if r["method"].startswith(("poisson", "meshlab"))]
        if rivals:
            best = closest(rivals)
            by_scan[row["scan"]].append(mine / best)
            if row["scan"] != "clean":
                each.append(mine / np.min([trio(r) for r in rivals], axis=0))
            if mine[1] > 0.05:
                far += 1
                phantoms += bool(best[1] < mine[1] / 2)
        times += [
            row["seconds"] / r["seconds"] for r in same if (r["method"], r["machine"]) == ("poisson9", row["machine"])
        ]
    hard = [ratio for kind in kinds if kind != "clean" for ratio in by_scan[kind]]
    target = f" ({slashed(TARGETS[method])})" if method in TARGETS else ""
    on_clean = f" ({slashed(ON_CLEAN[method])})" if method in TARGETS else ""
    cells = [slashed(by_scan[kind]) + on_clean * (kind == "clean") for kind in kinds]
    took = f"{np.mean(times):.1f} of {len(times)}" if times else "-"
    print(
        f"| {method}{', or trimmed' * or_trimmed} | {' | '.join(cells)} | {slashed(hard)}{target} "
        f"| {slashed(each)} | {took} | {phantoms} of {far} | {sum(map(len, by_scan.values()))} |"
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
    from matplotlib.ticker import NullLocator, StrMethodFormatter

    families = {
        "sdfrecon": (OURS, "tab:blue", "o-"),
        "screened Poisson (Open3D)": (tuple(OPEN3D), "tab:orange", "s-"),
        "PoissonRecon (MeshLab)": (tuple(MESHLAB), "tab:red", "s-"),
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
                panel.loglog(*zip(*points, strict=True), style, color=color, label=label)
        panel.set(title=kind, xlabel="seconds, file to file", ylabel="Chamfer, 1e-3 of the diagonal")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_ticks([digit * 10.0**power for power in (-2, -1, 0, 1, 2) for digit in (1, 2, 5)])
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_locator(NullLocator())
        panel.set_ylim(0.8 * panel.dataLim.y0, 1.25 * panel.dataLim.y1)
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
        print(f"no error maps of {shape}: a mesh's picture is made when it is measured, here", file=sys.stderr)
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
