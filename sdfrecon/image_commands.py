"""What the `sdfrecon image` commands do and say."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sdfrecon.console import adding, at_least, say
from sdfrecon.geometry import Floats, InputError
from sdfrecon.image_console import (
    check_files,
    check_fit,
    check_in_folder,
    check_render,
    field_is_kept,
    fit_image,
    load_image,
    load_image_field,
    named_after,
    tell,
    with_options,
)
from sdfrecon.options import ImageActivations, ImageBlend, ImageDerivatives, ImageFit, ImagePoisson, ImageRender

if TYPE_CHECKING:
    from sdfrecon.imagefield import ImageField, Region

SOLVED = 2500
"""Bytes that a pixel takes in the classical solution where the pixels around are held, of some million of them."""
SHOWN = 640
"""Bytes that a pixel takes while pictures are made of its value and derivatives (measured, in colour)."""


def fit(command: ImageFit) -> None:
    """Image -> field."""
    from sdfrecon.fieldfiles import save_field
    from sdfrecon.images import psnr
    from sdfrecon.imaging import fitted, from_pixels
    from sdfrecon.pictures import check_size, write_image

    check_files([command.image], [command.output], [command.preview] if command.preview else [])
    image = load_image(command.image, at_least(8, "--size", command.size))
    if command.preview:
        check_size(command.preview, image.shape)
    check_render(image.shape, "lower --size")
    field, took = fit_image(image, with_options(fitted(*image.shape[:2]), command), command, **from_pixels(image))
    save_field(command.output, field)
    picture = field.render(*image.shape[:2])
    if command.preview:
        with adding(field_is_kept(command.output)):
            write_image(command.preview, picture)
    tell(command, took)
    size, pixels = field.siren.size, image.shape[0] * image.shape[1]
    tell(
        command,
        f"PSNR {psnr(picture.clip(0, 1), image):.2f} dB; {size:,} parameters, {32 * size / pixels:.1f} bits a pixel",
    )
    tell(command, f"field: {command.output}")


def render(command: ImageRender) -> None:
    """Field -> picture."""
    from sdfrecon.pictures import check_size, write_image

    check_files([command.field], [], [command.output])
    field = load_image_field(command.field, command.device)
    width, height = command.size or _alike(field, field.check_region(command.region))
    at_least(1, "--size", min(width, height))
    check_size(command.output, (height, width))
    check_render((height, width, field.siren.out_dim), "lower --size")
    write_image(command.output, field.render(height, width, command.region))
    say(f"{command.output}: {width} x {height}")


def derivatives(command: ImageDerivatives) -> None:
    """Field -> pictures of its value and derivatives."""
    from sdfrecon.files import make_folder
    from sdfrecon.images import border, laplacian, sobel
    from sdfrecon.memory import check_free
    from sdfrecon.pictures import directions, signed, strength, write_image, write_panels

    inputs = [command.field, *([command.image] if command.image else [])]
    check_in_folder(
        inputs, command.output, ["value.png", "gradient.png", "direction.png", "laplacian.png", "figure.png"]
    )
    field = load_image_field(command.field, command.device)
    size = f"{field.width:,} x {field.height:,} pixels and their derivatives"
    check_free(size, SHOWN * field.width * field.height, "fit a smaller image")
    shape = (field.height, field.width, field.siren.out_dim)
    given = None if command.image is None else load_image(command.image, max(field.height, field.width))
    if given is not None and given.shape != shape:
        raise InputError(f"--image must be the image of the field, (h, w, c) = {shape}; got {given.shape}")
    make_folder(command.output)
    value, gradient, bend = field.levels()
    image = value if given is None else given
    slopes, filtered = sobel(image), np.pad(laplacian(image), ((1, 1), (1, 1), (0, 0)))
    ours = {
        "value": value,
        "gradient": strength(gradient),
        "direction": directions(gradient),
        "laplacian": signed(bend),
    }
    theirs = {
        "image" if command.image else "field's picture": image,
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
    from sdfrecon.fieldfiles import save_field
    from sdfrecon.images import align, alignment, border, differences, minus_divergence, psnr, solve_free, solve_held
    from sdfrecon.imaging import BENT, DERIVED, GREY, from_border, from_gradient, from_laplacian
    from sdfrecon.memory import check_free
    from sdfrecon.pictures import check_size, derived, write_image, write_panels

    field_path, figure = named_after(command.output)
    check_files([command.image], [field_path], [command.output, figure])
    image = load_image(command.image, at_least(8, "--size", command.size))
    check_size(command.output, image.shape)
    height, width = image.shape[:2]
    free = command.source == "gradient" and not command.border
    each = SHOWN if free else SOLVED
    check_free(f"{width:,} x {height:,} pixels solved at once", each * width * height, "lower --size")
    given, config = (from_gradient, DERIVED) if command.source == "gradient" else (from_laplacian, BENT)
    known = given(image) | (from_border(image) if command.border else {})
    field, took = fit_image(image, with_options(config, command), command, **known)
    lines, how = [took], "as it is"
    if not command.border:
        how, raw = "aligned by mean and variance", field.render(height, width)
        lines.append(f"PSNR {psnr(raw - (raw - image).mean(axis=(0, 1)), image):.2f} dB, aligned by mean alone")
        field = field.toned(*alignment(raw, image))
    save_field(field_path, field)
    result, gradient, bend = field.levels()
    with adding(field_is_kept(field_path)):
        write_image(command.output, result)
    curved = minus_divergence(differences(image))
    if free:
        classical = solve_free(curved)
    else:
        around = image if command.border else np.full_like(image, GREY)
        classical = solve_held(curved, around, ~border(height, width))
    classical = classical if command.border else align(classical, image)
    rows = [derived("original", image), derived("classical", classical)]
    write_panels(figure, [rows[0], derived("result", result, gradient, bend), rows[1]])
    for line in (*lines, f"PSNR {psnr(result, image):.2f} dB, classical {psnr(classical, image):.2f} dB, {how}"):
        tell(command, line)
    tell(command, f"picture: {command.output}, figure: {figure}, field: {field_path}")


def blend(command: ImageBlend) -> None:
    """Two images -> one."""
    from sdfrecon.fieldfiles import save_field
    from sdfrecon.images import alpha, bled, psnr, rgb
    from sdfrecon.imaging import BLENDED, Composition
    from sdfrecon.memory import check_free
    from sdfrecon.pictures import JPEGS, check_size, read_image, write_image, write_panels

    field_path, figure = named_after(command.output)
    masks = [command.mask] if command.mask else []
    check_files([command.source, command.target, *masks], [field_path], [command.output, figure])
    source, target = read_image(command.source), read_image(command.target)
    check_size(command.output, target.shape)
    shown = wanted = alpha(source) > 0.5
    if command.mask is not None:
        mask = read_image(command.mask)
        wanted = rgb(mask).mean(axis=2) * alpha(mask) > 0.5
    if not wanted.any():
        what = "light, as it must be where the source is wanted" if command.mask else "opaque: nothing of it would show"
        raise InputError(f"{command.mask or command.source} is nowhere {what}")
    bled_target = rgb(bled(target))
    task = Composition.of(rgb(source), bled_target, wanted, command.offset, command.mode, shown)
    check_render(task.target.shape, "give a smaller --mask or source")
    if not task.inside.all():
        pixels = int(task.inside.sum())
        check_free(f"{pixels:,} pixels solved at once", SOLVED * pixels, "give a smaller --mask or source")
    field, took = fit_image(task.target, with_options(BLENDED, command), command, **task.known)
    filled = field.render(*task.inside.shape)
    result = task.composite(filled)
    if task.inside.all():  # it is what is filled in, but for a colour that no gradient tells
        field = field.toned(1, (result - filled).mean(axis=(0, 1)))
    field.about["window"] = {"right": task.window[1].start, "down": task.window[0].start}
    save_field(field_path, field)
    stored = bled_target if command.output.suffix.lower() in JPEGS else rgb(target)
    picture = task.pasted(np.where(task.inside[..., None], result, stored[task.window]), stored)
    if target.shape[2] in (2, 4):
        seen = task.pasted(np.maximum(alpha(target)[task.window], task.inside), alpha(target))
        picture = np.dstack([picture, seen])
    with adding(f"the field of what is put in is kept, {field_path}; for the picture give the command again"):
        write_image(command.output, picture)
    classical = task.classical
    panels = {"target": task.target, "pasted": np.where(task.inside[..., None], task.source, task.target)}
    panels |= {"averaged": task.averaged, "classical": classical, "result": result}
    write_panels(figure, [list(panels.items())])
    tell(command, took)
    inside = psnr(result[task.inside], classical[task.inside])
    tell(command, f"inside the mask, PSNR {inside:.2f} dB against the classical solution")
    tell(command, f"picture: {command.output}, figure: {figure}, field: {field_path}")


def activations(command: ImageActivations) -> None:
    """Image -> a comparison of networks."""
    from sdfrecon.device import pick_device, seeded
    from sdfrecon.files import make_folder, write_text
    from sdfrecon.images import psnr
    from sdfrecon.imaging import fitted, from_pixels, rivals
    from sdfrecon.memory import check_free
    from sdfrecon.pictures import derived, write_curves, write_panels
    from sdfrecon.run_dir import Losses, keep

    check_in_folder([command.image], command.output, ["figure.png", "curves.png", "psnr.json"])
    image = load_image(command.image, at_least(8, "--size", command.size))
    ours = with_options(fitted(*image.shape[:2]), command)
    check_fit(ours.siren, command.device, {})
    size = f"four pictures of {image.shape[1]:,} x {image.shape[0]:,} pixels and their derivatives"
    check_free(size, 4 * SHOWN * image.shape[0] * image.shape[1], "lower --size")
    seeded(ours.seed, pick_device(command.device))
    make_folder(command.output)
    columns, curves, figures, lines = [derived("original", image)], {}, {}, list[str]()
    for name, siren in rivals(ours.siren, image.shape[2], max(image.shape[:2])).items():
        losses: Losses = {}
        field, took = fit_image(
            image, replace(ours, siren=siren), command, partial(keep, losses), name, **from_pixels(image)
        )
        value, gradient, bend = field.levels()
        figures[name] = {"psnr": psnr(value.clip(0, 1), image), "parameters": field.siren.size}
        columns.append(derived(f"{name}, {figures[name]['psnr']:.1f} dB", value, gradient, bend))
        # Colours are twice as far apart as 0 and 1.
        curves[name] = list(losses), [-10 * np.log10(sum(terms.values()) / 4) for terms in losses.values()]
        lines += [took, f"{name}: PSNR {figures[name]['psnr']:.2f} dB, {field.siren.size:,} parameters"]
    write_text(command.output / "psnr.json", json.dumps(figures, indent=2) + "\n")
    write_panels(command.output / "figure.png", list(zip(*columns, strict=True)))
    write_curves(command.output / "curves.png", curves, "steps", "PSNR of a batch, dB")
    for line in (*lines, f"figure: {command.output / 'figure.png'}, training: {command.output / 'curves.png'}"):
        tell(command, line)


def _alike(field: ImageField, region: Region) -> tuple[int, int]:
    """Width and height of a picture of a region, its longer side as long as the image's."""
    x0, y0, x1, y1 = region
    share = max(field.width, field.height) / max(x1 - x0, y1 - y0)
    return max(1, round((x1 - x0) * share)), max(1, round((y1 - y0) * share))


def _correlation(a: Floats, b: Floats) -> float:
    if a.size < 2:
        return float("nan")
    with np.errstate(invalid="ignore"):  # of what is flat there is none
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
