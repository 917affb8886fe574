"""Virtual range scans of known shapes, ours against screened Poisson: `python benchmarks/against_poisson.py`."""

import dataclasses
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import tyro
from machine import SHARED, heading

from sdfrecon.files import open3d, read_mesh
from sdfrecon.geometry import Floats, Mesh, PointCloud
from sdfrecon.metrics import Comparison, compare, first_hits
from sdfrecon.reconstruction import PRESETS, reconstruct
from sdfrecon.shapes import Cast, Scanner


@dataclasses.dataclass
class Args:
    """Ten range cameras around each shape, 0.1% noise along the ray, occlusions; exact point-to-triangle distances."""

    shapes: tuple[str, ...] = ("anchor", "lord_quas")
    """Ground-truth meshes, without their ending."""
    seeds: tuple[int, ...] = (10, 11, 12, 13, 14)
    """Of the cameras' directions and the noise, and of our own draws; 0 and 1 were used while tuning."""
    preset: Literal["draft", "standard", "fine"] = "draft"
    """Ours."""
    depth: int = 9
    """Of screened Poisson's octree."""


def caster(mesh: Mesh) -> Cast:
    """Rays against a mesh, whose normals are turned towards the ray's start."""

    def cast(origins: Floats, directions: Floats) -> tuple[Floats, Floats]:
        face, weights = first_hits(mesh, origins, directions)
        hits = np.einsum("nk,nkd->nd", weights, mesh.vertices[mesh.faces[face]])
        distance = np.where(face >= 0, np.linalg.norm(hits - origins, axis=1), np.inf)
        normals = mesh.face_normals[face]
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        return distance, normals * -np.sign((normals * directions).sum(axis=1, keepdims=True))

    return cast


def poisson(cloud: PointCloud, depth: int) -> Mesh:
    """Screened Poisson (Kazhdan and Hoppe 2013) as Open3D has it, untrimmed."""
    o3d = open3d()
    points = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(cloud.points))
    points.normals = o3d.utility.Vector3dVector(cloud.normals)
    mesh, _ = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(points, depth=depth)
    return Mesh(np.asarray(mesh.vertices), np.asarray(mesh.triangles))


def main(args: Args) -> None:
    print(heading(f"python benchmarks/against_poisson.py {' '.join(sys.argv[1:])}".strip()))
    print("Chamfer (mean of the two mean distances) in 1e-3 and Hausdorff in 1e-2 of the diagonal; NC = mean |cos|.\n")
    print(
        f"| shape, seed | points | Poisson {args.depth}: CD / H / NC, s | {args.preset}: CD / H / NC, s | better in |"
    )
    print("| --- | --- | --- | --- | --- |")
    ratios = []
    for shape in args.shapes:
        truth = read_mesh(SHARED / "gt" / f"{shape}.ply")
        low, high = truth.vertices.min(axis=0), truth.vertices.max(axis=0)
        for seed in args.seeds:
            cloud = Scanner().scan(caster(truth), low, high, np.random.default_rng(seed))
            theirs, theirs_text = scored(lambda c=cloud: poisson(c, args.depth), truth)  # type: ignore[misc]
            config = replace(PRESETS[args.preset], seed=seed)
            ours, ours_text = scored(lambda c=cloud, k=config: reconstruct(c, k).mesh, truth)  # type: ignore[misc]
            pairs = figures(ours) / figures(theirs)
            ratios.append(pairs)
            better = ", ".join(n for n, r in zip(("CD", "H", "NC"), pairs, strict=True) if r < 1)
            print(f"| {shape}, {seed} | {len(cloud):,} | {theirs_text} | {ours_text} | {better} |", flush=True)
    mean = " / ".join(f"{r:.2f}" for r in np.mean(ratios, axis=0))
    print(f"\nMean ratio of ours to Poisson's, Chamfer / Hausdorff / normal error (1 - NC): {mean}")


def scored(method: Callable[[], Mesh], truth: Mesh) -> tuple[Comparison, str]:
    start = time.perf_counter()
    mesh = method()
    seconds = time.perf_counter() - start
    result = compare(mesh, truth)
    chamfer, hausdorff, error = figures(result)
    return result, f"{chamfer * 1e3:.3f} / {hausdorff * 100:.2f} / {1 - error:.4f}, {seconds:.1f}"


def figures(result: Comparison) -> Floats:
    assert result.normal_consistency is not None
    return np.array(
        [result.chamfer / result.diagonal, result.hausdorff / result.diagonal, 1 - result.normal_consistency]
    )


if __name__ == "__main__":
    main(tyro.cli(Args))
