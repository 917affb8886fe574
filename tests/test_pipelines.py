import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skimage.transform import resize

import sdfrecon.fit
import sdfrecon.imaging
import sdfrecon.reconstruction
from sdfrecon import files
from sdfrecon.field import Field
from sdfrecon.pictures import read_image, write_image

ROOT = Path(__file__).parent.parent


def run(monkeypatch: pytest.MonkeyPatch, name: str, arguments: list[str], steps: int) -> None:
    """A pipeline, with so many steps."""
    whole = sdfrecon.fit.fit
    for module in (sdfrecon.fit, sdfrecon.imaging, sdfrecon.reconstruction):
        monkeypatch.setattr(
            module,
            "fit",
            lambda problem, siren, config, *rest, **more: whole(
                problem, siren, replace(config, steps=steps), *rest, **more
            ),
        )
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(ROOT / "pipelines" / f"{name}.py"))


def test_the_main_job_as_a_page_of_python_is_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ring_and_ball: Path
) -> None:
    whole = Field.mesh
    monkeypatch.setattr(Field, "mesh", lambda field, resolution: whole(field, resolution // 4))
    run(monkeypatch, "reconstruct", [str(ring_and_ball), str(tmp_path / "ring.ply")], 120)
    files.write_mesh(tmp_path / "same.ply", sdfrecon.reconstruct(files.read_cloud(ring_and_ball)).mesh)
    assert (tmp_path / "ring.ply").read_bytes() == (tmp_path / "same.ply").read_bytes()
    mesh = files.read_mesh(tmp_path / "ring.ply")
    assert mesh.is_watertight
    assert mesh.components().max() == 1, "a ring and a ball"


@pytest.mark.parametrize(
    ("name", "inputs", "size"),
    [
        ("fit_image", ["face.png"], (40, 40, 3)),
        ("poisson_image", ["face.png"], (20, 20, 3)),
        ("blend_images", ["face.png", "grey.png", "mask.png", "2", "0"], (20, 20, 3)),
    ],
)
def test_images_as_a_page_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, inputs: list[str], size: tuple[int, ...]
) -> None:
    face = read_image("astronaut")[40:200:8, 140:300:8]
    for file, picture in (("face", face), ("grey", face[::-1, :, :1]), ("mask", np.ones((20, 20)))):
        write_image(tmp_path / f"{file}.png", picture)
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, name, [*inputs, "out.png"], 50 if name == "fit_image" else 120)
    made = read_image("out.png")
    assert made.shape == size
    if name == "blend_images":
        np.testing.assert_array_equal(made[:, :2], np.repeat(read_image("grey.png")[:, :2], 3, axis=2))
        grey = np.repeat(read_image("grey.png"), 3, axis=2)
        task = sdfrecon.imaging.Composition.of(face, grey, None, (2, 0), "import")
        classical = task.pasted(task.classical, grey)[:, 2:]
        assert np.corrcoef(made[:, 2:].ravel(), classical.ravel())[0, 1] > 0.3, "the target has 0.01"
    else:
        shrunk = resize(made, face.shape, anti_aliasing=True)
        assert np.corrcoef(shrunk.ravel(), face.ravel())[0, 1] > 0.3
