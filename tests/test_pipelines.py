import subprocess
import sys
from pathlib import Path

from sdfrecon import files

ROOT = Path(__file__).parent.parent


def test_the_main_job_as_a_page_of_python(tmp_path: Path) -> None:
    places = ROOT / "pipelines" / "reconstruct.py", ROOT / "data" / "ring_and_ball.ply", tmp_path / "ring.ply"
    subprocess.run([sys.executable, *map(str, places)], check=True, capture_output=True)
    mesh = files.read_mesh(tmp_path / "ring.ply")
    assert mesh.is_watertight
    assert mesh.components().max() == 1, "a ring and a ball"
