"""The methods that ours is measured against, each as a command: `python benchmarks/rivals.py poisson9 CLOUD MESH`.

A method that has densities writes them as NAME.npy: `trimmed` cuts where they are least. Each does what its users' own
script would, no more: that is what is timed.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sdfrecon import libraries, meshfiles
from sdfrecon.files import read_cloud
from sdfrecon.geometry import Mesh


def oriented(cloud: Path) -> Any:
    """The points and normals of a file as Open3D's."""
    o3d, points = libraries.open3d(), read_cloud(cloud)
    pcd = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.points))
    pcd.normals = o3d.utility.Vector3dVector(points.normals)
    return pcd


def poisson(cloud: Path, mesh: Path, depth: int) -> None:
    """Screened Poisson (Kazhdan and Hoppe 2013) as Open3D has it."""
    o3d = libraries.open3d()
    made, density = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(oriented(cloud), depth=depth)
    o3d.io.write_triangle_mesh(str(mesh), made)
    np.save(mesh.with_suffix(".npy"), np.asarray(density))


def trimmed(mesh: Path) -> Mesh:
    """A mesh in a file without the 1% of its vertices of least density, and the triangles at them."""
    arrays, density = meshfiles.read(mesh), np.load(mesh.with_suffix(".npy"))
    whole, kept = Mesh(arrays["points"], arrays["faces"]), density >= np.quantile(density, 0.01)
    return whole.keep_faces(kept[whole.faces].all(axis=1))


def meshlab(cloud: Path, mesh: Path, depth: int, samples: float = 1.5) -> None:
    """Kazhdan's PoissonRecon as MeshLab has it; samples: least number of points in a cell, for noise 15 to 20."""
    import pymeshlab

    meshes = pymeshlab.MeshSet(verbose=False)
    points = read_cloud(cloud)
    meshes.add_mesh(pymeshlab.Mesh(vertex_matrix=points.points, v_normals_matrix=points.normals))
    meshes.generate_surface_reconstruction_screened_poisson(depth=depth, samplespernode=samples)
    meshes.save_current_mesh(str(mesh))


def pivoting(cloud: Path, mesh: Path) -> None:
    """Ball pivoting (Bernardini et al. 1999) as Open3D has it, with balls of one, two and four mean spacings."""
    o3d = libraries.open3d()
    pcd = oriented(cloud)
    radii = np.mean(pcd.compute_nearest_neighbor_distance()) * np.array([1, 2, 4])
    made = o3d.geometry.TriangleMesh.create_from_point_cloud_ball_pivoting(pcd, o3d.utility.DoubleVector(radii))
    o3d.io.write_triangle_mesh(str(mesh), made)


Rivals = dict[str, Callable[[Path, Path], None]]
OPEN3D: Rivals = {f"poisson{depth}": partial(poisson, depth=depth) for depth in range(5, 11)}
MESHLAB: Rivals = {f"meshlab{depth}": partial(meshlab, depth=depth) for depth in range(6, 11)}
RIVALS: Rivals = {**OPEN3D, **MESHLAB, "meshlab8_smooth": partial(meshlab, depth=8, samples=15.0), "pivoting": pivoting}
"""Depths 5 to 7, and 15 points a cell, are what its users turn to where points are noisy or few."""

if __name__ == "__main__":
    RIVALS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
