import numpy as np
import pytest

from sdfrecon import images
from sdfrecon.geometry import Floats, InputError
from sdfrecon.images import differences, divergence, gradients, minus_divergence

NOISE = np.random.default_rng(0).random((7, 9, 3))


def wave(height: int, width: int, frequency: float) -> np.ndarray:
    x, y = np.moveaxis(images.pixel_centers(height, width).reshape(height, width, 2), 2, 0)
    return np.sin(frequency * x + 0.5 * frequency * y)[..., None]


def test_pixel_centers_are_half_a_pixel_from_the_border_row_after_row() -> None:
    assert images.pixel_centers(2, 3).tolist() == [
        [0.5, 0.5],
        [1.5, 0.5],
        [2.5, 0.5],
        [0.5, 1.5],
        [1.5, 1.5],
        [2.5, 1.5],
    ]
    assert images.pixel_centers(1, 2, (10, 20, 14, 30)).tolist() == [[11, 25], [13, 25]]


def test_neighbours_of_a_linear_image_differ_by_its_slope() -> None:
    slope = np.array([[0.3, -0.2], [1.0, 2.0]])  # of two channels, to the right and down
    across, down = differences((images.pixel_centers(4, 5) @ slope.T + 7).reshape(4, 5, 2))
    np.testing.assert_allclose(across, np.broadcast_to(slope[:, 0], (4, 4, 2)))
    np.testing.assert_allclose(down, np.broadcast_to(slope[:, 1], (3, 5, 2)))


def test_derivatives_of_cosines_are_exact_and_those_of_a_divergence_add_up() -> None:
    frequency = np.pi * np.array([[0, 8 / 9], [5 / 6, 0], [3 / 6, 4 / 9]])[:, ::-1]

    def derivatives(places: Floats) -> tuple[Floats, Floats, Floats]:
        wave = np.cos(places[:, None] * frequency)
        value = wave.prod(-1)
        slope = -frequency * np.sin(places[:, None] * frequency) * wave[..., ::-1]
        return value, slope, -value * np.square(frequency).sum(-1)

    value, _, bend = derivatives(images.pixel_centers(6, 9))
    between = differences(value.reshape(6, 9, 3))
    places, slopes = gradients(between)
    np.testing.assert_allclose(places[[0, 1, 8]], [[1, 1], [2, 1], [1, 2]])
    np.testing.assert_allclose(slopes, derivatives(places)[1], atol=1e-12)
    np.testing.assert_allclose(divergence(between).reshape(-1, 3), bend, atol=1e-12)


@pytest.mark.parametrize("what", ["laplacian", "sobel"])
def test_filters_approach_the_derivative_to_second_order(what: str) -> None:
    def error(frequency: float) -> float:
        image, phase = wave(40, 40, frequency), np.array([frequency, frequency / 2])
        inside = images.pixel_centers(40, 40).reshape(40, 40, 2)[1:-1, 1:-1]
        if what == "laplacian":
            truth = -np.sin(inside @ phase) * (phase @ phase)
            return float(np.abs(images.laplacian(image)[..., 0] - truth).max()) / frequency**2
        truth = np.cos(inside @ phase)[..., None] * phase
        return float(np.abs(images.sobel(image)[1:-1, 1:-1, 0] - truth).max()) / frequency

    assert error(0.2) / error(0.1) == pytest.approx(4, rel=0.1)


def test_an_image_is_rebuilt_from_its_slopes_but_for_the_mean() -> None:
    flow = minus_divergence(differences(NOISE))
    np.testing.assert_allclose(images.solve_free(flow), NOISE - NOISE.mean(axis=(0, 1)), atol=1e-12)
    np.testing.assert_allclose(-flow[1:-1, 1:-1], images.laplacian(NOISE), atol=1e-12)


def test_an_image_is_rebuilt_from_its_laplacian_and_what_is_known() -> None:
    unknown = np.random.default_rng(1).random((7, 9)) < 0.6
    flow = minus_divergence(differences(NOISE))
    known = np.where(unknown[..., None], 99, NOISE)
    np.testing.assert_allclose(images.solve_held(flow, known, unknown), NOISE, atol=1e-12)
    assert known[unknown].min() == 99, "what is given is not written into"
    with pytest.raises(InputError, match="some pixels must be known"):
        images.solve_held(flow, known, np.ones((7, 9), bool))


def test_the_border_is_the_first_and_last_row_and_column() -> None:
    assert images.border(4, 5).sum() == 20 - 6
    assert not images.border(4, 5)[1:3, 1:4].any()


def test_psnr_and_alignment() -> None:
    assert images.psnr(NOISE, NOISE + 0.1) == pytest.approx(20)
    assert images.psnr(NOISE, NOISE) == np.inf
    np.testing.assert_allclose(images.align(3 * NOISE - 5, NOISE), NOISE)
    assert np.isfinite(images.align(np.ones((2, 2, 1)), np.zeros((2, 2, 1)))).all()
