"""What the `sdfrecon image` commands do and say."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdfrecon.console import at_least, check_places, duration, note, say
from sdfrecon.geometry import Floats, InputError
from sdfrecon.options import (
    Fitting,
    ImageActivations,
    ImageBlend,
    ImageDerivatives,
    ImageFit,
    ImagePoisson,
    ImageRender,
)

if TYPE_CHECKING:
    from sdfrecon.fit import Watch
    from sdfrecon.imagefield import ImageField
    from sdfrecon.imaging import ImageConfig

A_PIXEL = 53
"""Bytes that a step keeps for each pixel and each sine of a layer, of four layers."""


def fit(command: ImageFit) -> None:
    """Image -> field."""
    from sdfrecon.files import save_field
    from sdfrecon.images import psnr
    from sdfrecon.imaging import fitted, from_pixels
    from sdfrecon.pictures import write_image

    _places([command.image], [command.output], [command.preview] if command.preview else [])
    image = _image(command.image, command.size)
    field = _solve(image, fitted(*image.shape[:2]), command, **from_pixels(image))
    save_field(command.output, field)
    picture = field.render(*image.shape[:2])
    if command.preview:
        write_image(command.preview, picture)
    size, pixels = field.siren.size, image.shape[0] * image.shape[1]
    _tell(
        command,
        f"PSNR {psnr(picture.clip(0, 1), image):.2f} dB; {size:,} parameters, {32 * size / pixels:.1f} bits a pixel",
    )
    _tell(command, f"field: {command.output}")


def render(command: ImageRender) -> None:
    """Field -> picture."""
    from sdfrecon.pictures import write_image

    _places([command.field], [], [command.output])
    field = _field(command.field, command.device)
    width, height = command.size or (field.width, field.height)
    at_least(1, "--size", min(width, height), 1)
    write_image(command.output, field.render(height, width, command.region))
    say(f"{command.output}: {width} x {height}")


def derivatives(command: ImageDerivatives) -> None:
    """Field -> pictures of its value and derivatives."""
    from sdfrecon.files import make_folder
    from sdfrecon.images import border, laplacian, sobel
    from sdfrecon.pictures import directions, signed, strength, write_image, write_panels

    inputs = [command.field, *([command.image] if command.image else [])]
    _folder(inputs, command.output, ["value.png", "gradient.png", "direction.png", "laplacian.png", "figure.png"])
    field = _field(command.field, command.device)
    value, gradient, bend = field.levels()
    image = value if command.image is None else _image(command.image, max(field.height, field.width))
    if image.shape != value.shape:
        raise InputError(f"--image must be the image of the field, (h, w, c) = {value.shape}; got {image.shape}")
    make_folder(command.output)
    slopes, filtered = sobel(image), np.pad(laplacian(image), ((1, 1), (1, 1), (0, 0)))
    ours = {
        "value": value,
        "gradient": strength(gradient),
        "direction": directions(gradient),
        "laplacian": signed(bend),
    }
    theirs = {
        "image": image,
        "Sobel's gradient": strength(slopes),
        "its direction": directions(slopes),
        "five-point Laplacian": signed(filtered),
    }
    for name, picture in ours.items():
        write_image(command.output / f"{name}.png", picture)
    write_panels(command.output / "figure.png", [[(f"field: {k}", p) for k, p in ours.items()], list(theirs.items())])
    inside = ~border(field.height, field.width)
    say(f"correlation of the gradient with Sobel's filter {_correlation(gradient[inside], slopes[inside]):.3f}")
    say(f"correlation of the Laplacian with the five-point one {_correlation(bend[inside], filtered[inside]):.3f}")
    say(f"figure: {command.output / 'figure.png'}")


def poisson(command: ImagePoisson) -> None:
    """Derivatives -> image."""
    from sdfrecon.files import save_field
    from sdfrecon.images import Edges, align, alignment, border, laplacian, psnr, solve_free, solve_held
    from sdfrecon.imaging import BENT, DERIVED, GREY, from_border, from_gradient, from_laplacian
    from sdfrecon.pictures import derived, write_image, write_panels

    field_path, figure = _beside(command.output)
    _places([command.image], [field_path], [command.output, figure])
    image = _image(command.image, command.size)
    height, width = image.shape[:2]
    if command.source == "gradient":
        known, edges = from_gradient(image), Edges.of(height, width)
        curved = edges.minus_divergence(edges.differences(image))
    else:
        known, curved = from_laplacian(image), np.pad(-laplacian(image), ((1, 1), (1, 1), (0, 0)))
    if command.border:
        known |= from_border(image)
    field = _solve(image, DERIVED if command.source == "gradient" else BENT, command, **known)
    if command.source == "gradient" and not command.border:
        classical = solve_free(curved)
    else:
        around = image if command.border else np.full_like(image, GREY)
        classical = solve_held(curved, around, ~border(height, width))
    if command.border:
        how = "as it is"
    else:
        how, raw = "aligned by mean and variance", field.render(height, width)
        _tell(command, f"PSNR {psnr(raw - (raw - image).mean(axis=(0, 1)), image):.2f} dB, aligned by mean alone")
        field = field.toned(*alignment(raw, image))
        classical = align(classical, image)
    save_field(field_path, field)
    result, gradient, bend = field.levels()
    write_image(command.output, result)
    rows = [derived("original", image), derived("classical", classical)]
    write_panels(figure, [rows[0], derived("result", result, gradient, bend), rows[1]])
    _tell(command, f"PSNR {psnr(result, image):.2f} dB, classical {psnr(classical, image):.2f} dB, {how}")
    _tell(command, f"picture: {command.output}, figure: {figure}, field: {field_path}")


def blend(command: ImageBlend) -> None:
    """Two images -> one."""
    from sdfrecon.files import save_field
    from sdfrecon.images import psnr, rgb
    from sdfrecon.imaging import BLENDED, Composition
    from sdfrecon.pictures import read_image, write_image, write_panels

    field_path, figure = _beside(command.output)
    masks = [command.mask] if command.mask else []
    _places([command.source, command.target, *masks], [field_path], [command.output, figure])
    source, target = read_image(command.source), read_image(command.target)
    mask = None if command.mask is None else read_image(command.mask)
    if mask is None and source.shape[2] in (2, 4):
        mask = source[..., -1:]
    if mask is not None and mask.shape[:2] != source.shape[:2]:
        raise InputError(
            f"the mask must be of the source's size, {_size(source)}; {command.mask} is {_size(mask)}: resize it"
        )
    wanted = None if mask is None else rgb(mask).mean(axis=2) > 0.5
    task = Composition.of(rgb(source), rgb(target), wanted, command.offset, command.mode)
    field = _solve(task.target, BLENDED, command, **task.known)
    filled = field.render(*task.inside.shape)
    result = task.composite(filled)
    if task.inside.all():  # it is what is filled in, but for a colour that no gradient tells
        field = field.toned(1, (result - filled).mean(axis=(0, 1)))
    field.about["window"] = {"right": task.window[1].start, "down": task.window[0].start}
    save_field(field_path, field)
    write_image(command.output, task.pasted(result, rgb(target)))
    classical = task.classical
    panels = {"target": task.target, "pasted": np.where(task.inside[..., None], task.source, task.target)}
    panels |= {"averaged": task.averaged, "classical": classical, "result": result}
    write_panels(figure, [list(panels.items())])
    inside = psnr(result[task.inside], classical[task.inside])
    _tell(command, f"inside the mask, PSNR {inside:.2f} dB against the classical solution")
    _tell(command, f"picture: {command.output}, figure: {figure}, field: {field_path}")


def activations(command: ImageActivations) -> None:
    """Image -> a comparison of networks."""
    from sdfrecon.files import make_folder, write_text
    from sdfrecon.images import psnr
    from sdfrecon.imaging import fitted, from_pixels, rivals
    from sdfrecon.pictures import derived, write_curves, write_panels

    _folder([command.image], command.output, ["figure.png", "curves.png", "psnr.json"])
    image = _image(command.image, command.size)
    make_folder(command.output)
    columns, curves, figures = [derived("original", image)], {}, {}
    ours = fitted(*image.shape[:2])
    for name, config in rivals(_asked(ours, command).siren, image.shape[2]).items():
        steps: list[float] = []
        ratios: list[float] = []

        def watch(step: int, terms: dict[str, float], steps: list[float] = steps, ratios: list[float] = ratios) -> None:
            steps.append(step)
            ratios.append(-10 * np.log10(sum(terms.values()) / 4))  # colours are twice as far apart as 0 and 1

        field = _solve(
            image, replace(ours, siren=config), replace(command, width=None), watch, name, **from_pixels(image)
        )
        value, gradient, bend = field.levels()
        figures[name] = {"psnr": psnr(value.clip(0, 1), image), "parameters": field.siren.size}
        columns.append(derived(f"{name}, {figures[name]['psnr']:.1f} dB", value, gradient, bend))
        curves[name] = steps, ratios
        _tell(command, f"{name}: PSNR {figures[name]['psnr']:.2f} dB, {field.siren.size:,} parameters")
    write_panels(command.output / "figure.png", list(zip(*columns, strict=True)))
    write_curves(command.output / "curves.png", curves, "steps", "PSNR of a batch, dB")
    write_text(command.output / "psnr.json", json.dumps(figures, indent=2) + "\n")
    _tell(command, f"figure: {command.output / 'figure.png'}, training: {command.output / 'curves.png'}")


def _places(inputs: Sequence[Path], fields: Sequence[Path], pictures: Sequence[Path]) -> None:
    from sdfrecon.pictures import SAMPLES, WRITERS

    check_places([path for path in inputs if str(path) not in SAMPLES], [*fields, *pictures])
    for paths, endings, what in ((fields, (".safetensors",), "field"), (pictures, WRITERS, "picture")):
        for path in paths:
            if path.suffix.lower() not in endings:
                raise InputError(f"unknown ending of {path}: a {what} is written as one of {' '.join(endings)}")


def _folder(inputs: Sequence[Path], folder: Path, names: Sequence[str]) -> None:
    """The same for files of these names in a folder, which need not be there yet."""
    _places(inputs, [], [])
    if folder.is_dir():
        check_places([path for path in inputs if path.exists()], [folder / name for name in names])


def _image(path: Path, longest: int | None) -> Floats:
    """The image, shrunk so that its longer side has `longest` pixels where it has more."""
    from skimage.transform import resize

    from sdfrecon.pictures import read_image

    image = read_image(path)
    height, width = image.shape[:2]
    if longest is None or max(height, width) <= longest:
        return image
    at_least(8, "--size", longest, 8)
    share = longest / max(height, width)
    return resize(image, (max(3, round(height * share)), max(3, round(width * share))), anti_aliasing=True)


def _field(path: Path, device: str) -> ImageField:
    from sdfrecon.files import load_field
    from sdfrecon.imagefield import ImageField
    from sdfrecon.reconstruction import pick_device

    field = load_field(path)
    if not isinstance(field, ImageField):
        raise InputError(f"{path} is a shape's field: make a mesh of it with `sdfrecon mesh`")
    return replace(field, siren=field.siren.to(pick_device(device)))


def _asked(config: ImageConfig, command: Fitting) -> ImageConfig:
    return replace(
        config,
        siren=replace(config.siren, width=at_least(1, "--width", command.width, config.siren.width)),
        fit=replace(config.fit, steps=at_least(1, "--steps", command.steps, config.fit.steps)),
        seed=command.seed,
    )


def _solve(
    image: Floats,
    config: ImageConfig,
    command: Fitting,
    watch: Watch | None = None,
    what: str = "the fit",
    **known: Any,
) -> ImageField:
    from sdfrecon.imaging import expected_seconds, solve

    config, progress = _asked(config, command), not command.quiet and sys.stderr.isatty()
    _check_memory(config.siren.width, command.device, known)
    if not command.quiet:
        say(f"{what} takes about {duration(expected_seconds(image.shape, config, command.device, **known))}")
    start = time.monotonic()
    field = solve(image.shape, config, command.device, progress, watch, note, **known)
    _tell(command, f"{_size(image)} pixels fitted in {duration(time.monotonic() - start)}")
    return field


def _check_memory(width: int, device: str, known: dict[str, Any]) -> None:
    """Refuses what there is no memory for: a step takes all pixels of a Laplacian, or of what is put into an image."""
    from sdfrecon.plan import free_memory
    from sdfrecon.reconstruction import pick_device

    pixels = 0
    if "laplacians" in known:
        pixels = len(known["laplacians"][0])
    elif "guidance" in known:
        pixels = int(known["guidance"][0].sum())
    needed, limit = A_PIXEL * width * pixels, free_memory()
    if pick_device(device).type == "cpu" and needed > limit:
        way = "lower --size" if "laplacians" in known else "give a smaller --mask or source"
        raise InputError(
            f"{pixels:,} pixels at once need about {needed / 1e9:.1f} GB of memory, and {limit / 1e9:.1f} GB are free: "
            f"{way}"
        )


def _beside(output: Path) -> tuple[Path, Path]:
    return output.with_suffix(".safetensors"), output.with_name(f"{output.stem}_figure.png")


def _size(image: Floats) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"


def _correlation(a: Floats, b: Floats) -> float:
    with np.errstate(invalid="ignore"):  # of what is flat there is none
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def _tell(command: Fitting, line: str) -> None:
    if not command.quiet:
        say(line)
