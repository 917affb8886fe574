import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import refused, run

from sdfrecon import image_console, imaging, memory, pictures
from sdfrecon.fit import Interrupted
from sdfrecon.geometry import Floats, InputError
from sdfrecon.images import border, psnr

FAST = ("--steps", "60", "--width", "32", "--device", "cpu", "--size", "24")
SMALL = pictures.read_image("astronaut")[40:200:8, 140:300:8]


@pytest.fixture(autouse=True)
def _quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are there, and empty: what is in them `test_pictures` says."""
    monkeypatch.setattr(pictures, "save_figure", lambda path, _: path.touch())


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A small colour picture, 20 x 20."""
    pictures.write_image(tmp_path / "face.png", SMALL)
    return tmp_path / "face.png"


def test_from_an_image_to_a_field_to_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    field = tmp_path / "camera.safetensors"
    run("image", "fit", "--output", field, "--preview", tmp_path / "camera.png", *FAST)
    said = capsys.readouterr().out
    assert said.startswith("the fit takes about ")
    assert "bits a pixel" in said
    preview = pictures.read_image(tmp_path / "camera.png")
    assert preview.shape == (24, 24, 1)
    assert alike(preview, shrunk("camera")) > 0.8
    told = re.search("PSNR ([0-9.]+) dB", said)
    assert told
    assert float(told[1]) == pytest.approx(psnr(preview, shrunk("camera")), abs=0.1)
    run("image", "render", field, "--output", tmp_path / "part.jpg", "--size", "40", "20",
        "--region", "0", "0", "8", "4")  # fmt: skip
    part = pictures.read_image(tmp_path / "part.jpg")
    assert part.shape == (20, 40, 1)
    np.testing.assert_allclose(part.reshape(4, 5, 8, 5).mean(axis=(1, 3)), preview[:4, :8, 0], atol=0.1)
    correlations = []
    for folder, known in (("own", ()), ("seen", ("--image", "camera"))):
        capsys.readouterr()
        run("image", "derivatives", field, "--output", tmp_path / folder, *known)
        correlations.append([float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()[:2]])
    assert (np.array(correlations[0]) > correlations[1]).all(), "its own picture is nearer to it than the camera"
    assert min(correlations[1]) > 0.1
    np.testing.assert_allclose(pictures.read_image(tmp_path / "seen" / "value.png"), preview, atol=1.1 / 255)
    assert sorted(path.stem for path in (tmp_path / "seen").iterdir()) == [
        "direction", "figure", "gradient", "laplacian", "value"
    ]  # fmt: skip
    capsys.readouterr()
    run("info", field)
    assert capsys.readouterr().out.splitlines() == [
        "field: 4 sine layers of 32, 3,297 weights", "image: 24 x 24, 1 channels"
    ]  # fmt: skip


def shrunk(name: str) -> Floats:
    """A sample as the command sees it, 24 pixels wide."""
    return image_console.load_image(Path(name), 24)


def alike(a: Floats, b: Floats) -> float:
    """The correlation of two pictures."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_a_blend_without_a_rim_is_the_picture_of_its_field(
    tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures.write_image(tmp_path / "target.png", np.pad(SMALL[::-1], ((6, 30), (9, 30), (0, 0)), mode="reflect"))
    both, field = tmp_path / "both.png", tmp_path / "both.safetensors"
    run("image", "blend", picture, picture, "--mode", "mean", "--output", both, *FAST[:-2])
    run("image", "render", field, "--output", tmp_path / "field.png", "--device", "cpu")
    np.testing.assert_allclose(pictures.read_image(tmp_path / "field.png"), pictures.read_image(both), atol=1.1 / 255)
    run("image", "blend", picture, tmp_path / "target.png", "--offset", "18", "20", "--output", both, *FAST[:-2])
    capsys.readouterr()
    run("info", field)
    assert f"from {18 - imaging.RIM} {20 - imaging.RIM} on" in capsys.readouterr().out


def test_ctrl_c_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise Interrupted(3, 5)

    monkeypatch.setattr(imaging, "solve", pressed)
    with pytest.raises(SystemExit) as stopped:
        run("image", "fit", "--output", tmp_path / "camera.safetensors", *FAST)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "\nsdfrecon: stopped\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), {"gradients"}),
        (("--border",), {"gradients", "values"}),
        (("--from", "laplacian"), {"laplacians", "values"}),
        (("--from", "laplacian", "--border"), {"laplacians", "values"}),
    ],
)
def test_an_image_from_its_derivatives(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], told: set[str]
) -> None:
    seen: dict[str, Any] = {}
    solve = imaging.solve
    monkeypatch.setattr(imaging, "solve", lambda *args, **known: seen.update(known) or solve(*args, **known))
    run("image", "poisson", picture, *options, "--output", tmp_path / "rebuilt.png", *FAST)
    assert seen.keys() == told
    if "values" in told:
        around = pictures.read_image(picture)[border(20, 20)]
        np.testing.assert_array_equal(seen["values"][1], around if "--border" in options else 0 * around + 0.5)
    names = {"face.png", "rebuilt.png", "rebuilt.safetensors", "rebuilt_figure.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    run("image", "render", tmp_path / "rebuilt.safetensors", "--output", tmp_path / "field.png", "--device", "cpu")
    rebuilt, field = (pictures.read_image(tmp_path / f"{name}.png") for name in ("rebuilt", "field"))
    assert rebuilt.shape == SMALL.shape
    np.testing.assert_allclose(field, rebuilt, atol=1.1 / 255)
    assert np.corrcoef(rebuilt[1:-1, 1:-1].ravel(), SMALL[1:-1, 1:-1].ravel())[0, 1] > 0.5


def test_what_takes_all_pixels_at_once_is_refused_where_they_do_not_fit(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: memory.held() + 5e5)
    run("image", "fit", picture, "--output", tmp_path / "a.safetensors", *FAST, "--quiet")
    shown = ("render", tmp_path / "a.safetensors", "--size", "400", "100", "--output", tmp_path / "a.png")
    assert "400 x 100 pixels need about 0.0 GB of memory" in refused(capsys, "image", *shown)
    output, bent = ("--output", tmp_path / "a.png", *FAST[:-2]), ("poisson", picture, "--from", "laplacian")
    for how in (bent, ("poisson", picture, "--border")):
        assert "20 x 20 pixels solved at once need about 0.0 GB" in refused(capsys, "image", *how, *output)
    assert "give a smaller --mask" in refused(capsys, "image", "blend", picture, "camera", *output)
    monkeypatch.setattr(memory, "free_memory", lambda: memory.held() + 1.5e6)
    wide = ("--output", tmp_path / "a.png", "--width", "96")
    assert "324 pixels at once need" in refused(capsys, "image", *bent, *wide)
    wide = ("--output", tmp_path / "b.safetensors", "--width", "300")
    assert "so many weights need about" in refused(capsys, "image", "fit", picture, *wide)


@pytest.mark.parametrize("mode", ["import", "mixed", "mean"])
def test_blending_leaves_the_target_outside_the_mask(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    asked: list[object] = []
    of = imaging.Composition.of

    def watched(*args: Any) -> imaging.Composition:
        asked.append(args[3:5])
        return of(*args)

    monkeypatch.setattr(imaging.Composition, "of", watched)
    mask = np.zeros((20, 20))
    mask[5:15, 5:15] = 1
    pictures.write_image(tmp_path / "mask.png", mask)
    pictures.write_image(tmp_path / "target.png", SMALL[::-1, :, 0])
    run("image", "blend", picture, tmp_path / "target.png", "--mask", tmp_path / "mask.png", "--mode", mode,
        "--offset", "2", "0", "--output", tmp_path / "both.png", *FAST[:-2])  # fmt: skip
    assert asked == [((2, 0), mode)]
    both, target = (pictures.read_image(tmp_path / name) for name in ("both.png", "target.png"))
    inside, target = np.roll(mask, 2, axis=1) > 0, np.repeat(target, 3, axis=2)
    np.testing.assert_array_equal(both[~inside], target[~inside])
    assert (both[inside] != target[inside]).mean() > 0.9


def test_what_is_hidden_in_a_target_does_not_show_in_a_jpeg(tmp_path: Path, picture: Path) -> None:
    target = np.dstack([np.full((40, 40, 3), 0.8), np.ones((40, 40))])
    target[:, 25:] = (1, 0, 0, 0)
    pictures.write_image(tmp_path / "target.png", target)
    run("image", "blend", picture, tmp_path / "target.png", "--output", tmp_path / "both.jpg", *FAST[:-2])
    hidden = pictures.read_image(tmp_path / "both.jpg")[25:, 25:]
    np.testing.assert_allclose(hidden, 0.8, atol=0.05)


def test_a_sources_alpha_is_its_mask(tmp_path: Path) -> None:
    alpha = np.zeros((20, 20, 1))
    alpha[8:12, 8:12] = 1
    pictures.write_image(tmp_path / "cut.png", np.concatenate([SMALL, alpha], axis=2))
    pictures.write_image(tmp_path / "target.png", SMALL[::-1])
    run("image", "blend", tmp_path / "cut.png", tmp_path / "target.png", "--output", tmp_path / "both.png", *FAST[:-2])
    both, target = (pictures.read_image(tmp_path / name) for name in ("both.png", "target.png"))
    inside = alpha[..., 0] == 1
    np.testing.assert_array_equal(both[~inside], target[~inside])
    assert (both[inside] != target[inside]).mean() > 0.9


def test_a_clear_source_changes_nothing_whatever_the_mask(tmp_path: Path) -> None:
    alpha = np.zeros((20, 20, 1))
    alpha[8:12, 8:12] = 1
    pictures.write_image(tmp_path / "cut.png", np.concatenate([SMALL, alpha], axis=2))
    pictures.write_image(tmp_path / "target.png", SMALL[::-1])
    pictures.write_image(tmp_path / "mask.png", np.ones((20, 20)))
    run("image", "blend", tmp_path / "cut.png", tmp_path / "target.png", "--mask", tmp_path / "mask.png",
        "--output", tmp_path / "both.png", *FAST[:-2])  # fmt: skip
    both, target = (pictures.read_image(tmp_path / name) for name in ("both.png", "target.png"))
    np.testing.assert_array_equal(both[alpha[..., 0] == 0], target[alpha[..., 0] == 0])


def test_an_alpha_that_hides_nothing_is_no_channel(tmp_path: Path) -> None:
    pictures.write_image(tmp_path / "whole.png", np.dstack([SMALL, np.ones((20, 20))]))
    np.testing.assert_array_equal(image_console.load_image(tmp_path / "whole.png", None), SMALL)


def test_a_masks_own_alpha_and_the_targets_count(tmp_path: Path) -> None:
    wanted, seen = np.zeros((20, 20, 1)), np.ones((20, 20, 1))
    wanted[8:12, 8:12], seen[:10] = 1, 0
    pictures.write_image(tmp_path / "mask.png", np.dstack([np.ones((20, 20, 3)), wanted]))
    pictures.write_image(tmp_path / "source.png", SMALL)
    pictures.write_image(tmp_path / "target.png", np.dstack([SMALL[::-1], seen]))
    run("image", "blend", tmp_path / "source.png", tmp_path / "target.png", "--mask", tmp_path / "mask.png",
        "--output", tmp_path / "both.png", *FAST[:-2])  # fmt: skip
    both = pictures.read_image(tmp_path / "both.png")
    np.testing.assert_array_equal(both[..., 3:], np.maximum(wanted, seen))
    inside, target = wanted[..., 0] == 1, pictures.read_image(tmp_path / "target.png")
    np.testing.assert_array_equal(both[~inside, :3], target[~inside, :3])
    assert (both[inside, :3] != target[inside, :3]).mean() > 0.9


def test_a_fit_is_kept_though_nobody_can_be_told(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(line: str) -> None:
        if "fitted in" in line:
            raise InputError("no space left")

    monkeypatch.setattr(image_console, "say", full)
    names = {
        "fit": ("a.safetensors", "preview.png"),
        "poisson": ("p.png", "p_figure.png", "p.safetensors"),
        "blend": ("b.png", "b_figure.png", "b.safetensors"),
        "activations": ("d/figure.png", "d/curves.png", "d/psnr.json"),
    }
    options = {"fit": ("--preview", tmp_path / "preview.png"), "blend": (picture,)}
    for what, (first, *others) in names.items():
        output = tmp_path / first if what != "activations" else tmp_path / "d"
        fast = FAST[:-2] if what == "blend" else FAST
        with pytest.raises(SystemExit):
            run("image", what, picture, *options.get(what, ()), "--output", output, *fast, "--steps", "5")
        assert all((tmp_path / name).is_file() for name in (first, *others)), what


def test_where_no_picture_can_be_written_the_field_is_kept(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, pixels: Floats) -> None:
        raise InputError(f"cannot write {path}: no space left")

    monkeypatch.setattr(pictures, "write_image", full)
    field, fast = tmp_path / "a.safetensors", FAST[:-2]
    for call, words in (
        (("poisson", picture, "--output", tmp_path / "a.png"), "the field is kept, "),
        (("fit", picture, "--output", field, "--preview", tmp_path / "a.png"), "the field is kept, "),
        (("blend", picture, picture, "--output", tmp_path / "a.png"), "the field of what is put in is kept, "),
    ):
        assert f"{words}{field}" in refused(capsys, "image", *call, *fast, "--quiet")
        field.unlink()


def test_a_region_keeps_its_shape(tmp_path: Path, picture: Path) -> None:
    run("image", "fit", picture, "--output", tmp_path / "a.safetensors", *FAST, "--quiet")
    run("image", "render", tmp_path / "a.safetensors", "--region", "0", "0", "10", "2", "--output", tmp_path / "a.png")
    assert pictures.read_image(tmp_path / "a.png").shape == (4, 20, 3)


def test_networks_are_compared(tmp_path: Path) -> None:
    run("image", "activations", "--output", tmp_path, *FAST, "--quiet")
    figures = json.loads((tmp_path / "psnr.json").read_text())
    assert list(figures) == ["ReLU", "tanh", "ReLU + encoding", "SIREN"]
    assert figures["SIREN"]["psnr"] > figures["ReLU"]["psnr"] > 5
    assert {path.name for path in tmp_path.iterdir()} == {"figure.png", "curves.png", "psnr.json"}


@pytest.mark.parametrize("size", [11, None])
def test_what_is_hidden_under_transparency_is_nowhere_to_be_seen(tmp_path: Path, size: int | None) -> None:
    image = np.ones((32, 32, 4))
    image[:, :16], image[:, 16:, 3] = (1, 0, 0, 1), 0
    pictures.write_image(tmp_path / "logo.png", image)
    read = image_console.load_image(tmp_path / "logo.png", size)
    np.testing.assert_allclose(read[..., :3], np.tile([1.0, 0, 0], (*read.shape[:2], 1)), atol=1e-6)
    assert read[..., 3].min() < 1e-6 < 0.9 < read[..., 3].max()
    if size is not None:
        seen = read[..., 3] > 1e-3
        assert 0 < read[..., 3][seen].min() < 0.9


def test_a_folder_called_like_a_sample_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("camera").mkdir()
    image_console.check_in_folder([Path("camera")], Path("camera"), ["figure.png"])


def test_bad_images_get_one_line(tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    field, out = tmp_path / "f.safetensors", tmp_path / "out.png"
    pictures.write_image(tmp_path / "mask.png", np.ones((7, 9)))
    (tmp_path / "broken.png").write_bytes(picture.read_bytes()[:200])
    pictures.write_image(tmp_path / "dark.png", np.zeros((20, 20)))
    value, figure, wide = tmp_path / "value.png", tmp_path / "figure.png", tmp_path / "wide.png"
    pictures.write_image(wide, np.zeros((3, 70_000)))
    for path in (value, figure):
        pictures.write_image(path, SMALL)
    run("image", "fit", picture, "--output", field, *FAST, "--quiet")
    before = sorted(tmp_path.iterdir())
    mask, seen = ("--mask", tmp_path / "mask.png"), tmp_path / "seen"
    refusals: list[tuple[str, tuple[str | Path, ...]]] = [
        ("no such file", ("fit", tmp_path / "none.png", "--output", tmp_path / "g.safetensors")),
        ("cannot read", ("fit", tmp_path / "broken.png", "--output", tmp_path / "g.safetensors")),
        ("unknown ending", ("fit", picture, "--output", tmp_path / "g.png")),
        ("a picture is written as one of", ("poisson", picture, "--output", tmp_path / "g.safetensors")),
        ("would be overwritten", ("poisson", picture, "--output", picture)),
        ("--steps must be at least 1", ("fit", picture, "--output", tmp_path / "g.safetensors", "--steps", "0")),
        ("--size must be at least 8", ("fit", picture, "--output", tmp_path / "g.safetensors", "--size", "2")),
        ("they are 20 x 20 and 9 x 7", ("blend", picture, picture, "--output", out, *mask)),
        ("dark.png is nowhere light", ("blend", picture, picture, "--output", out, "--mask", tmp_path / "dark.png")),
        ("cannot write .: it is a directory", ("poisson", picture, "--output", ".")),
        ("nothing of the source", ("blend", picture, picture, "--output", out, "--offset", "20", "0")),
        ("the region must lie in the image", ("render", field, "--output", out, "--region", "0", "0", "21", "5")),
        ("the region must lie in the image", ("render", field, "--output", out, "--region", "0", "0", "nan", "5")),
        ("--size must be at least 1", ("render", field, "--output", out, "--size", "0", "5")),
        ("is no field", ("render", picture, "--output", out)),
        ("must be the image of the field", ("derivatives", field, "--output", seen, "--image", tmp_path / "mask.png")),
        ("value.png would be overwritten", ("derivatives", field, "--output", tmp_path, "--image", value)),
        ("figure.png would be overwritten", ("activations", figure, "--output", tmp_path)),
        ("--steps must be at least 1", ("activations", picture, "--output", seen, "--steps", "0")),
        ("the seed must be a whole number from 0", ("activations", picture, "--output", seen, "--seed", "-1")),
        ("so many weights need", ("activations", picture, "--output", seen, "--width", "3000000")),
        ("a JPEG is at most", ("blend", picture, wide, "--output", tmp_path / "out.jpg")),
        ("a JPEG is at most", ("fit", wide, "--output", tmp_path / "g.safetensors", "--preview", tmp_path / "p.jpg")),
        ("a JPEG is at most", ("poisson", wide, "--output", tmp_path / "out.jpg")),
        (
            "the seed must be a whole number from 0",
            ("fit", picture, "--output", tmp_path / "g.safetensors", "--seed", str(1 << 64)),
        ),
    ]
    for words, args in refusals:
        assert words in refused(capsys, "image", *args)
    assert "is an image's field" in refused(capsys, "mesh", field, "--output", tmp_path / "m.ply")
    assert "is an image's field" in refused(capsys, "query", field, picture, "--output", tmp_path / "q.npz")
    assert sorted(tmp_path.iterdir()) == before
