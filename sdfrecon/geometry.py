"""Point clouds and triangle meshes: frozen, validated, in the scan's own (world) units."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class InputError(ValueError):
    """What the user gave cannot be used; the message says what was expected, what came, and what to do."""


def is_whole(value: Any, least: int) -> bool:
    """Whether it is a whole number, NumPy's too, and no smaller."""
    return isinstance(value, Integral) and int(value) >= least


def finite(rows: NDArray) -> NDArray[np.bool_]:
    """(n,) true for rows without NaN and infinities."""
    return np.asarray(np.isfinite(rows).all(axis=1))


def unit_vectors(vectors: Floats) -> Floats:
    """Vectors (..., d), each of length one; zeros stay."""
    # By the largest component first: the squares of very small ones would vanish.
    size = np.abs(vectors).max(axis=-1, keepdims=True)
    scaled = vectors / np.where(size > 0, size, 1)
    return scaled / np.maximum(np.linalg.norm(scaled, axis=-1, keepdims=True), 1)


def decimals(values: ArrayLike, extent: float) -> list[str]:
    """Coordinates as text, to about a ten-thousandth of an extent: six digits would not do far from the origin."""
    digits = max(0, 4 - int(np.floor(np.log10(extent)))) if extent > 0 else 6
    return [f"{value:.{digits}f}" for value in np.ravel(values)]


def places(points: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(p,) the first point at each place, and (n,) the place that each point (n, 3) is at."""
    order = np.lexsort(points.T)  # np.unique compares rows as bytes, which takes ten times as long
    rows = points[order]
    new = np.append(True, (rows[1:] != rows[:-1]).any(axis=1))[: len(rows)]
    place = np.empty(len(rows), np.int64)
    place[order] = np.cumsum(new) - 1
    return order[new], place


def in_parts(count: int) -> list[NDArray[np.int64]]:
    """So many rows' numbers, some at a time: what is near each, of all of them at once, takes gigabytes."""
    return np.array_split(np.arange(count), 1 + count // 100_000)


def numbers(name: str, values: ArrayLike, dtype: type | None = np.float64) -> NDArray:
    """Values as an array. Raises InputError for rows of unlike lengths, and for what is no real numbers."""
    try:
        given = np.asarray(values)
        if given.dtype.kind != "c":
            return np.asarray(given, dtype)
    except (TypeError, ValueError):
        shown = " ".join(repr(values).split())
        raise InputError(f"{name} must be numbers, as many in each row; got {shown:.60}") from None
    raise InputError(f"{name} must be real numbers; got complex ones")


def _rows(name: str, values: ArrayLike, dtype: type, count: int | None = None) -> NDArray:
    given = numbers(name, values, None)
    if dtype is np.uint8 and given.size and (given.dtype.kind not in "ui" or given.min() < 0 or given.max() > 255):
        raise InputError(f"{name} must be whole numbers from 0 to 255; got {given.dtype}")
    array: NDArray = np.ascontiguousarray(numbers(name, given, dtype))
    if dtype is np.int64 and not np.array_equal(array, given):
        raise InputError(f"{name} must be whole numbers; got others, of {given.dtype}")
    if array.base is not None:  # what it looks into is another's to change, as Open3D does with its points
        array = array.copy()
    if array.ndim != 2 or array.shape[1] != 3 or (count is not None and len(array) != count):
        expected = "(n, 3)" if count is None else f"({count}, 3)"
        raise InputError(f"{name} must be {expected}; got {array.shape}")
    return array


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points of a surface, with what the scanner knew of each.

    points: (n, 3) float64, world units. normals: (n, 3) float64, pointing out of the object, or None.
    colors: (n, 3) uint8 RGB, or None. An array of these types, row by row in memory of its own, is kept, not
    copied. Raises InputError where the shapes disagree, and for colours that are not whole numbers from 0 to 255
    (Open3D's are floats up to 1, trimesh's have a fourth column).
    """

    points: Floats
    normals: Floats | None = None
    colors: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", _rows("points", self.points, np.float64))
        for name, dtype in (("normals", np.float64), ("colors", np.uint8)):
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, _rows(name, values, dtype, len(self.points)))

    def __len__(self) -> int:
        return len(self.points)

    def select(self, index: NDArray | slice) -> PointCloud:
        """The points at `index` (a mask, integers or a slice), each with its normal and colour."""
        return PointCloud(
            self.points[index],
            None if self.normals is None else self.normals[index],
            None if self.colors is None else self.colors[index],
        )

    def every(self, count: int) -> slice:
        """Every k-th point's rows, so that `count` to twice as many are left; all if fewer."""
        return slice(None, None, max(1, len(self) // count))

    def thinned(self, count: int) -> PointCloud:
        """The points of `every`, with normals and colours."""
        return self.select(self.every(count))

    def joined(self, other: PointCloud) -> PointCloud:
        """These points and then the others, with what both have of normals and colours."""

        def both(a: NDArray | None, b: NDArray | None) -> NDArray | None:
            return None if a is None or b is None else np.concatenate([a, b])

        points = np.concatenate([self.points, other.points])
        return PointCloud(points, both(self.normals, other.normals), both(self.colors, other.colors))

    def at_random(self, count: int, rng: np.random.Generator) -> PointCloud:
        """So many of the points, each as likely as any other, in the order they have."""
        return self.select(np.sort(rng.permutation(len(self))[:count]))

    @property
    def diagonal(self) -> float:
        """Length of the bounding box's diagonal, world units."""
        return _diagonal(self.points)


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles over shared vertices, counter-clockwise seen from outside.

    vertices: (v, 3) float64, world units. faces: (f, 3) int64 indices into vertices.
    normals: (v, 3) float64 unit vectors, or None. colors: (v, 3) uint8 RGB, or None.
    Raises InputError where the shapes disagree, a face names a vertex that does not exist, or colours are not whole
    numbers from 0 to 255.
    """

    vertices: Floats
    faces: NDArray[np.int64]
    normals: Floats | None = None
    colors: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "vertices", _rows("vertices", self.vertices, np.float64))
        object.__setattr__(self, "faces", _rows("faces", self.faces, np.int64))
        for name, dtype in (("normals", np.float64), ("colors", np.uint8)):
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, _rows(name, values, dtype, len(self.vertices)))
        if len(self.faces) and not 0 <= self.faces.min() <= self.faces.max() < len(self.vertices):
            raise InputError(
                f"faces must name vertices 0 to {len(self.vertices) - 1}; "
                f"got {self.faces.min()} to {self.faces.max()}: the mesh is damaged: "
                "export it again, or its points alone"
            )

    @property
    def diagonal(self) -> float:
        """Length of the bounding box's diagonal, world units."""
        return _diagonal(self.vertices)

    @property
    def face_normals(self) -> Floats:
        """(f, 3) cross products of two edges: along the outward normal, twice the area long."""
        a, b, c = (self.vertices[self.faces[:, i]] for i in range(3))
        return np.cross(b - a, c - a)

    @property
    def areas(self) -> Floats:
        """(f,) areas of the triangles, world units squared."""
        return 0.5 * np.linalg.norm(self.face_normals, axis=1)

    @property
    def volume(self) -> float:
        """Enclosed volume by the divergence theorem; positive where the mesh is oriented outwards."""
        if not len(self.vertices):
            return 0.0
        corners = (self.vertices - self.vertices.mean(axis=0))[self.faces]
        return float(np.linalg.det(corners).sum() / 6)

    @property
    def is_watertight(self) -> bool:
        """Whether every edge is shared by exactly two faces that run along it in opposite directions."""
        ahead, back = (np.sort(edges) for edges in self._edges())
        return len(ahead) > 0 and bool((np.diff(ahead) > 0).all()) and np.array_equal(ahead, back)

    @property
    def at_a_rim(self) -> NDArray[np.bool_]:
        """(f,) true for faces with an edge that no other face runs along in the opposite direction."""
        ahead, back = self._edges()
        back = np.sort(back)  # searched in: np.isin hashes, which takes ten times as long
        found = back[np.searchsorted(back, ahead).clip(max=len(back) - 1)] == ahead
        return np.asarray(~found.reshape(-1, 3).all(axis=1))

    def _edges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(3 f,) a number for every face's edges, face by face, and the numbers of the same in opposite direction."""
        start, end = self.faces[:, [0, 1, 2]].ravel(), self.faces[:, [1, 2, 0]].ravel()
        return start * len(self.vertices) + end, end * len(self.vertices) + start

    def components(self) -> NDArray[np.int64]:
        """(f,) a label per face; faces that share a vertex have the same one."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        v = len(self.vertices)
        start, end = self.faces[:, :2].ravel(), self.faces[:, 1:].ravel()
        graph = coo_array((np.ones(len(start), bool), (start, end)), shape=(v, v))
        _, labels = connected_components(graph, directed=False)
        labels = labels[self.faces[:, 0]]
        return (np.cumsum(np.bincount(labels) > 0) - 1)[labels]  # vertices of no face have labels, too

    def keep_faces(self, mask: NDArray[np.bool_]) -> Mesh:
        """The faces where `mask` (f,) is true, with only the vertices that they use."""
        faces = self.faces[mask]
        used = np.bincount(faces.ravel(), minlength=len(self.vertices)) > 0
        return replace(
            self,
            vertices=self.vertices[used],
            faces=(np.cumsum(used) - 1)[faces],
            normals=None if self.normals is None else self.normals[used],
            colors=None if self.colors is None else self.colors[used],
        )

    def finite_part(self) -> Mesh:
        """The faces whose corners are finite, with only the vertices that they use."""
        return self.keep_faces(np.asarray(finite(self.vertices)[self.faces].all(axis=1)))

    def welded(self) -> Mesh:
        """With one vertex where several are at one place, as textures, flat shading and STL have them; normals go then.

        Triangles with a corner twice go, too, and vertices of no triangle.
        """
        first, place = places(self.vertices)
        single = len(first) == len(self.vertices)
        faces = first[place][self.faces]
        a, b, c = faces.T
        proper = (a != b) & (b != c) & (c != a)
        if single and proper.all() and np.bincount(faces.ravel(), minlength=len(first)).all():
            return self
        return replace(self, faces=faces, normals=self.normals if single else None).keep_faces(proper)

    def clipped(self, value: Floats) -> Mesh:
        """The part where `value` (v,), linear between the vertices, is at most 0: triangles across that line are cut.

        What new vertices have is interpolated; none is nearer to a vertex than a 20th of the edge, so that no triangle
        degenerates. What is cut at an edge is cut there in both of its triangles.
        """
        out = value > 0
        if not out.any():
            return self
        count = out[self.faces].sum(axis=1)
        one, two = self.faces[count == 1], self.faces[count == 2]
        one, two = _turned(one, out[one]), _turned(two, ~out[two])
        v = len(self.vertices)
        crossing = np.concatenate([one[:, [1, 0]], one[:, [2, 0]], two[:, [0, 1]], two[:, [0, 2]]])
        edges, new = np.unique(crossing @ [v, 1], return_inverse=True)
        kept, cut = np.divmod(edges, v)
        first, second, third, fourth = np.split(v + new, np.cumsum([len(one), len(one), len(two)]))
        faces = [
            self.faces[count == 0],
            np.stack([first, one[:, 1], one[:, 2]], axis=1),
            np.stack([first, one[:, 2], second], axis=1),
            np.stack([two[:, 0], third, fourth], axis=1),
        ]
        share = np.clip(value[kept] / (value[kept] - value[cut]), 0.05, 0.95)[:, None]

        def extended(known: NDArray) -> Floats:
            return np.concatenate([known, (1 - share) * known[kept] + share * known[cut]])

        longer = Mesh(
            extended(self.vertices),
            np.concatenate(faces),
            None if self.normals is None else unit_vectors(extended(self.normals)),
            None if self.colors is None else np.rint(extended(self.colors)).astype(np.uint8),
        )
        return longer.keep_faces(np.ones(len(longer.faces), bool))


def _turned(faces: NDArray[np.int64], odd: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Faces (n, 3), each turned so that the one corner that is `odd` (n, 3) comes first."""
    return np.take_along_axis(faces, (odd.argmax(axis=1)[:, None] + np.arange(3)) % 3, axis=1)


def _diagonal(points: Floats) -> float:
    return float(np.linalg.norm(np.ptp(points, axis=0))) if len(points) else 0.0


def vertex_normals(vertices: Floats, faces: NDArray) -> Floats:
    """(v, 3) those of the triangles at each vertex; trimesh has none for triangles of less than 1e-13 square units."""
    import trimesh

    with np.errstate(invalid="ignore"):
        extent = np.ptp(vertices[faces], axis=1).max(axis=1)
    sound = np.isfinite(extent) & (extent > 0)
    if not sound.any():
        return np.zeros_like(vertices)
    faces = faces[sound]
    scaled = (vertices - np.median(vertices[faces[:, 0]], axis=0)) / np.median(extent[sound])
    return np.asarray(trimesh.Trimesh(scaled, faces, process=False).vertex_normals)
