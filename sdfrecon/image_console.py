"""What the `sdfrecon image` commands share: places, images and fields that are read, fits that are said and made."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdfrecon.console import at_least, check_places, duration, note, say, with_steps
from sdfrecon.geometry import Floats, InputError
from sdfrecon.options import Fitting

if TYPE_CHECKING:
    from sdfrecon.fit import Watch
    from sdfrecon.imagefield import ImageField
    from sdfrecon.imaging import ImageConfig
    from sdfrecon.siren import SirenConfig

A_PIXEL = 53
"""Bytes that a step keeps for each pixel and each sine of a layer, of four layers."""
A_WEIGHT = 78
"""Bytes of a weight between two layers: value, gradient and averages, and copies of them to go back to (measured)."""
RENDERED = 24
"""Bytes that a rendered pixel takes for each of its two coordinates and of its colours."""


def check_files(inputs: Sequence[Path], fields: Sequence[Path], pictures: Sequence[Path]) -> None:
    """Refuses inputs that are not there, and outputs of another ending, where they may not be, or over inputs."""
    from sdfrecon.pictures import WRITERS

    for paths, endings, what in ((fields, (".safetensors",), "field"), (pictures, WRITERS, "picture")):
        for path in paths:
            if path.suffix.lower() not in endings:
                raise InputError(f"unknown ending of {path}: a {what} is written as one of {' '.join(endings)}")
    check_places(_files(inputs), [*fields, *pictures])


def check_in_folder(inputs: Sequence[Path], folder: Path, names: Sequence[str]) -> None:
    """The same for files of these names in a folder, which need not be there yet."""
    check_places(_files(inputs), [folder / name for name in names] if folder.is_dir() else [])


def _files(inputs: Sequence[Path]) -> list[Path]:
    """Those that are no samples, and what is there under the name of one."""
    from sdfrecon.pictures import SAMPLES

    return [path for path in inputs if path.is_file() or str(path) not in SAMPLES]


def load_image(path: Path, longest: int | None) -> Floats:
    """The image, `bled`, and shrunk so that its longer side has `longest` pixels where it has more.

    Without its alpha where that is 1 everywhere.
    """
    from skimage.transform import resize

    from sdfrecon.images import alpha, bled, opaque
    from sdfrecon.pictures import read_image, unmultiplied

    image = read_image(path)
    image = opaque(image) if (alpha(image) == 1).all() else image
    height, width, channels = image.shape
    if longest is None or max(height, width) <= longest:
        return bled(image)
    share = longest / max(height, width)
    shape, clear = (max(3, round(height * share)), max(3, round(width * share))), channels in (2, 4)
    if clear:
        image[..., :-1] *= alpha(image)[..., None]
    small = resize(image, shape, anti_aliasing=True)
    return bled(unmultiplied(small).clip(max=1)) if clear else small


def load_image_field(path: Path, device: str) -> ImageField:
    """An image's field, on a device. Raises InputError for a shape's."""
    from sdfrecon.device import pick_device
    from sdfrecon.fieldfiles import load_field
    from sdfrecon.imagefield import ImageField

    field = load_field(path)
    if not isinstance(field, ImageField):
        raise InputError(f"{path} is a shape's field: make a mesh of it with `sdfrecon mesh`")
    return replace(field, siren=field.siren.to(pick_device(device)))


def with_options(config: ImageConfig, command: Fitting) -> ImageConfig:
    """The configuration with what the command says of it."""
    return replace(
        config,
        siren=replace(config.siren, width=at_least(1, "--width", command.width) or config.siren.width),
        fit=with_steps(config.fit, command.steps),
        seed=command.seed,
    )


def fit_image(
    image: Floats,
    config: ImageConfig,
    command: Fitting,
    watch: Watch | None = None,
    what: str = "the fit",
    **known: Any,
) -> tuple[ImageField, str]:
    """The field, and a line that says how long it took: it may fail to be told, so the field is saved before."""
    from sdfrecon.imaging import expected_seconds, solve

    check_fit(config.siren, command.device, known)
    if not command.quiet:
        say(f"{what} takes about {duration(expected_seconds(image.shape, config, command.device, **known))}")
    start = time.monotonic()
    progress = not command.quiet and sys.stderr.isatty()
    field = solve(image.shape, config, command.device, progress, watch, note, **known)
    return field, f"{image.shape[1]} x {image.shape[0]} pixels fitted in {duration(time.monotonic() - start)}"


def check_fit(size: SirenConfig, device: str, known: dict[str, Any]) -> None:
    """Refuses what there is no memory for: a step takes all pixels of a Laplacian, or of what is put into an image."""
    from sdfrecon.device import pick_device
    from sdfrecon.memory import check_free

    pixels = 0
    if "laplacians" in known:
        pixels = len(known["laplacians"][0])
    elif "guidance" in known:
        pixels = int(known["guidance"][0].sum())
    if pick_device(device).type == "cpu":
        way = "lower --size" if "laplacians" in known else "give a smaller --mask or source"
        check_free(f"{pixels:,} pixels at once", A_PIXEL * size.width * pixels, way)
        check_free("so many weights", A_WEIGHT * size.hidden_layers * size.width**2, "lower --width")


def check_render(shape: tuple[int, ...], way: str) -> None:
    """Refuses a picture (h, w, c) of a field that there is no memory for."""
    from sdfrecon.memory import check_free

    height, width, channels = shape
    check_free(f"{width:,} x {height:,} pixels", RENDERED * width * height * (2 + channels), way)


def field_is_kept(field: Path) -> str:
    """What is said where no picture can be written."""
    return f"the field is kept, {field}: see `sdfrecon image render`"


def named_after(output: Path) -> tuple[Path, Path]:
    """Where the field and the figure go beside a picture."""
    if not output.name:
        raise InputError(f"cannot write {output}: it is a directory: name a file in it")
    return output.with_suffix(".safetensors"), output.with_name(f"{output.stem}_figure.png")


def tell(command: Fitting, line: str) -> None:
    """Says a line where the command is not to be quiet."""
    if not command.quiet:
        say(line)
