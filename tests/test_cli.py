import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
import trimesh
from test_finishing import WHOLE, seen, with_piece

import sdfrecon
from sdfrecon import fieldfiles, files, memory, showing
from sdfrecon.cli import SPINS, main
from sdfrecon.console import describe, load_scan
from sdfrecon.field import Field
from sdfrecon.fit import Diverged
from sdfrecon.frame import Frame
from sdfrecon.geometry import InputError, Mesh, PointCloud
from sdfrecon.options import Reconstruct, View
from sdfrecon.run_dir import Losses
from sdfrecon.shapes import RING_AND_BALL, evenly_spread
from sdfrecon.siren import Siren, SirenConfig

pytestmark = pytest.mark.usefixtures("few_prepared")
FAST = ("--steps", "150", "--resolution", "48", "--device", "cpu")
FEW = ("--steps", "50", "--resolution", "32", "--device", "cpu")
"""For a mesh whose shape says nothing."""


def run(*args: str | Path) -> None:
    main([str(arg) for arg in args])


def refused(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    """The one line on stderr with which a command ends with status 2."""
    with pytest.raises(SystemExit) as stopped:
        run(*args)
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("sdfrecon: error: ")
    assert err.count("\n") == 1
    return err


def test_steps_are_those_asked_for_also_where_the_preset_has_more_for_many_points(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ball = evenly_spread(60_000)
    np.savez(tmp_path / "ball.npz", points=ball, normals=ball)
    for asked, steps in (((), "6,000 steps"), (("--steps", "70"), "70 steps")):
        with pytest.raises(SystemExit):
            run("reconstruct", tmp_path / "ball.npz", "--preset", "fine", *asked, "--trim", "1e-6")
        assert f"of 256, {steps} on" in capsys.readouterr().out


def test_from_a_scan_to_everything(tmp_path: Path, ring_and_ball: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mesh, field = tmp_path / "ring.glb", tmp_path / "ring.safetensors"
    run("reconstruct", ring_and_ball, "--output", mesh, *FAST)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ring.glb", "ring.safetensors"], "no checkpoint is left"
    said = capsys.readouterr().out
    for fact in ("12,594 points, normals, no colours", "3 sine layers of 128, 150 steps on cpu", "48 cells",
                 "points 0.0137 apart", "for the fit and", "GB of memory", "watertight, cells of 0.0"):  # fmt: skip
        assert fact in said

    run("mesh", field, "--output", tmp_path / "fine.ply", "--resolution", "64")
    run("mesh", field, "--output", tmp_path / "thick.ply", "--level", "0.05", "--resolution", "64")
    assert files.read_mesh(tmp_path / "thick.ply").volume > files.read_mesh(tmp_path / "fine.ply").volume * 1.1

    np.save(tmp_path / "points.npy", np.array([[0.0, 0, 0.3], [0.9, 0, 0], [0.0, 0, 0.4]]))
    run("query", field, tmp_path / "points.npy", "--output", tmp_path / "answer.npz")
    answer = np.load(tmp_path / "answer.npz")
    np.testing.assert_allclose(answer["distance"], RING_AND_BALL(answer["points"]), atol=0.03)
    np.testing.assert_allclose(np.linalg.norm(answer["gradient"], axis=1), 1, atol=1e-5)
    capsys.readouterr()
    np.save(tmp_path / "far.npy", np.array([[0.0, 0, 0.3], [9, 0, 0], [np.nan, 0, 0], [0, -np.inf, 0]]))
    run("query", field, tmp_path / "far.npy", "--output", tmp_path / "answer.npz")
    told = capsys.readouterr().err
    assert "warning: 1 of 4 points lie beyond the cube around the scan" in told
    assert "warning: 2 points have coordinates that are not finite: their distances are NaN" in told
    answer = np.load(tmp_path / "answer.npz")
    np.testing.assert_array_equal(np.isnan(answer["distance"]), [False, False, True, True])
    assert np.isnan(answer["gradient"][2:]).all()

    np.save(tmp_path / "holed.npy", np.concatenate([files.read_cloud(ring_and_ball).points, [[np.nan] * 3]]))
    run("compare", tmp_path / "fine.ply", tmp_path / "holed.npy", "--json", tmp_path / "figures.json", "--report",
        tmp_path / "page.html")  # fmt: skip
    assert 0 < json.loads((tmp_path / "figures.json").read_text())["chamfer"] < 0.025, (
        "the scan's points are 0.026 apart"
    )
    assert (tmp_path / "page.html").exists()
    capsys.readouterr()
    for file, *words in (
        (field, "3 sine layers of 128", "scan:  ring_and_ball.ply, 12,593 points", "made:  150 steps, seed 0, "),
        (mesh, "      2 pieces, area"),
        (ring_and_ball, "x -0.9", "draft"),
    ):
        run("info", file, "--device", "cpu")
        said = capsys.readouterr().out
        assert all(word in said for word in words), said


def test_a_field_and_its_scan_make_the_mesh_again_with_other_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ball = evenly_spread(6000)
    scan, field, again = (tmp_path / name for name in ("cap.npz", "cap.safetensors", "again.ply"))
    cap, colours = ball[ball[:, 2] < 0], np.full((len(ball), 3), 90, np.uint8)[ball[:, 2] < 0]
    np.savez(scan, points=cap, normals=cap, colors=colours)
    run("reconstruct", scan, "--output", tmp_path / "cap.ply", *FAST)
    assert "open scan: cut" in capsys.readouterr().err

    run("mesh", field, "--output", again, "--scan", scan, "--device", "cpu")
    assert "open scan: cut" in capsys.readouterr().err
    assert again.read_bytes() == (tmp_path / "cap.ply").read_bytes()

    areas = []
    for trim in ("0.3", "0.6", "0"):
        run("mesh", field, "--output", again, "--scan", scan, "--resolution", "64", "--trim", trim)
        areas.append(files.read_mesh(again).areas.sum())
    run("mesh", field, "--output", again, "--resolution", "64")
    assert areas[0] < areas[1] < areas[2] <= files.read_mesh(again).areas.sum()
    capsys.readouterr()
    assert "--trim 0.001 is less than the points are apart" in refused(
        capsys, "mesh", field, "--output", again, "--scan", scan, "--trim", "0.001"
    )
    np.savez(scan, points=cap[1:], normals=cap[1:])
    run("mesh", field, "--output", again, "--scan", scan, "--resolution", "64")
    assert f"warning: the field was fitted to other points than those of {scan}" in capsys.readouterr().err
    assert "give the --scan" in refused(capsys, "mesh", field, "--output", again, "--trim", "0.3")
    level = ("mesh", field, "--output", again, "--scan", scan, "--level", "0.1")
    assert "either it or --level" in refused(capsys, *level, "--trim", "0.3")
    monkeypatch.setattr(Field, "mesh", lambda *_: with_piece((0.8, 0, 0), 0.1))
    np.savez(scan, points=seen(1.0).points, normals=seen(1.0).normals)
    run(*level)
    assert len(files.read_mesh(again).faces) == len(WHOLE.faces), "pieces without points go at any level"


def test_a_mesh_of_few_large_triangles_is_taken_by_its_surface(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sdfrecon.console.ON_TRIANGLES", 20_000)
    monkeypatch.setattr("sdfrecon.reconstruction.seconds_per_step", lambda *_: 1.0)
    rod = trimesh.creation.cylinder(10, 40, sections=256)
    rod.export(tmp_path / "rod.stl")
    run("reconstruct", tmp_path / "rod.stl", "--steps", "200", *FAST[2:])
    said = capsys.readouterr().out
    assert "the mesh's 514 vertices do not show its surface" in said
    assert "20,000 points, normals" in said
    made = files.read_mesh(tmp_path / "rod_mesh.ply")
    assert made.is_watertight
    assert made.volume == pytest.approx(rod.volume, rel=0.05)
    run("mesh", tmp_path / "rod_mesh.safetensors", "--scan", tmp_path / "rod.stl", "--output", tmp_path / "again.ply",
        "--device", "cpu")  # fmt: skip
    assert "warning" not in capsys.readouterr().err
    rod.invert()
    rod.export(tmp_path / "rod.stl")
    run("info", tmp_path / "rod.stl", "--device", "cpu")
    said = capsys.readouterr().out
    assert "inside out" in said
    assert "scan: 20,000 points" in said


def test_points_on_a_thin_wall_look_away_from_it(tmp_path: Path) -> None:
    outer, inner = trimesh.creation.box((100, 100, 100)), trimesh.creation.box((96, 96, 100))
    inner.apply_translation((0, 0, 2))
    inner.invert()
    trimesh.util.concatenate([outer, inner]).export(tmp_path / "bin.stl")
    taken, _ = load_scan(tmp_path / "bin.stl", None, None)
    below = taken.points[:, 2] == -50
    assert below.sum() > 5000
    assert (taken.normals[below, 2] < -0.99).all()
    floor = np.isclose(taken.points[:, 2], -48)
    assert (taken.normals[floor, 2] > 0.99).all()


def test_points_are_added_where_a_meshs_vertices_do_not_show_it(tmp_path: Path) -> None:
    plate, even = trimesh.creation.cylinder(10, 1, sections=4000), trimesh.creation.icosphere(4, 10)
    for name, mesh in (("plate", plate), ("even", even)):
        mesh.export(tmp_path / f"{name}.ply")
    taken, lines = load_scan(tmp_path / "plate.ply", None, None)
    assert len(lines) == 1
    np.testing.assert_allclose(taken.points[: len(plate.vertices)], plate.vertices, atol=1e-6)
    added = taken.points[len(plate.vertices) :]
    assert len(added) > 30_000
    assert np.hypot(added[:, 0], added[:, 1]).max() < 9.9
    np.testing.assert_allclose(taken.normals[-len(added) :], [[0, 0, 1]] * np.sign(added[:, 2:]), atol=1e-6)
    taken, lines = load_scan(tmp_path / "even.ply", None, None)
    assert (len(taken), lines) == (2562, [])
    in_all, in_box = (load_scan(tmp_path / "plate.ply", (4, -1, -1, 6, 1, box), None)[0] for box in (9, -0.4))
    assert (in_box.points[:, 2] < -0.4).all()
    assert len(in_box) > 1.8 * (in_all.points[:, 2] < -0.4).sum(), "points are drawn where they are wanted"


def test_points_on_triangles_look_the_way_of_the_files_normals_at_a_seam_too(tmp_path: Path) -> None:
    plate = trimesh.creation.cylinder(10, 1, sections=4000)
    corners, up = plate.vertices[plate.faces].reshape(-1, 3), np.repeat(plate.face_normals, 3, axis=0)
    mirrored = np.arange(len(corners)).reshape(-1, 3)[:, ::-1]
    files.write_mesh(tmp_path / "plate.ply", Mesh(corners, mirrored, up))
    taken, _ = load_scan(tmp_path / "plate.ply", None, None)
    flat = np.hypot(*taken.points[:, :2].T) < 9.9
    assert flat.sum() > 30_000
    np.testing.assert_allclose(taken.normals[flat, 2], np.sign(taken.points[flat, 2]), atol=1e-6)


def test_a_part_of_a_scan_is_taken_and_taken_again(
    tmp_path: Path, ring_and_ball: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = ("-2", "-2", "-2", "2", "0", "2")
    part = ("--box", *box, "--max-points", "3000", "--trim", "0.2", "--seed", "7")
    run("reconstruct", ring_and_ball, *part, "--output", tmp_path / "half.ply", *FAST)
    assert "12,594 points, of which 3,000 are taken" in capsys.readouterr().out
    half = files.read_mesh(tmp_path / "half.ply")
    assert half.vertices[:, 1].max() < 0.3
    assert not half.is_watertight
    assert fieldfiles.load_field(tmp_path / "half.safetensors").about["config"]["seed"] == 7
    run("mesh", tmp_path / "half.safetensors", "--scan", ring_and_ball, "--output", tmp_path / "again.ply",
        "--device", "cpu")  # fmt: skip
    assert (tmp_path / "again.ply").read_bytes() == (tmp_path / "half.ply").read_bytes()
    assert "warning" not in capsys.readouterr().err
    for wrong, message in (
        ((*box[:4], "-3", "2"), "--box takes the least x, y, z"),
        (("5",) * 3 + ("6",) * 3, "no point of"),
    ):
        assert message in refused(capsys, "reconstruct", ring_and_ball, "--box", *wrong)
    assert "--max-points must be at least 10" in refused(capsys, "reconstruct", ring_and_ball, "--max-points", "9")


def test_as_many_points_are_taken_though_others_are_no_numbers(tmp_path: Path) -> None:
    places = np.random.default_rng(0).random((200, 3))
    places[::2] = np.nan
    files.write_arrays(tmp_path / "a.npz", points=places)
    for most, taken in ((60, 60), (150, 100)):
        cloud, (line,) = load_scan(tmp_path / "a.npz", None, most)
        assert np.isfinite(cloud.points).all()
        assert line.endswith(f"200 points, of which {taken} are taken")


def test_normals_that_are_no_numbers_are_none() -> None:
    assert ", no normals, " in describe(PointCloud(np.eye(3), np.full((3, 3), np.nan)))


def test_a_scan_for_which_there_is_no_memory_is_refused_with_its_field_too(
    tmp_path: Path, ring_and_ball: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    field = tmp_path / "a.safetensors"
    fieldfiles.save_field(field, Field(Siren(3, 1, SirenConfig(8, 1)), Frame((0.0, 0.0, 0.0), 1.0), {}))
    monkeypatch.setattr(memory, "free_memory", lambda: memory.held() + 1e6)
    monkeypatch.setattr(memory, "A_SQUARE", 0)
    said = refused(capsys, "mesh", field, "--scan", ring_and_ball, "--output", tmp_path / "a.ply", "--device", "cpu")
    assert "12,594 points need about 0.0 GB of memory" in said


def test_what_is_said_before_is_of_what_will_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sdfrecon.reconstruction.seconds_per_step", lambda *_: 1.0)
    along, across = (grid.ravel() for grid in np.meshgrid(np.arange(0, 40, 0.05), np.arange(40.0)))
    profiles = np.stack([along, across, 0 * along], axis=1)
    points = np.concatenate([profiles, [[9e9, 0, 0]], profiles + 0.5])
    normals = np.tile([0, 0, 1.0], (len(points), 1))
    normals[len(profiles) + 1 :] = np.nan  # where a depth camera saw nothing
    np.savez(tmp_path / "lines.npz", points=points, normals=normals)
    call = ("reconstruct", tmp_path / "lines.npz", "--output", tmp_path / "lines.ply", "--trim", "0.1")
    assert "--trim 0.1 is less than the points are apart" in refused(capsys, *call, "--quiet")
    with pytest.raises(SystemExit):
        main(list(map(str, call)))
    assert "meshed over 256 cells of 0.172; points" in capsys.readouterr().out
    run("info", tmp_path / "lines.npz", "--device", "cpu")
    assert re.search(r"standard .*\(1,000 steps", capsys.readouterr().out)  # and not the 2,000 of 64,000 points


def test_estimated_normals_look_at_the_nearest_viewpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = np.stack(np.meshgrid(np.arange(40.0), np.arange(40.0), [0.0, 10.0]), -1).reshape(-1, 3)
    np.savetxt(tmp_path / "slab.xyz", grid)
    run("reconstruct", tmp_path / "slab.xyz", "--estimate-normals", "--viewpoint", "20", "20", "30",
        "--viewpoint", "20", "20", "-20", "--field", tmp_path / "f.safetensors", *FAST)  # fmt: skip
    inside, *outside = fieldfiles.load_field(tmp_path / "f.safetensors").distance([[20, 20, z] for z in (5, 13, -3)])
    assert inside < 0 < min(outside)
    run("mesh", tmp_path / "f.safetensors", "--scan", tmp_path / "slab.xyz", "--output", tmp_path / "again.ply",
        "--device", "cpu")  # fmt: skip
    assert (tmp_path / "again.ply").read_bytes() == (tmp_path / "slab_mesh.ply").read_bytes()
    told = capsys.readouterr().err
    assert "other points" not in told
    assert "no surface near" not in told
    whole = Field.mesh
    monkeypatch.setattr(
        Field, "mesh", lambda *given: (made := whole(*given)).keep_faces(made.vertices[made.faces][:, 0, 2] > 5)
    )
    run("mesh", tmp_path / "f.safetensors", "--scan", tmp_path / "slab.xyz", "--output", tmp_path / "again.ply")
    assert "warning: 50.0% of the points have no surface near" in capsys.readouterr().err


def test_a_live_view_watches_and_stays(
    tmp_path: Path, ring_and_ball: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = list[object]()

    class Recorder:
        address = "nowhere"

        def __init__(self, cloud: PointCloud, frame: Frame, host: str, port: int) -> None:
            seen.extend([len(cloud), host, port])

        def __call__(self, step: int, terms: object, field: Field) -> None:
            seen.append(step)

        def show_result(self, mesh: Mesh, field: Field, losses: Losses) -> None:
            seen.extend([mesh.is_watertight, list(losses)])

        def wait(self) -> None:
            seen.append("waited")

    monkeypatch.setattr("sdfrecon.viewer.LiveViewer", Recorder)
    run("reconstruct", ring_and_ball, "--output", tmp_path / "ring.ply", "--view", "--host", "::1", "--port", "99",
        "--quiet", "--steps", "100", *FEW[2:])  # fmt: skip
    assert seen == [12_593, "::1", 99, 50, 100, True, [50, 100], "waited"]
    assert "look at it while it fits: nowhere" in capsys.readouterr().out
    assert Reconstruct(ring_and_ball).host == View(ring_and_ball).host == "127.0.0.1"


def test_a_view_that_cannot_be_shown_is_refused_before_the_work(
    tmp_path: Path, ring_and_ball: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sdfrecon.viewer.find_spec", lambda _: None)
    said = refused(capsys, "reconstruct", ring_and_ball, "--output", tmp_path / "a.ply", "--view")
    assert "pip install viser" in said
    assert list(tmp_path.iterdir()) == []


def test_differences_are_told_in_units_and_shares_of_the_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
    for name, height in (("flat", 0.0), ("above", 0.25)):
        files.write_mesh(tmp_path / f"{name}.ply", Mesh(square + [0, 0, height], np.array([[0, 1, 2], [0, 2, 3]])))
    flat, above = (str(tmp_path / f"{name}.ply") for name in ("flat", "above"))
    run("compare", flat, above, "--others", above, "--json", tmp_path / "both.json")
    _, _, *lines = capsys.readouterr().out.splitlines()
    for line, name in zip(lines, ("accuracy", "completeness", "Chamfer", "99th percentile", "Hausdorff"), strict=False):
        assert line.startswith(name)
        assert line.split()[-2:] == ["0.25", "17.6777"]  # of a diagonal of the square root of 2
    assert lines[lines.index(above) - 1].split() == ["watertight", "no"]
    both = json.loads((tmp_path / "both.json").read_text())
    assert [both[path]["chamfer"] for path in (flat, above)] == pytest.approx([0.25, 0], abs=1e-6)


def test_normals_turned_over_are_turned_back(tmp_path: Path, ring_and_ball: Path) -> None:
    cloud = files.read_cloud(ring_and_ball).thinned(3000)
    for name, sign in (("right", 1), ("wrong", -1)):
        files.write_arrays(tmp_path / f"{name}.npz", points=cloud.points, normals=sign * cloud.normals)
        run("reconstruct", tmp_path / f"{name}.npz", *["--flip-normals"] * (sign < 0), *FEW)
    run("mesh", tmp_path / "wrong_mesh.safetensors", "--scan", tmp_path / "wrong.npz", "--output",
        tmp_path / "again.ply", "--device", "cpu")  # fmt: skip
    right, wrong, again = ((tmp_path / f"{name}.ply").read_bytes() for name in ("right_mesh", "wrong_mesh", "again"))
    assert right == wrong == again


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    run("--version")
    assert capsys.readouterr().out == f"sdfrecon {sdfrecon.__version__}\n"


def test_every_name_of_the_package_is_there() -> None:
    for name in sdfrecon.__all__:
        assert getattr(sdfrecon, name), name


@pytest.mark.parametrize(("policy", "spins"), [({}, SPINS), ({"OMP_WAIT_POLICY": "active"}, "None")])
def test_the_command_has_its_threads_sleep_soon_and_help_waits_for_nothing(policy: dict[str, str], spins: str) -> None:
    around = {name: value for name, value in os.environ.items() if "OMP_" not in name} | policy
    code = "import os, sys; sys.argv = ['sdfrecon', '--help']\nfrom sdfrecon.cli import main; main()\n"
    code += "print(os.environ.get('GOMP_SPINCOUNT'))\n"
    code += "print([m for m in ('torch', 'open3d', 'trimesh', 'scipy', 'skimage') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], env=around, capture_output=True, text=True, check=True).stdout
    assert told.split()[-2:] == [spins, "[]"]


def test_the_demo_refuses_before_it_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--steps must be at least 1" in refused(capsys, "demo", "--output", tmp_path / "new", "--steps", "0")
    assert not (tmp_path / "new").exists()
    (tmp_path / "motorcycle.glb").mkdir()
    assert "motorcycle.glb" in refused(capsys, "demo", "--output", tmp_path, "--steps", "1")
    assert [path.name for path in tmp_path.iterdir()] == ["motorcycle.glb"]


def test_quiet_is_quiet(tmp_path: Path, ring_and_ball: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run("reconstruct", ring_and_ball, "--output", tmp_path / "ring.ply", *FEW, "--quiet")
    assert capfd.readouterr() == ("", "")


def test_bad_calls_say_what_to_do_and_write_nothing(
    tmp_path: Path, ring_and_ball: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare, far = tmp_path / "bare.xyz", tmp_path / "far.npy"
    cloud = files.read_cloud(ring_and_ball)
    assert cloud.normals is not None
    np.savetxt(bare, cloud.points)
    empty = np.array([[0, 0, 0, 0, 0, 1.0]])  # which some scanners write for what they did not see
    np.save(far, np.vstack([empty, np.hstack([np.rint(1000 * cloud.points + 1e9), cloud.normals])]))
    (tmp_path / "itself.ply").symlink_to("itself.ply")
    (tmp_path / "scan.ply").write_bytes(ring_and_ball.read_bytes())
    (tmp_path / "same.ply").hardlink_to(tmp_path / "scan.ply")
    before = sorted(tmp_path.iterdir())
    output = ("--output", tmp_path / "mesh.ply")
    for args, message in (
        ((bare, *output), "got none: pass --estimate-normals"),
        ((tmp_path / "nothing.ply", *output), "no such file"),
        ((tmp_path, *output), f"got the directory {tmp_path}: name a file in it"),
        ((".",), "got the directory .: name a file in it"),
        ((ring_and_ball, "--output", ""), "unknown ending"),
        ((tmp_path / "no" / "scan.ply",), "no such file"),
        ((ring_and_ball, *output, "--seed", str(1 << 64)), "the seed must be a whole number from 0"),
        ((ring_and_ball, "--output", tmp_path / "mesh.xls"), "a mesh is written as one of"),
        ((ring_and_ball, "--output", tmp_path / "no" / "mesh.ply"), "no such directory"),
        ((ring_and_ball, "--output", ring_and_ball), "would be overwritten"),
        ((tmp_path / "scan.ply", "--output", tmp_path / "same.ply"), "would be overwritten"),
        ((ring_and_ball, *output, "--field", ring_and_ball), "--field must end in .safetensors"),
        ((ring_and_ball, *output, "--field", "-"), "--field must end in .safetensors"),
        ((ring_and_ball, *output, "--run-dir", bare / "run"), f"{bare} does not allow it: choose another --run-dir"),
        ((ring_and_ball, *output, "--steps", "0"), "--steps must be at least 1; got 0"),
        ((ring_and_ball, *output, "--steps", "1000000000"), "--steps must be at most 1,000,000; got 1000000000"),
        ((ring_and_ball, *output, "--resolution", "9" * 200), "a number is too large, or too small"),
        ((ring_and_ball, *output, "--resolution", "4"), "--resolution must be at least 8; got 4"),
        ((ring_and_ball, *output, "--trim", "1e-5"), "--trim 1e-05 is less than the points are apart"),
        ((ring_and_ball, *output, "--trim", "-1"), "--trim must be a distance of 0 or more; got -1.0"),
        ((ring_and_ball, *output, "--viewpoint", "0", "0", "9"), "--viewpoint tells --estimate-normals"),
        ((ring_and_ball, *output, "--port", "9000"), "--host and --port say where --view listens"),
        ((bare, *output, "--estimate-normals", "--viewpoint", "nan", "0", "9"), "finite numbers; got [nan  0.  9.]"),
        ((ring_and_ball, "--output", tmp_path / f"{'longer' * 40}.ply"), "File name too long: choose a shorter name"),
        ((ring_and_ball, "--output", tmp_path / "itself.ply"), "it is a link to itself: choose another name"),
        ((ring_and_ball, "--output", "-", "--view"), "give --output a file"),
        ((ring_and_ball, *output, "--view", "--host", "a..b"), "cannot listen on a..b"),
        ((ring_and_ball, *output, "--max-memory", "0"), "--max-memory must be above 0 GB; got 0.0"),
        ((far, "--output", tmp_path / "mesh.stl"), "single precision is too coarse this far from the origin"),
        *(() if torch.cuda.is_available() else (((bare, *output, "--device", "cuda"), "no CUDA device was found"),)),
    ):
        assert message in refused(capsys, "reconstruct", *args)
        assert sorted(tmp_path.iterdir()) == before, message
    assert f"try `sdfrecon reconstruct {ring_and_ball}`" in refused(capsys, ring_and_ball, *output)
    (tmp_path / "my scan.ply").symlink_to(ring_and_ball)
    assert f"try `sdfrecon reconstruct '{tmp_path}/my scan.ply'`" in refused(capsys, tmp_path / "my scan.ply")
    (tmp_path / "my scan.ply").unlink()
    assert "is no field" in refused(capsys, "mesh", ring_and_ball, *output)
    assert "no such file" in refused(capsys, "info", tmp_path / "nothing")
    assert "is no picture" in refused(capsys, "image", "fit", ring_and_ball, "--output", tmp_path / "f.safetensors")
    assert "cannot listen on 192.0.2.1" in refused(capsys, "view", ring_and_ball, "--host", "192.0.2.1")
    assert "cannot listen on a..b" in refused(capsys, "view", ring_and_ball, "--host", "a..b")
    assert "must end in .npz" in refused(capsys, "query", bare, bare, "--output", tmp_path / "x.txt")
    assert "--port must be from 1 to 65535; got 99999" in refused(capsys, "view", ring_and_ball, "--port", "99999")
    assert "holds no finished run" in refused(capsys, "report", tmp_path)
    assert "only a mesh goes to standard output" in refused(capsys, "compare", bare, bare, "--json", "-")
    assert "holds no triangles" in refused(capsys, "compare", ring_and_ball, ring_and_ball)
    many = ("--others", *[ring_and_ball] * 12, "--report", tmp_path / "page.html")
    assert "at most 12 meshes; got 13" in refused(capsys, "compare", ring_and_ball, ring_and_ball, *many)
    assert "would be overwritten" in refused(capsys, "compare", bare, ring_and_ball, "--json", ring_and_ball)
    assert "file name too long" in refused(capsys, "info", tmp_path / ("long" * 99))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("", "Expected one of {reconstruct, mesh"),
        ("reconstuct scan.ply", "Unrecognized options: reconstuct, scan.ply: see sdfrecon --help"),
        ("reconstruct", "Missing from sdfrecon reconstruct: SCAN"),
        ("reconstruct scan.ply --ouput mesh.ply", "--ouput, mesh.ply: did you mean --output? see sdfrecon --help"),
        ("reconstruct scan.ply --preset drft", "Expected one of ('draft', 'standard'"),
        ("reconstruct scan.ply --trim 5mm", "Error parsing --trim: expected FLOAT; got '5mm': see --help"),
        ("image blend a.png b.png --offset 5", "Missing value for argument '--offset'"),
    ],
)
def test_a_misspelt_call_gets_one_line(call: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, *call.split())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "not enough memory: lower --resolution"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory: lower --resolution"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory on the GPU"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "not enough memory on the GPU"),
        (Diverged("the fit diverged before step 50"), "the fit diverged before step 50"),
    ],
)
def test_what_fails_on_the_way_gets_one_line(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(showing, "info", fail)
    assert message in refused(capsys, "info", "any")


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's folder is made as root, which CI is")
def test_a_folder_of_another_user_is_refused_before_the_work() -> None:
    with TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        for path, missing in (("mesh.ply", "may not write in"), ("new/mesh.ply", "no such directory")):
            os.seteuid(65534)  # root may write everywhere
            try:
                with pytest.raises(InputError, match=missing):
                    files.check_mesh_ending(Path(folder) / path)
                with pytest.raises(InputError, match="Permission denied"):
                    files.make_folder(Path(folder) / "new")
            finally:
                os.seteuid(0)
        assert not list(Path(folder).iterdir())
        kept = Path(folder) / "kept.ply"
        kept.touch(0o444)
        os.chmod(folder, 0o777)
        os.seteuid(65534)
        try:
            with pytest.raises(InputError, match="write-protected: choose another name"):
                files.check_mesh_ending(kept)
        finally:
            os.seteuid(0)


def test_estimated_normals_give_the_shape_too_and_are_estimated_again(
    tmp_path: Path, ring_and_ball: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud = files.read_cloud(ring_and_ball)
    np.savetxt(tmp_path / "both.xyz", np.concatenate([cloud.points, cloud.points[:1], [[np.nan, 0, 0]]]))
    run("reconstruct", tmp_path / "both.xyz", "--estimate-normals", *FAST)
    assert "dropped 2 of" in capsys.readouterr().out
    mesh = files.read_mesh(tmp_path / "both_mesh.ply")
    assert mesh.volume == pytest.approx(2 * np.pi**2 * 0.7 * 0.25**2 + 4 / 3 * np.pi * 0.35**3, rel=0.1)

    run("mesh", tmp_path / "both_mesh.safetensors", "--output", tmp_path / "again.ply", "--scan", tmp_path / "both.xyz",
        "--device", "cpu")  # fmt: skip
    assert (tmp_path / "again.ply").read_bytes() == (tmp_path / "both_mesh.ply").read_bytes()
    assert "warning" not in capsys.readouterr().err


KILLED = ("--steps", "170", *FAST[2:])


def start(scan: Path, output: Path, stop: int) -> subprocess.Popen[bytes]:
    """A command that says so before it draws so often, and waits for its input to end there."""
    args = [stop, "reconstruct", scan, "--output", output, *KILLED]
    # What every fiftieth step leaves is kept, so that each kill finds another state.
    code = "import sys, sdfrecon.fit as f; f.CHECKPOINT_SECONDS = 0; draw, left = f.draw, [int(sys.argv.pop(1))]\n"
    code += "def stopping(*a):\n left[0] -= 1\n if not left[0]: print('here', flush=True), sys.stdin.read()\n"
    code += " return draw(*a)\nf.draw = stopping\n"
    code += "from dataclasses import replace\nfrom sdfrecon.presets import PRESETS\ndraft = PRESETS['draft']\n"
    code += "PRESETS['draft'] = replace(draft, surface=replace(draft.surface, pool=10_000))\n"  # as in this process
    code += "from sdfrecon.cli import main; main(sys.argv[1:])"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], stdin=pipe, stdout=pipe, stderr=pipe)


def test_killed_and_started_again_the_mesh_is_the_same_byte_for_byte(tmp_path: Path, ring_and_ball: Path) -> None:
    scan, whole, killed = (tmp_path / name for name in ("scan.npz", "whole.ply", "killed.ply"))
    cloud = files.read_cloud(ring_and_ball).thinned(3000)
    files.write_arrays(scan, points=cloud.points, normals=cloud.normals)
    run("reconstruct", scan, "--output", whole, *KILLED)
    run_dir = tmp_path / ".killed.run"
    for kill in (signal.SIGKILL, signal.SIGINT):
        process = start(scan, killed, 70)
        assert process.stdout is not None
        assert b"here\n" in iter(process.stdout.readline, b"")
        process.send_signal(kill)
        _, err = process.communicate()
        if kill == signal.SIGINT:
            assert process.returncode == 130
            assert b"give the same command again to go on" in err
        assert kill == signal.SIGINT or not killed.exists()
    _, err = start(scan, killed, 0).communicate()
    assert b"going on after 100 steps" in err
    assert killed.read_bytes() == whole.read_bytes()
    assert killed.with_suffix(".safetensors").read_bytes() == whole.with_suffix(".safetensors").read_bytes()
    assert not run_dir.exists()
