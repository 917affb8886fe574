"""Kills the command at random moments and starts it again: `python benchmarks/kill.py SCAN [--kills 100]`.

Writing takes a moment only, so that every third kill waits for the field's file and falls just after it appears.
Each time that the command comes to its end, mesh and field are compared, byte for byte, with those of a run that was
left alone, and it starts anew. After each kill -9 there must be no mesh or field that is not whole.
"""

import dataclasses
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro
from machine import heading
from tyro.conf import Positional


@dataclasses.dataclass
class Found:
    """What is counted, under the names that are printed."""

    kills: int = 0
    with_a_checkpoint: int = 0
    with_the_field_written_and_the_mesh_not: int = 0
    with_the_mesh_written: int = 0
    corrupt_files: int = 0
    runs_that_came_to_their_end: int = 0
    of_them_gone_on_from_a_checkpoint: int = 0
    of_them_byte_for_byte_the_same: int = 0
    files_left_behind: int = 0


@dataclasses.dataclass
class Args:
    """Runs, kills and resumes `sdfrecon reconstruct`."""

    scan: Positional[Path]
    """A scan."""
    kills: int = 100
    """How often to kill."""
    longest: float = 8.0
    """Seconds between start and kill, at most."""
    writing: float = 0.05
    """Seconds between the field's file and the kill, at most, in every third kill."""
    steps: int = 300
    """Of the fit."""
    resolution: int = 160
    """Of the mesh."""
    seed: int = 0
    """Of the moments."""


def main(args: Args) -> None:
    print(heading())
    moments, found, lost = random.Random(args.seed), Found(), []
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole.ply", Path(folder) / "killed.ply"
        command = [sys.executable, "-m", "sdfrecon.cli", "reconstruct", str(args.scan), "--quiet", "--device", "cpu"]
        command += ["--steps", str(args.steps), "--resolution", str(args.resolution)]
        start = time.time()
        subprocess.run([*command, "--output", str(whole)], check=True)
        print(f"left alone it takes {time.time() - start:.1f} s\n")
        results = [(killed.with_suffix(s), whole.with_suffix(s).read_bytes()) for s in (".ply", ".safetensors")]
        field = results[1][0]
        while found.kills < args.kills:
            goes_on = bool(checkpoints(killed))
            before, start = [changed(path) for path, _ in results], time.time()
            process = subprocess.Popen([*command, "--output", str(killed)])
            if found.kills % 3 == 2:
                while process.poll() is None and changed(field) == before[1]:
                    time.sleep(0.001)
                moment = moments.uniform(0, args.writing)
            else:
                moment = moments.uniform(0, args.longest)
            try:
                status = process.wait(moment)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                saved = [path.stat().st_mtime for path in checkpoints(killed)]
                lost.append(time.time() - max([start, *saved]))
                found.kills += 1
                found.with_a_checkpoint += bool(saved)
                mesh_there, field_there = (changed(path) != at for (path, _), at in zip(results, before, strict=True))
                found.with_the_field_written_and_the_mesh_not += field_there and not mesh_there
                found.with_the_mesh_written += mesh_there
                found.corrupt_files += sum(path.exists() and path.read_bytes() != good for path, good in results)
                continue
            if status:
                raise SystemExit(f"the command ended with status {status} after {found.kills} kills")
            found.runs_that_came_to_their_end += 1
            found.of_them_gone_on_from_a_checkpoint += goes_on
            found.of_them_byte_for_byte_the_same += all(path.read_bytes() == good for path, good in results)
            found.files_left_behind += len(list(Path(folder).iterdir())) - 4
            for path, _ in results:
                path.unlink()
    for name, count in dataclasses.asdict(found).items():
        print(f"- {name.replace('_', ' ')}: {count}")
    print(f"- work lost at a kill: {sum(lost) / len(lost):.1f} s on average, {max(lost):.1f} s at most")


def checkpoints(mesh: Path) -> list[Path]:
    """What a run that writes this mesh has kept of its fit."""
    return list(mesh.parent.glob(f".{mesh.stem}.run/checkpoint-*"))


def changed(path: Path) -> float:
    """When a file was last written; 0 if it is not there."""
    return path.stat().st_mtime if path.exists() else 0.0


if __name__ == "__main__":
    main(tyro.cli(Args))
