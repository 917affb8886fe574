"""Meshes open elsewhere: in the Khronos validator, Open3D, trimesh and MeshLab, with colours and normals."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from sdfrecon import files, libraries
from sdfrecon.geometry import Mesh

VALIDATE = """
const fs = require('fs'), validator = require(process.argv[1]);
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[2]))).then(r => console.log(JSON.stringify(r)));
"""


@pytest.fixture
def mesh() -> Mesh:
    ball = trimesh.creation.icosphere(3)
    points = np.array(ball.vertices)
    return Mesh(points + 5, np.array(ball.faces), points, (points * 120 + 128).astype(np.uint8))


def test_a_glb_passes_the_khronos_validator(tmp_path: Path, mesh: Mesh) -> None:
    package = Path(sys.prefix) / "node_modules" / "gltf-validator"
    if shutil.which("node") is None or not package.exists():
        pytest.skip(f"no Khronos validator: npm install --prefix {sys.prefix} gltf-validator")
    files.write_mesh(tmp_path / "mesh.glb", mesh)
    line = ["node", "-e", VALIDATE, str(package), str(tmp_path / "mesh.glb")]
    report = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    assert report["issues"]["messages"] == []
    assert report["info"]["totalTriangleCount"] == len(mesh.faces)


def test_a_glbs_colours_are_light_as_the_format_has_it(tmp_path: Path, mesh: Mesh) -> None:
    files.write_mesh(tmp_path / "mesh.glb", mesh)
    scene: Any = trimesh.load_scene(tmp_path / "mesh.glb", process=False)
    (read,) = scene.geometry.values()
    light = np.asarray(read.visual.vertex_attributes["color"]) / 65535
    share = mesh.colors / 255
    # sRGB is nearly the power 2.2.
    np.testing.assert_allclose(light[:, :3], share**2.2, atol=0.01)
    assert (light[:, 3] == 1).all()
    every = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    triangles = np.stack([np.arange(254), np.arange(1, 255), np.arange(2, 256)], axis=1)
    strip = Mesh(np.random.default_rng(0).normal(size=(256, 3)), triangles, colors=every)
    files.write_mesh(tmp_path / "strip.glb", strip)
    np.testing.assert_array_equal(files.read_mesh(tmp_path / "strip.glb").colors, every)


def test_a_ply_opens_in_open3d(tmp_path: Path, mesh: Mesh) -> None:
    files.write_mesh(tmp_path / "mesh.ply", mesh)
    o3d = libraries.open3d()
    read = o3d.io.read_triangle_mesh(str(tmp_path / "mesh.ply"))
    same(mesh, np.asarray(read.vertices), np.asarray(read.vertex_normals), np.asarray(read.vertex_colors) * 255)


def test_a_ply_opens_in_trimesh(tmp_path: Path, mesh: Mesh) -> None:
    files.write_mesh(tmp_path / "mesh.ply", mesh)
    read: Any = trimesh.load_mesh(tmp_path / "mesh.ply", process=False)
    # Not its normals, which trimesh computes from the triangles.
    same(mesh, read.vertices, None, read.visual.vertex_colors[:, :3])


def test_a_ply_opens_in_meshlab(tmp_path: Path, mesh: Mesh) -> None:
    pymeshlab = pytest.importorskip("pymeshlab", reason="needs the extra bench: pip install -e '.[bench]'")
    files.write_mesh(tmp_path / "mesh.ply", mesh)
    meshes = pymeshlab.MeshSet(verbose=False)
    try:
        meshes.load_new_mesh(str(tmp_path / "mesh.ply"))
    except pymeshlab.PyMeshLabException as error:
        if "Unknown format" in str(error):
            pytest.skip("MeshLab's PLY reader needs libOpenGL: apt-get install libopengl0")
        raise
    read = meshes.current_mesh()
    same(mesh, read.vertex_matrix(), read.vertex_normal_matrix(), read.vertex_color_matrix()[:, :3] * 255)


def same(mesh: Mesh, vertices: np.ndarray, normals: np.ndarray | None, colors: np.ndarray) -> None:
    np.testing.assert_allclose(vertices, mesh.vertices, atol=1e-6)
    if normals is not None:
        np.testing.assert_allclose(normals, mesh.normals, atol=1e-6)
    np.testing.assert_allclose(colors, mesh.colors, atol=0.51)
