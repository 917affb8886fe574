"""Mesh files as trimesh reads and writes them: PLY, OBJ, STL, GLB, OFF, with what it would lose put right."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdfrecon.columns import Arrays, from_names
from sdfrecon.geometry import Floats, InputError, Mesh

HEADER = 1 << 16
"""Bytes in which a PLY's header ends."""


def load(path: Path, open3d: Callable[[], Any]) -> Any:
    """What trimesh makes of a file: its one mesh or point cloud, or all of its meshes joined."""
    import trimesh

    suffix = path.suffix.lower()
    textures: dict[str, Any] = {"skip_materials": True} if suffix == ".ply" else {}
    try:
        with open(path, "rb") as file:
            scene = trimesh.load_scene(file, file_type=suffix[1:], process=False, **textures)
    except ValueError:
        if suffix != ".ply":
            raise
        points, faces, normals, colors = read_polygons(path, open3d())
        return trimesh.Trimesh(points, faces, vertex_normals=normals, vertex_colors=colors, process=False)
    if len(scene.graph.nodes_geometry) != 1:
        return scene.to_mesh()
    # Joining a scene's meshes loses their normals: one alone is moved to its place by hand.
    (node,) = scene.graph.nodes_geometry
    transform, name = scene.graph[node]
    loaded = scene.geometry[name]
    if suffix == ".stl":  # the format repeats a vertex for each triangle at it
        welded = Mesh(loaded.vertices, loaded.faces).welded()
        return trimesh.Trimesh(welded.vertices, welded.faces, process=False)
    if np.array_equal(transform, np.eye(4)):
        return loaded
    if np.linalg.det(transform) <= 0 or not len(getattr(loaded, "faces", ())):
        return scene.to_mesh()
    normals = loaded.vertex_normals @ np.linalg.inv(transform[:3, :3])
    return trimesh.Trimesh(
        trimesh.transform_points(loaded.vertices, transform),
        loaded.faces,
        vertex_normals=normals / np.linalg.norm(normals, axis=1, keepdims=True),
        vertex_colors=_vertex_colors(loaded),
        process=False,
    )


def arrays_of(loaded: Any) -> Arrays:
    """Points, and normals and colours where there are any, of what `load` gave."""
    arrays = {"points": np.asarray(loaded.vertices)}
    if len(getattr(loaded, "faces", ())):
        arrays["normals"] = np.asarray(loaded.vertex_normals)
    if (colors := _vertex_colors(loaded)) is not None:
        arrays["colors"] = colors[:, :3]
    return arrays


def read_ply(path: Path, open3d: Callable[[], Any]) -> Arrays:
    """A PLY's vertices, with normals and colours where it has them. Raises InputError where it holds too few."""
    # trimesh's own point cloud has no normals; its table of the file's properties has everything.
    import trimesh
    from trimesh.exchange.ply import load_ply

    try:
        with open(path, "rb") as file:
            loaded = load_ply(file, fix_texture=False, skip_materials=True)
    except ValueError:
        points, faces, normals, colors = read_polygons(path, open3d())
        if normals is None and len(faces):
            normals = trimesh.Trimesh(points, faces, process=False).vertex_normals
        given = {"points": points, "normals": normals, "colors": colors}
        return {name: np.asarray(values) for name, values in given.items() if values is not None}
    vertex = loaded["metadata"]["_ply_raw"].get("vertex")
    if vertex is None or not vertex["length"]:
        raise InputError(f"{path} holds no points: expected a scan")
    data = vertex["data"]
    names = data.dtype.names if isinstance(data, np.ndarray) else data.keys()
    table = {name: np.asarray(data[name]).reshape(-1) for name in names}
    if len(table["x"]) != vertex["length"]:
        raise InputError(
            f"{path} promises {vertex['length']} points and holds {len(table['x'])}: the file is truncated"
        )
    arrays = from_names(table)
    if "normals" not in arrays and loaded.get("faces") is not None and len(loaded["faces"]):
        built = trimesh.Trimesh(loaded["vertices"], loaded["faces"], process=False)
        arrays["normals"] = np.asarray(built.vertex_normals)
    return arrays


def read_polygons(path: Path, open3d: Any) -> tuple[Floats, NDArray[np.int64], Floats | None, Floats | None]:
    """Vertices, triangles, and normals and colours (0 to 1) where there are any, of a PLY with polygons of many sizes.

    trimesh reads no binary ones. Open3D does, but takes what it is promised, and says on standard error alone where a
    file ends too soon. Raises ValueError for such a file.
    """
    with open(path, "rb") as file:
        header = file.read(HEADER).partition(b"end_header")[0]
    if sum(int(count) for count in re.findall(rb"^element \S+ (\d+)", header, re.MULTILINE)) > path.stat().st_size:
        raise ValueError("it promises more than it holds")
    with TemporaryFile() as said:
        shown = os.dup(2)
        try:
            os.dup2(said.fileno(), 2)
            mesh = open3d.io.read_triangle_mesh(str(path))
        finally:
            os.dup2(shown, 2)
            os.close(shown)
        said.seek(0)
        if wrong := said.read().decode(errors="replace").strip():
            raise ValueError(wrong)
    return (
        np.asarray(mesh.vertices),
        np.asarray(mesh.triangles).astype(np.int64),
        np.asarray(mesh.vertex_normals) if mesh.has_vertex_normals() else None,
        np.asarray(mesh.vertex_colors) if mesh.has_vertex_colors() else None,
    )


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
        vertex_colors=mesh.colors,
        process=False,
    )
    normals = mesh.normals is not None
    if suffix == ".ply":
        built.export(path, vertex_normal=normals)
    elif suffix == ".glb":
        scene = trimesh.Scene()
        scene.add_geometry(built, node_name=name, transform=trimesh.transformations.translation_matrix(center))
        scene.export(path, include_normals=normals, tree_postprocessor=_complete)
    elif suffix == ".obj":
        built.export(path, digits=_digits(mesh), include_normals=normals)
    elif suffix == ".off":
        built.export(path, digits=_digits(mesh))
    else:
        built.export(path)


def write_double_ply(path: Path, mesh: Mesh, open3d: Any) -> None:
    """Writes a PLY in double precision, which trimesh has no way to."""
    built = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(mesh.vertices), open3d.utility.Vector3iVector(mesh.faces.astype(np.int32))
    )
    if mesh.normals is not None:
        built.vertex_normals = open3d.utility.Vector3dVector(mesh.normals.copy())
    if mesh.colors is not None:
        built.vertex_colors = open3d.utility.Vector3dVector(mesh.colors / 255)
    if not open3d.io.write_triangle_mesh(str(path), built):
        raise OSError("Open3D could not write it")


def rounds_visibly(points: Floats) -> bool:
    """Whether single precision would move one of points (n, 3) by more than a millionth of the size of them all."""
    if not len(points):
        return False
    with np.errstate(over="ignore"):
        rounding = np.abs(points - points.astype(np.float32)).max()
        return bool(rounding > 1e-6 * np.linalg.norm(np.ptp(points, axis=0)))


def _complete(tree: dict[str, Any]) -> None:
    """Gives a glTF a material, without which viewers take bare metal, black but for reflections, and buffers' uses."""
    tree["materials"] = [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.9}}]
    for primitive in (primitive for shape in tree["meshes"] for primitive in shape["primitives"]):
        primitive["material"] = 0
        for accessor in (primitive["indices"], *primitive["attributes"].values()):
            view = tree["bufferViews"][tree["accessors"][accessor]["bufferView"]]
            view["target"] = 34963 if accessor == primitive["indices"] else 34962  # of OpenGL: elements, array


def _digits(mesh: Mesh) -> int:
    """Decimals that resolve a ten-millionth of the mesh's size."""
    return max(6, int(np.ceil(7 - np.log10(max(mesh.diagonal, 1e-300)))))


def _vertex_colors(loaded: Any) -> NDArray | None:
    if loaded.visual.kind == "vertex":
        colors = loaded.visual.vertex_colors
    else:  # a glTF with a material keeps its vertices' colours elsewhere
        colors = getattr(loaded.visual, "vertex_attributes", {}).get("color")
    return None if colors is None or not len(colors) else np.asarray(colors)
