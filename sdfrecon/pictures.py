"""Pictures in and out: images as arrays, and figures made of them."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdfrecon.files import reading, replacing
from sdfrecon.geometry import Floats, InputError
from sdfrecon.images import laplacian, opaque, rgb, sobel
from sdfrecon.memory import check_free

PILLOWS = (5, 6, 7)
"""How TIFFs may be compressed that tifffile does not read without another library: LZW and JPEG."""
WRITERS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
JPEGS, JPEG_SIDE = (".jpg", ".jpeg"), 65_500
SAMPLES = ("camera", "astronaut")
"""Pictures that come with scikit-image."""
TIFFS = (b"II*\0", b"MM\0*")
"""How a TIFF begins, and most cameras' raw files, of which Pillow reads the small picture before the large one."""
UNSPECIFIED, ASSOCIATED = 0, 1
"""TIFF's numbers for a channel that is no alpha, and for an alpha by which the colours are multiplied."""
PNG_GREY_ALPHA = 4
"""PNG's number for grey and alpha, in its 26th byte."""
BITS = (1, 2, 4, 8, 16, 32)
"""Of the numbers that Pillow tells the range of."""
STACKS = ("TIFF", "MPO")
"""Files of several pictures, as Pillow calls them, whose first one is the picture."""
SHOWN_AS = dict.fromkeys(("CMYK", "YCbCr", "LAB", "HSV", "RGBX"), "RGB") | {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}
"""What Pillow's modes are turned into."""
ORIENTATION = 0x0112
"""EXIF's and TIFF's number for where the first pixel is."""
PHOTOMETRICS = ("MINISBLACK", "RGB")
"""What the numbers of a TIFF may mean: brightness, or light of three colours."""
SLIGHTLY = 1e-6
"""What rounding may take floats beyond 0 and 1."""
Panel = tuple[str, Floats]


def read_image(path: str | Path) -> Floats:
    """(h, w, c) colours from 0 to 1 of a grey, RGB or RGBA picture of 8 or 16 bits a channel, or of floats.

    Of 16 bits in a PNG in colour or with alpha, or in a TIFF that LZW compressed, the upper 8 are read. Colours of
    another RGB, such as a phone's Display P3, and inks become sRGB's by the profile in a PNG or JPEG; a TIFF's is
    passed over, and so is a grey one's.
    camera and astronaut, where there is no such file, are scikit-image's. Raises InputError for what cannot be read,
    and for images of less than three rows or columns, which have no Laplacian.
    """
    from skimage import data
    from skimage.util import img_as_float64

    path = Path(path)
    if str(path) in SAMPLES and not path.is_file():
        return img_as_float64(np.atleast_3d(getattr(data, str(path))()))
    with reading(path, "picture"):
        stored = (_read_tiff if path.suffix.lower() in (".tif", ".tiff") else _read_picture)(path)
        stored = stored[..., None] if stored.ndim == 2 else stored
        if stored.ndim != 3 or stored.shape[2] > 4:
            raise InputError(f"{path} must be one picture, grey or in colour; got an array of shape {stored.shape}")
        if min(stored.shape[:2]) < 3:
            raise InputError(f"{path} must be at least 3 x 3 pixels; got {stored.shape[1]} x {stored.shape[0]}")
        if stored.dtype.kind not in "bf" and stored.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
            raise InputError(f"{path} holds {stored.dtype} numbers: save it as bytes, as 16 bits or as floats")
        image = img_as_float64(stored)
        if not np.isfinite(image).all():
            raise InputError(f"{path} holds colours that are not finite: repair it first")
        if not -SLIGHTLY <= image.min() <= image.max() <= 1 + SLIGHTLY:
            raise InputError(f"{path} holds {image.min():g} to {image.max():g}: scale it to colours from 0 to 1")
        return image.clip(0, 1)


def _read_picture(path: Path) -> NDArray:
    from PIL import Image, UnidentifiedImageError

    stored = path.read_bytes()
    tiff = stored[:4] in TIFFS
    if tiff and path.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"{path} is a TIFF by another name, as cameras' raw files are: develop it, or name it .tif")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # half of what is too much
            return _decoded(path, stored, Image.open(BytesIO(stored)))
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise InputError(f"{path} has more than {most:,} pixels: shrink it first") from None
    except UnidentifiedImageError:
        if tiff:
            raise InputError(f"{path} is a TIFF of a rare kind: save it uncompressed, or as PNG") from None
        raise InputError(f"{path} is no picture of a known kind: expected PNG, JPEG, TIFF or the like") from None


def _decoded(path: Path, stored: bytes, file: Any) -> NDArray:
    """What Pillow has opened: turned by its EXIF, with an alpha where one colour is transparent, and no inks."""
    from PIL import Image

    tiff = file.format == "TIFF"
    if file.format not in STACKS and (frames := getattr(file, "n_frames", 1)) > 1:
        raise InputError(f"{path} must be one picture; it holds {frames}: save one of them")
    clear, bits = "transparency" in file.info, stored[24] if file.format == "PNG" else 8
    if clear and (bits == 16 or (bits in (2, 4) and file.mode == "L")):
        raise InputError(f"{path} has a transparent colour of {bits} bits: save it with an alpha channel")
    mode = "RGBA" if clear else SHOWN_AS.get(file.mode, file.mode)
    mode = file.palette.mode if mode == "P" and file.palette else mode
    mode = "LA" if file.format == "PNG" and stored[25] == PNG_GREY_ALPHA else mode  # of 16 bits Pillow makes colours
    _check_room(path, (file.height, file.width), Image.getmodebands(mode))
    pixels = np.asarray(file.convert(mode) if tiff else _in_srgb(file if file.mode == "CMYK" else file.convert(mode)))
    try:
        turned = 1 if tiff else file.getexif().get(ORIENTATION, 1)  # Pillow turns a TIFF itself
    except Exception:  # what is damaged there leaves the pixels whole
        turned = 1
    return _upright(pixels, turned)


def _in_srgb(picture: Any) -> Any:
    """A picture of Pillow's without inks, in sRGB where its profile says what its own colours or inks are."""
    from PIL import ImageCms

    profile, shown = picture.info.get("icc_profile"), "RGB" if picture.mode == "CMYK" else picture.mode
    if profile and shown in ("RGB", "RGBA"):
        with suppress(ImageCms.PyCMSError, OSError):  # of one that is damaged the colours are taken as they are
            own, srgb = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
            if own.profile.xcolor_space.strip() == picture.mode.removesuffix("A"):
                return ImageCms.profileToProfile(picture, own, ImageCms.ImageCmsProfile(srgb), outputMode=shown)
    return picture.convert(shown)


def _check_room(path: Path, shape: Sequence[int], channels: int = 1) -> None:
    """Raises InputError where there is no memory for colours of a shape: as they are stored, as floats, and cut off."""
    size = " x ".join(map(str, shape))
    check_free(f"the {size} colours of {path}", 24 * channels * math.prod(shape), "shrink it first")


def _read_tiff(path: Path) -> NDArray:
    """The first page. imageio, and tifffile's own imread, never come to an end on some pages without data."""
    import tifffile

    logger = logging.getLogger("tifffile")
    before, logger.disabled = logger.disabled, True
    try:
        with tifffile.TiffFile(path) as file:
            return _of_page(path, file.pages[0])
    finally:
        logger.disabled = before


def _of_page(path: Path, page: Any) -> NDArray:
    """The pixels of tifffile's page: upright, with an alpha where one is said to be, and the colours not times it."""
    from skimage.util import img_as_float64

    rare = InputError(f"{path} is a TIFF of a rare kind: save it uncompressed with 8 or 16 bits, or as PNG")
    if not page.dataoffsets or page.dtype is None or 0 in page.shape:
        raise InputError(f"{path} holds no pixels: the file is damaged")
    if len(page.dataoffsets) * math.prod(page.chunks) < math.prod(page.shape):
        raise InputError(f"{path} holds fewer pixels than it promises: the file is damaged")
    if page.photometric.name == "YCBCR" or (page.photometric.name in PHOTOMETRICS and page.compression in PILLOWS):
        if page.bitspersample not in BITS or page.dtype.kind == "i":
            raise rare
        return _read_picture(path)
    if page.photometric.name not in PHOTOMETRICS:
        raise InputError(f"{path} holds {page.photometric.name} colours: save it in grey or RGB")
    if page.bitspersample not in (1, 8 * page.dtype.itemsize):
        raise rare
    _check_room(path, page.shape)
    try:
        pixels = np.asarray(page.asarray())
    except (ImportError, ValueError) as error:  # tifffile looks for what unpacks it here
        raise rare if isinstance(error, ImportError) or "imagecodecs" in str(error) else error from None
    pixels = np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels  # channel by channel
    turned = page.tags[ORIENTATION].value if ORIENTATION in page.tags else 1
    pixels, more = _upright(pixels, turned), [int(e) for e in page.extrasamples]
    while more and more[-1] == UNSPECIFIED and pixels.shape[-1] in (2, 4):
        pixels, more = pixels[..., :-1], more[:-1]
    if more != [ASSOCIATED] or (pixels.dtype.kind != "f" and pixels.dtype.itemsize >= 4):
        return pixels
    whole = unmultiplied(img_as_float64(pixels))
    return whole if pixels.dtype.kind == "f" else whole.clip(max=1)


def _upright(pixels: NDArray, orientation: int) -> NDArray:
    """Pixels (h, w) or (h, w, c) as they are to be seen, by the number that TIFF has for where the first one is."""
    pixels = pixels.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else pixels
    pixels = pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels


def unmultiplied(image: Floats) -> Floats:
    """(h, w, c) colours that were multiplied by the alpha behind them, and that."""
    colours, alpha = np.split(image, [-1], axis=2)
    colours = np.divide(colours, alpha, out=np.zeros_like(colours), where=alpha > 0)
    return np.concatenate([colours, alpha], axis=2)


def write_image(path: str | Path, pixels: NDArray) -> None:
    """Writes a picture by ending: (h, w) or (h, w, c) of bytes, or of colours from 0 to 1, which are cut off there.

    JPEG has no transparency, and is written without. Raises InputError for another ending or a place that refuses it.
    """
    import imageio.v3 as iio

    path = Path(path)
    if path.suffix.lower() not in WRITERS:
        raise InputError(f"unknown ending of {path}: a picture is written as one of {' '.join(WRITERS)}")
    if pixels.dtype != np.uint8:
        pixels = np.rint(255 * pixels.clip(0, 1)).astype(np.uint8)
    jpeg = path.suffix.lower() in JPEGS
    check_size(path, pixels.shape)
    if jpeg and pixels.ndim == 3:
        pixels = opaque(pixels)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    how: dict[str, Any] = {}
    if jpeg:
        how = {"quality": 95, "subsampling": 0}
    elif path.suffix.lower() in (".tif", ".tiff") and pixels.shape[2:] == (2,):  # else it would be h pages
        how = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]}
    with replacing(path) as temporary:
        iio.imwrite(temporary, pixels, **how)


def check_size(path: Path, shape: Sequence[int]) -> None:
    """Raises InputError where the format has no pictures of a shape (h, w, ...)."""
    if path.suffix.lower() in JPEGS and max(shape[:2]) > JPEG_SIDE:
        raise InputError(f"a JPEG is at most {JPEG_SIDE:,} pixels wide and high, and {path} would be more: write .png")


def write_panels(path: Path, rows: Sequence[Sequence[Panel]]) -> None:
    """Writes a figure: rows of titled images, (h, w) or (h, w, c) of colours from 0 to 1."""
    figure = _figure(len(rows[0]), len(rows), rows[0][0][1].shape)
    for place, (title, image) in enumerate(panel for row in rows for panel in row):
        axes = figure.add_subplot(len(rows), len(rows[0]), place + 1)
        axes.imshow((rgb(image) if image.ndim == 3 else image).clip(0, 1), cmap="gray", vmin=0, vmax=1)
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    save_figure(path, figure)


def write_curves(path: Path, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str) -> None:
    """Writes a figure of named curves, each its x values and its y values."""
    figure = _figure(1.6, 1, (1, 1))
    axes = figure.add_subplot()
    for name, (along, values) in curves.items():
        axes.plot(along, values, label=name)
    axes.set(xlabel=x, ylabel=y)
    axes.legend()
    axes.grid(alpha=0.3)
    save_figure(path, figure)


def save_figure(path: Path, figure: Any) -> None:
    """Writes a matplotlib figure, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def strength(derivative: Floats) -> Floats:
    """(h, w) brightness of gradients (h, w, c, 2): their length over all channels, 1 at the 99.5th percentile."""
    length = np.sqrt((derivative**2).sum(axis=(2, 3)))
    return (length / max(float(np.quantile(length, 0.995)), 1e-12)).clip(0, 1)


def derived(name: str, image: Floats, gradient: Floats | None = None, bend: Floats | None = None) -> list[Panel]:
    """Image, gradient and Laplacian: those of the pixels where none are given."""
    slopes = sobel(image) if gradient is None else gradient
    bend = laplacian(image) if bend is None else bend
    return [(name, image), ("gradient", strength(slopes)), ("Laplacian", signed(bend))]


def directions(derivative: Floats) -> Floats:
    """(h, w, 3) gradients (h, w, c, 2) of the strongest channel: hue is direction, brightness length."""
    from skimage.color import hsv2rgb

    strongest = (derivative**2).sum(axis=3).argmax(axis=2)
    picked = np.take_along_axis(derivative, strongest[..., None, None], axis=2)[:, :, 0]
    hue = np.arctan2(picked[..., 1], picked[..., 0]) / (2 * np.pi) % 1
    return hsv2rgb(np.stack([hue, np.ones_like(hue), strength(derivative)], axis=-1))


def signed(values: Floats) -> Floats:
    """(h, w, c) signed values as grey: 0 in the middle, black and white at the 99th percentile of their size.

    Those of an alpha channel are left out.
    """
    values = opaque(values)
    return (0.5 + 0.5 * values / max(float(np.quantile(np.abs(values), 0.99)), 1e-12)).clip(0, 1)


def _figure(columns: float, rows: float, shape: tuple[int, ...]) -> Any:
    from matplotlib.figure import Figure

    width = 3.2
    return Figure((width * columns, (width * min(shape[0] / shape[1], 4) + 0.3) * rows), layout="constrained")
