import math

import pytest
import torch
from torch import Tensor

from sdfrecon import constraints as c
from sdfrecon.constraints import Constraint
from sdfrecon.jet import Jet


def ball(points: Tensor, sign: float = 1.0, stretch: float = 1.0) -> Jet:
    """The exact distance to a sphere of radius 0.5, or its negative, or a multiple."""
    r = points.norm(dim=-1, keepdim=True)
    factor = sign * stretch
    return Jet(factor * (r - 0.5), lambda: factor * (points / r)[:, None], lambda: factor * 2 / r)


SOMEWHERE = torch.rand(100, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
ON_IT = torch.nn.functional.normalize(SOMEWHERE, dim=-1) / 2
TRUTH = {
    "normals": 2 * ON_IT,
    "sign": (SOMEWHERE.norm(dim=-1) - 0.5).sign(),
    "reach": (SOMEWHERE.norm(dim=-1) - 0.5).abs() + 1e-6,
}


def test_an_exact_distance_meets_every_constraint() -> None:
    for residual, points in (
        (c.zero_level, ON_IT),
        (c.normal_alignment, ON_IT),
        (c.eikonal, SOMEWHERE),
        (c.right_sign, SOMEWHERE),
        (c.within_reach, SOMEWHERE),
    ):
        assert residual(TRUTH, ball(points)).abs().max() < 1e-6, residual.__name__


def test_each_constraint_measures_what_it_names() -> None:
    inside_out, steep = ball(SOMEWHERE, sign=-1.0), ball(SOMEWHERE, stretch=3.0)
    torch.testing.assert_close(c.right_sign(TRUTH, inside_out), inside_out.value[:, 0].abs())
    torch.testing.assert_close(c.eikonal(TRUTH, steep), torch.full((100,), 2.0))
    torch.testing.assert_close(c.within_reach(TRUTH, steep), steep.value[:, 0].abs() - TRUTH["reach"])
    torch.testing.assert_close(c.normal_alignment(TRUTH, ball(ON_IT, sign=-1.0)), torch.full((100,), 2.0))
    torch.testing.assert_close(c.zero_level({}, steep), steep.value[:, 0].abs())


def test_the_far_distance_is_the_one_to_the_nearest_sample_and_only_there() -> None:
    beyond = c.far_distance(0.2)
    far = TRUTH["reach"] > 0.2
    wrong = beyond(TRUTH, ball(SOMEWHERE, stretch=3.0))
    assert beyond(TRUTH, ball(SOMEWHERE)).max() < 1e-5
    torch.testing.assert_close(wrong[far], (2 * TRUTH["reach"][far]) ** 2)
    assert (wrong[~far] == 0).all()
    assert (beyond(TRUTH | {"sign": torch.zeros_like(TRUTH["sign"])}, ball(SOMEWHERE)) == 0).all()


def test_far_from_the_surface_the_soft_terms_vanish() -> None:
    far = ball(torch.tensor([[3.0, 0, 0]]))
    near = ball(torch.tensor([[0.5, 0, 0]]))
    assert c.off_surface(100.0)({}, far).item() < 1e-9
    assert c.off_surface(100.0)({}, near).item() == 1
    unsure = {"sign": torch.zeros(1)}
    assert c.heat(15.0)(unsure, far).item() < 1e-9
    assert c.heat(15.0)(unsure, near).item() == 1  # half of |grad f|^2 + 1
    beside = ball(torch.tensor([[0.51, 0, 0]]), stretch=3.0)
    assert c.heat(15.0)(unsure, beside).item() == pytest.approx(0.5 * math.exp(-2 * 15 * 0.03) * (9 + 1), rel=1e-5)


@pytest.mark.parametrize(("sign", "pushes"), [(1.0, False), (0.0, True), (-1.0, True)])
def test_heat_does_not_hold_a_value_on_the_wrong_side(sign: float, pushes: bool) -> None:
    value = torch.full((1, 1), -0.01, requires_grad=True)
    jet = Jet(value, lambda: torch.ones(1, 1, 3))
    c.heat(15.0)({"sign": torch.tensor([sign])}, jet).sum().backward()
    assert (value.grad.item() > 0) is pushes


def test_a_gradient_of_zero_has_a_finite_slope() -> None:
    gradient = torch.zeros(1, 1, 3, requires_grad=True)
    jet = Jet(torch.zeros(1, 1), lambda: gradient)
    c.eikonal({}, jet).sum().backward()
    assert gradient.grad.isfinite().all()


def test_weights_go_from_the_first_to_the_last_by_equal_factors() -> None:
    fixed, ramp = Constraint("a", "b", 5.0, c.zero_level), Constraint("a", "b", 10.0, c.zero_level, 1000.0)
    begin, end = c.RAMP
    assert {fixed.weight_at(p) for p in (0.0, 0.5, 1.0)} == {5.0}
    assert ramp.weight_at(0.0) == ramp.weight_at(begin) == 10
    assert ramp.weight_at((begin + end) / 2) == pytest.approx(100)
    assert ramp.weight_at(end) == ramp.weight_at(1.0) == pytest.approx(1000)


def test_a_laplacians_error_counts_as_the_error_in_the_value_that_it_makes() -> None:
    y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(11.0), torch.arange(17.0), indexing="ij"))
    off = torch.stack([torch.rand(11, 17, generator=torch.Generator().manual_seed(c)) for c in (0, 1)])
    around = torch.nn.functional.pad(off, (1, 1, 1, 1))
    five_point = around[:, :-2, 1:-1] + around[:, 2:, 1:-1] + around[:, 1:-1, :-2] + around[:, 1:-1, 2:] - 4 * off
    jet = Jet(off.flatten(1).T, lambda: off.new_zeros(0), lambda: 1.0 + five_point.flatten(1).T / 0.1**2)
    residual = c.match_laplacian(torch.stack([y, x], dim=-1).long() + 3, 0.1)
    measured = residual({"laplacian": torch.ones(11 * 17, 2)}, jet)
    torch.testing.assert_close(measured, off.square().mean(0).flatten(), atol=1e-4, rtol=1e-4)


def test_a_guiding_gradient_counts_by_the_value_that_it_can_have() -> None:
    inside = torch.zeros(5, 9, dtype=torch.bool)
    inside[:, 2:7] = True  # from the grid's upper border to its lower one
    corners = c.corners_of(inside)
    assert corners.sum() == 4 * 6

    def measured(field: Tensor) -> Tensor:
        slopes = field[corners][:, None]
        residual = c.match_divergence(inside, 0.1)
        return residual({"gradient": torch.zeros_like(slopes)}, Jet(slopes, lambda: slopes))

    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(8.0), indexing="ij")
    across = torch.stack([x.square(), torch.zeros_like(x)], dim=-1)
    second = 2 * torch.eye(5) - torch.diag(torch.ones(4), 1) - torch.diag(torch.ones(4), -1)
    five_point = -(torch.kron(second, torch.eye(5)) + torch.kron(torch.eye(5), second)) / 0.1**2
    differences = (across[0, 2:7, 0] - across[0, 1:6, 0]) / 0.1
    expected = torch.linalg.solve(five_point, differences.repeat(5)).square()
    torch.testing.assert_close(measured(across), expected, atol=1e-6, rtol=1e-4)
    inside[[0, -1]] = False
    corners = c.corners_of(inside)
    turning = torch.stack([-y, x], dim=-1)
    assert measured(turning).max() < 1e-9, "what turns without divergence is no value's"


def test_means_over_patches_show_what_is_broad() -> None:
    fine, broad = torch.tensor([1.0, -1, 1, -1]).repeat(64)[:, None], torch.ones(256, 1)
    assert c.at_all_scales(fine) == 1
    assert c.at_all_scales(broad) == 1 + 2 + 4 + 8 + 16
    last = torch.zeros(5, 1)
    last[4] = 1
    assert c.at_all_scales(last) == pytest.approx(1 / 5 + 2 / 2), "none is left out"
