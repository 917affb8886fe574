"""Meshes as trimesh writes them: PLY, OBJ, STL, GLB, OFF; in double precision by Open3D, which has a way to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdfrecon.geometry import Floats, Mesh
from sdfrecon.libraries import open3d

COLORS = "_COLOR_0"


def write(path: Path, mesh: Mesh, name: str) -> None:
    """Writes by ending, in single precision where the format is binary. name: of the shape in a GLB.

    A GLB, whose numbers are never doubles, gets the mesh around its centre and a translation.
    """
    import trimesh

    suffix = path.suffix.lower()
    center = mesh.vertices.mean(axis=0) if suffix == ".glb" else np.zeros(3)
    built = trimesh.Trimesh(
        # trimesh forbids writing into what it is given: it gets copies.
        mesh.vertices - center,
        mesh.faces.copy(),
        vertex_normals=None if mesh.normals is None else mesh.normals.copy(),
        vertex_colors=None if suffix == ".glb" else mesh.colors,
        process=False,
    )
    normals = mesh.normals is not None
    if suffix == ".ply":
        built.export(path, vertex_normal=normals)
    elif suffix == ".glb":
        if mesh.colors is not None:
            built.vertex_attributes[COLORS] = _as_light(mesh.colors)
        scene = trimesh.Scene(base_frame="/")  # which no file is called: a node of its name would lose its place
        scene.add_geometry(built, node_name=name, transform=trimesh.transformations.translation_matrix(center))
        scene.export(path, include_normals=normals, tree_postprocessor=_complete)
    elif suffix == ".obj":
        built.export(path, digits=_digits(mesh), include_normals=normals)
    elif suffix == ".off":
        built.export(path, digits=_digits(mesh))
    else:
        built.export(path)


def write_double_ply(path: Path, mesh: Mesh) -> None:
    """Writes a PLY in double precision, which trimesh has no way to."""
    built = to_open3d(mesh)
    if mesh.normals is not None:
        built.vertex_normals = open3d().utility.Vector3dVector(mesh.normals.copy())
    numbers = (mesh.vertices, mesh.normals, mesh.colors)
    least = 13 * len(mesh.faces) + sum(values.nbytes for values in numbers if values is not None)
    # It says nothing of a disk that is full.
    if not open3d().io.write_triangle_mesh(os.fsencode(path), built) or (
        path.is_file() and path.stat().st_size < least
    ):
        raise OSError("Open3D could not write it all")


def to_open3d(mesh: Mesh) -> Any:
    """Open3D's triangle mesh, with the colours and without the normals."""
    vectors = open3d().utility
    built = open3d().geometry.TriangleMesh(
        vectors.Vector3dVector(mesh.vertices), vectors.Vector3iVector(mesh.faces.astype(np.int32))
    )
    if mesh.colors is not None:
        built.vertex_colors = vectors.Vector3dVector(mesh.colors / 255)
    return built


def rounds_visibly(points: Floats) -> bool:
    """Whether single precision moves what lies among points (n, 3) by up to more than a millionth of their size."""
    if not len(points):
        return False
    with np.errstate(over="ignore"):
        rounding = float(np.spacing(np.float32(np.abs(points).max()))) / 2
        return not rounding <= 1e-6 * np.linalg.norm(np.ptp(points, axis=0))


def _complete(tree: dict[str, Any]) -> None:
    """Gives a glTF a material, without which viewers take bare metal, black but for reflections, and buffers' uses.

    And its colours their name and meaning: trimesh would write bytes as they are, which viewers show too pale.
    """
    tree["materials"] = [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.9}}]
    for primitive in (primitive for shape in tree["meshes"] for primitive in shape["primitives"]):
        primitive["material"] = 0
        if (colors := primitive["attributes"].pop(COLORS, None)) is not None:
            primitive["attributes"]["COLOR_0"], tree["accessors"][colors]["normalized"] = colors, True
        for accessor in (primitive["indices"], *primitive["attributes"].values()):
            view = tree["bufferViews"][tree["accessors"][accessor]["bufferView"]]
            view["target"] = 34963 if accessor == primitive["indices"] else 34962  # of OpenGL: elements, array


def _as_light(colors: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """(n, 4) the light of sRGB colours (n, 3), of 65535, as glTF has it; opaque (IEC 61966-2-1)."""
    share = colors / 255
    light = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.rint(65535 * np.pad(light, ((0, 0), (0, 1)), constant_values=1)).astype(np.uint16)


def _digits(mesh: Mesh) -> int:
    """Decimals that resolve a ten-millionth of the mesh's size."""
    return max(6, int(np.ceil(7 - np.log10(max(mesh.diagonal, 1e-300)))))
