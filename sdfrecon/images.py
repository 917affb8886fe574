"""Images as samples of a function: where pixels are, how neighbours differ, and the classical answers to compare with.

An image is (h, w, c), floats in [0, 1]. Its coordinates are pixels: x to the right, y down, and the first pixel's
centre at (0.5, 0.5), so that the image covers [0, w] x [0, h].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, dctn, dst, idct, idctn, idst
from scipy.ndimage import distance_transform_edt

from sdfrecon.geometry import Floats, InputError

Differences = tuple[Floats, Floats]
"""Between neighbours to the right (h, w - 1, c), and below (h - 1, w, c)."""


def pixel_centers(height: int, width: int, region: tuple[float, float, float, float] | None = None) -> Floats:
    """(h * w, 2): the centres, row after row, of h x w pixels that divide region (x0, y0, x1, y1) evenly.

    Without a region, of the image of that size itself.
    """
    x0, y0, x1, y1 = (0, 0, width, height) if region is None else region
    x = x0 + (np.arange(width) + 0.5) * (x1 - x0) / width
    y = y0 + (np.arange(height) + 0.5) * (y1 - y0) / height
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def differences(image: Floats) -> Differences:
    """What every pixel's right neighbour is more than it, and what its lower neighbour is."""
    return np.diff(image, axis=1), np.diff(image, axis=0)


def gradients(between: Differences) -> tuple[Floats, Floats]:
    """Places (n, 2), the corners between four pixels, and gradients (n, c, 2) there, a pixel, from differences.

    Those of the cosines that pass through the pixels (`_sines`): differences are less the steeper, and at a
    wave of two pixels 2 for a derivative of pi.
    """
    slopes = []
    for axis, part in zip((1, 0), between, strict=True):
        waves, _ = _sines(part, axis)
        along = dct(idst(waves, 1, axis=axis), axis=1 - axis)
        size = along.shape[1 - axis]
        along = dct(np.pad(along, [(0, a == 1 - axis) for a in range(3)]), 1, axis=1 - axis) / (2 * size)
        slopes.append(np.take(along, range(1, size), axis=1 - axis))
    both = np.stack(slopes, axis=-1)
    return pixel_centers(*both.shape[:2]) + 0.5, both.reshape(-1, *both.shape[2:])


def divergence(between: Differences) -> Floats:
    """(h, w, c): that of the same cosines, per square pixel; of an image's own differences its Laplacian."""
    parts = []
    for axis, part in zip((1, 0), between, strict=True):
        waves, k = _sines(part, axis)
        parts.append(idct(np.pad(waves * k, [(a == axis, 0) for a in range(3)]), axis=axis))
    return parts[0] + parts[1]


def minus_divergence(between: Differences) -> Floats:
    """(h, w, c): at each pixel the differences that end there less those that begin there.

    For an image's own that is minus its five-point Laplacian, with Neumann's condition at the border.
    """
    across, down = between
    return -np.diff(across, axis=1, prepend=0, append=0) - np.diff(down, axis=0, prepend=0, append=0)


def _sines(differences: Floats, axis: int) -> tuple[Floats, Floats]:
    """What a derivative is made of, sines (DST-I), and their k, of differences along an axis of n - 1 of n pixels.

    Of the cosines that pass through the pixels (DCT-II) a difference has 2 sin(k / 2) where the derivative has k.
    """
    size = differences.shape[axis] + 1
    k = np.expand_dims(np.pi * np.arange(1, size) / size, [a for a in range(3) if a != axis])
    return dst(differences, 1, axis=axis) * k / (2 * np.sin(k / 2)), k


def laplacian(image: Floats) -> Floats:
    """(h - 2, w - 2, c): the five-point Laplacian, per square pixel, at all pixels but the border's."""
    middle = image[1:-1, 1:-1]
    return image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:] - 4 * middle


def sobel(image: Floats) -> Floats:
    """(h, w, c, 2): Sobel's filters, the slopes to the right and down, a pixel."""
    from skimage.filters import sobel_h, sobel_v

    # scikit-image divides by four: what is left is the difference over two pixels.
    channels = np.moveaxis(image, 2, 0)
    return np.stack([np.stack([way(channel) / 2 for way in (sobel_v, sobel_h)], -1) for channel in channels], axis=2)


def border(height: int, width: int) -> NDArray[np.bool_]:
    """(h, w): true in the first and last row and column."""
    inside = np.zeros((height, width), bool)
    inside[1:-1, 1:-1] = True
    return ~inside


def opaque(image: NDArray) -> NDArray:
    """(h, w, 1 or 3) of an image (h, w, c), grey or in colour, with or without alpha."""
    return image[..., : 1 if image.shape[2] < 3 else 3]


def rgb(image: Floats) -> Floats:
    """(h, w, 3) of the same, grey three times."""
    return np.broadcast_to(opaque(image), (*image.shape[:2], 3))


def alpha(image: Floats) -> Floats:
    """(h, w) of the same; 1 where it has none."""
    return image[..., -1] if image.shape[2] in (2, 4) else np.ones(image.shape[:2])


def bled(image: Floats) -> Floats:
    """(h, w, c) the same, but that clear pixels have the colours of the nearest visible one: theirs are not to be seen.

    What is between pixels would have a part of them.
    """
    seen = alpha(image) > 0
    if seen.all() or not seen.any():
        return image
    nearest = distance_transform_edt(~seen, return_distances=False, return_indices=True)
    return np.dstack([opaque(image)[tuple(nearest)], alpha(image)])


def psnr(image: Floats, reference: Floats) -> float:
    """Peak signal-to-noise ratio, dB, of images whose peak is 1; infinite where they are the same."""
    with np.errstate(divide="ignore"):
        return float(-10 * np.log10(np.mean((image - reference) ** 2)))


def alignment(image: Floats, reference: Floats) -> tuple[Floats, Floats]:
    """(c,) each: the gain and then the offset that give the image's channels the reference's variance and mean."""
    gain = reference.std(axis=(0, 1)) / np.maximum(image.std(axis=(0, 1)), 1e-12)
    return gain, reference.mean(axis=(0, 1)) - gain * image.mean(axis=(0, 1))


def align(image: Floats, reference: Floats) -> Floats:
    """The image with every channel's mean and variance made those of the reference's."""
    gain, offset = alignment(image, reference)
    return gain * image + offset


def solve_free(minus_laplacian: Floats) -> Floats:
    """(h, w, c): the image of mean 0 with that Laplacian and Neumann's condition at the border, by cosines.

    Of `minus_divergence` it makes the image whose neighbours differ most nearly as given (least squares). The DCT
    solves Poisson's equation exactly (Simchony, Chellappa and Shao 1990).
    """
    spectrum = dctn(minus_laplacian, axes=(0, 1))
    rows, columns = (2 - 2 * np.cos(np.pi * np.arange(n) / n) for n in spectrum.shape[:2])
    eigenvalues = (rows[:, None] + columns)[..., None]
    eigenvalues[0, 0] = 1
    spectrum[0, 0] = 0
    return idctn(spectrum / eigenvalues, axes=(0, 1))


def solve_held(minus_laplacian: Floats, known: Floats, unknown: NDArray[np.bool_]) -> Floats:
    """`known` (h, w, c) with its `unknown` (h, w) pixels filled, so that there it has that Laplacian.

    Perez et al. 2003, eq. 7, by a sparse direct solve. Raises InputError where nothing is known.
    """
    from scipy.sparse import diags_array, kronsum
    from scipy.sparse.linalg import splu

    height, width, channels = known.shape
    if unknown.all():
        raise InputError("some pixels must be known, and none is: leave some out of the mask")
    free, result = unknown.ravel(), known.reshape(-1, channels).copy()
    down, across = (diags_array([-1.0, 1.0], offsets=[0, 1], shape=(n - 1, n)) for n in (height, width))
    matrix = kronsum(across.T @ across, down.T @ down).tocsr()[free]
    right = minus_laplacian.reshape(-1, channels)[free] - matrix[:, ~free] @ result[~free]
    result[free] = splu(matrix[:, free].tocsc()).solve(right)
    return result.reshape(known.shape)
