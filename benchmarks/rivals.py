"""The methods that ours is measured against, each as a command: `python benchmarks/rivals.py poisson9 CLOUD MESH`.

A method that also has a density-trimmed variant writes that beside the mesh, as NAME_trimmed.ply.
"""

import sys
from pathlib import Path

import numpy as np

from sdfrecon.files import open3d, read_cloud, write_mesh
from sdfrecon.geometry import Mesh


def poisson(cloud: Path, mesh: Path, depth: int) -> None:
    """Screened Poisson (Kazhdan and Hoppe 2013) as Open3D has it; trimmed: without the 1% of least density."""
    o3d, points = open3d(), read_cloud(cloud)
    pcd = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.points))
    pcd.normals = o3d.utility.Vector3dVector(points.normals)
    made, density = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(pcd, depth=depth)
    write_mesh(mesh, Mesh(np.asarray(made.vertices), np.asarray(made.triangles)))
    made.remove_vertices_by_mask(np.asarray(density) < np.quantile(density, 0.01))
    write_mesh(mesh.with_stem(f"{mesh.stem}_trimmed"), Mesh(np.asarray(made.vertices), np.asarray(made.triangles)))


def meshlab(cloud: Path, mesh: Path, name: str, **options: int) -> None:
    """A method of MeshLab: Kazhdan's PoissonRecon, or ball pivoting (Bernardini et al. 1999) with its own radius."""
    import pymeshlab

    meshes = pymeshlab.MeshSet(verbose=False)
    points = read_cloud(cloud)
    meshes.add_mesh(pymeshlab.Mesh(vertex_matrix=points.points, v_normals_matrix=points.normals))
    meshes.apply_filter(f"generate_surface_reconstruction_{name}", **options)
    made = meshes.current_mesh()
    write_mesh(mesh, Mesh(made.vertex_matrix(), made.face_matrix().astype(np.int64)))


RIVALS = {
    "poisson8": lambda cloud, mesh: poisson(cloud, mesh, 8),
    "poisson9": lambda cloud, mesh: poisson(cloud, mesh, 9),
    "poisson10": lambda cloud, mesh: poisson(cloud, mesh, 10),
    "meshlab8": lambda cloud, mesh: meshlab(cloud, mesh, "screened_poisson", depth=8),
    "pivoting": lambda cloud, mesh: meshlab(cloud, mesh, "ball_pivoting"),
}

if __name__ == "__main__":
    RIVALS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
