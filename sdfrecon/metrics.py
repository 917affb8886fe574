"""How near two surfaces are: exact point-to-triangle distances, in the units of what is compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sdfrecon.geometry import Floats, InputError, Mesh, PointCloud, finite, is_whole, unit_vectors
from sdfrecon.libraries import open3d


@dataclass(frozen=True)
class Comparison:
    """A mesh against a reference. Distances in their units; `diagonal` is of the reference's bounding box.

    accuracy: mean distance mesh -> reference. completeness: mean distance reference -> mesh. chamfer: the mean of the
    two. hausdorff: the largest distance either way. percentile_99: the larger 99th percentile of the two ways.
    f_score: the harmonic mean of the shares within "0.1%", "0.5%" and "1.0%" of the diagonal.
    normal_consistency: mean |cos| between the normals of a sample and of the nearest point, both ways, where both
    have one; None where that is nowhere so, one way or the other. All over area-uniform samples, or the points of a
    reference cloud.
    """

    accuracy: float
    completeness: float
    chamfer: float
    hausdorff: float
    percentile_99: float
    f_score: dict[str, float]
    normal_consistency: float | None
    diagonal: float
    components: int
    watertight: bool


def compare(mesh: Mesh, reference: Mesh | PointCloud, samples: int = 200_000, seed: int = 0) -> Comparison:
    """Measures `mesh` against a mesh, exactly to its triangles, or against a cloud, to its nearest points.

    samples: how many are drawn on each mesh, from `seed`.
    Accuracy and completeness are means as in Jensen et al. 2014, the F-score is Knapitsch et al. 2017's, the mean |cos|
    of normals Mescheder et al. 2019's. Raises InputError where either is empty, and where samples are none, or no whole
    number.
    """
    if not is_whole(samples, 1):
        raise InputError(f"comparing needs a whole number of samples, at least one; got {samples}")
    if isinstance(reference, PointCloud):
        reference = reference.select(finite(reference.points))
        if reference.normals is not None:
            finite_ones = np.where(finite(reference.normals)[:, None], reference.normals, 0)
            reference = replace(reference, normals=unit_vectors(finite_ones))
    # Vertices of no triangle are no part of a surface, nor are triangles that are nowhere.
    mesh = mesh.finite_part()
    if isinstance(reference, Mesh):
        reference = reference.finite_part()
    for what in (mesh, reference):
        empty = not (0 < what.areas.sum() < np.inf if isinstance(what, Mesh) else len(what))
        if empty or not 0 < what.diagonal < np.inf:
            raise InputError("comparing needs a mesh with an area, and a reference that is one or has several points")
    rng = np.random.default_rng(seed)
    ours, our_normals = sample_surface(mesh, samples, rng)
    there, away_normals = (
        sample_surface(reference, samples, rng)
        if isinstance(reference, Mesh)
        else (reference.points, reference.normals)
    )
    forth, forth_normals = nearest(ours, reference)
    back, back_normals = nearest(there, mesh)
    cosines = []
    for known, other in ((forth_normals, our_normals), (away_normals, back_normals)):
        if known is not None and other is not None and (have := known.any(axis=1) & other.any(axis=1)).any():
            cosines.append(np.abs(np.einsum("nd,nd->n", known[have], other[have])).mean())
    f_score = {}
    for share in (0.001, 0.005, 0.01):
        precision, recall = (forth <= share * reference.diagonal).mean(), (back <= share * reference.diagonal).mean()
        f_score[f"{share:.1%}"] = float(2 * precision * recall / max(precision + recall, 1e-12))
    return Comparison(
        accuracy=float(forth.mean()),
        completeness=float(back.mean()),
        chamfer=float(forth.mean() + back.mean()) / 2,
        hausdorff=float(max(forth.max(), back.max())),
        percentile_99=float(max(np.quantile(forth, 0.99), np.quantile(back, 0.99))),
        f_score=f_score,
        normal_consistency=float(np.mean(cosines)) if len(cosines) == 2 else None,
        diagonal=reference.diagonal,
        components=int(mesh.components().max()) + 1,
        watertight=mesh.is_watertight,
    )


def sample_surface(mesh: Mesh, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """(count, 3) points uniform over the area and (count, 3) unit normals of their triangles (Osada et al. 2002)."""
    normals = mesh.face_normals
    areas = np.linalg.norm(normals, axis=1)
    face = rng.choice(len(areas), count, p=areas / areas.sum())
    root, other = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    a, b, c = (mesh.vertices[mesh.faces[face, i]] for i in range(3))
    return (1 - root) * a + root * (1 - other) * b + root * other * c, unit_vectors(normals[face])


def nearest(points: Floats, target: Mesh | PointCloud) -> tuple[Floats, Floats | None]:
    """(n,) exact distances from points (n, 3) to a mesh's triangles or a cloud's points, and (n, 3) normals there."""
    if isinstance(target, PointCloud):
        distance, index = cKDTree(target.points).query(points, workers=-1)
        return distance, None if target.normals is None else target.normals[index]
    # Embree works in single precision: around the mesh's centre and in its size, its errors are far below a sample's.
    center, scale = target.vertices.mean(axis=0), target.diagonal
    hit = _scene(target, center, scale).compute_closest_points(((points - center) / scale).astype(np.float32))
    gap = (points - center) / scale - hit["points"].numpy()
    return np.linalg.norm(gap, axis=1) * scale, unit_vectors(
        np.nan_to_num(hit["primitive_normals"].numpy().astype(np.float64))
    )


def first_hits(mesh: Mesh, origins: Floats, directions: Floats) -> tuple[NDArray[np.int64], Floats]:
    """The first triangle that rays from origins (n, 3) along unit directions (n, 3) meet, in the mesh's units.

    Returns (n,) its index, -1 for none, and (n, 3) the barycentric weights of its corners at the hit.
    """
    center, scale = mesh.vertices.mean(axis=0), mesh.diagonal
    rays = np.concatenate([(origins - center) / scale, directions], axis=1).astype(np.float32)
    hit = _scene(mesh, center, scale).cast_rays(rays)
    face = np.where(np.isfinite(hit["t_hit"].numpy()), hit["primitive_ids"].numpy().astype(np.int64), -1)
    uv = hit["primitive_uvs"].numpy().astype(np.float64)
    return face, np.concatenate([1 - uv.sum(axis=1, keepdims=True), uv], axis=1)


def _scene(mesh: Mesh, center: Floats, scale: float) -> Any:
    scene = open3d().t.geometry.RaycastingScene()
    vertices = ((mesh.vertices - center) / scale).astype(np.float32)
    scene.add_triangles(vertices, mesh.faces.astype(np.uint32))
    return scene
