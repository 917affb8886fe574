from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data
from skimage.transform import resize

from sdfrecon.fit import FitConfig
from sdfrecon.geometry import Floats, InputError
from sdfrecon.images import differences, laplacian, psnr
from sdfrecon.imaging import (
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
from sdfrecon.siren import Siren, SirenConfig

CAT = resize(data.chelsea()[40:240, 80:330], (24, 30), anti_aliasing=True)
DOG = CAT[::-1, ::-1] ** 2
SMALL = ImageConfig(SirenConfig(64, 2, 15.0, 15.0), FitConfig(400, 3e-3, 3e-3), 2000)
HOLE = np.zeros((24, 30), bool)
HOLE[6:18, 8:20] = True


def test_an_image_is_fitted_and_its_colours_are_right(device: str) -> None:
    field = solve(CAT.shape, SMALL, device, **from_pixels(CAT))
    assert psnr(field.render(24, 30), CAT) > 40


def test_frequencies_keep_their_measure_in_pixels() -> None:
    small, large = fitted(256, 100), fitted(300, 512)
    assert large.siren.first_omega_0 / 512 == small.siren.first_omega_0 / 256
    assert large.fit.learning_rate < small.fit.learning_rate
    assert fitted(24, 30) == fitted(256, 256), "few pixels are no reason for a smaller network"


@pytest.mark.parametrize("border", [False, True])
@pytest.mark.parametrize("derivative", [from_gradient, from_laplacian])
def test_an_image_is_rebuilt_from_a_derivative_up_to_what_it_lost(
    derivative: Callable[[Floats], dict[str, Any]], border: bool, device: str
) -> None:
    known = derivative(CAT) | (from_border(CAT) if border else {})
    picture = solve(CAT.shape, SMALL, device, **known).render(24, 30)
    shifted = picture - (picture - CAT).mean(axis=(0, 1))
    if border:
        assert psnr(picture, CAT) > 25, "nothing is lost"
    elif derivative is from_gradient:
        assert psnr(shifted, CAT) > 30, "with exact factors only the mean is lost"
    else:
        error = picture - CAT
        assert laplacian(error).std() < 0.5 * laplacian(CAT).std(), "its Laplacian is nearly right"
        assert psnr(picture, CAT) < 20, "and a harmonic function is lost"


def test_a_target_put_into_itself_is_itself() -> None:
    task = Composition.of(CAT[3:20, 5:25], CAT, HOLE[3:20, 5:25], (5, 3), "import")
    np.testing.assert_array_equal(task.inside, HOLE)
    np.testing.assert_allclose(task.classical, CAT, atol=1e-12)
    np.testing.assert_allclose(task.averaged, CAT)


def test_a_shifted_colour_makes_no_seam_and_a_flat_source_yields_to_the_target() -> None:
    np.testing.assert_allclose(Composition.of(CAT + 0.3, CAT, HOLE, (0, 0), "import").classical, CAT, atol=1e-12)
    flat = np.ones_like(CAT)
    np.testing.assert_allclose(Composition.of(flat, CAT, HOLE, (0, 0), "mixed").classical, CAT, atol=1e-12)
    harmonic = Composition.of(flat, CAT, HOLE, (0, 0), "import").classical
    np.testing.assert_allclose(laplacian(harmonic)[HOLE[1:-1, 1:-1]], 0, atol=1e-12)


def test_the_mean_of_two_gradients_is_the_gradient_of_the_mean() -> None:
    task = Composition.of(DOG, CAT, None, (0, 0), "mean")
    np.testing.assert_allclose(task.classical, (CAT + DOG) / 2, atol=1e-12)
    assert "values" not in task.known


def test_mixed_takes_the_stronger_slope_at_every_edge() -> None:
    task = Composition.of(DOG, CAT, None, (0, 0), "mixed")
    for found, ours, theirs in zip(task.guidance, differences(DOG), differences(CAT), strict=True):
        stronger = np.square(ours).sum(axis=2) > np.square(theirs).sum(axis=2)
        np.testing.assert_allclose(found, np.where(stronger[..., None], ours, theirs), atol=1e-15)


def test_colours_hidden_under_a_transparent_part_decide_nothing() -> None:
    hidden, shown = np.where(HOLE[..., None], DOG, 0.0), HOLE
    tasks = [Composition.of(source, CAT, HOLE, (0, 0), "import", shown) for source in (hidden, DOG)]
    for one, other in zip(*(task.guidance for task in tasks), strict=True):
        np.testing.assert_array_equal(one, other)
    bright = np.where(HOLE[..., None], 0.6, 0.0) * np.ones(3)
    whole = Composition.of(bright, CAT, None, (0, 0), "mean", shown)
    np.testing.assert_array_equal(whole.averaged[~HOLE], CAT[~HOLE])
    pasted = Composition.of(bright, np.full_like(CAT, 0.5), HOLE, (0, 0), "import", shown).classical
    np.testing.assert_allclose(pasted, 0.5, atol=1e-9)
    with pytest.raises(InputError, match="a mask must be of truth values; got uint8: compare it, as in mask > 0.5"):
        Composition.of(DOG, CAT, 254 * HOLE.astype(np.uint8), (0, 0), "import")
    with pytest.raises(InputError, match="the mask must be of the source's size; they are 30 x 24 and 9 x 7"):
        Composition.of(DOG, CAT, np.ones((7, 9), bool), (0, 0), "import")


def test_a_source_may_overhang_but_not_miss_the_target() -> None:
    task = Composition.of(DOG, CAT, None, (-10, 20), "import")
    assert task.inside.sum() == 4 * 20
    np.testing.assert_array_equal(task.source[16:, :20], DOG[:4, 10:])
    whole = task.pasted(task.source, CAT)
    np.testing.assert_array_equal(whole[20:, :20], DOG[:4, 10:])
    np.testing.assert_array_equal(whole[:20], CAT[:20])
    for offset, mask in (((30, 0), None), ((0, -24), None), ((0, 0), np.zeros((24, 30), bool))):
        with pytest.raises(InputError, match="nothing of the source, 30 x 24, lies in the target, 30 x 24"):
            Composition.of(DOG, CAT, mask, offset, "import")
    with pytest.raises(InputError, match="nothing of the source"):
        Composition.of(DOG, CAT, HOLE, (0, 0), "import", shown=~HOLE)


def test_one_network_holds_the_target_and_takes_the_sources_slopes(device: str) -> None:
    task = Composition.of(DOG, CAT, HOLE, (0, 0), "import")
    result = task.composite(solve(CAT.shape, SMALL, device, **task.known).render(24, 30))
    np.testing.assert_array_equal(result[~HOLE], CAT[~HOLE])
    averaged, ours = (psnr(x[HOLE], task.classical[HOLE]) for x in (task.averaged, result))
    assert ours > max(25, averaged + 8)


def test_a_flat_source_lets_the_targets_colours_run_through_it() -> None:
    ramp = np.linspace(0.2, 0.8, 30)[None, :, None] * np.ones((24, 1, 3))
    task = Composition.of(np.full_like(ramp, 0.9), ramp, HOLE, (0, 0), "import")
    few = replace(SMALL, fit=replace(SMALL.fit, steps=100))
    result = task.composite(solve(ramp.shape, few, "cpu", **task.known).render(24, 30))
    np.testing.assert_allclose(result, ramp, atol=0.03)


@pytest.mark.parametrize("known", [from_pixels, from_gradient, from_laplacian, from_border])
@pytest.mark.parametrize("pixels", [np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 254.0)])
def test_bytes_are_no_colours(known: Callable[[Floats], object], pixels: NDArray) -> None:
    with pytest.raises(InputError, match="expected an image .* of .*: divide bytes by 255"):
        known(pixels)


@pytest.mark.parametrize("known", [from_gradient, from_laplacian])
@pytest.mark.parametrize("shape", [(2, 8, 1), (5, 1, 3)])
def test_what_has_no_laplacian_is_no_image(known: Callable[[Floats], object], shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="an image must be at least 3 x 3 pixels; got "):
        known(np.full(shape, 0.5))


def test_bytes_are_not_put_into_an_image() -> None:
    with pytest.raises(InputError, match="divide bytes by 255"):
        Composition.of((255 * DOG).astype(np.uint8), CAT, HOLE, (0, 0), "import")


def test_rivals_are_as_large() -> None:
    sizes = {name: Siren(2, 3, config).size for name, config in rivals(SirenConfig(128, 3), 3, 256).items()}
    assert max(sizes.values()) == sizes["SIREN"]
    assert min(sizes.values()) > 0.97 * sizes["SIREN"]
    for longest, octaves in ((256, 8), (300, 9), (512, 9)):
        encoding = rivals(SirenConfig(128, 3), 3, longest)["ReLU + encoding"].encoding
        assert encoding == octaves
        assert longest / 2 ** (encoding - 1) <= 2, "its finest wave is two pixels long"
