"""Mesh files as trimesh reads them: PLY, OBJ, STL, GLB, OFF, with what it would lose or take for granted put right."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from sdfrecon import ply
from sdfrecon.columns import Arrays
from sdfrecon.geometry import InputError, Mesh, unit_vectors, vertex_normals

FAN = 6
"""glTF's number for triangles around a point, which trimesh passes over."""


def read(path: Path) -> Arrays:
    """A file's points and, where there are any, its faces (f, 3), normals and colours: of all its meshes together."""
    import trimesh
    from trimesh.exchange.load import mesh_loaders
    from trimesh.resolvers import FilePathResolver

    kind = path.suffix.lower()[1:]
    if kind == "ply":
        found = ply.load(path)
        if found is None:
            return ply.polygons(path)
        ply.check_elements(path, found)
    else:
        options: dict[str, Any] = {"skip_materials": True} if kind in ("obj", "glb", "gltf") else {}
        with PREPARED[kind](path) as file:
            found = mesh_loaders[kind](file, file_type=kind, resolver=FilePathResolver(str(path)), **options)
            if kind == "off":
                file.seek(0)
                marks, _, rest = file.read().partition(b"OFF")
                lines = [line for line in rest.splitlines() if line.strip()]
                ply.check_whole(path, {"face": _off_faces(lines)})
                found |= _beside_places(marks, lines[1 : 1 + len(found["vertices"])])
    if "geometry" not in found:
        found = {"geometry": {"whole": found}}
    colors = {}
    for name, part in found["geometry"].items():
        part["process"] = False
        if not len(part.get("faces", ())):  # an empty list of them would be no points either
            part.pop("faces", None)
        # trimesh makes bytes of colours, for each format in another way, and loses them where it joins meshes.
        part.pop("visual", None)
        stored = part.pop("vertex_colors", None)
        colors[name] = _as_shown(stored) if stored is not None and kind in ("glb", "gltf") else stored
        if kind == "stl":  # the format repeats a vertex for each triangle at it
            welded = Mesh(part["vertices"], part["faces"]).welded()
            part |= {"vertices": welded.vertices, "faces": welded.faces, "face_normals": None}
    return _joined(trimesh.load_scene(found), found["geometry"], colors)


def read_points_of_obj(path: Path) -> Arrays:
    """The same of an OBJ whose points are wanted. Raises InputError where faces use less than nine tenths of them.

    trimesh drops the others.
    """
    arrays, text = read(path), re.sub(rb"\\\r?\n", b" ", path.read_bytes())
    points = len(re.findall(rb"(?m)^v\s", text))
    corners = re.sub(rb"/\S*", b"", b" ".join(re.findall(rb"(?m)^f\s([^#\r\n]*)", text)))
    if 0 < (used := len(set(corners.split()))) < 0.9 * points:
        raise InputError(
            f"{path} holds {points:,} points, and its faces use {used:,} of them: save the points alone, or drop others"
        )
    return arrays


def _without_comments(path: Path) -> BinaryIO:
    """An OFF: of what stands before the first comment trimesh reads all but a line twice."""
    return BytesIO(re.sub(rb"#[^\r\n]*", b"", path.read_bytes()))


def _absolute(path: Path) -> BinaryIO:
    """An OBJ whose faces count vertices from the first on, or from the last of all, as trimesh takes it.

    Raises InputError where they count back from vertices between them.
    """
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    face, vertex = re.search(rb"(?m)^f\s", text), max(text.rfind(b"\nv "), text.rfind(b"\nv\t"))
    if face and face.start() < vertex and re.search(rb"(?m)^f\s[^\n]*-\d", text):
        raise InputError(f"{path} counts corners back from each face: export it with absolute indices")
    return BytesIO(text)


def _whole_stl(path: Path) -> BinaryIO:
    """An STL without what follows its triangles. Raises InputError where some are missing."""
    data = path.read_bytes()
    if re.search(rb"solid[^\0]*?facet\s+normal", data[: ply.HEADER], re.IGNORECASE):
        begun, ended = (len(re.findall(rb"(?im)^\s*" + word, data)) for word in (b"solid", b"endsolid"))
        ply.check_whole(path, {"solids": (begun, ended)})
        return BytesIO(data)
    count = int.from_bytes(data[80:84], "little")
    ply.check_whole(path, {"face": (count, max(0, len(data) - 84) // 50)})
    return BytesIO(data[: 84 + 50 * count])


def _uncompressed(path: Path) -> BinaryIO:
    """A glTF as a text, with names of files as they are, or in a GLB.

    Raises InputError where its numbers are stored in a way that trimesh misreads, or in a file that is not there, and
    for what it drops: points' normals and triangle fans.
    """
    data = path.read_bytes()
    binary = data.startswith(b"glTF")
    text = data[20 : 20 + int.from_bytes(data[12:16], "little")] if binary else data
    tree = json.loads(text.decode("utf-8-sig", "replace"))
    if not isinstance(tree.get("meshes", []), list):  # glTF 1, which trimesh refuses
        return BytesIO(data)
    ways = set(tree.get("extensionsRequired", ())) & {"KHR_draco_mesh_compression", "EXT_meshopt_compression"}
    for primitive in (primitive for shape in tree.get("meshes", ()) for primitive in shape["primitives"]):
        position = primitive["attributes"].get("POSITION")
        if primitive.get("mode") == FAN:
            raise InputError(f"{path} holds triangle fans: export triangles")
        if primitive.get("mode") == 0 and "NORMAL" in primitive["attributes"]:
            raise InputError(f"{path} holds points whose normals are not read from glTF: save them as .ply")
        stored = {} if position is None else tree["accessors"][position]
        if stored.get("normalized"):
            ways.add("KHR_mesh_quantization")
        if "sparse" in stored:
            ways.add("sparse accessors")
    if ways:
        raise InputError(f"{path} is compressed by {', '.join(sorted(ways))}: export it without")
    if binary:
        return BytesIO(data)
    for buffer in tree.get("buffers", ()):
        if not (name := buffer["uri"]).startswith("data:"):
            buffer["uri"] = name = unquote(name)
            if not (path.parent / name).is_file():
                raise InputError(f"{path} needs {name} beside it: save or copy both")
    return BytesIO(json.dumps(tree).encode())


PREPARED: dict[str, Callable[[Path], BinaryIO]] = {
    "off": _without_comments,
    "obj": _absolute,
    "stl": _whole_stl,
    "glb": _uncompressed,
    "gltf": _uncompressed,
}
"""What opens a file so that trimesh reads it rightly, by its ending."""


def _off_faces(lines: list[bytes]) -> tuple[int, int]:
    """How many faces an OFF promises, of which these are the lines from the counts on, and how many it holds whole."""
    points, promised = map(int, lines[0].split()[:2])
    held, last = len(lines) - 1 - points, lines[-1].split()
    return promised, held - (0 < held <= promised and len(last) <= int(last[0]))


def _beside_places(marks: bytes, lines: list[bytes]) -> dict[str, NDArray]:
    """What trimesh drops of an OFF's vertices: normals where its first word has an N, then colours where it has a C."""
    if not lines or not {*marks} & {*b"NC"}:
        return {}
    table, found, at = np.loadtxt(lines, ndmin=2), dict[str, NDArray](), 3
    for mark, name in ((b"N", "vertex_normals"), (b"C", "vertex_colors")):
        if mark in marks and table.shape[1] >= at + 3:
            found[name], at = table[:, at : at + 3], at + 3
    return found


def _joined(scene: Any, stored: dict[str, dict[str, Any]], colors: dict[str, NDArray | None]) -> Arrays:
    """The meshes of trimesh's scene, each at its place, or where there are none its point clouds.

    stored: what the file has of each, by its name. colors: as stored, which they have all or none.
    """
    import trimesh

    placed = [scene.graph[node] for node in scene.graph.nodes_geometry]
    meshes = [(at, name) for at, name in placed if len(getattr(scene.geometry[name], "faces", ()))]
    clouds = [(at, name) for at, name in placed if isinstance(scene.geometry[name], trimesh.PointCloud)]
    if meshes and clouds:
        raise InputError("it holds points beside its meshes: save each alone")
    points, faces, count = [np.zeros((0, 3))], list[NDArray](), 0
    columns: dict[str, list[NDArray | None]] = {"normals": [], "colors": []}
    for at, name in meshes or clouds:
        one = scene.geometry[name]
        points.append(trimesh.transform_points(one.vertices, at))
        normals = stored[name].get("vertex_normals")
        if meshes and normals is None:
            normals = vertex_normals(one.vertices, one.faces)
        if normals is not None and not np.array_equal(at[:3, :3], np.eye(3)):
            normals = unit_vectors(normals @ np.linalg.inv(at[:3, :3]))
        for key, values in (("normals", normals), ("colors", colors[name])):
            columns[key].append(
                None if values is None or len(values) != len(one.vertices) else np.asarray(values)[:, :3]
            )
        if meshes:
            faces.append((one.faces[:, ::-1] if np.linalg.det(at[:3, :3]) < 0 else one.faces) + count)
        count += len(one.vertices)
    arrays = {"points": np.concatenate(points)}
    if faces:
        arrays["faces"] = np.concatenate(faces)
    for key, found in columns.items():
        whole = [values for values in found if values is not None]
        if whole and len(whole) == len(found):
            arrays[key] = np.concatenate(whole)
    return arrays


def _as_shown(light: NDArray) -> NDArray[np.uint8]:
    """sRGB colours of light, in floats up to 1 or in whole numbers up to the largest: what meshexport has back."""
    share = light if light.dtype.kind == "f" else light / np.iinfo(light.dtype).max
    share = np.clip(share, 0, 1)
    shown = np.where(share <= 0.0031308, 12.92 * share, 1.055 * share ** (1 / 2.4) - 0.055)
    return np.rint(255 * shown).astype(np.uint8)
