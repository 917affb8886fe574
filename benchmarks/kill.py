"""Kills the command at random moments until it has ended: `python benchmarks/kill.py SCAN [--kills 10]`.

Prints after each kill -9 how old the last checkpoint was, that is how much work was lost, and at the end whether mesh
and field are those of a run that was left alone, byte for byte.
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
class Args:
    """Runs, kills and resumes `sdfrecon reconstruct`."""

    scan: Positional[Path]
    """A scan."""
    kills: int = 10
    """How often to kill."""
    longest: float = 20.0
    """Seconds between start and kill, at most."""
    seed: int = 0
    """Of the moments."""


def main(args: Args) -> None:
    print(heading(f"python benchmarks/kill.py {args.scan.name} --kills {args.kills} --seed {args.seed}"))
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole.ply", Path(folder) / "killed.ply"
        command = [sys.executable, "-m", "sdfrecon.cli", "reconstruct", str(args.scan), "--quiet", "--device", "cpu"]
        subprocess.run([*command, "--output", str(whole)], check=True)
        lost, done, ended = [], 0, False
        while done < args.kills and not ended:
            process = subprocess.Popen([*command, "--output", str(killed)])
            start = time.time()
            try:
                ended = process.wait(moments.uniform(0, args.longest)) == 0
                continue
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            done += 1
            saved = [path.stat().st_mtime for path in killed.parent.glob(".killed.run/checkpoint-*")]
            lost.append(time.time() - max([start, *saved]))
            print(f"- kill {done} after {time.time() - start:.1f} s: {lost[-1]:.1f} s of work lost", flush=True)
        if not ended:
            subprocess.run([*command, "--output", str(killed)], check=True)
        same = [
            whole.with_suffix(s).read_bytes() == killed.with_suffix(s).read_bytes() for s in (".ply", ".safetensors")
        ]
        left = sorted(path.name for path in Path(folder).iterdir())
    print(f"\n{done} kills, at most {max(lost, default=0):.1f} s lost")
    print(f"same mesh: {same[0]}, same field: {same[1]}; left: {left}")


if __name__ == "__main__":
    main(tyro.cli(Args))
