import pytest
import torch

from sdfrecon.geometry import InputError
from sdfrecon.sampling import PATCH, Box, Patches, Pool, Raster, moved, uniform_points


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_same_seed_draws_the_same_bytes() -> None:
    pool = Pool(torch.rand(50, 3), {}, 20)
    for domain in (pool, Box(3, 20)):
        assert torch.equal(domain.sample(generator(3))[0], domain.sample(generator(3))[0])
        assert not torch.equal(domain.sample(generator(3))[0], domain.sample(generator(4))[0])


def test_a_pool_keeps_points_and_attributes_together() -> None:
    points = torch.rand(30, 2)
    drawn, known = Pool(points, {"double": 2 * points, "sum": points.sum(1)}, 20).sample(generator())
    assert drawn.shape == (20, 2)
    assert torch.equal(known["double"], 2 * drawn)
    assert torch.equal(known["sum"], drawn.sum(1))


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(InputError, match="there is nothing to draw from"):
        Pool(torch.zeros(0, 2), {}, 5)


def test_a_pool_of_which_all_is_wanted_gives_its_table() -> None:
    points = torch.rand(30, 2)
    drawn, known = Pool(points, {"double": 2 * points}, 100).sample(generator())
    assert torch.equal(drawn, points)
    assert torch.equal(known["double"], 2 * points)


def test_patches_are_small_are_drawn_from_all_parts_and_reach_every_row() -> None:
    points = torch.rand(10 * PATCH + 57, 2, generator=generator()) * 2 - 1
    patches, seen = Patches.of(points, {"double": 2 * points}, 3 * PATCH), set()
    for seed in range(60):
        drawn, known = patches.sample(generator(seed))
        assert torch.equal(known["double"], 2 * drawn)
        assert drawn.shape == (3 * PATCH, 2)
        for patch in drawn.view(3, PATCH, 2):
            # A tenth of the square; along the curve it may lie in two parts.
            assert patch.std(0).prod() < 0.5 * points.std(0).prod()
        seen |= {tuple(point) for point in drawn.tolist()}
    assert seen == {tuple(point) for point in points.tolist()}


def test_a_raster_is_interpolated_between_pixel_centres_and_exact_for_squares() -> None:
    y, x = torch.meshgrid(torch.arange(6) + 0.5, torch.arange(9) + 0.5, indexing="ij")
    picture = torch.stack([x, (x - 4) ** 2 - x * y + y**2], dim=-1)
    corners = torch.tensor([[-0.9, -0.6], [0.9, 0.6]])
    places, known = Raster(picture, corners, 20_000).sample(generator())
    x, y = ((places - corners[0]) * 5).T
    assert 0 <= x.min() < 0.01
    assert 0 <= y.min() < 0.01
    assert 8.99 < x.max() <= 9
    assert 5.99 < y.max() <= 6
    inner = (x > 1.5) & (x < 7.5) & (y > 1.5) & (y < 4.5)  # where all sixteen pixels around are the picture's own
    expected = torch.stack([x, (x - 4) ** 2 - x * y + y**2], dim=-1)
    torch.testing.assert_close(known["value"][inner], expected[inner], atol=1e-4, rtol=0)


def test_uniform_points_fill_the_box_evenly() -> None:
    points = uniform_points(100_000, 3, generator())
    assert points.abs().max() <= 1
    assert points.mean(0).abs().max() < 0.01
    assert points.var(0).tolist() == pytest.approx([1 / 3] * 3, rel=0.01)


def test_moved_points_spread_as_told_and_stay_in_the_box() -> None:
    points = torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]]).repeat(50_000, 1)
    drawn = moved(points, torch.tensor([0.01, 0.1]).repeat(50_000), generator())
    assert drawn[::2].std(0).tolist() == pytest.approx([0.01] * 3, rel=0.03)
    assert drawn[1::2].std(0).tolist() == pytest.approx([0.1] * 3, rel=0.03)
    assert moved(points, torch.full((100_000,), 9.0), generator()).abs().max() <= 1
