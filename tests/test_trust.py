"""What real files bring, at the command: every bad scan gets one line or a good mesh, and nothing is lost."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import RingAndBall
from test_cli import FAST, FEW, refused, run
from test_reconstruction import SMALL

from sdfrecon import fieldfiles, files, run_dir
from sdfrecon.field import Field
from sdfrecon.frame import Frame
from sdfrecon.geometry import Floats, InputError, PointCloud
from sdfrecon.memory import free_memory
from sdfrecon.meshing import extract_mesh
from sdfrecon.presets import PRESETS
from sdfrecon.reconstruction import reconstruct, run_of
from sdfrecon.run_dir import FINISHED, RunDir
from sdfrecon.shapes import RING_AND_BALL
from sdfrecon.siren import Siren, SirenConfig

pytestmark = pytest.mark.usefixtures("few_prepared")
RNG = np.random.default_rng(0)
QUICK = replace(PRESETS["draft"], surface=SMALL)
"""For a fit whose shape says nothing."""


@pytest.fixture
def scan(ring_and_ball: Path) -> PointCloud:
    """A few thousand points of a known shape, with normals."""
    cloud = files.read_cloud(ring_and_ball)
    return cloud.select(np.arange(len(cloud)) % 4 == 0)


def write(path: Path, points: Floats, normals: Floats) -> Path:
    np.savez(path, points=points, normals=normals)
    return path


Change = Callable[[Floats, Floats], tuple[Floats, Floats]]
FAR = np.array([4.5e6, 5.5e6, 200.0])
FLAT = np.stack(np.meshgrid(np.arange(40.0), np.arange(40.0), [0.0]), -1).reshape(-1, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, n: (p[:1], n[:1]), "at least 10 different points; got 1"),
        (lambda p, n: (p[:1].repeat(5000, axis=0), n[:5000].repeat(5, axis=0)[:5000]), "different points; got 1"),
        (lambda p, n: (np.outer(np.arange(len(p)), [0.3, 0.7, 0.1]).astype(np.float32), n), "got points on a line"),
        (lambda p, n: (p, n * 0), "all normals are zero"),
        (lambda p, n: (p * np.nan, n), "at least 10 different points; got 0"),
        (lambda p, n: (p * 1e300, n), "another unit"),
        (lambda p, n: (p * np.inf, n), "at least 10 different points; got 0"),
        (lambda p, n: (np.concatenate([p, p + [1000, 0, 0]]), np.concatenate([n, n])), "got parts far apart"),
    ],
    ids=["one point", "one 5000 times", "line", "zero normals", "all NaN", "huge", "infinite", "a kilometre apart"],
)
def test_a_scan_that_cannot_be_used_gets_one_line(
    tmp_path: Path, scan: PointCloud, change: Change, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "scan.npz", *change(scan.points, scan.normals))
    assert message in refused(capsys, "reconstruct", path, *FAST, "--quiet")
    with pytest.raises(SystemExit, match="2"):
        run("reconstruct", path, *FAST)
    assert capsys.readouterr().err.startswith("sdfrecon: error: ")
    assert [p.name for p in tmp_path.iterdir()] == ["scan.npz"]


@pytest.mark.parametrize(
    ("factor", "why", "estimated"),
    [
        (1e200, "give the scan another unit", "give the scan another unit"),
        (1e-200, "give the scan another unit", "give the scan another unit"),
        (np.nan, "all normals are zero, or not finite", "at least 10 different points; got 0"),
    ],
)
def test_a_mesh_that_cannot_be_used_gets_one_line(
    tmp_path: Path, factor: float, why: str, estimated: str, capsys: pytest.CaptureFixture[str]
) -> None:
    corners = " ".join(map(str, factor * np.eye(3).ravel())).split()
    rows = [" ".join(corners[i : i + 3]) for i in (0, 3, 6)]
    header = "ply\nformat ascii 1.0\nelement vertex 12\nproperty double x\nproperty double y\nproperty double z\n"
    points = "\n".join(rows + [f"{(i + 2) * factor} {i * factor} {factor}" for i in range(9)])
    faces = "\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
    (tmp_path / "mesh.ply").write_text(header.strip() + faces + points + "\n3 0 1 2\n")
    for more, said in (((), why), (("--estimate-normals",), estimated)):
        assert said in refused(capsys, "reconstruct", tmp_path / "mesh.ply", *FAST, "--quiet", *more)


def damaged(points: Floats, normals: Floats) -> tuple[Floats, Floats]:
    """Rows that are NaN and infinite, copies, normals of any length, and some of none."""
    points, normals = points.repeat(3, axis=0), normals.repeat(3, axis=0) * RNG.uniform(1e-3, 1e3, (3 * len(points), 1))
    points[::10], points[1::50], normals[2::9] = np.nan, np.inf, 0
    return points, normals


@pytest.mark.parametrize(
    ("change", "scale", "origin"),
    [
        (damaged, 1.0, np.zeros(3)),
        (lambda p, n: (p * 1e-7, n), 1e-7, np.zeros(3)),
        (lambda p, n: (p * 30 + FAR, n), 30.0, FAR),
    ],
    ids=["damaged", "small", "far away"],
)
def test_a_scan_that_can_be_used_is(
    tmp_path: Path, scan: PointCloud, change: Change, scale: float, origin: Floats
) -> None:
    path = write(tmp_path / "scan.npz", *change(scan.points, scan.normals))
    run("reconstruct", path, "--output", tmp_path / "mesh.ply", "--trim", "0", *FAST)
    made = files.read_mesh(tmp_path / "mesh.ply")
    away = RING_AND_BALL((made.vertices - origin) / scale)
    assert np.abs(away).mean() < 0.02
    assert made.is_watertight
    volume = 2 * np.pi**2 * 0.7 * 0.25**2 + 4 / 3 * np.pi * 0.35**3
    assert made.volume / scale**3 == pytest.approx(volume, rel=0.1), "the ring and the ball"


def test_normals_that_look_wrong_are_said(tmp_path: Path, scan: PointCloud, capsys: pytest.CaptureFixture[str]) -> None:
    half = np.where(scan.points[:, :1] > 0, -1, 1)
    for normals, message in (
        (scan.normals * half, "some parts look flipped"),
        (-scan.normals, "of an object the normals must point the other way: add --flip-normals"),
    ):
        run("reconstruct", write(tmp_path / "scan.npz", scan.points, normals), "--quiet", *FEW)
        assert message in capsys.readouterr().err


def test_a_flat_scan_is_an_open_sheet(tmp_path: Path) -> None:
    run("reconstruct", write(tmp_path / "scan.npz", FLAT, np.tile([0, 0, 1.0], (len(FLAT), 1))), *FAST)
    made = files.read_mesh(tmp_path / "scan_mesh.ply")
    assert not made.is_watertight
    assert np.quantile(np.abs(made.vertices[:, 2]), 0.9) < 0.5
    assert made.areas.sum() == pytest.approx(39**2, rel=0.2)


def test_a_mislabelled_file_and_a_mesh_as_a_scan(
    tmp_path: Path, ring_and_ball: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in (".pcd", ".npy", ".npz", ".obj", ".xyz", ".glb", ".safetensors"):
        wrong = tmp_path / f"scan{ending}"
        wrong.write_bytes(ring_and_ball.read_bytes())
        refused(capsys, "info" if ending == ".safetensors" else "reconstruct", wrong)
    files.write_mesh(tmp_path / "mesh.obj", extract_mesh(RingAndBall(), 48))
    run("reconstruct", tmp_path / "mesh.obj", "--output", tmp_path / "again.ply", *FAST)
    assert np.abs(RING_AND_BALL(files.read_mesh(tmp_path / "again.ply").vertices)).mean() < 0.03


def test_a_field_of_other_shapes_or_another_version_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "field.safetensors"
    fieldfiles.save_field(path, Field(Siren(3, 1, SirenConfig(8, 1)), Frame((0.0, 0.0, 0.0), 1.0), {}))
    run("info", path)
    tensors, about = fieldfiles.read_tensors(path, "field")
    first = next(iter(tensors))
    for changed, known in (
        ({**tensors, first: torch.zeros(3, 3)}, about),
        ({name: tensor for name, tensor in tensors.items() if name != first}, about),
        ({**tensors, "more": torch.zeros(1)}, about),
        (tensors, {**about, "siren": {**about["siren"], "width": 16}}),
        (tensors, {**about, "frame": {"center": [0, 0], "scale": -1}}),
        (tensors, {**about, "format": "sdfrecon-field-0"}),
        (tensors, {}),
        (tensors, [about]),
    ):
        fieldfiles.write_tensors(path, changed, known)
        refused(capsys, "info", path)
        refused(capsys, "mesh", path, "--output", tmp_path / "mesh.ply")
    assert [p.name for p in tmp_path.iterdir()] == ["field.safetensors"]


def test_a_field_that_reconstruct_did_not_make_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "field.safetensors"
    theirs = {"scan": {"name": "a", "points": "many"}, "config": {"fit": {"steps": 1}, "seed": 0}, "versions": {}}
    for about in ({"by": "hand"}, theirs):
        fieldfiles.save_field(path, Field(Siren(3, 1, SirenConfig(8, 1)), Frame((0.0, 0.0, 0.0), 1.0), about))
        run("info", path)
        assert "2 sine layers of 8" in capsys.readouterr().out


def test_what_does_not_fit_in_memory_is_refused_before_the_work(
    tmp_path: Path, ring_and_ball: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    big, field = ("--output", tmp_path / "mesh.ply", "--quiet"), tmp_path / "field.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr("sdfrecon.memory.held", lambda: 0.0)
        little = (*big, "--resolution", "64", "--max-memory", "0.01")
        assert "are allowed: pass --max-points" in refused(capsys, "reconstruct", ring_and_ball, *little)
    assert "are allowed: lower --resolution to" in refused(
        capsys, "reconstruct", ring_and_ball, *big, "--resolution", "4096", "--max-memory", "10"
    )
    assert "are free: lower --resolution to" in refused(
        capsys, "reconstruct", ring_and_ball, *big, "--resolution", "1000000"
    )
    fieldfiles.save_field(field, Field(Siren(3, 1, SirenConfig(8, 1)), Frame((0.0, 0.0, 0.0), 1.0), {}))
    assert "are free: lower --resolution to" in refused(capsys, "mesh", field, *big[:2], "--resolution", "1000000")
    field.unlink()
    assert "--max-memory must be above 0" in refused(capsys, "reconstruct", ring_and_ball, *big, "--max-memory", "-1")
    assert list(tmp_path.iterdir()) == []


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdfrecon.memory.CONTAINER", tmp_path)
    monkeypatch.setattr("sdfrecon.memory.held", lambda: 5.0)
    (tmp_path / "memory.current").write_text("700000000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 100000000\n")
    (tmp_path / "memory.max").write_text("1000000000\n")
    assert free_memory() == 400_000_005
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() > 400_000_005


def test_what_the_program_around_holds_is_not_counted() -> None:
    code = "import numpy, subprocess, sys; a = numpy.ones(50_000_000); subprocess.run([sys.executable, *sys.argv[1:]])"
    line = [sys.executable, "-c", code, "-c", "from sdfrecon.memory import held; print(held())"]
    assert 1e6 < float(subprocess.run(line, capture_output=True, text=True, check=True).stdout) < 4e8


def test_a_full_disk_keeps_the_last_good_checkpoint(
    tmp_path: Path, scan: PointCloud, monkeypatch: pytest.MonkeyPatch, full_disk: Callable[[int], None]
) -> None:
    config = replace(QUICK, resolution=16, fit=replace(QUICK.fit, steps=120))
    monkeypatch.setattr("sdfrecon.fit.CHECKPOINT_SECONDS", 0)
    with pytest.raises(InputError, match="File too large"):
        reconstruct(
            scan,
            config,
            device="cpu",
            run_dir=tmp_path / "run",
            watch=lambda step, *_: full_disk(1024) if step == 100 else None,
        )
    full_disk(-1)
    assert not list((tmp_path / "run").glob(".*part*"))
    seen: list[int] = []
    again = reconstruct(scan, config, device="cpu", run_dir=tmp_path / "run", watch=lambda step, *_: seen.append(step))
    assert seen == [100, 120], "the 99 steps before the disk was full are not done again"
    whole = reconstruct(scan, config, device="cpu")
    np.testing.assert_array_equal(again.mesh.vertices, whole.mesh.vertices)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # trimesh leaves it open
def test_an_unwritable_output_leaves_what_was_there(
    tmp_path: Path, ring_and_ball: Path, capsys: pytest.CaptureFixture[str], full_disk: Callable[[int], None]
) -> None:
    mesh, run_dir = tmp_path / "mesh.ply", tmp_path / ".mesh.run"
    mesh.write_text("mine")
    few = ("--steps", "50", "--resolution", "96", "--device", "cpu")
    full_disk(700_000)
    said = refused(capsys, "reconstruct", ring_and_ball, "--output", mesh, *few, "--quiet")
    full_disk(-1)
    assert said == (
        f"sdfrecon: error: cannot write {mesh}: File too large: choose another place; with --run-dir {run_dir}, too, "
        "the fit is not made again\n"
    )
    assert mesh.read_text() == "mine"
    assert mesh.with_suffix(".safetensors").is_file(), "the field is written first"
    assert not list(tmp_path.glob(".*part*"))
    place = tmp_path / "other.ply"
    run("reconstruct", ring_and_ball, "--output", place, "--run-dir", run_dir, *few)
    assert "going on after 50 steps" in capsys.readouterr().err
    assert place.is_file()


@pytest.mark.parametrize("text", ['{"steps": 5}', "[1]", "mine"])
def test_what_another_program_calls_as_a_finished_run_stays(
    tmp_path: Path, ring_and_ball: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / FINISHED).write_text(text)
    said = refused(
        capsys, "reconstruct", ring_and_ball, "--output", tmp_path / "a.ply", "--run-dir", tmp_path, *FEW, "--quiet"
    )
    assert said == f"sdfrecon: error: {tmp_path / FINISHED} would be overwritten: choose another --run-dir\n"
    assert [path.name for path in tmp_path.iterdir()] == [FINISHED]


def test_two_runs_on_one_folder_the_second_is_refused(
    tmp_path: Path, ring_and_ball: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunDir(tmp_path / "run", "first").in_use():
        said = refused(
            capsys, "reconstruct", ring_and_ball, "--output", tmp_path / "mesh.ply", "--run-dir", tmp_path / "run",
            *FAST, "--quiet",
        )  # fmt: skip
    assert f"another run is using {tmp_path / 'run'}" in said
    assert not (tmp_path / "mesh.ply").exists()
    run("reconstruct", ring_and_ball, "--output", tmp_path / "mesh.ply", "--run-dir", tmp_path / "run", *FEW)
    assert (tmp_path / "mesh.ply").exists()


@contextmanager
def read_from(pipe: Path, read: Path) -> Iterator[None]:
    """What is written to a named pipe meanwhile comes to the file."""
    with open(read, "wb") as file, subprocess.Popen(["cat", str(pipe)], stdout=file) as reader:
        try:
            yield
        except BaseException:
            reader.kill()  # else it waits for a writer
            raise


def test_the_mesh_goes_down_a_named_pipe(tmp_path: Path, ring_and_ball: Path) -> None:
    pipe, read = tmp_path / "mesh.ply", tmp_path / "read.ply"
    os.mkfifo(pipe)
    with read_from(pipe, read):
        run("reconstruct", ring_and_ball, "--output", pipe, "--run-dir", tmp_path / "run", *FEW)
    assert len(files.read_mesh(read).faces) > 1000
    assert json.loads((tmp_path / "run" / "run.json").read_text())["mesh"] is None
    exact = extract_mesh(RingAndBall(), 32)
    far = replace(exact, vertices=exact.vertices + 5e6)  # which asks for doubles
    with read_from(pipe, read):
        files.write_mesh(pipe, far)
    np.testing.assert_array_equal(files.read_mesh(read).vertices, far.vertices)


def test_the_mesh_goes_down_a_pipe(tmp_path: Path, ring_and_ball: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, kept = Path(shutil.copy(ring_and_ball, tmp_path)), tmp_path / "kept"
    with open(tmp_path / "streamed.ply", "w") as file, redirect_stdout(file):
        run("reconstruct", scan, "--output", "-", *FEW)
    assert "triangles" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {scan.name, "streamed.ply"}, "no field, and no run's folder"
    run("reconstruct", scan, "--output", tmp_path / "mesh.ply", *FEW)
    assert (tmp_path / "streamed.ply").read_bytes() == (tmp_path / "mesh.ply").read_bytes()
    with open(os.devnull, "w") as file, redirect_stdout(file):
        run("reconstruct", scan, "--output", "-", "--run-dir", kept, *FEW)
    capsys.readouterr()
    assert "went down a pipe: give --output a file" in refused(capsys, "report", kept)
    line = [sys.executable, "-m", "sdfrecon.cli", "mesh", str(tmp_path / "mesh.safetensors"), "--output", "-"]
    silent = subprocess.run(["sh", "-c", f"{shlex.join(line)} 2>&-"], capture_output=True, check=True)
    run(*line[3:-1], tmp_path / "again.ply")
    assert silent.stdout == (tmp_path / "again.ply").read_bytes()
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # as `head` does
        assert b"Traceback" not in process.stderr.read()
        assert process.wait(60) == 1
    with open("/dev/full", "w") as said_to, redirect_stdout(said_to):
        said = refused(capsys, *line[3:])
    assert said == "sdfrecon: error: standard output: No space left on device: choose another place\n"
    for what in (["reconstruct", "--help"], ["--version"]):
        with subprocess.Popen([*line[:3], *what], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asked:
            assert asked.stdout is not None
            assert asked.stderr is not None
            asked.stdout.close()
            assert asked.stderr.read() == b""
            assert asked.wait(60) == 1
        with open("/dev/full", "wb") as full:
            done = subprocess.run([*line[:3], *what], stdout=full, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 2
        assert done.stderr == b"sdfrecon: error: standard output: No space left on device: choose another place\n"


def test_nothing_on_the_reading_side_can_run_code() -> None:
    for path in (Path(files.__file__).parent).glob("*.py"):
        for way in (
            "import pickle",
            "torch.load",
            "allow_pickle=True",
            "eval(",
            "exec(",
            "urllib.request",
            "requests",
            "yaml.load",
        ):
            assert way not in path.read_text(), (path.name, way)


def test_no_command_needs_the_network(tmp_path: Path, ring_and_ball: Path) -> None:
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "import sys, sdfrecon.demo as demo\nfrom dataclasses import replace\nfrom sdfrecon.cli import main\n"
        "from sdfrecon.presets import PRESETS\nwhole = demo.motorcycle\n"
        "demo.motorcycle = lambda: whole().thinned(20_000)\n"
        "PRESETS['draft'] = replace(PRESETS['draft'], resolution=64)\n"
        "for line in sys.argv[1:]: main(line.split('|'))"
    )
    mesh, field, picture = tmp_path / "mesh.ply", tmp_path / "mesh.safetensors", tmp_path / "fitted.safetensors"
    few = ("--steps", "20", "--width", "16", "--size", "16")
    calls: list[tuple[str | Path, ...]] = [
        ("reconstruct", ring_and_ball, "--output", mesh, *FEW, "--report", "--run-dir", tmp_path / "run"),
        ("report", tmp_path / "run"),
        ("mesh", field, "--output", tmp_path / "again.obj", "--resolution", "32"),
        ("query", field, mesh, "--output", tmp_path / "answer.npz"),
        ("compare", mesh, ring_and_ball, "--report", tmp_path / "compared.html"),
        ("info", field),
        ("image", "fit", "camera", "--output", picture, *few),
        ("image", "render", picture, "--output", tmp_path / "rendered.png"),
        ("image", "derivatives", picture, "--output", tmp_path / "derived"),
        ("image", "poisson", "camera", "--output", tmp_path / "rebuilt.png", *few),
        ("image", "blend", "camera", tmp_path / "rebuilt.png", "--output", tmp_path / "blended.png", *few[:-2]),
        ("image", "activations", "--output", tmp_path / "networks", *few),
        ("demo", "--output", made := tmp_path / "new" / "demo", "--steps", "60"),
    ]
    lines = ["|".join(map(str, call)) for call in calls]
    subprocess.run([sys.executable, "-c", code, *lines], check=True, capture_output=True)
    for page in (tmp_path / "mesh.html", tmp_path / "compared.html"):
        assert b"https://" not in _without_plotly(page.read_bytes())
    assert sorted(p.name for p in made.iterdir()) == [f"motorcycle.{s}" for s in ("glb", "png", "safetensors")]
    assert files.read_mesh(made / "motorcycle.glb").colors is not None
    assert fieldfiles.load_field(made / "motorcycle.safetensors").about["steps"] == 60


def _without_plotly(page: bytes) -> bytes:
    from plotly.offline import get_plotlyjs

    return page.replace(get_plotlyjs().encode(), b"")


def test_a_finished_run_leaves_its_folder_to_one_that_took_it_over(tmp_path: Path) -> None:
    first, second = RunDir(tmp_path / "run", "k"), RunDir(tmp_path / "run", "k")
    with first.in_use():
        first.note(50, {})
    with second.in_use():
        first.remove()
        assert second.losses() == {50: {}}
    second.remove()
    assert not (tmp_path / "run").exists()


def test_nothing_of_a_killed_run_is_left_and_nothing_of_others_lost(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run", "k")
    with run.in_use():
        (tmp_path / "run" / ".checkpoint-before.part.safetensors").touch()
    run.remove()
    assert not (tmp_path / "run").exists()
    (tmp_path / "lock").write_text("of a user")
    with RunDir(tmp_path, "k").in_use():
        assert (tmp_path / "lock").read_text() == "of a user"


def test_a_run_that_is_kept_stays_when_another_ends_in_its_folder(tmp_path: Path) -> None:
    kept, other = (RunDir(tmp_path / "run", key) for key in ("fine", "draft"))
    with kept.in_use():
        kept.checkpoint.touch()
        kept.note(50, {})
        (tmp_path / "run" / FINISHED).touch()
    for ended in (kept, other):
        assert not ended.remove()
    assert kept.checkpoint.exists()
    assert kept.losses() == {50: {}}


def test_a_finished_run_leaves_an_interrupted_one_with_other_options(tmp_path: Path) -> None:
    stopped, quick = (RunDir(tmp_path / "run", key) for key in ("fine", "draft"))
    for folder in (stopped, quick):
        with folder.in_use():
            folder.checkpoint.touch()
            folder.note(50, {})
    assert quick.remove()
    assert not quick.checkpoint.exists()
    assert stopped.checkpoint.exists()
    assert stopped.losses() == {50: {}}
    assert not stopped.remove()
    assert not (tmp_path / "run").exists()


def test_a_page_is_of_the_run_it_names(tmp_path: Path, ring_and_ball: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, kept = Path(shutil.copy(ring_and_ball, tmp_path)), tmp_path / "kept"
    run("reconstruct", scan, "--run-dir", kept, *FEW)
    run("report", kept)
    files.write_mesh(scan.with_name(f"{scan.stem}_mesh.ply"), extract_mesh(RingAndBall(), 32))
    capsys.readouterr()
    said = refused(capsys, "report", kept)
    assert "_mesh.ply is no longer what" in said
    assert "run it again, with an --output of its own" in said
    assert "a page is written as .html" in refused(capsys, "report", kept, "--output", tmp_path / "x.txt")
    scan.unlink()
    assert f"the scan of {kept}, {scan}, is gone: put it back" in refused(capsys, "report", kept)


def test_a_line_of_losses_that_was_cut_short_costs_no_other(tmp_path: Path) -> None:
    run = RunDir(tmp_path, "k")
    run.note(50, {"a": 1.0})
    with open(tmp_path / "losses-k.jsonl", "ab") as file:
        file.write(b'[100, {"a": \xff')
    run.note(100, {"a": 2.0})
    assert run.losses() == {50: {"a": 1.0}, 100: {"a": 2.0}}


def test_a_lock_that_was_taken_away_holds_nothing(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "a") as file:
        assert run_dir._locked(file, tmp_path / "lock")
        (tmp_path / "lock").unlink()
        assert not run_dir._locked(file, tmp_path / "lock")
        (tmp_path / "lock").touch()
        assert not run_dir._locked(file, tmp_path / "lock")


def test_losses_that_cannot_be_written_are_said(tmp_path: Path) -> None:
    (tmp_path / "losses-k.jsonl").mkdir()
    with pytest.raises(InputError, match="cannot write .*losses-k.jsonl: Is a directory: choose another --run-dir"):
        RunDir(tmp_path, "k").note(50, {})
    (tmp_path / "lock").mkdir()
    with pytest.raises(InputError, match="cannot write .*lock: Is a directory"), RunDir(tmp_path, "k").in_use():
        pass


def test_steps_are_those_done_also_where_losses_of_more_were_noted(tmp_path: Path, scan: PointCloud) -> None:
    config = replace(QUICK, fit=replace(QUICK.fit, steps=150), resolution=32)
    reconstruct(scan, config, run_dir=tmp_path)
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    checkpoint.unlink()
    result = reconstruct(scan, config, run_dir=tmp_path, watch=lambda step, *_: step == 100)
    assert result.field.about["steps"] == 100
    assert "the fit was ended after 100 of 150 steps" in result.notes
    assert list(result.losses) == list(run_of(result.field, tmp_path).losses()) == [50, 100]


def test_a_killed_runs_folder_is_free_again(tmp_path: Path) -> None:
    code = "import sys, time\nfrom pathlib import Path\nfrom sdfrecon.run_dir import RunDir\n"
    code += "with RunDir(Path(sys.argv[1]), 'k').in_use(): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="another run is using"), RunDir(tmp_path, "k").in_use():
            pass
        os.kill(process.pid, signal.SIGKILL)
    with RunDir(tmp_path, "k").in_use():
        pass
