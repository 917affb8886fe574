"""What commands have in common: what they say of things, and what they check before they start."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from sdfrecon.geometry import InputError, Mesh, PointCloud, finite

if TYPE_CHECKING:
    from sdfrecon.field import Field
    from sdfrecon.fit import FitConfig


MOST_STEPS = 1_000_000
ON_TRIANGLES = 100_000
"""Points that are drawn on the triangles of a mesh, where its vertices do not show its surface."""
SOME, UNSEEN = 1000, 0.05
"""Fewer vertices do not, nor do those from which more than this share of it is farther than `open_distance`."""


def say(line: str, to: TextIO | None = None) -> None:
    """Prints a line where the command's answers go."""
    print(line, file=to, flush=True)


def beside(output: Path) -> TextIO:
    """Where to say what was written: standard output, unless that is where it was written to."""
    from sdfrecon.files import STREAM

    return sys.stderr if output == STREAM else sys.stdout


def note(line: str) -> None:
    """Prints a line for the user beside the answers."""
    say(f"sdfrecon: {line}", to=sys.stderr)


@contextmanager
def adding(hint: str) -> Iterator[None]:
    """Says more where something fails."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{error}; {hint}") from None


def check_places(inputs: list[Path], outputs: list[Path]) -> None:
    """What is read exists, and nothing that is written takes its place or another output's: the scan above all."""
    from sdfrecon.files import STREAM, check_place, check_there

    for path in inputs:
        check_there(path)
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path == STREAM:
            raise InputError("only a mesh goes to standard output: name a file instead of -")
        check_place(path)
        if path.resolve() in taken or (path.exists() and any(path.samefile(read) for read in inputs)):
            raise InputError(f"{path} would be overwritten: choose another output")
        taken.add(path.resolve())


def at_least(least: int, option: str, given: int | None) -> int | None:
    """What an option was given, if anything. Raises InputError where that is too little."""
    if given is not None and given < least:
        raise InputError(f"{option} must be at least {least}; got {given}")
    return given


def with_steps(fit: FitConfig, steps: int | None) -> FitConfig:
    """The fit, of so many steps if they are given. Raises InputError for none, or more than can be planned."""
    if (at_least(1, "--steps", steps) or 1) > MOST_STEPS:
        raise InputError(f"--steps must be at most {MOST_STEPS:,}; got {steps}")
    return replace(fit, steps=steps or fit.steps)


def check_trim(trim: float | None) -> None:
    """A distance to cut at, or none. Raises InputError for one below 0 or without end."""
    if trim is not None and not 0 <= trim < float("inf"):
        raise InputError(f"--trim must be a distance of 0 or more; got {trim}")


def check_box(box: Sequence[float] | None) -> None:
    """Raises InputError for one that does not name the least x, y, z and then the largest."""
    if box is not None and not np.all(np.less(*np.reshape(box, (2, 3)))):
        raise InputError(f"--box takes the least x, y, z and then the largest; got {_numbers(box)}")


def _numbers(box: Sequence[float]) -> str:
    return " ".join(f"{a:.12g}" for a in box)


def load_shape(path: Path, device: str = "auto") -> Field:
    """A shape's field. Raises InputError for an image's."""
    from sdfrecon.device import pick_device
    from sdfrecon.field import Field
    from sdfrecon.fieldfiles import load_field

    field = load_field(path)
    if not isinstance(field, Field):
        raise InputError(f"{path} is an image's field: make a picture of it with `sdfrecon image render`")
    return field.on(pick_device(device))


def load_fitted(path: Path, field: Field) -> PointCloud:
    """A scan as it was fitted: what `clean` keeps, with its normals estimated again where they were before."""
    from sdfrecon.cleaning import clean
    from sdfrecon.memory import A_POINT, check_free
    from sdfrecon.normals import estimate_normals
    from sdfrecon.reconstruction import digest

    estimated = field.about.get("estimated_normals")
    cloud, _ = load_scan(path, field.about.get("box"), field.about.get("max_points"))
    check_free(f"{len(cloud):,} points", A_POINT * len(cloud), "free some of it")
    if cloud.normals is None and not estimated:
        raise InputError(f"{path} has no normals, and the field was fitted with a scan's own: give the scan that was")
    if estimated:
        cloud = estimate_normals(cloud, estimated["viewpoint"])
    cloud, _ = clean(flipped(cloud) if field.about.get("flipped_normals") else cloud)
    if digest(cloud) != field.about.get("scan", {}).get("sha256"):
        note(f"warning: the field was fitted to other points than those of {path}")
    return cloud


def load_scan(path: Path, box: Sequence[float] | None, most: int | None) -> tuple[PointCloud, list[str]]:
    """A scan's points in a box (its least x, y, z and its largest), no more than `most` of them, and lines that say so.

    Of a mesh they are its vertices and, where these do not show its surface, points on its triangles; of few vertices
    these points alone.
    Raises InputError for what cannot be read, and for a box without a point.
    """
    from sdfrecon.files import has_faces, read_cloud

    cloud, lines = read_cloud(path), list[str]()
    if has_faces(path) and (points := _on_triangles(path, cloud, box)) is not None:
        lines.append(f"{path}: the mesh's {len(cloud):,} vertices do not show its surface: points on it are taken")
        cloud = points
    count = len(cloud)
    if box is not None:
        low, high = np.reshape(box, (2, 3))
        inside = np.all((low <= cloud.points) & (cloud.points <= high), axis=1)
        if not inside.any():
            raise InputError(f"no point of {path} lies in the box {_numbers(box)}: see `sdfrecon info` for where")
        cloud = cloud.select(inside)
    if most is not None and len(cloud) > most:
        cloud = cloud.select(finite(cloud.points))
        cloud = cloud.at_random(min(most, len(cloud)), np.random.default_rng(0))
    if len(cloud) < count:
        lines.append(f"{path}: {count:,} points, of which {len(cloud):,} are taken")
    return cloud, lines


def _on_triangles(path: Path, vertices: PointCloud, box: Sequence[float] | None) -> PointCloud | None:
    """A mesh's vertices and points on its triangles far from them, of few vertices these alone; None if not needed.

    box: where points are wanted.
    """
    from scipy.spatial import cKDTree

    from sdfrecon.cleaning import computable
    from sdfrecon.files import NoTriangles, read_triangles
    from sdfrecon.finishing import open_distance
    from sdfrecon.metrics import sample_surface

    vertices = vertices.select(finite(vertices.points))
    try:
        mesh = read_triangles(path).finite_part()  # not welded: at a seam each side has its own normals
    except NoTriangles:  # its points are what there is
        return None
    if not len(vertices):
        return None
    computable(vertices.points)
    if box is not None:
        (low, high), corners = np.reshape(box, (2, 3)), mesh.vertices[mesh.faces]
        mesh = mesh.keep_faces(((corners.min(axis=1) <= high) & (low <= corners.max(axis=1))).all(axis=1))
    if not 0 < mesh.areas.sum() < np.inf:
        return None
    if mesh.normals is not None:  # the file's say more of the sides than the order of a triangle's corners
        turned = np.einsum("fd,fkd->f", mesh.face_normals, mesh.normals[mesh.faces]) < 0
        mesh = replace(mesh, faces=np.where(turned[:, None], mesh.faces[:, ::-1], mesh.faces))
    points, normals = sample_surface(mesh, ON_TRIANGLES, np.random.default_rng(0))
    tree = cKDTree(vertices.points)
    away, nearest = tree.query(points, workers=-1)
    added = PointCloud(points, normals, None if vertices.colors is None else vertices.colors[nearest])
    if len(vertices) < SOME:
        return added
    far = away > open_distance(PointCloud(vertices.points), tree)
    return vertices.joined(added.select(far)) if far.mean() > UNSEEN else None


def flipped(cloud: PointCloud) -> PointCloud:
    """The same points, facing the other way."""
    return cloud if cloud.normals is None else replace(cloud, normals=-cloud.normals)


def load_mesh_or_cloud(path: Path) -> Mesh | PointCloud:
    """A file with triangles as a mesh, any other as a scan."""
    from sdfrecon import files

    if files.has_faces(path):
        with suppress(files.NoTriangles):
            return files.read_mesh(path)
    return files.read_cloud(path)


def describe(cloud: PointCloud) -> str:
    from sdfrecon.cleaning import oriented

    normals = "normals" if cloud.normals is not None and oriented(cloud).any() else "no normals"
    return f"{len(cloud):,} points, {normals}, {'no colours' if cloud.colors is None else 'colours'}"


def pieces(mesh: Mesh) -> str:
    count = int(mesh.components().max()) + 1
    return f"{count} piece{'s' * (count > 1)}"


def closed(mesh: Mesh) -> str:
    return "watertight" if mesh.is_watertight else "open"


def duration(seconds: float) -> str:
    if seconds < 1:
        return "a second"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
