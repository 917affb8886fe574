import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sdfrecon.fit
import sdfrecon.imaging
from sdfrecon import files
from sdfrecon.pictures import read_image, write_image

ROOT = Path(__file__).parent.parent


def test_the_main_job_as_a_page_of_python(tmp_path: Path) -> None:
    places = ROOT / "pipelines" / "reconstruct.py", ROOT / "data" / "ring_and_ball.ply", tmp_path / "ring.ply"
    subprocess.run([sys.executable, *map(str, places)], check=True, capture_output=True)
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
    whole = sdfrecon.fit.fit
    for module in (sdfrecon.fit, sdfrecon.imaging):
        monkeypatch.setattr(
            module,
            "fit",
            lambda problem, siren, config, *rest, **more: whole(
                problem, siren, replace(config, steps=30), *rest, **more
            ),
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *inputs, "out.png"])
    runpy.run_path(str(ROOT / "pipelines" / f"{name}.py"))
    assert read_image("out.png").shape == size
