"""What the benchmarks measure with: scans that are what they say, and figures that are what they are called."""

from pathlib import Path

import cases
import numpy as np
import pytest
from accuracy import Results, genus
from rivals import trimmed
from tables import COLUMNS, Row, ratio_line, trio

from sdfrecon.files import write_mesh
from sdfrecon.geometry import Mesh, PointCloud
from sdfrecon.meshing import extract_mesh
from sdfrecon.metrics import nearest, sample_surface
from sdfrecon.noise import evened
from sdfrecon.shapes import RING_AND_BALL


@pytest.fixture(scope="module")
def truth() -> Mesh:
    return extract_mesh(cases.RingAndBall(), 64)


def made(scan: str, truth: Mesh) -> tuple[np.ndarray, np.ndarray]:
    cloud = cases.ALL[scan](truth, np.random.default_rng(5))
    assert cloud.normals is not None
    np.testing.assert_allclose(np.linalg.norm(cloud.normals, axis=1), 1)
    return cloud.points, cloud.normals


def test_the_exact_shape_is_exact_and_has_one_handle() -> None:
    truth = cases.truth("ring_and_ball")
    assert np.abs(RING_AND_BALL(truth.vertices)).max() < 1e-6
    assert np.abs(RING_AND_BALL(truth.vertices[truth.faces].mean(axis=1))).max() < 1e-4
    assert truth.components().max() == 1, "a ring and a ball"
    assert genus(truth) == 1
    assert genus(truth.keep_faces(np.arange(len(truth.faces)) > 0)) is None, "an open surface has no genus here"


def test_clean_and_sparse_lie_on_the_surface(truth: Mesh) -> None:
    for scan, count in (("clean", 100_000), ("sparse", 3_000)):
        points, _ = made(scan, truth)
        assert len(points) == count
        assert np.abs(RING_AND_BALL(points)).max() < 2e-3  # the middles of triangles, 1/64 wide


def test_noise_is_half_a_percent_along_the_normal_and_normals_turn_by_ten_degrees(truth: Mesh) -> None:
    points, normals = made("noisy", truth)
    away, there = nearest(points, truth)
    assert np.sqrt((away**2).mean()) == pytest.approx(0.005 * truth.diagonal, rel=0.02)
    angle = np.degrees(np.arccos(np.clip((normals * there).sum(axis=1), -1, 1)))
    assert np.median(angle) == pytest.approx(10, abs=0.3)


def test_lines_are_20_times_as_dense_along_as_across_and_noisy_by_a_thousandth(truth: Mesh) -> None:
    points, normals = made("lines", truth)
    assert len(points) == pytest.approx(truth.areas.sum() / truth.diagonal**2 / 0.02 / 0.001, rel=0.05)
    assert np.sqrt((nearest(points, truth)[0] ** 2).mean()) == pytest.approx(0.001 * truth.diagonal, rel=0.05)
    assert len(evened(PointCloud(points, normals))) < len(points) / 4


def test_a_tenth_of_the_surface_is_unseen(truth: Mesh) -> None:
    points, _ = made("unseen", truth)
    gap = nearest(sample_surface(truth, 20_000, np.random.default_rng(1))[0], PointCloud(points))[0]
    assert 0.08 < (gap > 0.03 * truth.diagonal).mean() < 0.2


def test_one_point_in_21_is_an_outlier(truth: Mesh) -> None:
    scanned, _ = made("scan", truth)
    points, normals = made("outliers", truth)
    np.testing.assert_array_equal(points[: len(scanned)], scanned)
    assert len(points) == len(scanned) + len(scanned) // 20
    added, of_added = points[len(scanned) :], normals[len(scanned) :]
    low, high = truth.vertices.min(axis=0), truth.vertices.max(axis=0)
    share = (added - low) / (high - low)
    np.testing.assert_allclose(share.mean(axis=0), 0.5, atol=0.03)
    np.testing.assert_allclose(share.std(axis=0), 12**-0.5, atol=0.03)
    np.testing.assert_allclose(of_added.T @ of_added / len(of_added), np.eye(3) / 3, atol=0.03)
    assert np.abs(of_added.mean(axis=0)).max() < 0.05


def test_each_camera_of_a_misaligned_scan_is_moved_as_one(truth: Mesh) -> None:
    scanned, normals = made("scan", truth)
    moved, turned = made("misaligned", truth)
    assert len(moved) == len(scanned)
    shift = np.linalg.norm(moved - scanned, axis=1) / truth.diagonal
    assert 0.002 < shift.mean() < 0.006
    # The first and the last 500 points are of one camera each: one rotation turns their normals, and what is left of
    # the points is the noise along the rays, 0.1% of the diagonal, which is drawn anew.
    for one in (slice(None, 500), slice(-500, None)):
        u, _, v = np.linalg.svd(normals[one].T @ turned[one])
        turn = u @ v
        np.testing.assert_allclose(normals[one] @ turn, turned[one], atol=1e-6)
        assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) == pytest.approx(0.3, abs=0.01)
        left = moved[one] - scanned[one] @ turn
        assert (left - left.mean(axis=0)).std() < 1.5 * 0.001 * np.sqrt(2 / 3) * truth.diagonal


def test_a_stopped_benchmark_knows_what_it_measured(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    row = {"shape": "ball", "scan": "clean", "seed": 1, "method": "draft"}
    figures = {"chamfer": 0.2, "hausdorff": 0.4, "normal_consistency": 0.9, "diagonal": 2.0}
    Results(path, 9).add([{**row, "failed": "no time"}, {**row, "method": "fine", "failed": "no time"}])
    assert not Results(path, 9).has("ball", "clean", 1, "draft"), "what failed is tried again"
    Results(path, 9).add([{**row, **figures}])
    with path.open("a") as file:
        file.write('{"shape": "cut short')
    again = Results(path, 9)
    again.add([{**row, **figures, "seed": 3}])
    again.add([{**row, **figures, "seed": 4}, {**row, **figures, "seed": 4, "method": "draft_trimmed"}])
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))  # a full disk may end between the two
    again = Results(path, 9)
    assert [again.has("ball", "clean", seed, "draft") for seed in (1, 2, 3, 4)] == [True, False, True, False]
    assert not Results(path, 8).has("ball", "clean", 1, "draft"), "that was measured with other samples"
    known = again.find("ball", "clean", 1, "draft")
    assert known is not None
    np.testing.assert_allclose(trio(known), [0.1, 0.2, 0.1])


def test_poissons_mesh_is_trimmed_by_the_hundredth_of_least_density(truth: Mesh, tmp_path: Path) -> None:
    write_mesh(tmp_path / "mesh.ply", truth)
    density = truth.vertices[:, 2]
    np.save(tmp_path / "mesh.npy", density)
    mesh = trimmed(tmp_path / "mesh.ply")
    below = np.partition(density, k := len(density) // 100)[k]
    assert mesh.vertices[:, 2].min() == pytest.approx(below, abs=0.01 * np.ptp(density))
    assert 0.98 < len(mesh.vertices) / len(truth.vertices) < 0.995


def test_every_column_says_what_it_is_called() -> None:
    first = {
        "accuracy": 0.1, "completeness": 0.2, "chamfer": 0.15, "percentile_99": 0.4, "hausdorff": 0.5,
        "diagonal": 10.0, "f_score": {"0.1%": 0.6, "0.5%": 0.7}, "normal_consistency": 0.8, "components": 3,
        "watertight": True, "genus": 1, "true_genus": 1, "seconds": 2.0, "gigabytes": 0.25,
    }  # fmt: skip
    rows = [first, {**first, "watertight": False, "genus": None}, {**first, "genus": 0, "seconds": 9.0}]
    assert {name: figure(rows) for name, figure in COLUMNS.items()} == {
        "accuracy": "10.000", "completeness": "20.000", "CD": "15.000", "99%": "40.000", "H": "5.00", "F 0.1%": "0.600",
        "F 0.5%": "0.700", "NC": "0.8000", "pieces": "3.0", "closed": "2/3", "genus": "1/3", "s": "2.0", "GB": "0.25",
    }  # fmt: skip


def test_ours_is_measured_against_the_best_poisson_of_each_case(capsys: pytest.CaptureFixture[str]) -> None:
    def row(
        method: str,
        chamfer: float,
        hausdorff: float,
        consistency: float,
        seed: int,
        seconds: float,
        machine: str = "this",
    ) -> Row:
        figures = {"chamfer": chamfer, "hausdorff": hausdorff, "normal_consistency": consistency, "diagonal": 10.0}
        return {"shape": "ball", "scan": "noisy", "seed": seed, "method": method, "seconds": seconds,
                "machine": machine, **figures}  # fmt: skip

    rows = [
        row("poisson8", 0.5, 1.0, 0.9, 1, 5.0), row("poisson9", 0.4, 4.0, 0.8, 1, 10.0),
        row("draft", 0.1, 1.0, 0.9, 1, 20.0), row("draft_trimmed", 0.2, 0.2, 0.99, 1, 20.0),
        row("poisson9_trimmed", 0.1, 0.1, 0.9, 2, 10.0), row("poisson9", 0.3, 0.3, 0.9, 2, 10.0),
        row("poisson9", 0.9, 9.0, 0.5, 2, 1.0, "other"),
        row("draft", 0.2, 0.6, 0.95, 2, 40.0), row("draft_trimmed", 0.05, 0.1, 0.95, 2, 40.0),
    ]  # fmt: skip
    ratio_line("draft", rows, ["noisy"])
    ratio_line("draft", rows, ["noisy"], or_trimmed=True)
    closed, trimmed = (line.split("|")[2:8] for line in capsys.readouterr().out.splitlines())
    assert closed[0].strip() == "1.12 / 3.12 / 0.50"
    assert [cell.strip() for cell in closed[2:]] == ["1.12 / 3.50 / 0.75", "3.0 of 2", "1 of 2", "2"], (
        "each, time, phantoms, cases"
    )
    assert trimmed[0].strip() == "0.38 / 0.62 / 0.50"
