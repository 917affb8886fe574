"""Tables of numbers as points, normals and colours: which column means what."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdfrecon.geometry import InputError, finite

COMMENTS = ("#", "//")
LOOKED_AT = 200
DECIMAL_COMMAS = re.compile(r";.*\d,\d|\d,\d.*;|\d,\d+\s+-?\d+,\d")
Arrays = dict[str, NDArray]
"""Under "points", and where there are any "normals" and "colors", (n, 3) arrays."""
INDICES = ("i", "j", "k")
"""Normals in metrology, a cell's number in grids."""
KINDS = {
    "points": [
        ("x", "y", "z"),
        ("easting", "northing", "elevation"),
        *[(f"points{mark}0", f"points{mark}1", f"points{mark}2") for mark in ":_"],
    ],
    "normals": [
        ("nx", "ny", "nz"),
        ("normal_x", "normal_y", "normal_z"),
        ("normalx", "normaly", "normalz"),
        ("n_x", "n_y", "n_z"),
        *[(f"normals{mark}0", f"normals{mark}1", f"normals{mark}2") for mark in ":_"],
        INDICES,
    ],
    "colors": [
        ("red", "green", "blue"),
        ("r", "g", "b"),
        ("rf", "gf", "bf"),
        ("diffuse_red", "diffuse_green", "diffuse_blue"),
    ],
}
MEANT = {name for triples in KINDS.values() for triple in triples for name in triple}


def parse_text(file: Iterable[str], rest: str | None = None) -> Arrays:
    """Points, normals and colours of lines of text: x y z first, or columns named by a header, or PTS or PWN.

    rest: what three columns after x y z are, "normals" or "colors", if nothing names them; None goes by their values.

    A header is the first line, or the last comment before the numbers, if it names the points' columns. PTS counts its
    points in the first line; PWN too, and has all points before all normals.
    Raises ValueError or InputError for what is not a table of numbers.
    """
    lines = iter(file)
    named, begin = _first(lines)
    if not begin:
        raise ValueError("no rows in it")
    first, count = begin, int(begin) if begin.strip().isdigit() else None
    words, told = (_words(line, _delimiter(begin)) for line in (begin, named))
    told_before = len(told) == len(words) and triple("points", told)
    header = not told_before and not all(map(_is_number, filter(None, words)))
    if header or count is not None:
        comment, first = _first(lines)
        named = begin if header else comment or named
    if not first:
        raise ValueError(f"no rows of numbers follow its first line, {begin[:40]!r}")
    delimiter = "\t" if header and begin.count("\t") == first.count("\t") > 0 else _delimiter(first)
    rows: Iterator[str] = chain([first], lines)
    if delimiter and first.endswith(delimiter) and len(_words(named, delimiter)) != len(first.split(delimiter)):
        named, first = named.rstrip(delimiter), first.rstrip(delimiter)
        rows = (row.rstrip().rstrip(delimiter) for row in rows)
    cells = re.split("|".join(COMMENTS), first)[0]
    width = len(next(csv.reader([cells], delimiter=delimiter)) if delimiter else cells.split())
    names = next((names for mark in ("\t", delimiter) if len(names := _words(named, mark)) == width), [])
    if header and len(words) > 3 and all(map(_is_number, words[:3])):
        raise InputError(f"expected numbers; got {begin[:40]!r}: drop columns of text, or name all")
    if header and not names:
        raise InputError(f"the header {begin[:40]!r} names {len(_words(named, delimiter))} columns, and {width} follow")
    known = triple("points", names)
    if header and not known:
        raise _without_places(names)
    others: dict[int | str, Callable[[str], float]] = {  # may be text, or empty
        at: lambda _: 0.0 for at, name in enumerate(names) if known and _plain(name) not in MEANT
    }
    marks: dict[str, Any] = {"comments": COMMENTS}
    if delimiter and '"' in begin + first:  # NumPy knows quotes beside comments of one letter only
        marks = {"comments": "#", "quotechar": '"'}
        rows = (row for row in rows if not row.lstrip().startswith(COMMENTS))
    try:
        table = np.loadtxt(rows, delimiter=delimiter, ndmin=2, converters=others, **marks)
    except ValueError as error:
        raise _explained(error, count, named=known is not None) from None
    if count is not None and table.shape == (2 * count, 3):
        return {"points": table[:count], "normals": table[count:]}
    if count is not None and count != len(table):
        raise ValueError(f"its first line promises {count} points and {len(table)} follow")
    if known:
        return from_names(dict(zip(names, table.T, strict=True)))
    if rest and table.shape[1] == 6:
        return {"points": table[:, :3], rest: table[:, 3:]}
    return from_columns(table, intensity=count is not None)


def _explained(error: ValueError, count: int | None, named: bool) -> ValueError:
    """What NumPy says of a table, in our words where we have some. count: of points, by its first line."""
    if wrong := re.search(r"could not convert string ('.*') to \w+ at row (\d+), column (\d+)", str(error)):
        place = f"row {int(wrong[2]) + 1} of them, column {wrong[3]}"
        way = "leave such rows out" if named else "drop that column, or name all"
        return InputError(f"expected numbers; got {wrong[1]} in {place}: {way}")
    if count is not None and f"to 1 at row {count + 1};" in str(error):
        return InputError("it holds several scans, each below its number of points: save each alone")
    return error


def _first(lines: Iterator[str]) -> tuple[str, str]:
    """The last comment before the first line that is none, and that line; empty where there is none.

    Raises InputError for numbers with decimal commas.
    """
    comment = ""
    for line in (line.strip(" \r\n") for line in lines):  # a tab may stand before a column without a name
        if line.lstrip().startswith(COMMENTS):
            comment = line.lstrip("#/\t ")
        elif DECIMAL_COMMAS.search(line[:LOOKED_AT]):
            raise InputError(f"the numbers have decimal commas, as in {line[:40]!r}: write them with points")
        elif line.strip():
            return comment, line
    return comment, ""


def _delimiter(line: str) -> str | None:
    return next((mark for mark in ",;" if mark in line), None)


def _words(line: str, delimiter: str | None) -> list[str]:
    """A line's words, without the units of names, which may have blanks before them."""
    return [word.strip() for word in re.sub(r"[\[(][^][()]{0,40}[\])]", "", line).split(delimiter)]


def _is_number(word: str) -> bool:
    try:
        float(word.strip('"'))
    except ValueError:
        return False
    return True


def _plain(name: str) -> str:
    """A column's name without quotes, capitals, and what CloudCompare puts before it."""
    return name.strip('"').lower().removeprefix("scalar_")


def triple(kind: str, names: Collection[str]) -> tuple[str, ...] | None:
    """Which of its names a kind goes by among these columns'."""
    plain = {_plain(name) for name in names}
    return next((three for three in KINDS[kind] if plain.issuperset(three)), None)


def from_names(table: Arrays) -> Arrays:
    """Points, normals and colours of a table of named columns."""
    columns = Arrays()
    for name in sorted(table, key=lambda name: "scalar_" in name.lower()):  # a field of its own comes first
        columns.setdefault(_plain(name), table[name])
    found = {kind: three for kind in KINDS if (three := triple(kind, columns))}
    if "points" not in found:
        raise _without_places(table)
    arrays = {kind: np.stack([columns[name] for name in three], axis=1) for kind, three in found.items()}
    if found.get("normals") == INDICES and _kind(arrays["normals"], alone=False) == "colors":  # whole numbers
        del arrays["normals"]
    return arrays


def _without_places(names: Iterable[str]) -> InputError:
    return InputError(f"a scan needs columns x, y and z; got {', '.join(names)}")


def from_columns(table: NDArray, intensity: bool = False) -> Arrays:
    """Points, normals and colours of an array whose columns have no names.

    intensity: colours that could begin with the first column or the second do so with the second, as in PTS.
    """
    if table.ndim != 2 or table.shape[1] < 3 or not np.issubdtype(table.dtype, np.number):
        raise InputError(f"expected rows of at least x y z; got an array of shape {table.shape} and type {table.dtype}")
    arrays, rest = {"points": table[:, :3]}, table[:, 3:]
    while rest.shape[1] >= 3:
        if not rest[:, :3].any():  # normals, or whatever else, that nobody filled in
            filled = _kind(rest[:, 1:4], alone=False) != "normals" and rest.shape[1] != 4
            rest = rest[:, 3 if filled else 1 :]
            continue
        begins = rest.shape[1] == table.shape[1] - 3
        kind = _kind(rest[:, :3], alone=rest.shape[1] == 3 and (begins or "colors" in arrays))
        if kind == "colors" and rest.shape[1] > 3 and _kind(rest[:, 1:4], alone=False) == "colors":
            large, next_large = np.nanmax(rest[:, 0]) > 255, np.nanmax(rest[:, 1:4]) > 255
            constant = not np.ptp(rest[:, 0]) and np.ptp(rest[:, 1:4], axis=0).all()
            if constant or (large and not next_large) or (intensity and begins and large == next_large):
                kind = None
        if kind == "normals" and _are_flags(rest[:, :3], table[:, :3]):
            kind = None
        if kind is None or kind in arrays:
            rest = rest[:, 1:]  # an intensity, a time, a label
        else:
            arrays[kind], rest = rest[:, :3], rest[:, 3:]
    return arrays


def _are_flags(group: NDArray, points: NDArray) -> bool:
    """Whether rows that could be normals are all the same, though the points are no plane across them."""
    points = points[finite(points)]
    return bool(
        len(points)
        and not np.ptp(group, axis=0).any()
        and np.ptp(points @ group[0]) > 1e-3 * np.ptp(points, axis=0).max()
    )


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
    if (np.abs(length - 1) < 0.02).sum() > 0.9 * max(1, (length > 0).sum()):
        return "normals"
    if rows.min() >= 0 and rows.max() <= (255 if alone else 1):
        return "colors"
    return "normals" if alone and rows.min() < 0 else None


def to_bytes(colors: NDArray | None) -> NDArray[np.uint8] | None:
    """(n, 3) colours as bytes: from shares of one, from 16 bits, or as they are."""
    if colors is None or colors.dtype == np.uint8:
        return colors
    values = np.nan_to_num(np.asarray(colors, dtype=np.float64))
    largest = values.max(initial=0)
    of_16_bits = largest >= (256 if colors.dtype == np.uint16 else 1024)  # a little more than 255 is a byte too bright
    factor = 255 if largest < 2 else 1 / 257 if of_16_bits else 1
    return np.rint(np.clip(values * factor, 0, 255)).astype(np.uint8)
