"""PLY files as trimesh reads them, and as Open3D does where it cannot."""

from __future__ import annotations

import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sdfrecon.columns import Arrays, from_names, triple
from sdfrecon.geometry import InputError, vertex_normals

HEADER = 1 << 16
"""Bytes in which a PLY's header ends, and a PCD's."""
ELEMENTS = re.compile(rb"^element\s+(\S+)\s+(\d+)", re.MULTILINE)
"""Of a PLY's header: their names and numbers."""
POLYGONS = """
import sys
import numpy as np
from sdfrecon.libraries import open3d
mesh = open3d().io.read_triangle_mesh(sys.argv[1])
if len(mesh.triangles) and not mesh.has_vertex_normals():
    mesh.compute_vertex_normals()
faces = np.asarray(mesh.triangles).astype(np.int64)
np.savez(sys.argv[2], points=mesh.vertices, faces=faces, normals=mesh.vertex_normals, colors=mesh.vertex_colors)
"""


def read(path: Path) -> Arrays:
    """A PLY's vertices, with normals and colours where it has them. Raises InputError where it holds too few."""
    # trimesh's own point cloud has no normals; its table of the file's properties has everything.
    loaded = load(path)
    if loaded is None:
        return polygons(path)
    vertex = loaded["metadata"]["_ply_raw"].get("vertex")
    if vertex is None or not vertex["length"]:
        raise InputError(f"{path} holds no points: expected a scan")
    data = vertex["data"]
    names = data.dtype.names if isinstance(data, np.ndarray) else data.keys()
    table = {name: np.asarray(data[name]).reshape(-1) for name in names}
    check_elements(path, loaded)
    arrays = from_names(table)
    if "normals" not in arrays and loaded.get("faces") is not None and len(loaded["faces"]):
        arrays["normals"] = vertex_normals(loaded["vertices"], loaded["faces"])
    return arrays


def load(path: Path) -> dict[str, Any] | None:
    """What trimesh finds in a PLY; None where it cannot read it, as where polygons have not all as many corners."""
    from trimesh.exchange.ply import load_ply

    _check_columns(path)
    header = _header(path)
    # It takes the second line for the format, and comments for UTF-8; and cuts the digits that a text has.
    plain = re.sub(rb"^(?:comment|obj_info)\b.*\n", b"", header, flags=re.MULTILINE)
    text = re.search(rb"^format\s+ascii", header, re.MULTILINE)
    plain = re.sub(rb"^(property\s+)float(32)?(?=\s)", rb"\1double", plain, flags=re.MULTILINE) if text else plain
    clear = not text and header.isascii() and re.match(rb"ply\s+format", header)
    try:
        with open(path, "rb") if clear else BytesIO(path.read_bytes().replace(header, plain, 1)) as file:
            found = load_ply(file, fix_texture=False, skip_materials=True)
    except (KeyError, ValueError):
        if not header.startswith(b"ply"):
            raise
        return None
    faces = found["metadata"]["_ply_raw"].get("face", {}).get("data")
    if isinstance(faces, np.ndarray) and len(faces):  # it takes all to have as many as the first
        counts = [faces[name]["f0"] for name in faces.dtype.names or () if "f0" in (faces.dtype[name].names or ())]
        if any((count != count[0]).any() for count in counts):
            return None
    return found


def polygons(path: Path) -> Arrays:
    """What `meshfiles.read` gives, of a PLY whose polygons have any number of corners.

    Raises ValueError where it is damaged, InputError where its normals or colours have names that Open3D passes over.

    trimesh reads no binary ones, nor some texts. Open3D does, but takes what it is promised, says on standard error
    alone where a file ends too soon, and crashes where corners are none: so it reads in a process of its own.
    """
    names = _columns(path)
    for kind, known in (("normals", ("nx", "ny", "nz")), ("colors", ("red", "green", "blue"))):
        if (found := triple(kind, names)) not in (None, known):
            raise InputError(f"{path} is a PLY of a rare kind: its {' '.join(found)} must be called {' '.join(known)}")
    if sum(int(count) for _, count in ELEMENTS.findall(_header(path))) > path.stat().st_size:
        raise ValueError("it promises more than it holds")
    with TemporaryDirectory() as folder:
        made = Path(folder) / "made.npz"
        line = [sys.executable, "-P", "-c", POLYGONS, str(path), str(made)]
        done = subprocess.run(line, capture_output=True, text=True, errors="replace")
        said = done.stderr.splitlines()
        told = [line for line in said if line.startswith("RPly:")] or said[-1:] * bool(done.returncode)
        if done.returncode or told:
            raise ValueError("; ".join(told) or "Open3D crashed over it")
        with np.load(made) as arrays:
            return {name: arrays[name] for name in arrays if len(arrays[name])}


def _columns(path: Path) -> list[str]:
    """Names of what a PLY has of its vertices."""
    vertex = re.search(rb"^element\s+vertex\s+0*[1-9].*?(?=^element\s|\Z)", _header(path), re.DOTALL | re.MULTILINE)
    return re.findall(r"property\s+\w+\s+(\w+)", vertex[0].decode("ascii", "replace")) if vertex else []


def _check_columns(path: Path) -> None:
    """Raises InputError for a PLY whose vertices have columns, but no x, y, z."""
    columns = _columns(path)
    if columns and not {"x", "y", "z"} <= set(columns):
        raise InputError(f"a scan needs columns x, y and z; got {', '.join(columns)}")


def has_faces(path: Path) -> bool:
    """By its header."""
    return re.search(rb"^element\s+face\s+0*[1-9]", _header(path), re.MULTILINE) is not None


def _header(path: Path) -> bytes:
    """Of a PLY: what it says before its numbers."""
    with open(path, "rb") as file:
        return file.read(HEADER).partition(b"end_header")[0]


def check_elements(path: Path, found: dict[str, Any]) -> None:
    """Raises InputError where fewer vertices, faces or others were found than a PLY promises."""
    # trimesh forgets an element where the file ends before its first.
    promised = {name.decode("ascii", "replace"): (int(count), 0) for name, count in ELEMENTS.findall(_header(path))}
    held = {name: _held(element) for name, element in found["metadata"]["_ply_raw"].items()}
    check_whole(path, promised | held)


def _held(element: dict[str, Any]) -> tuple[int, int]:
    """How many of an element a PLY promises, and how many of them trimesh found."""
    data = element.get("data", ())
    return element["length"], len(next(iter(data.values()), ()) if isinstance(data, dict) else data)


def check_whole(path: Path, counts: dict[str, tuple[int, int]]) -> None:
    """Raises InputError where fewer of something are there than promised: trimesh takes what there is of a text."""
    for name, (promised, held) in counts.items():
        if held < promised:
            what = {"vertex": "points", "face": "faces"}.get(name, name)
            raise InputError(f"{path} promises {promised} {what} and holds {held}: the file is truncated")
