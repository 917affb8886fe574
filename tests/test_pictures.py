import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms
from skimage.io import imsave

from sdfrecon import memory, pictures
from sdfrecon.geometry import InputError

COLOURS = np.random.default_rng(0).random((6, 8, 4))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_is_read_as_it_was_written(tmp_path: Path, channels: int) -> None:
    pictures.write_image(tmp_path / "a.png", COLOURS[..., :channels])
    back = pictures.read_image(tmp_path / "a.png")
    assert back.shape == (6, 8, channels)
    np.testing.assert_allclose(back, COLOURS[..., :channels], atol=0.5 / 255 + 1e-9)


def test_a_jpeg_has_no_transparency(tmp_path: Path) -> None:
    for channels, there in ((4, 3), (2, 1)):
        pictures.write_image(tmp_path / "a.jpg", COLOURS[..., :channels])
        assert pictures.read_image(tmp_path / "a.jpg").shape == (6, 8, there)


def test_what_is_too_wide_for_a_jpeg_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at most 65,500 pixels wide and high, and .*a.jpg would be more: write .png"):
        pictures.write_image(tmp_path / "a.jpg", np.zeros((3, 70_000), np.uint8))
    assert not list(tmp_path.iterdir())


def test_colours_that_do_not_fit_into_memory_are_refused_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: memory.held() + 1000.0)
    for name in ("a.png", "a.tif"):
        pictures.write_image(tmp_path / name, COLOURS[..., :3])
        with pytest.raises(InputError, match="colours of .* need about 0.0 GB of memory, .*: shrink it first"):
            pictures.read_image(tmp_path / name)


def test_a_picture_needs_the_memory_of_its_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed: list[float] = []
    monkeypatch.setattr(pictures, "check_free", lambda what, size, way: needed.append(size))
    for channels in range(1, 5):
        pictures.write_image(tmp_path / "a.png", COLOURS[..., :channels])
        pictures.read_image(tmp_path / "a.png")
    assert needed == [24 * 6 * 8 * channels for channels in range(1, 5)]


def test_sixteen_bits_and_floats_keep_their_digits(tmp_path: Path) -> None:
    deep = (65535 * COLOURS[..., 0]).astype(np.uint16)
    imsave(tmp_path / "deep.png", deep, check_contrast=False)
    np.testing.assert_allclose(pictures.read_image(tmp_path / "deep.png")[..., 0], deep / 65535)
    imsave(tmp_path / "float.tif", COLOURS[..., 0], check_contrast=False)
    np.testing.assert_allclose(pictures.read_image(tmp_path / "float.tif")[..., 0], COLOURS[..., 0])


@pytest.mark.parametrize("layout", [{"planarconfig": "separate"}, {"tile": (16, 16)}, {"rowsperstrip": 5}])
def test_a_tiff_is_read_however_its_pixels_lie(tmp_path: Path, layout: dict[str, Any]) -> None:
    stored = (255 * COLOURS[..., :3]).astype(np.uint8)
    planes = np.moveaxis(stored, -1, 0) if "planarconfig" in layout else stored
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", **layout)
    np.testing.assert_allclose(pictures.read_image(tmp_path / "a.tif"), stored / 255)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_tiff_is_read_as_it_was_written(tmp_path: Path, channels: int) -> None:
    pictures.write_image(tmp_path / "a.tif", COLOURS[..., :channels])
    np.testing.assert_allclose(pictures.read_image(tmp_path / "a.tif"), COLOURS[..., :channels], atol=0.51 / 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_upright_however_it_is_compressed(tmp_path: Path, orientation: int) -> None:
    stored = (255 * COLOURS[..., :3]).astype(np.uint8)
    for name, compression in (("a.tif", "raw"), ("b.tif", "tiff_lzw")):
        Image.fromarray(stored).save(tmp_path / name, compression=compression, tiffinfo={274: orientation})
    plain, packed = (pictures.read_image(tmp_path / name) for name in ("a.tif", "b.tif"))
    assert plain.shape[:2] == ((8, 6) if orientation > 4 else (6, 8))
    np.testing.assert_array_equal(plain, packed)


def test_colours_that_alpha_multiplied_are_read_as_they_were(tmp_path: Path) -> None:
    alpha = np.where(COLOURS[..., 3:] > 0.3, COLOURS[..., 3:], 0)
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([COLOURS[..., :3] * alpha, alpha]).astype(np.float32),
                     photometric="rgb", extrasamples=["assocalpha"])  # fmt: skip
    seen = alpha[..., 0] > 0
    np.testing.assert_allclose(pictures.read_image(tmp_path / "a.tif")[seen, :3], COLOURS[seen, :3], atol=1e-6)


def test_a_still_gif_is_a_picture_and_a_raw_file_and_too_many_pixels_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (8, 6), (255, 0, 0)).save(tmp_path / "a.gif")
    assert pictures.read_image(tmp_path / "a.gif").shape == (6, 8, 3)
    Image.new("L", (8, 6), 128).save(tmp_path / "grey.gif")
    assert pictures.read_image(tmp_path / "grey.gif").shape[:2] == (6, 8)
    Image.new("RGB", (8, 6)).save(tmp_path / "a.tif")
    (tmp_path / "a.tif").rename(tmp_path / "a.nef")
    with pytest.raises(InputError, match="is a TIFF by another name, as cameras' raw files are"):
        pictures.read_image(tmp_path / "a.nef")
    Image.new("RGB", (80, 60)).save(tmp_path / "large.png")
    Image.new("RGB", (80, 60)).save(tmp_path / "large.tif", compression="tiff_lzw")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    assert pictures.read_image(tmp_path / "large.png").shape == (60, 80, 3)
    assert pictures.read_image(tmp_path / "large.tif").shape == (60, 80, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match=r"large\.png has more than 2,000 pixels: shrink it first"):
        pictures.read_image(tmp_path / "large.png")


def test_a_photograph_is_read_as_it_is_shown(tmp_path: Path) -> None:
    photo = Image.new("RGB", (8, 6), (255, 0, 0))
    turned = photo.getexif()
    turned[274] = 6  # EXIF's Orientation: to be turned by a quarter
    photo.save(tmp_path / "turned.jpg", exif=turned)
    assert pictures.read_image(tmp_path / "turned.jpg").shape == (8, 6, 3)
    photo.convert("CMYK").save(tmp_path / "inks.jpg")
    np.testing.assert_allclose(pictures.read_image(tmp_path / "inks.jpg")[0, 0], [1, 0, 0], atol=0.02)


def test_a_palette_is_turned_and_mirrored_too(tmp_path: Path) -> None:
    stored = np.zeros((6, 8, 3), np.uint8)
    stored[0, 0], stored[5, 0] = (255, 0, 0), (0, 0, 255)
    picture = Image.fromarray(stored).quantize(4)
    about = picture.getexif()
    for orientation in range(1, 9):
        about[274] = orientation
        picture.save(tmp_path / "a.png", exif=about)
        read = pictures.read_image(tmp_path / "a.png")
        np.testing.assert_array_equal(read, pictures._upright(stored, orientation) / 255)


def test_damaged_exif_leaves_the_pixels_whole(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), (255, 0, 0)).save(tmp_path / "a.jpg", exif=b"Exif\0\0no TIFF", dpi=(72, 72))
    np.testing.assert_allclose(pictures.read_image(tmp_path / "a.jpg")[0, 0], [1, 0, 0], atol=0.02)


def test_of_several_pictures_one_is_asked_for(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
    for name in ("a.gif", "a.png", "a.webp"):
        first.save(tmp_path / name, save_all=True, append_images=[second])
        with pytest.raises(InputError, match="must be one picture; it holds 2: save one of them"):
            pictures.read_image(tmp_path / name)
    first.save(tmp_path / "still.gif")
    (tmp_path / "still.gif").rename(tmp_path / "still.png")
    assert pictures.read_image(tmp_path / "still.png").shape == (6, 8, 3)


def test_a_fourth_channel_that_is_no_alpha_is_left_out(tmp_path: Path) -> None:
    stored = (255 * COLOURS).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["unspecified"])
    tifffile.imwrite(tmp_path / "bands.tif", stored, photometric="minisblack", planarconfig="contig")
    tifffile.imwrite(tmp_path / "three.tif", stored[..., :3], photometric="minisblack", planarconfig="contig")
    for name in ("a.tif", "bands.tif", "three.tif"):
        np.testing.assert_allclose(pictures.read_image(tmp_path / name), stored[..., :3] / 255)
    bands = np.dstack([stored, stored[..., :1]])
    tifffile.imwrite(tmp_path / "five.tif", bands, photometric="minisblack", planarconfig="contig")
    with pytest.raises(InputError, match=r"must be one picture, grey or in colour; got an array of shape \(6, 8, 5\)"):
        pictures.read_image(tmp_path / "five.tif")


def test_light_beyond_white_is_no_colour_with_alpha_either(tmp_path: Path) -> None:
    bright = np.dstack([10 * COLOURS[..., :3], np.ones((6, 8))]).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", bright, photometric="rgb", extrasamples=["assocalpha"])
    with pytest.raises(InputError, match="scale it to colours from 0 to 1"):
        pictures.read_image(tmp_path / "a.tif")


def test_sixteen_bits_of_grey_with_alpha_stay_grey(tmp_path: Path) -> None:
    pixel = struct.pack(">HH", 0x8000, 0x4000)
    write_png(tmp_path / "a.png", struct.pack(">IIBBBBB", 8, 6, 16, 4, 0, 0, 0), {}, 6 * (b"\0" + 8 * pixel))
    np.testing.assert_array_equal(pictures.read_image(tmp_path / "a.png"), np.full((6, 8, 2), [0x80, 0x40]) / 255)


def test_what_tifffile_warns_of_is_its_users_to_hear(tmp_path: Path) -> None:
    pictures.write_image(tmp_path / "a.tif", COLOURS)
    pictures.read_image(tmp_path / "a.tif")
    assert not logging.getLogger("tifffile").disabled


def test_inks_are_seen_as_their_profile_says(tmp_path: Path) -> None:
    even, tones = bytes(range(256)), bytes([128, 128, 128, 0, 128, 128])  # of Lab, without black ink and with it
    table = struct.pack(">4s4x4B9i", b"mft1", 4, 3, 2, 0, *(1 << 16 if i % 4 == 0 else 0 for i in range(9)))
    table += 4 * even + 8 * tones + 3 * even
    size = 128 + 4 + 12 + len(table)
    header = struct.pack(
        ">I4xI4s4s4s12x4s28x3I", size, 2 << 24, b"prtr", b"CMYK", b"Lab ", b"acsp", 63190, 65536, 54061
    )
    profile = header.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table
    Image.new("RGB", (8, 6), (255, 0, 0)).convert("CMYK").save(tmp_path / "a.jpg", icc_profile=profile)
    np.testing.assert_allclose(pictures.read_image(tmp_path / "a.jpg"), 119 / 255 * np.ones((6, 8, 3)), atol=0.02)


def test_compressed_tiffs_are_read_as_plain_ones_or_refused(tmp_path: Path) -> None:
    grey = Image.new("L", (8, 6), 100)

    def saved(picture: Image.Image, name: str, tag: int, value: int) -> None:
        picture.save(tmp_path / name, compression="tiff_lzw", tiffinfo={339: 1})
        with tifffile.TiffFile(tmp_path / name, mode="r+b") as file:
            page: Any = file.pages[0]
            page.tags[tag].overwrite(value)

    saved(Image.merge("LA", [grey, Image.new("L", (8, 6), 200)]), "a.tif", 338, 1)  # ExtraSamples: multiplied
    np.testing.assert_allclose(pictures.read_image(tmp_path / "a.tif")[0, 0], [0.5, 200 / 255], atol=1 / 255)
    for name, tag, value in (("depth.tif", 258, 12), ("signed.tif", 339, 2)):  # BitsPerSample, SampleFormat
        saved(grey, name, tag, value)
        with pytest.raises(
            InputError, match="a TIFF of a rare kind: save it uncompressed with 8 or 16 bits, or as PNG"
        ):
            pictures.read_image(tmp_path / name)


def test_whole_tiffs_of_rare_kinds_are_not_called_damaged(tmp_path: Path) -> None:
    for name, tag, value in (("depth.tif", 258, 4), ("zstd.tif", 259, 50000)):  # BitsPerSample, Compression
        tifffile.imwrite(tmp_path / name, np.zeros((6, 8), np.uint8))
        with tifffile.TiffFile(tmp_path / name, mode="r+b") as file:
            page: Any = file.pages[0]
            page.tags[tag].overwrite(value)
        with pytest.raises(InputError, match=f"{name} is a TIFF of a rare kind: save it uncompressed"):
            pictures.read_image(tmp_path / name)


def write_png(path: Path, header: bytes, more: dict[bytes, bytes], rows: bytes) -> None:
    """A PNG of an IHDR, further chunks, and rows each after the number of its filter."""
    chunks = {b"IHDR": header, **more, b"IDAT": zlib.compress(rows), b"IEND": b""}
    framed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks.items()]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


def test_a_picture_with_one_transparent_colour_has_an_alpha(tmp_path: Path) -> None:
    picture = Image.new("P", (8, 6), 1)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.putpixel((2, 3), 0)
    picture.save(tmp_path / "a.png", transparency=0)
    read = pictures.read_image(tmp_path / "a.png")
    assert read.shape == (6, 8, 4)
    assert (read[..., 3] == 0).sum() == 1
    assert read[3, 2, 3] == 0


@pytest.mark.parametrize(("channels", "bits"), [(1, 16), (3, 16), (1, 2), (1, 4)])
def test_a_transparent_colour_that_is_not_of_bytes_is_refused(tmp_path: Path, channels: int, bits: int) -> None:
    size = struct.pack(">IIBBBBB", 8, 6, bits, 0 if channels == 1 else 2, 0, 0, 0)
    black = {b"tRNS": bytes(2 * channels)}
    write_png(tmp_path / "a.png", size, black, 6 * bytes(1 + bits * channels))
    with pytest.raises(InputError, match=f"a transparent colour of {bits} bits: save it with an alpha channel"):
        pictures.read_image(tmp_path / "a.png")


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg"])
def test_a_compressed_tiff_is_read(tmp_path: Path, compression: str) -> None:
    stored = np.tile(np.arange(0, 256, 4, dtype=np.uint8)[:, None, None], (1, 64, 3))
    Image.fromarray(stored).save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_allclose(pictures.read_image(tmp_path / "a.tif"), stored / 255, atol=0.03)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.linspace(0, 10, 48, dtype=np.float32).reshape(6, 8), "holds 0 to 10: scale it to colours from 0 to 1"),
        (np.arange(48, dtype=np.int32).reshape(6, 8), "holds int32 numbers: save it as bytes, as 16 bits or as floats"),
    ],
)
def test_numbers_that_are_no_colours_are_refused(tmp_path: Path, stored: NDArray, message: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stored)
    with pytest.raises(InputError, match=message):
        pictures.read_image(tmp_path / "a.tif")


def test_a_tiff_of_other_than_light_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((6, 8), np.uint8), photometric="miniswhite")
    with pytest.raises(InputError, match="holds MINISWHITE colours: save it in grey or RGB"):
        pictures.read_image(tmp_path / "a.tif")


def test_samples_come_along() -> None:
    assert pictures.read_image("camera").shape == (512, 512, 1)
    assert pictures.read_image("astronaut").shape == (512, 512, 3)


def test_what_is_no_picture_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    imsave(tmp_path / "line.png", np.zeros((1, 9), np.uint8), check_contrast=False)
    imsave(tmp_path / "nan.tif", np.full((5, 5), np.nan), check_contrast=False)
    for name, words in (
        ("empty.png", "is empty"),
        ("text.png", "is no picture of a known kind"),
        ("line.png", "at least 3 x 3 pixels; got 9 x 1"),
        ("nan.tif", "holds colours that are not finite"),
        ("missing.png", "no such file"),
        (".", "got the directory"),
    ):
        with pytest.raises(InputError, match=words):
            pictures.read_image(tmp_path / name)
    with pytest.raises(InputError, match="unknown ending"):
        pictures.write_image(tmp_path / "a.xyz", COLOURS)


def test_derivatives_are_shown_by_length_direction_and_sign() -> None:
    gradient = np.zeros((2, 2, 1, 2))
    gradient[0, 0, 0], gradient[0, 1, 0], gradient[1, 0, 0] = (2, 0), (-2, 0), (0, 1)
    strength = pictures.strength(gradient)
    assert strength[0, 0] == strength[0, 1] > strength[1, 0] > strength[1, 1] == 0
    hues = pictures.directions(gradient)
    np.testing.assert_allclose(hues[0, 0], [1, 0, 0])
    np.testing.assert_allclose(hues[0, 1], [0, 1, 1], atol=1e-9)
    np.testing.assert_allclose(pictures.signed(np.array([[[-1.0], [0.0], [1.0]]]))[0, :, 0], [0, 0.5, 1])
    assert pictures.signed(COLOURS).shape == (6, 8, 3)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_colours_are_those_that_the_profile_says(tmp_path: Path, ending: str) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    turned = srgb.replace(b"rXYZ", b"tmp ").replace(b"gXYZ", b"rXYZ").replace(b"tmp ", b"gXYZ")  # red is green there
    red, path = Image.new("RGB", (8, 8), (255, 0, 0)), tmp_path / f"a.{ending}"
    for profile, seen in ((srgb, 0), (turned, 1), (turned[:300], 0), (b"none", 0)):
        red.save(path, icc_profile=profile, quality=95)
        np.testing.assert_allclose(pictures.read_image(path), np.tile(np.eye(3)[seen], (8, 8, 1)), atol=0.02)


def test_figures_are_written_whole(tmp_path: Path) -> None:
    kinds = {str(c): COLOURS[..., :c] for c in (1, 2, 3, 4)} | {"flat": COLOURS[..., 0]}
    pictures.write_panels(tmp_path / "f.png", [list(kinds.items())])
    pictures.write_curves(tmp_path / "c.png", {"a": ([1, 2], [3, 4])}, "steps", "dB")
    assert pictures.read_image(tmp_path / "f.png").std() > 0.1
    pictures.write_panels(tmp_path / "f.png", [[("narrow", np.zeros((9000, 3)))]])
    assert pictures.read_image(tmp_path / "f.png").shape[0] < 2000
    assert pictures.read_image(tmp_path / "c.png").std() > 0.01
    assert len(list(tmp_path.iterdir())) == 2


def test_a_tiff_that_promises_more_than_it_holds_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    pictures.write_image(path, np.zeros((12, 9, 3)))
    with tifffile.TiffFile(path, mode="r+b") as file:
        page: Any = file.pages[0]
        page.tags["ImageLength"].overwrite(1 << 26)
    with pytest.raises(InputError, match="fewer pixels than it promises"):
        pictures.read_image(path)


def test_a_tiff_without_data_is_refused_at_once(tmp_path: Path) -> None:
    pictures.write_image(tmp_path / "image.tif", np.zeros((12, 9)))
    whole = (tmp_path / "image.tif").read_bytes()
    (tmp_path / "image.tif").write_bytes(whole.replace(b"\x11\x01", b"\x12\xee"))  # the tag of the strips' places
    with pytest.raises(InputError, match="holds no pixels: the file is damaged"):
        pictures.read_image(tmp_path / "image.tif")
