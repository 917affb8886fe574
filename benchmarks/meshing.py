"""Time and memory of extraction alone: `python benchmarks/meshing.py FIELD [--resolutions 256 512 1024]`.

FIELD is what `sdfrecon reconstruct` wrote. Every resolution runs in a process of its own, which reports the seconds of
`Field.mesh` and its peak memory less what it held just before.
"""

import dataclasses
import resource
import subprocess
import sys
import time
from pathlib import Path

import tyro
from machine import heading
from tyro.conf import Positional


@dataclasses.dataclass
class Args:
    """Meshes a field at several resolutions."""

    field: Positional[Path]
    """A field (.safetensors)."""
    resolutions: tuple[int, ...] = (128, 256, 512, 1024)
    """Cells along the box."""
    child: bool = False
    """Measure the first resolution here, in this process."""


def main(args: Args) -> None:
    if args.child:
        return measure(args.field, args.resolutions[0])
    print(heading(f"python benchmarks/meshing.py {args.field.name}"))
    print("| resolution | seconds | times the one before | peak GB, whole process | of it meshing | triangles |")
    print("| --- | --- | --- | --- | --- | --- |")
    before = None
    for resolution in args.resolutions:
        command = [sys.executable, __file__, str(args.field), "--resolutions", str(resolution), "--child"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, peak, extra, triangles = map(float, done.stdout.split())
        growth = "" if before is None else f"{seconds / before:.2f}"
        print(f"| {resolution} | {seconds:.2f} | {growth} | {peak:.2f} | {extra:.2f} | {triangles:,.0f} |", flush=True)
        before = seconds
    return None


def measure(path: Path, resolution: int) -> None:
    from sdfrecon import load_field

    field = load_field(path)
    field.mesh(16)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    start = time.perf_counter()
    mesh = field.mesh(resolution)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(seconds, peak, peak - held, len(mesh.faces))


if __name__ == "__main__":
    main(tyro.cli(Args))
