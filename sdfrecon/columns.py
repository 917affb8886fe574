"""Tables of numbers as points, normals and colours: which column means what."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from itertools import chain, dropwhile

import numpy as np
from numpy.typing import NDArray

from sdfrecon.geometry import InputError, finite

INTENSITY = 3
"""The column of a PTS file between its points and its colours."""
Arrays = dict[str, NDArray]
"""Under "points", and where there are any "normals" and "colors", (n, 3) arrays."""


def parse_text(file: Iterable[str]) -> Arrays:
    """Points, normals and colours of lines of text: x y z first, or columns named by a header, or PTS or PWN.

    PTS counts its points in the first line; PWN too, and has all points before all normals.
    Raises ValueError or InputError for what is not a table of numbers.
    """
    lines = dropwhile(lambda line: not line.strip() or line.startswith(("#", "//")), file)
    first = next(lines, "").strip()
    if not first:
        raise ValueError("no rows in it")
    delimiter = next((mark for mark in ",;" if mark in first), None)
    words = [word.strip() for word in first.split(delimiter)]
    numeric = all(_is_number(word) for word in words if word)
    count = int(words[0]) if len(words) == 1 and words[0].isdigit() else None
    rows = lines if count is not None or not numeric else chain([first], lines)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that there are none: an error below
        table = np.loadtxt(rows, delimiter=delimiter, comments=("#", "//"), ndmin=2)
    if not table.size:
        raise ValueError(f"no rows of numbers follow its first line, {first[:40]!r}")
    if not numeric:
        named = {name.strip('"').lower(): column for name, column in zip(words, table.T, strict=True)}
        return from_names(named) if "x" in named else from_columns(table)
    if count is not None and table.shape == (2 * count, 3):
        return {"points": table[:count], "normals": table[count:]}
    if count is not None and count != len(table):
        raise ValueError(f"its first line promises {count} points and {len(table)} follow")
    if count is not None and table.shape[1] >= 7 and _kind(table[:, 4:7], alone=True) == "colors":
        table = np.delete(table, INTENSITY, axis=1)
    return from_columns(table)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def from_names(table: Arrays) -> Arrays:
    """Points, normals and colours of a table of named columns."""
    kinds = {
        "points": [("x", "y", "z")],
        "normals": [("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z")],
        "colors": [("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")],
    }
    arrays: Arrays = {}
    for kind, choices in kinds.items():
        for names in choices:
            if all(name in table for name in names):
                arrays.setdefault(kind, np.stack([table[name] for name in names], axis=1))
    if "points" not in arrays:
        raise InputError(f"a scan needs columns x, y and z; got {', '.join(table)}")
    return arrays


def from_columns(table: NDArray) -> Arrays:
    """Points, normals and colours of an array whose columns have no names."""
    if table.ndim != 2 or table.shape[1] < 3 or not np.issubdtype(table.dtype, np.number):
        raise InputError(f"expected rows of at least x y z; got an array of shape {table.shape} and type {table.dtype}")
    arrays, rest = {"points": table[:, :3]}, table[:, 3:]
    while rest.shape[1] >= 3:
        kind = _kind(rest[:, :3], alone=rest.shape[1] == 3)
        if kind is None or kind in arrays:
            rest = rest[:, 1:]  # an intensity, a time, a label
        else:
            arrays[kind], rest = rest[:, :3], rest[:, 3:]
    return arrays


def _kind(group: NDArray, alone: bool) -> str | None:
    """What three columns are: whole numbers are colours, rows of unit length normals, shares of one colours.

    The only columns there are need not be so exact: they are normals, of whatever length.
    """
    rows = group[finite(group)].astype(np.float64)
    if not len(rows):
        return None
    if (rows >= 0).all() and (rows == np.rint(rows)).all() and 1 < rows.max() < 65536:
        return "colors"
    length = np.linalg.norm(rows, axis=1)
    if (np.abs(length - 1) < 0.02).mean() > 0.9:
        return "normals"
    if rows.min() >= 0 and rows.max() <= 1:
        return "colors"
    return "normals" if alone else None


def to_bytes(colors: NDArray | None) -> NDArray[np.uint8] | None:
    """(n, 3) colours as bytes: from shares of one, from 16 bits, or as they are."""
    if colors is None or colors.dtype == np.uint8:
        return colors
    values = np.nan_to_num(np.asarray(colors, dtype=np.float64))
    largest = values.max(initial=0)
    factor = 255 if largest <= 1 else 1 if largest <= 255 else 1 / 257
    return np.rint(np.clip(values * factor, 0, 255)).astype(np.uint8)
