"""The 2D jobs: an image as a field from its pixels, from its derivatives alone, or from two images' gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from sdfrecon.device import learning, pick_device, seeded
from sdfrecon.fit import FitConfig, Watch, fit, time_step
from sdfrecon.geometry import Floats, InputError
from sdfrecon.imagefield import ImageField, image_frame
from sdfrecon.images import (
    Differences,
    border,
    differences,
    divergence,
    gradients,
    minus_divergence,
    pixel_centers,
    solve_free,
    solve_held,
)
from sdfrecon.problems import Problem, image
from sdfrecon.siren import Siren, SirenConfig

Mode = Literal["mean", "mixed", "import"]
RIM = 16
"""Pixels of the target around what is put into it."""
NEAR = 4
"""Of them those that decide what is put in, beside its gradients."""
BEYOND = 2.0
"""How far from grey a colour may be: what was resized or sharpened goes somewhat beyond black and white."""
GREY = 0.5
"""The border's colour where nothing is known of it."""


@dataclass(frozen=True)
class ImageConfig:
    """Everything that decides a fitted image, but the image."""

    siren: SirenConfig = field(default_factory=lambda: SirenConfig(256, 3, 30.0, 30.0))
    fit: FitConfig = field(default_factory=FitConfig)
    batch: int = 8192
    """Samples of colours and of gradients in a step; of Laplacians, and of what is put into an image, it takes all."""
    seed: int = 0
    """Of every random draw."""


DERIVED = ImageConfig(fit=FitConfig(300, 1e-3, 2e-3, warmup=10), batch=32768)
"""For derivatives Muon does, and few large batches: their noise is slow to go where it is broad."""
BENT = ImageConfig(SirenConfig(128, 3, 30.0, 45.0), FitConfig(80, 2e-3, 3e-3, warmup=10), batch=4096)
"""A Laplacian costs several times a gradient, and every step takes it everywhere."""
BLENDED = ImageConfig(SirenConfig(128, 3, 60.0, 30.0), FitConfig(500, 2e-3, 3e-3, warmup=10), batch=4096)
"""A guiding gradient is cheaper, and what it leads to is found more slowly."""


def fitted(height: int, width: int) -> ImageConfig:
    """For an image's colours: Adam does best, and what is fine in pixels asks for more of all the more there are.

    Frequencies keep their measure in pixels, from 256 to 512 a side; higher ones bear smaller steps only.
    """
    more = min(2.0, max(1.0, max(height, width) / 256))
    return ImageConfig(
        SirenConfig(256, 3, 45 * more, 30.0), FitConfig(round(1500 * more**1.5), 1e-3 / more, None), 5120
    )


@learning()
def solve(
    shape: tuple[int, ...],
    config: ImageConfig,
    device: str = "auto",
    progress: bool = False,
    watch: Watch | None = None,
    tell: Callable[[str], None] = lambda line: None,
    **known: Any,
) -> ImageField:
    """The field of an image of shape (h, w, c) that fits best what is `known` of it (`problems.image`)."""
    problem, siren, generator = _task(shape, config, device, known)
    fitted = fit(problem, siren, config.fit, generator, progress=progress, watch=watch, tell=tell)
    return ImageField(fitted, shape[0], shape[1], {"config": asdict(config)})


@learning()
def expected_seconds(shape: tuple[int, ...], config: ImageConfig, device: str = "auto", **known: Any) -> float:
    """How long `solve` will take on this machine, from a few of its steps."""
    problem, siren, generator = _task(shape, config, device, known)
    return config.fit.steps * time_step(problem, siren, config.fit, generator)


def _task(
    shape: tuple[int, ...], config: ImageConfig, device: str, known: dict[str, Any]
) -> tuple[Problem, Siren, torch.Generator]:
    generator = seeded(config.seed, pick_device(device))
    problem = image(image_frame(*shape[:2]), config.batch, generator, **known)
    return problem, Siren(2, shape[2], config.siren, generator), generator


def colours(pixels: Floats) -> Floats:
    """The image (h, w, c), if its colours can be reckoned with and it has a Laplacian. Raises InputError else."""
    if pixels.ndim != 3 or pixels.dtype.kind != "f" or not (np.abs(pixels - GREY) <= BEYOND).all():
        span = f", from {pixels.min():g} to {pixels.max():g}" if pixels.size and pixels.dtype.kind in "buif" else ""
        raise InputError(
            f"expected an image (h, w, c) of finite floats from 0 to 1; got {pixels.shape} of {pixels.dtype}{span}: "
            "divide bytes by 255"
        )
    if min(pixels.shape[:2]) < 3:
        raise InputError(f"an image must be at least 3 x 3 pixels; got {pixels.shape[1]} x {pixels.shape[0]}")
    return pixels


def from_pixels(pixels: Floats) -> dict[str, Any]:
    """What is known of an image (h, w, c): its colours (Sitzmann et al. 2020, section 3), between the pixels too."""
    return {"picture": colours(pixels)}


def from_gradient(pixels: Floats) -> dict[str, Any]:
    """The gradients between the pixels alone: all of an image but a constant (ibid., section 4.1)."""
    return {"gradients": gradients(differences(colours(pixels)))}


def from_laplacian(pixels: Floats) -> dict[str, Any]:
    """The Laplacian inside the border alone: all of an image but a harmonic function (ibid., section 4.1).

    That function is any that the border's colours make: grey ones here, until `from_border` tells them.
    """
    height, width = pixels.shape[:2]
    inside = ~border(height, width)
    bent = divergence(differences(colours(pixels)))[inside]
    known = {"laplacians": (pixel_centers(height, width)[inside.ravel()], bent)}
    return known | from_border(np.full_like(pixels, GREY))


def from_border(pixels: Floats) -> dict[str, Any]:
    """The colours of the first and last row and column: with the Laplacian, all of an image."""
    height, width, channels = colours(pixels).shape
    outer = border(height, width).ravel()
    return {"values": (pixel_centers(height, width)[outer], pixels.reshape(-1, channels)[outer])}


def rivals(siren: SirenConfig, channels: int, longest: int) -> dict[str, SirenConfig]:
    """What a SIREN for an image is compared with, each as wide as makes it about as large.

    longest: the image's longer side, pixels; the encoding's finest wave is two of them long.
    """

    def weights(config: SirenConfig) -> int:
        return Siren(2, channels, config, torch.Generator()).size  # leaves torch's own random numbers alone

    size = weights(siren)
    others = {
        "ReLU": replace(siren, activation="relu"),
        "tanh": replace(siren, activation="tanh"),
        "ReLU + encoding": replace(siren, activation="relu", encoding=max(1, math.ceil(math.log2(longest)))),
    }
    found = {}
    for name, config in others.items():
        widths = (w for w in range(siren.width, 1, -1) if weights(replace(config, width=w)) <= size)
        width = next(widths, 1)
        found[name] = replace(config, width=width)
    return found | {"SIREN": siren}


@dataclass(frozen=True)
class Composition:
    """Two images in one: target (h, w, c) everywhere but `inside` (h, w), where `guidance` tells neighbours apart.

    All in a window of the whole target, the rectangle around what is inside and RIM pixels more on each side.
    source: (h, w, c) the source moved to its place, and the target where it has no colours.
    window: rows and columns of the whole.
    """

    target: Floats
    source: Floats
    inside: NDArray[np.bool_]
    guidance: Differences
    window: tuple[slice, slice]

    @classmethod
    def of(
        cls,
        source: Floats,
        target: Floats,
        mask: NDArray[np.bool_] | None,
        offset: tuple[int, int],
        mode: Mode,
        shown: NDArray[np.bool_] | None = None,
    ) -> Composition:
        """source (h, w, c) where mask (h, w) says, in target (H, W, c), its first pixel at `offset` (right, down).

        The guidance (Perez et al. 2003): `import` takes the source's gradients (eq. 11), `mixed` the stronger
        of the two at each edge (eq. 12), `mean` half of each, as Sitzmann et al. 2020 (section 4.1). Where mask
        is None it is all of the source. shown: (h, w) where the source has colours, and not what lies hidden
        where it is transparent, which is never put in; everywhere if None. Raises InputError where a mask is of
        another size than the source, and where nothing of it that has a colour comes to lie in the target.
        """
        source, target = colours(source), colours(target)
        for known in (mask, shown):
            if known is not None and known.dtype != bool:
                raise InputError(f"a mask must be of truth values; got {known.dtype}: compare it, as in mask > 0.5")
            if known is not None and known.shape != source.shape[:2]:
                sizes = " and ".join(f"{a.shape[1]} x {a.shape[0]}" for a in (source, known))
                raise InputError(f"the mask must be of the source's size; they are {sizes}: resize one")
        moved, inside = target.copy(), np.zeros(target.shape[:2], bool)
        there = np.zeros_like(inside)  # where the source has a pixel
        (right, down), (height, width) = offset, source.shape[:2]
        rows = slice(max(down, 0), min(down + height, len(target)))
        columns = slice(max(right, 0), min(right + width, target.shape[1]))
        if rows.start < rows.stop and columns.start < columns.stop:
            own = slice(rows.start - down, rows.stop - down), slice(columns.start - right, columns.stop - right)
            there[rows, columns] = True if shown is None else shown[own]
            moved[rows, columns] = np.where(there[rows, columns, None], source[own], moved[rows, columns])
            inside[rows, columns] = there[rows, columns] & (True if mask is None else mask[own])
        if not inside.any():
            raise InputError(
                f"nothing of the source, {width} x {height}, lies in the target, {target.shape[1]} x {len(target)}: "
                f"choose another --offset than {right} {down}, or another mask"
            )
        rows, columns = (slice(max(0, int(used.min()) - RIM), int(used.max()) + 1 + RIM) for used in np.nonzero(inside))
        window = rows, columns
        moved, target, inside, there = moved[window], target[window], inside[window], there[window]
        share, pairs = 0.5 if mode == "mean" else 1.0, (there[:, 1:] & there[:, :-1], there[1:] & there[:-1])

        def guiding(ours: Floats, theirs: Floats, known: NDArray[np.bool_]) -> Floats:
            if mode == "mixed":
                known = known & (np.square(ours).sum(axis=2) > np.square(theirs).sum(axis=2))
            return theirs + share * known[..., None] * (ours - theirs)

        to_right, below = map(guiding, differences(moved), differences(target), pairs)
        return cls(target, moved, inside, (to_right, below), window)

    def pasted(self, result: Floats, whole: Floats) -> Floats:
        """The whole target (H, W, c) with a result (h, w, c) in its window."""
        pasted = whole.copy()
        pasted[self.window] = result
        return pasted

    @property
    def known(self) -> dict[str, Any]:
        """The guidance inside, the target's colours outside, and those around the inside once more: three domains.

        The guidance is no image's gradient, and of all images the one with its divergence comes nearest to it (Perez et
        al. 2003, eq. 3). Where nothing is held it is fitted itself.
        """
        corners, slopes = gradients(self.guidance)
        if self.inside.all():
            return {"gradients": (corners, slopes)}
        height, width, channels = self.target.shape
        places, colours = pixel_centers(height, width), self.target.reshape(-1, channels)
        from_inside = distance_transform_edt(~self.inside).ravel()
        held, near = from_inside > 0, (from_inside > 0) & (from_inside <= NEAR)
        return {
            "guidance": (self.inside, slopes.reshape(height - 1, width - 1, channels, 2)),
            "values": (places[held], colours[held]),
            "rim": (places[near], colours[near]),
        }

    def composite(self, filled: Floats) -> Floats:
        """(h, w, c) the target with `filled` (h, w, c) inside; where nothing is held, with the two images' mean."""
        if self.inside.all():
            return filled - filled.mean(axis=(0, 1)) + self.averaged.mean(axis=(0, 1))
        return np.where(self.inside[..., None], filled, self.target)

    @property
    def averaged(self) -> Floats:
        """(h, w, c) plain averaging of the colours inside, which washes both images out."""
        return np.where(self.inside[..., None], (self.source + self.target) / 2, self.target)

    @property
    def classical(self) -> Floats:
        """(h, w, c) the least-squares answer on the pixel grid."""
        curved = minus_divergence(self.guidance)
        if self.inside.all():
            return self.composite(solve_free(curved))
        return solve_held(curved, self.target, self.inside)
