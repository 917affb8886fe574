"""Pictures of meshes, made by casting rays: no display and no GPU needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sdfrecon.geometry import Floats, Mesh, unit_vectors
from sdfrecon.metrics import first_hits


def render(
    mesh: Mesh, towards: tuple[float, float, float], up: tuple[float, float, float], size: int = 600
) -> NDArray[np.uint8]:
    """(h, w, 3) RGB, the longer side `size`: the mesh seen from far away along `towards`, lit from the camera.

    Faces seen from behind, which a closed outward mesh does not show, are drawn dark red. Anti-aliased 2 x 2.
    """
    look = unit_vectors(np.asarray(towards, np.float64))
    right = unit_vectors(np.cross(look, up))
    top = np.cross(right, look)
    across, along, depth = mesh.vertices @ right, mesh.vertices @ top, mesh.vertices @ look
    pixel = 1.04 * max(np.ptp(across), np.ptp(along)) / (size - 0.5)
    u, v = np.meshgrid(_pixels(across, pixel), _pixels(along, pixel)[::-1])
    start = depth.min() - mesh.diagonal
    origins = u.reshape(-1, 1) * right + v.reshape(-1, 1) * top + start * look
    face, weights = first_hits(mesh, origins, np.broadcast_to(look, origins.shape))

    hit = face >= 0
    corners = mesh.faces[face[hit]]
    flat = mesh.face_normals[face[hit]]
    normals = unit_vectors(flat if mesh.normals is None else _interpolate(mesh.normals, corners, weights[hit]))
    light = unit_vectors(-look + 0.4 * top - 0.3 * right)
    brightness = 0.25 + 0.75 * np.clip(normals @ light, 0, 1)
    paint = np.full((len(corners), 3), 205.0)
    if mesh.colors is not None:
        paint, brightness = _interpolate(mesh.colors, corners, weights[hit]), 0.5 + 0.5 * brightness
    paint[flat @ look > 0] = (120, 30, 30)
    image = np.full((len(face), 3), 255.0)
    image[hit] = paint * brightness[:, None]
    return image.reshape(u.shape[0] // 2, 2, u.shape[1] // 2, 2, 3).mean(axis=(1, 3)).astype(np.uint8)


def three_sides(mesh: Mesh, up: str = "z", size: int = 500) -> NDArray[np.uint8]:
    """(size, about 3 * size, 3) RGB: the mesh from the front, a front corner above, and the back. up: "y" or "z"."""
    views = {"z": [(0, 1, 0), (-1, 0.6, -0.5), (0, -1, 0)], "y": [(0, 0, -1), (-1, -0.5, -0.6), (0, 0, 1)]}
    top = {"z": (0.0, 0.0, 1.0), "y": (0.0, 1.0, 0.0)}[up]
    images = [render(mesh, view, top, size) for view in views[up]]
    padded = [np.pad(image, ((0, size - len(image)), (0, 0), (0, 0)), constant_values=255) for image in images]
    return np.concatenate(padded, axis=1)


def _interpolate(values: NDArray, corners: NDArray[np.int64], weights: Floats) -> Floats:
    return np.einsum("nk,nkd->nd", weights, values[corners].astype(np.float64))


def _pixels(extent: Floats, pixel: float) -> Floats:
    """Centres of the half pixels that cover the values `extent` and a margin."""
    count = int(np.ceil(1.04 * np.ptp(extent) / pixel))
    return (np.arange(2 * count) + 0.5 - count) * pixel / 2 + (extent.min() + extent.max()) / 2
