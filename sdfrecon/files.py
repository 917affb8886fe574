"""File input and output: clouds and meshes (fields: `sdfrecon.fieldfiles`, images: `sdfrecon.pictures`)."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray

from sdfrecon import libraries, meshexport, meshfiles, ply
from sdfrecon.columns import Arrays, from_columns, parse_text, to_bytes
from sdfrecon.geometry import Floats, InputError, Mesh, PointCloud, finite
from sdfrecon.pcd import read_pcd

MESH_WRITERS = (".ply", ".obj", ".stl", ".glb", ".off")
TEXT = (".xyz", ".xyzn", ".xyzrgb", ".txt", ".csv", ".asc", ".pts", ".pwn")
MESH_READERS = (".ply", ".obj", ".stl", ".off", ".glb", ".gltf")
CLOUD_READERS = (*MESH_READERS, *TEXT, ".pcd", ".npy", ".npz")


STREAM = Path("-")
"""Standard output, as the name of a mesh to write."""


class NoTriangles(InputError):
    """A file of points alone where a mesh was expected."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which becomes `path` when the block ends well and disappears when it does not.

    Where `path` is a link, what it leads to is replaced; a device or a pipe is written to as it is.
    """
    temporary = None
    try:
        if _flows(path):
            yield path
            return
        place = path.resolve()
        temporary = _beside(place)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        with suppress(OSError):  # of what is new, and where permissions cannot be set
            shutil.copymode(place, temporary)
        os.replace(temporary, place)
    except BrokenPipeError:  # who read it has gone
        raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}: choose another place") from None
    finally:
        if temporary is not None:
            with suppress(OSError):  # where nothing could be written there is none
                temporary.unlink()


def _beside(place: Path) -> Path:
    """The temporary name of a file that is being written."""
    return place.with_name(f".{place.stem}.part{place.suffix}")


def _flows(path: Path) -> bool:
    """Whether there is a device or a pipe of this name."""
    return path.exists() and not path.is_file() and not path.is_dir()


def check_there(path: Path) -> None:
    """Raises InputError for a file that does not exist, or may not be looked for, and for what is no file."""
    try:
        if path.is_dir():
            raise InputError(f"expected a file; got the directory {path}: name a file in it")
        if _flows(path):
            raise InputError(f"expected a file; got the pipe or device {path}: save what comes from it first")
        if not path.exists():
            raise InputError(f"no such file: {path}: check the name")
    except OSError as error:
        raise InputError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turns whatever a parser stumbles over into one line."""
    check_there(path)
    if not path.stat().st_size:
        raise InputError(f"{path} is empty: expected a {what}")
    try:
        yield
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from None
    except MemoryError:
        raise InputError(f"{path} takes more memory than there is: give a part of it") from None
    except PermissionError:
        raise InputError(f"cannot read {path}: permission denied") from None
    except Exception as error:  # parsers fail in as many ways as there are broken files
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(
            f"cannot read {path} as a {what}: {reason}: the file is damaged or its ending is wrong"
        ) from None


def read_cloud(path: str | Path) -> PointCloud:
    """A scan, as stored: points, and normals and colours where the file has them.

    By ending: PLY, PCD, PTS, PWN, XYZ, XYZN, XYZRGB, TXT, ASC, CSV, NPY, NPZ, or a mesh (its vertices with their
    normals). Columns of text and NPY files are x y z, then normals and colours in either order, told apart by their
    values, or XYZN's and XYZRGB's by the ending; the names decide where a text's first line, or the last comment before
    its numbers, has them.

    Raises InputError for what cannot be read.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    readers: dict[str, Callable[[Path], Arrays]] = {
        ".ply": ply.read,
        ".pcd": read_pcd,
        # Mapped first: a header may promise more than the file holds.
        ".npy": lambda p: from_columns(np.array(np.load(p, mmap_mode="r", allow_pickle=False))),
        ".npz": _read_npz,
        **dict.fromkeys(TEXT, _read_text),
        **dict.fromkeys(MESH_READERS[1:], meshfiles.read),
        ".obj": meshfiles.read_points_of_obj,
    }
    if suffix not in readers:
        raise InputError(
            f"unknown ending of {path}: {_instead(path, 'scan')} one of {' '.join(CLOUD_READERS)}: "
            "convert others to PLY, in CloudCompare for example"
        )
    with reading(path, f"{suffix[1:].upper()} scan"):
        arrays = readers[suffix](path)
        cloud = PointCloud(arrays["points"], arrays.get("normals"), to_bytes(arrays.get("colors")))
        if not len(cloud):
            raise InputError(f"{path} holds no points: expected a scan")
        return cloud


def _instead(path: Path, what: str) -> str:
    """What to take instead of a file of unknown ending, before the endings that there are."""
    if path.suffix.lower() == ".safetensors":
        return "make a mesh of it with `sdfrecon mesh`, or take"
    return f"a {what} is"


def has_faces(path: Path) -> bool:
    """Whether a file may hold triangles, by its ending; of a PLY whether it does."""
    suffix = path.suffix.lower()
    if suffix != ".ply":
        return suffix in MESH_READERS
    with reading(path, "PLY"):
        return ply.has_faces(path)


def read_mesh(path: str | Path) -> Mesh:
    """The finite triangles of a mesh, `welded`: PLY, OBJ, STL, OFF, GLB or glTF. Raises InputError for what is none."""
    mesh = read_triangles(Path(path)).welded()
    if not finite(mesh.vertices).all():
        mesh = mesh.finite_part()
    if not len(mesh.faces):
        raise InputError(f"{path} holds triangles without an area alone: the mesh is damaged")
    return mesh


def read_triangles(path: Path) -> Mesh:
    """A mesh as it is stored, with the normals of each corner. Raises NoTriangles, InputError."""
    if path.suffix.lower() not in MESH_READERS:
        raise InputError(f"unknown ending of {path}: {_instead(path, 'mesh')} one of {' '.join(MESH_READERS)}")
    with reading(path, f"{path.suffix[1:].upper()} mesh"):
        arrays = meshfiles.read(path)
        if "faces" not in arrays:
            raise NoTriangles(f"{path} holds no triangles: expected a mesh, not a point cloud")
        return Mesh(arrays["points"], arrays["faces"], arrays.get("normals"), to_bytes(arrays.get("colors")))


def write_mesh(path: str | Path, mesh: Mesh) -> None:
    """Writes PLY, OBJ, STL, GLB or OFF by ending, with normals and colours but for STL and OFF.

    PLY holds doubles where single precision would lose digits (georeferenced scans); GLB, whose format has none, gets
    the mesh around its centre and a translation. STREAM gets PLY. Raises InputError for another ending, a place that
    refuses it, or an STL or a GLB whose single precision would move vertices visibly.
    """
    path = Path(path)
    check_mesh_ending(path)
    if path == STREAM:
        with TemporaryDirectory() as folder:
            write_mesh(Path(folder) / "mesh.ply", mesh)
            with open(Path(folder) / "mesh.ply", "rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        return
    check_precision(path, mesh.vertices)
    with replacing(path) as temporary:
        if _in_doubles(path, mesh.vertices):
            meshexport.write_double_ply(temporary, mesh)
        else:
            meshexport.write(temporary, mesh, path.stem)


def _in_doubles(path: Path, points: Floats) -> bool:
    """Whether a mesh with vertices among points (n, 3) is written in double precision there."""
    return (path == STREAM or path.suffix.lower() == ".ply") and meshexport.rounds_visibly(points)


def check_mesh_ending(path: Path) -> None:
    """Raises InputError where no mesh can be written under this name: asked before the work, not after it."""
    if path == STREAM:
        return
    if path.suffix.lower() not in MESH_WRITERS:
        raise InputError(f"unknown ending of {path}: a mesh is written as one of {' '.join(MESH_WRITERS)}")
    check_place(path)


def check_precision(path: Path, points: Floats) -> None:
    """Raises InputError where a format cannot tell points (n, 3) of a shape from one another, or Open3D, which writes
    doubles, cannot start."""
    points = points[finite(points)]
    if _in_doubles(path, points):
        libraries.open3d()
    if path.suffix.lower() == ".stl" and meshexport.rounds_visibly(points):
        raise InputError(f"{path}: STL's single precision is too coarse this far from the origin: write .ply")
    if path.suffix.lower() == ".glb" and meshexport.rounds_visibly(points - points[:1]):
        raise InputError(f"{path}: GLB's single precision cannot hold what is so small or large: write .ply")


def check_place(path: Path) -> None:
    """Raises InputError where no file can be written: no folder, no right to, one of the name, or a name too long.

    A file that is there and write-protected stays, though its folder would let it be replaced.
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a directory: name a file in it")
    if _flows(path):
        return
    try:
        place = path.resolve()
        endless = place.is_symlink()
    except RuntimeError:  # before Python 3.13
        endless = True
    if endless:
        raise InputError(f"cannot write {path}: it is a link to itself: choose another name")
    if not place.parent.is_dir():
        raise InputError(f"cannot write {path}: no such directory: create {place.parent} first")
    if not may_write(place.parent):
        raise InputError(f"cannot write {path}: you may not write in {place.parent}: choose another place")
    if place.exists() and not may_write(place):
        raise InputError(f"cannot write {path}: it is write-protected: choose another name")
    try:
        _beside(place).exists()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}: choose a shorter name") from None


def may_write(place: Path) -> bool:
    """Whether a file that is there can be written, or files in a folder."""
    mode = os.W_OK | os.X_OK if place.is_dir() else os.W_OK
    return os.access(place, mode, effective_ids=os.access in os.supports_effective_ids)


def make_folder(path: Path) -> None:
    """Creates a folder and those above it. Raises InputError where that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create the folder {path}: {error.strerror}: choose another place") from None


def write_arrays(path: Path, **arrays: NDArray) -> None:
    """Writes named arrays as NPZ."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Writes a text file."""
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8", "backslashreplace")


def _read_npz(path: Path) -> Arrays:
    if not is_zipfile(path):  # NumPy would say how to load it unsafely
        raise ValueError("it is no archive of arrays")
    with np.load(path, allow_pickle=False) as file:
        if "points" not in file:
            raise InputError(f"{path} must hold an array 'points' (and 'normals', 'colors'); got {sorted(file)}")
        return {name: file[name] for name in ("points", "normals", "colors") if name in file}


def _read_text(path: Path) -> Arrays:
    rest = {".xyzn": "normals", ".xyzrgb": "colors"}.get(path.suffix.lower())
    with open(path, encoding="utf-8-sig", errors="replace") as file:  # comments may be in whatever they are in
        return parse_text(file, rest)
