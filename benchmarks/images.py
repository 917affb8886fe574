"""What the image commands reach and how long they take: `python benchmarks/images.py [--only NAME ...]`.

Pictures of all of it come from the commands themselves (README). The picture pair of the blending is read from the
data folder where there is one, the other is scikit-image's own.
"""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tyro
from machine import SHARED, heading
from skimage.transform import resize

from sdfrecon.geometry import Floats
from sdfrecon.imagefield import ImageField
from sdfrecon.images import align, border, differences, laplacian, minus_divergence, psnr, sobel, solve_free, solve_held
from sdfrecon.imaging import (
    BENT,
    BLENDED,
    DERIVED,
    GREY,
    Composition,
    ImageConfig,
    fitted,
    from_border,
    from_gradient,
    from_laplacian,
    from_pixels,
    rivals,
    solve,
)
from sdfrecon.pictures import read_image

Row = tuple[str, str, str, float]


@dataclasses.dataclass
class Args:
    """Fits images in every way and compares with the pixels and with classical solutions."""

    only: tuple[str, ...] = ("fit", "derivatives", "activations", "poisson", "superresolution", "blend")
    """Which parts."""
    seeds: tuple[int, ...] = (10, 11)
    """Of the networks and samples; tuning used 0."""
    device: str = "auto"
    """Where to compute."""


def main(args: Args) -> None:
    print(heading())
    print("PSNR of colours in dB. Seconds are of the fit. Columns with two figures: one a seed.\n")
    print("| what | ours | beside it | s |\n| --- | --- | --- | --- |")
    for part in args.only:
        found: dict[str, list[Row]] = {}
        for seed in args.seeds:
            for row in PARTS[part](seed, args.device):
                found.setdefault(row[0], []).append(row)
        for name, rows in found.items():
            ours, seconds = " / ".join(r[1] for r in rows), " / ".join(f"{r[3]:.0f}" for r in rows)
            print(f"| {name} | {ours} | {rows[0][2]} | {seconds} |", flush=True)


def camera(size: int) -> Floats:
    """scikit-image's camera, size x size."""
    image = read_image("camera")
    return image if size == len(image) else resize(image, (size, size), anti_aliasing=True)


def timed(image: Floats, config: ImageConfig, seed: int, device: str, **known: Any) -> tuple[ImageField, float]:
    """The field of what is known of an image, and its seconds."""
    start = time.perf_counter()
    field = solve(image.shape, dataclasses.replace(config, seed=seed), device, **known)
    return field, time.perf_counter() - start


def fit(seed: int, device: str) -> Iterator[Row]:
    """Colours."""
    for size, name in ((256, "camera"), (512, "camera"), (512, "astronaut")):
        image = camera(size) if name == "camera" else read_image(name)
        field, seconds = timed(image, fitted(*image.shape[:2]), seed, device, **from_pixels(image))
        yield f"fit {name}, {size} x {size}", f"{psnr(field.render(size, size).clip(0, 1), image):.2f}", "", seconds


def derivatives(seed: int, device: str) -> Iterator[Row]:
    """Correlation of the field's derivatives with filters of the pixels, inside the border."""
    image = camera(256)
    field, seconds = timed(image, fitted(*image.shape[:2]), seed, device, **from_pixels(image))
    (_, gradient, bend), inside = field.levels(), ~border(256, 256)
    for name, ours, theirs in (
        ("gradient, correlation with Sobel's", gradient[inside], sobel(image)[inside]),
        ("Laplacian, with the five-point one", bend[inside], laplacian(image)),
    ):
        yield f"camera 256: {name}", f"{np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]:.3f}", "", seconds


def activations(seed: int, device: str) -> Iterator[Row]:
    """SIREN and what came before, as large and with as many steps."""
    image, ours = camera(256), fitted(256, 256)
    for name, config in rivals(ours.siren, 1, 256).items():
        field, seconds = timed(image, dataclasses.replace(ours, siren=config), seed, device, **from_pixels(image))
        value = field.render(256, 256).clip(0, 1)
        yield f"camera 256: {name}, {field.siren.size:,} parameters", f"{psnr(value, image):.2f}", "", seconds


def poisson(seed: int, device: str) -> Iterator[Row]:
    """Colours from derivatives alone, aligned by mean and variance; with the border's colours, as they are."""
    image = camera(256)
    slopes, bend = from_gradient(image), from_laplacian(image)
    curved, inside = minus_divergence(differences(image)), ~border(256, 256)
    free = solve_free(curved)
    grey = solve_held(curved, np.full_like(image, GREY), inside)
    for name, config, known, solved in (("gradient", DERIVED, slopes, free), ("Laplacian", BENT, bend, grey)):
        field, seconds = timed(image, config, seed, device, **known)
        picture, classical = align(field.render(256, 256), image), align(solved, image)
        yield f"camera 256 from its {name}, aligned", f"{psnr(picture, image):.2f}", _db(classical, image), seconds
    field, seconds = timed(image, BENT, seed, device, **bend | from_border(image))
    picture, classical = field.render(256, 256), solve_held(curved, image, inside)
    yield "camera 256 from its Laplacian and border", f"{psnr(picture, image):.2f}", _db(classical, image), seconds


def superresolution(seed: int, device: str) -> Iterator[Row]:
    """A picture at twice the size that was fitted, beside bicubic interpolation."""
    image, small = camera(512), camera(512).reshape(256, 2, 256, 2, 1).mean(axis=(1, 3))
    field, seconds = timed(small, fitted(256, 256), seed, device, **from_pixels(small))
    bicubic = resize(small, image.shape, order=3)
    ours = f"{psnr(field.render(512, 512).clip(0, 1), image):.2f}"
    yield "camera, 256 fitted and rendered at 512", ours, f"bicubic {psnr(bicubic, image):.2f}", seconds


def blend(seed: int, device: str) -> Iterator[Row]:
    """Seamless cloning, inside the mask against the sparse solution; and plain averaging against it."""
    pairs: dict[str, Callable[[], Composition]] = {"astronaut's face into coffee": face_in_coffee}
    if (SHARED / "images" / "cheind_1_fg.jpg").exists():
        pairs["plane over hills"] = plane_over_hills
    else:
        print(f"without {SHARED / 'images'} the aeroplane is left out", file=sys.stderr)
    for name, pair in pairs.items():
        task = pair()
        field, seconds = timed(task.target, BLENDED, seed, device, **task.known)
        result, classical = (x[task.inside] for x in (task.composite(field.render(*task.inside.shape)), task.classical))
        averaged = f"averaging {psnr(task.averaged[task.inside], classical):.2f}"
        yield f"import: {name}, to the sparse solution", f"{psnr(result, classical):.2f}", averaged, seconds


def plane_over_hills() -> Composition:
    """The data folder's pair, with its mask."""
    foreground, background, mask = (read_image(SHARED / "images" / f"cheind_1_{n}.jpg") for n in ("fg", "bg", "mask"))
    return Composition.of(foreground, background, mask.mean(axis=2) > 0.5, (100, 20), "import")


def face_in_coffee() -> Composition:
    """scikit-image's astronaut, her face in an oval, over the cup of its coffee."""
    from skimage import data

    coffee = data.coffee() / 255.0
    face = read_image("astronaut")[30:230, 130:310]
    y, x = np.mgrid[-1:1:200j, -1:1:180j]
    return Composition.of(face, coffee, x**2 + y**2 < 0.8, (230, 90), "import")


def _db(classical: Floats, image: Floats) -> str:
    return f"classical {psnr(classical, image):.2f}"


PARTS: dict[str, Callable[[int, str], Iterator[Row]]] = {
    part.__name__: part for part in (fit, derivatives, activations, poisson, superresolution, blend)
}

if __name__ == "__main__":
    main(tyro.cli(Args))
