"""PCD files, read by Open3D once their header is known to be sound: it trusts that, and crashes where it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sdfrecon.columns import Arrays
from sdfrecon.geometry import InputError
from sdfrecon.libraries import open3d
from sdfrecon.ply import HEADER

PARTS = ("FIELDS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "POINTS", "DATA")


def read_pcd(path: Path) -> Arrays:
    """Points, and normals and colours where there are any. Raises InputError or ValueError for a damaged file."""
    check(path)
    cloud = open3d().io.read_point_cloud(str(path))
    arrays = {"points": np.asarray(cloud.points)}
    if not len(arrays["points"]):
        raise ValueError("no points found in it")
    if cloud.has_normals():
        arrays["normals"] = np.asarray(cloud.normals)
    if cloud.has_colors():
        arrays["colors"] = np.asarray(cloud.colors)
    return arrays


def check(path: Path) -> None:
    """Raises InputError where the header contradicts itself or promises more than the file holds.

    The format: https://pointclouds.org/documentation/tutorials/pcd_file_format.html
    """
    with open(path, "rb") as file:
        start = file.read(HEADER)
    header: dict[str, list[str]] = {}
    end = 0
    while "DATA" not in header:
        line, newline, _ = start[end:].partition(b"\n")
        if not newline:
            raise InputError(f"{path} is no PCD file: its header has no line DATA")
        end += len(line) + 1
        words = line.decode("ascii", "replace").split()
        if words and words[0] in PARTS:
            header[words[0]] = words[1:]
    header.setdefault("COUNT", ["1"] * len(header.get("FIELDS", [])))
    missing = [part for part in PARTS if not header.get(part)]
    if missing:
        raise InputError(f"{path} is a damaged PCD file: its header lacks {', '.join(missing)}")
    fields = header["FIELDS"]
    sizes, counts = (_numbers(path, part, header[part]) for part in ("SIZE", "COUNT"))
    width, height, points = (_numbers(path, part, header[part])[0] for part in ("WIDTH", "HEIGHT", "POINTS"))
    normals = [f"normal_{axis}" in fields for axis in "xyz"]
    for field, count in zip(fields, counts, strict=False):
        if field != "_" and count > 1:
            raise InputError(f"{path} has {count} values of {field} for each point: save it without, or as .ply")
    if (
        not len(fields) == len(sizes) == len(counts) == len(header["TYPE"])
        or len(set(fields) - {"_"}) < len([field for field in fields if field != "_"])
        or not {"x", "y", "z"} <= set(fields)
        or not all(size in (1, 2, 4, 8) for size in sizes)
        or any(normals) != all(normals)
        or any(kind not in ("I", "U", "F") for kind in header["TYPE"])
        or width * height != points
    ):
        raise InputError(f"{path} is a damaged PCD file: its header contradicts itself")
    row = sum(size * count for size, count in zip(sizes, counts, strict=True))
    held, kind = path.stat().st_size - end, header["DATA"][0]
    if kind not in ("ascii", "binary", "binary_compressed"):
        raise InputError(f"{path}: a PCD's data are ascii, binary or binary_compressed; got {kind}: save it again")
    if kind == "binary_compressed":
        packed, unpacked = (int.from_bytes(start[end + 4 * i : end + 4 * i + 4], "little") for i in range(2))
        sound = packed + 8 <= held and unpacked == row * points
    else:
        # In text a number and what parts it from the next take two bytes at least.
        sound = points * (row if kind == "binary" else 2 * len(fields)) <= held + 1
        if sound and kind == "ascii":  # Open3D makes points of what is not there
            with open(path, "rb") as file:
                file.seek(end)
                sound = sum(len(line.split()) >= sum(counts) for line in file) >= points
    if not sound:
        raise InputError(f"{path} promises {points} points and holds fewer: the file is truncated or damaged")
    read = ("x", "y", "z", *(f"normal_{axis}" for axis in "xyz"))
    if kind != "ascii" and any(size == 8 for field, size in zip(fields, sizes, strict=True) if field in read):
        raise InputError(f"{path} has numbers of 8 bytes, which Open3D reads as 0: save it with floats, or as .ply")


def _numbers(path: Path, part: str, words: list[str]) -> list[int]:
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise InputError(
            f"{path} is a damaged PCD file: its {part} must be whole numbers above 0; got {' '.join(words)}"
        )
    return [int(word) for word in words]
