from pathlib import Path

import numpy as np
import pytest
import torch

from sdfrecon import fieldfiles
from sdfrecon.geometry import InputError
from sdfrecon.imagefield import ImageField
from sdfrecon.siren import Siren, SirenConfig

FIELD = ImageField(
    Siren(2, 3, SirenConfig(16, 1, 5.0, 5.0), torch.Generator().manual_seed(0)), 20, 30, {"made": "here"}
)
PLACES = np.random.default_rng(0).uniform(0, 20, (40, 2))


def test_derivatives_are_those_of_the_value_a_pixel() -> None:
    def errors(step: float) -> tuple[float, float]:
        ways = step * np.eye(2)
        ahead, behind = (np.stack([FIELD.value(PLACES + s * way) for way in ways], -1) for s in (1, -1))
        first = (ahead - behind) / (2 * step) - FIELD.gradient(PLACES)
        second = ((ahead + behind - 2 * FIELD.value(PLACES)[..., None]) / step**2).sum(-1) - FIELD.laplacian(PLACES)
        return float(np.abs(first).max()), float(np.abs(second).max())

    for coarse, fine in zip(errors(2.0), errors(1.0), strict=True):
        assert coarse / fine == pytest.approx(4, rel=0.1)


def test_a_toned_field_is_the_toned_picture() -> None:
    gain, offset = [0.5, 2.0, 1.0], [0.1, 0.0, -0.2]
    np.testing.assert_allclose(FIELD.toned(gain, offset).value(PLACES), FIELD.value(PLACES) * gain + offset, atol=1e-6)
    np.testing.assert_allclose(FIELD.toned(1, 0.25).value(PLACES), FIELD.value(PLACES) + 0.25, atol=1e-6)


def test_a_picture_of_a_part_is_a_part_of_the_picture() -> None:
    whole = FIELD.render(20, 30)
    assert whole.shape == (20, 30, 3)
    np.testing.assert_allclose(FIELD.render(5, 10, (3, 4, 13, 9)), whole[4:9, 3:13], atol=1e-5)
    np.testing.assert_array_equal(FIELD.render(5, 10, np.array([3, 4, 13, 9])), FIELD.render(5, 10, (3, 4, 13, 9)))
    twice = FIELD.render(40, 60)
    np.testing.assert_allclose(twice.reshape(20, 2, 30, 2, 3).mean(axis=(1, 3)), whole, atol=0.02)
    for region in ((3, 4, 3, 9), (-1, 0, 5, 5), (0, 0, 31, 5), (np.nan, 0, 5, 5)):
        with pytest.raises(InputError, match="the region must lie in the image, 0 0 30 20"):
            FIELD.render(5, 5, region)
    with pytest.raises(InputError, match=r"points must be \(n, 2\)"):
        FIELD.value(np.zeros((4, 3)))


def test_a_field_of_an_image_is_kept(tmp_path: Path) -> None:
    fieldfiles.save_field(tmp_path / "image.safetensors", FIELD)
    back = fieldfiles.load_field(tmp_path / "image.safetensors")
    assert isinstance(back, ImageField)
    assert (back.height, back.width, back.about) == (20, 30, {"made": "here"})
    np.testing.assert_array_equal(back.value(PLACES), FIELD.value(PLACES))
