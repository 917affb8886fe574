"""Tables of numbers as points, normals and colours: which column means what."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from sdfrecon.geometry import InputError, finite

COMMENTS = ("#", "//")
Arrays = dict[str, NDArray]
"""Under "points", and where there are any "normals" and "colors", (n, 3) arrays."""


def parse_text(file: Iterable[str]) -> Arrays:
    """Points, normals and colours of lines of text: x y z first, or columns named by a header, or PTS or PWN.

    A header is the first line, or the last comment before the numbers, if it names x, y and z. PTS counts its points in
    the first line; PWN too, and has all points before all normals.
    Raises ValueError or InputError for what is not a table of numbers.
    """
    lines, comment = iter(file), ""
    for first in lines:
        if first.startswith(COMMENTS):
            comment = first.lstrip("#/")
        elif first.strip():
            break
    else:
        raise ValueError("no rows in it")
    if re.match(r"\s*-?\d+,\d+\s*[;\s]\s*-?\d", first):
        raise InputError(f"the numbers have decimal commas, as in {first.strip()[:40]!r}: write them with points")
    delimiter = next((mark for mark in ",;" if mark in first), None)
    words = first.strip().split(delimiter)
    numeric = all(_is_number(word) for word in words if word.strip())
    count = int(words[0]) if len(words) == 1 and words[0].isdigit() else None
    rows = lines if count is not None or not numeric else chain([first], lines)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that there are none: an error below
        table = np.loadtxt(rows, delimiter=delimiter, comments=COMMENTS, ndmin=2)
    if not table.size:
        raise ValueError(f"no rows of numbers follow its first line, {first.strip()[:40]!r}")
    if not numeric:
        return from_names(dict(zip(words, table.T, strict=True)))
    told = comment.strip().split(delimiter)
    if len(told) == table.shape[1] and {"x", "y", "z"} <= set(map(_plain, told)):
        return from_names(dict(zip(told, table.T, strict=True)))
    if count is not None and table.shape == (2 * count, 3):
        return {"points": table[:count], "normals": table[count:]}
    if count is not None and count != len(table):
        raise ValueError(f"its first line promises {count} points and {len(table)} follow")
    return from_columns(table, intensity=count is not None)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _plain(name: str) -> str:
    """A column's name without quotes, unit, capitals and what CloudCompare puts before it."""
    return re.sub(r"[\[(].*", "", name.strip().strip('"')).strip().lower().removeprefix("scalar_")


def from_names(table: Arrays) -> Arrays:
    """Points, normals and colours of a table of named columns."""
    kinds = {
        "points": [("x", "y", "z"), ("easting", "northing", "elevation"), ("points:0", "points:1", "points:2")],
        "normals": [
            ("nx", "ny", "nz"),
            ("normal_x", "normal_y", "normal_z"),
            ("normalx", "normaly", "normalz"),
            ("normals:0", "normals:1", "normals:2"),
        ],
        "colors": [
            ("red", "green", "blue"),
            ("r", "g", "b"),
            ("rf", "gf", "bf"),
            ("diffuse_red", "diffuse_green", "diffuse_blue"),
        ],
    }
    arrays, columns = Arrays(), {_plain(name): column for name, column in table.items()}
    for kind, choices in kinds.items():
        for names in choices:
            if all(name in columns for name in names):
                arrays.setdefault(kind, np.stack([columns[name] for name in names], axis=1))
    if "points" not in arrays:
        raise InputError(f"a scan needs columns x, y and z; got {', '.join(table)}")
    return arrays


def from_columns(table: NDArray, intensity: bool = False) -> Arrays:
    """Points, normals and colours of an array whose columns have no names.

    intensity: colours that could begin with the first column or the second do so with the second, as in PTS.
    """
    if table.ndim != 2 or table.shape[1] < 3 or not np.issubdtype(table.dtype, np.number):
        raise InputError(f"expected rows of at least x y z; got an array of shape {table.shape} and type {table.dtype}")
    arrays, rest = {"points": table[:, :3]}, table[:, 3:]
    while rest.shape[1] >= 3:
        kind = _kind(rest[:, :3], alone=table.shape[1] == 6)
        if kind == "colors" and rest.shape[1] > 3 and _kind(rest[:, 1:4], alone=False) == "colors":
            first, last = rest[:, 0].max() > 255, rest[:, 3].max() > 255
            kind = None if (first and not last) or (intensity and first == last) else kind
        if kind == "normals" and rest.shape[1] < table.shape[1] - 3 and not np.ptp(rest[:, :3], axis=0).any():
            kind = None  # flags
        if kind is None or kind in arrays:
            rest = rest[:, 1:]  # an intensity, a time, a label
        else:
            arrays[kind], rest = rest[:, :3], rest[:, 3:]
    return arrays


def _kind(group: NDArray, alone: bool) -> str | None:
    """What three columns are: whole numbers are colours, rows of unit length normals, shares of one colours.

    The only columns there are need not be so exact: they are normals, of whatever length, if any points backwards, and
    else colours, such as means of some.
    """
    rows = group[finite(group)].astype(np.float64)
    if not len(rows):
        return None
    if (rows >= 0).all() and (rows == np.rint(rows)).all() and 1 < rows.max() < 65536:
        return "colors"
    length = np.linalg.norm(rows, axis=1)
    if (np.abs(length - 1) < 0.02).mean() > 0.9:
        return "normals"
    if rows.min() >= 0 and rows.max() <= (255 if alone else 1):
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
