"""The whole command on real scans: `python benchmarks/real_scans.py [--preset draft]`.

Meshes and pictures of them from three sides go to out/real.
"""

import dataclasses
import sys

import tyro
from machine import ROOT, SHARED, heading, timed

from sdfrecon.files import read_cloud, read_mesh
from sdfrecon.metrics import compare, nearest
from sdfrecon.pictures import write_image
from sdfrecon.render import three_sides

SCANS = {"gargoyle.ply": "z", "bunny_raw.ply": "y", "hand.pwn": "y", "lion.ply": "z", "room.ply": "y"}


@dataclasses.dataclass
class Args:
    """Reconstructs the real scans and measures the results."""

    preset: str = "draft"
    """The preset to run."""
    scans: tuple[str, ...] = tuple(SCANS)
    """Which of them."""


def main(args: Args) -> None:
    print(heading())
    print("Distances in % of the scan's bounding-box diagonal. far: the part of the mesh farthest from any point.\n")
    print("| scan | points | seconds | peak GB | scan -> mesh, mean | far | pieces | watertight | triangles |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    out = ROOT / "out" / "real"
    out.mkdir(parents=True, exist_ok=True)
    for name in args.scans:
        scan, output = SHARED / "scans" / name, out / f"{name.split('.')[0]}_{args.preset}.ply"
        command = [sys.executable, "-m", "sdfrecon.cli", "reconstruct", str(scan), "--preset", args.preset]
        seconds, memory = timed([*command, "--output", str(output), "--quiet"])
        cloud, mesh = read_cloud(scan), read_mesh(output)
        result, there = compare(mesh, cloud), nearest(cloud.points, mesh)[0].mean()
        farthest = nearest(mesh.vertices, cloud)[0].max()
        print(
            f"| {name} | {len(cloud):,} | {seconds:.1f} | {memory:.2f} | {there / cloud.diagonal:.4%} "
            f"| {farthest / cloud.diagonal:.2%} | {result.components} | {'yes' if result.watertight else 'no'} "
            f"| {len(mesh.faces):,} |",
            flush=True,
        )
        write_image(output.with_suffix(".png"), three_sides(mesh, SCANS[name]))


if __name__ == "__main__":
    main(tyro.cli(Args))
