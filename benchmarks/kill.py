"""Kills the command at random moments and starts it again: `python benchmarks/kill.py SCAN [--kills 100]`.

Each time that the command comes to its end, mesh and field are compared, byte for byte, with those of a run that was
left alone, and it starts anew. After each kill -9 there must be no mesh or field that is not whole.
"""

import dataclasses
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import tyro
from machine import heading
from tyro.conf import Positional

ORDER = (
    "kills",
    "during the fit or the extraction, with a checkpoint",
    "with the field written and the mesh not",
    "corrupt files",
    "failures",
    "runs that came to their end",
    "of them byte for byte the same",
    "files left behind",
)


@dataclasses.dataclass
class Args:
    """Runs, kills and resumes `sdfrecon reconstruct`."""

    scan: Positional[Path]
    """A scan."""
    kills: int = 100
    """How often to kill."""
    longest: float = 8.0
    """Seconds between start and kill, at most."""
    steps: int = 300
    """Of the fit."""
    resolution: int = 160
    """Of the mesh."""
    seed: int = 0
    """Of the moments."""


def main(args: Args) -> None:
    print(heading(f"python benchmarks/kill.py {args.scan.name} {' '.join(sys.argv[2:])}".strip()))
    moments, found = random.Random(args.seed), Counter[str]()
    lost = []
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole.ply", Path(folder) / "killed.ply"
        command = [sys.executable, "-m", "sdfrecon.cli", "reconstruct", str(args.scan), "--quiet", "--device", "cpu"]
        command += ["--steps", str(args.steps), "--resolution", str(args.resolution)]
        start = time.time()
        subprocess.run([*command, "--output", str(whole)], check=True)
        print(f"left alone it takes {time.time() - start:.1f} s\n")
        results = [(killed.with_suffix(s), whole.with_suffix(s).read_bytes()) for s in (".ply", ".safetensors")]
        while found["kills"] < args.kills:
            process = subprocess.Popen([*command, "--output", str(killed)])
            start = time.time()
            try:
                found["failures"] += process.wait(moments.uniform(0, args.longest)) != 0
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                found["kills"] += 1
                saved = [path.stat().st_mtime for path in killed.parent.glob(".killed.run/checkpoint-*")]
                lost.append(time.time() - max([start, *saved]))
                found["during the fit or the extraction, with a checkpoint"] += bool(saved)
                found["with the field written and the mesh not"] += results[1][0].exists() and not killed.exists()
                found["corrupt files"] += sum(path.exists() and path.read_bytes() != good for path, good in results)
                continue
            found["runs that came to their end"] += 1
            found["of them byte for byte the same"] += all(path.read_bytes() == good for path, good in results)
            found["files left behind"] += len(list(Path(folder).iterdir())) - 4
            for path, _ in results:
                path.unlink()
    for name in ORDER:
        print(f"- {name}: {found[name]}")
    print(f"- work lost at a kill: {sum(lost) / len(lost):.1f} s on average, {max(lost):.1f} s at most")


if __name__ == "__main__":
    main(tyro.cli(Args))
