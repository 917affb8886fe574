import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from sdfrecon.fit import FitConfig, draw, fit, residuals
from sdfrecon.geometry import PointCloud
from sdfrecon.jet import Jet
from sdfrecon.presets import NOISY_EIKONAL
from sdfrecon.problems import SURE, Problem, SurfaceConfig, paper_surface, sign_and_reach, surface, with_midpoints
from sdfrecon.sampling import Pool
from sdfrecon.shapes import evenly_spread
from sdfrecon.siren import Siren, SirenConfig

WAY = np.random.default_rng(0).normal(size=(5000, 3))
WAY /= np.linalg.norm(WAY, axis=1, keepdims=True)
BALL = PointCloud(WAY * 0.6, WAY)


def test_signs_and_reach_of_a_ball_are_right() -> None:
    points = torch.tensor(np.random.default_rng(1).uniform(-1, 1, (2000, 3)), dtype=torch.float32)
    known = sign_and_reach(points, BALL, cKDTree(BALL.points))
    distance = points.norm(dim=1) - 0.6
    clear = distance.abs() > 0.01
    assert torch.equal(known["sign"][clear], distance.sign()[clear])
    assert (known["reach"] >= distance.abs() - 1e-4).all()
    assert (known["reach"] <= distance.abs() + 0.06).all()


def test_one_normal_in_ten_that_is_turned_over_turns_no_side() -> None:
    rng = np.random.default_rng(1)
    normals = BALL.normals * np.where(rng.random((len(BALL), 1)) < 0.1, -1, 1)
    points = torch.tensor(rng.uniform(-1, 1, (5000, 3)), dtype=torch.float32)
    sign = sign_and_reach(points, PointCloud(BALL.points, normals), cKDTree(BALL.points))["sign"]
    distance = points.norm(dim=1) - 0.6
    clear = distance.abs() > 0.1
    assert (sign[clear] == distance.sign()[clear]).float().mean() > 0.99


def test_where_the_surface_was_not_seen_the_side_is_unsure() -> None:
    upper = BALL.select(BALL.points[:, 2] > 0)
    points = torch.tensor(np.random.default_rng(2).uniform(-1, 1, (5000, 3)), dtype=torch.float32)
    distance = points.norm(dim=1) - 0.6
    sign = sign_and_reach(points, upper, cKDTree(upper.points), SURE)["sign"]
    seen = (points[:, 2] > 0.05) & (distance.abs() > 0.15)
    unseen = (points[:, 2] < 0) & (distance > 0.1)
    assert torch.equal(sign[seen], distance.sign()[seen])
    assert (sign[unseen] >= 0).all()
    assert (sign_and_reach(points[unseen], upper, cKDTree(upper.points))["sign"] < 0).any()
    problem = surface(upper, SurfaceConfig(pool=1000), torch.Generator().manual_seed(0))
    drawn = {name: problem.domains[name].sample(torch.Generator().manual_seed(0))[1] for name in ("box", "near")}
    assert (drawn["box"]["sign"] == 0).any()
    assert (drawn["near"]["sign"] != 0).all()


def test_every_sample_of_the_surface_problem_is_in_the_cube_with_what_is_known_of_it() -> None:
    problem = surface(BALL, SurfaceConfig(pool=1000), torch.Generator().manual_seed(0))
    for name, domain in problem.domains.items():
        points, known = domain.sample(torch.Generator().manual_seed(1))
        assert points.abs().max() <= 1
        assert set(known) == ({"normals"} if name == "surface" else {"sign", "reach"})
    points, known = problem.domains["surface"].sample(torch.Generator().manual_seed(1))
    torch.testing.assert_close(points, known["normals"] * 0.6)
    near, _ = problem.domains["near"].sample(torch.Generator().manual_seed(1))
    eighth = cKDTree(BALL.points).query(BALL.points, k=[9])[0].mean()
    astray = SurfaceConfig.near_spread * eighth * (2 / np.pi) ** 0.5  # a Gaussian's mean size
    assert (near.norm(dim=1) - 0.6).abs().mean() == pytest.approx(astray, rel=0.2)


def test_our_loss_is_these_terms() -> None:
    config = SurfaceConfig(
        zero_level=1,
        final_zero_level=2,
        normal=3,
        eikonal=4,
        sign=5,
        reach=6,
        far=7,
        heat=8,
        surface_eikonal=9,
        pool=1000,
    )
    terms = surface(BALL, config, torch.Generator().manual_seed(0)).constraints
    assert [(t.domain, t.weight, t.final_weight, t.residual.__qualname__.partition(".")[0]) for t in terms] == [
        ("surface", 1, 2, "zero_level"),
        ("surface", 3, None, "normal_alignment"),
        ("surface", 9, None, "eikonal"),
        *((domain, 4, None, "eikonal") for domain in ("near", "box")),
        *((domain, 5, None, "right_sign") for domain in ("near", "box")),
        *((domain, 6, None, "within_reach") for domain in ("near", "box")),
        ("box", 7, None, "far_distance"),
        ("box", 8, None, "heat"),
    ]
    far, heat = (next(t.residual for t in terms if t.name == name) for name in ("far distance", "heat"))
    known = {"reach": torch.tensor([0.2, 0.3]), "sign": torch.ones(2)}
    at = Jet(torch.tensor([[0.1], [0.1]]), lambda: torch.tensor([[[1.0, 0, 0]]] * 2))
    torch.testing.assert_close(far(known, at), torch.tensor([0.0, 0.04]), msg="far is beyond 0.25")
    torch.testing.assert_close(heat(known, at), torch.full((2,), math.exp(-2 * 15 * 0.1)))


def test_noisy_points_do_not_flatten_the_field() -> None:
    ball = 0.6 * evenly_spread(2000)
    cloud = PointCloud(ball * (1 + np.random.default_rng(0).normal(0, 0.03, (2000, 1))), ball / 0.6)

    def slope(eikonal: float) -> float:
        generator = torch.Generator().manual_seed(0)
        config = SurfaceConfig(512, pool=5000, final_zero_level=5000, surface_eikonal=eikonal)
        problem = surface(cloud, config, generator)
        net = fit(problem, Siren(3, 1, SirenConfig(64, 2), generator), FitConfig(200), generator)
        return float(net.jet(torch.tensor(ball, dtype=torch.float32)).slope.detach().median())

    assert slope(SurfaceConfig.surface_eikonal) < 0.5
    assert 0.9 < slope(NOISY_EIKONAL) < 1.1


def test_the_papers_loss_is_its_formula() -> None:
    # Sitzmann et al. 2020, eq. 6 with the weights of the code, over one batch of which half lies on the surface.
    problem = paper_surface(BALL, torch.Generator().manual_seed(0))
    net = Siren(3, 1, SirenConfig(16, 1), torch.Generator().manual_seed(0))
    samples = draw(problem, torch.Generator().manual_seed(5))
    means = residuals(problem, samples, net.jet)
    assert sum(len(points) for points, _ in samples.values()) == 2800

    generator = torch.Generator().manual_seed(5)
    on, known = problem.domains["surface"].sample(generator)
    off, _ = problem.domains["box"].sample(generator)
    x = torch.cat([on, off]).requires_grad_()
    f = net(x)
    (slope,) = torch.autograd.grad(f.sum(), x)
    mask = torch.arange(len(x)) < len(on)
    cosine = torch.nn.functional.cosine_similarity(slope[: len(on)], known["normals"], dim=-1)
    expected = (
        3e3 * torch.where(mask, f[:, 0].abs(), 0).mean()
        + 1e2 * torch.where(mask, 0, torch.exp(-1e2 * f[:, 0].abs())).mean()
        + 1e2 * (1 - cosine).sum() / len(x)
        + 5e1 * (slope.norm(dim=-1) - 1).abs().mean()
    )
    torch.testing.assert_close((means * torch.tensor([c.weight for c in problem.constraints])).sum(), expected)


def test_two_constraints_of_one_name_are_no_problem() -> None:
    problem = paper_surface(BALL, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="two constraints of one name share a domain"):
        Problem(problem.domains, [problem.constraints[0], *problem.constraints])


def test_midpoints_lie_on_the_surface_and_none_across_an_edge() -> None:
    ball = evenly_spread(3000)
    more = with_midpoints(PointCloud(ball, ball), cKDTree(ball))
    assert len(more) == 9000
    middle, normals = more.points[3000:], more.normals[3000:]
    chords = 1 - np.linalg.norm((ball[:, None] + ball[cKDTree(ball).query(ball, k=[4, 8])[1]]) / 2, axis=2).ravel()
    assert chords.min() > 4e-4, "the chords' own middles are that far inside"
    np.testing.assert_allclose(np.linalg.norm(middle, axis=1), 1, atol=2e-6)
    np.testing.assert_allclose(normals, middle, atol=2e-6)

    sides = np.random.default_rng(0).uniform(-1, 1, (2, 2000, 2))
    points = np.concatenate([np.insert(sides[0], 2, 0, axis=1), np.insert(abs(sides[1]) * [1, -1], 0, 1, axis=1)])
    normals = np.repeat([[0.0, 0, 1], [1.0, 0, 0]], 2000, axis=0)
    more = with_midpoints(PointCloud(points, normals), cKDTree(points))
    assert len(more) > 2.5 * len(points)
    on_top, beside = np.abs(more.points[:, 2]) < 1e-12, np.abs(more.points[:, 0] - 1) < 1e-12
    assert (on_top | beside).all()


def test_midpoints_are_drawn_where_they_are_asked_for_and_change_nothing_else() -> None:
    def domains(between: bool) -> dict[str, Pool]:
        config = SurfaceConfig(between=between, pool=1000)
        found = surface(BALL, config, torch.Generator().manual_seed(0)).domains
        return {name: pool for name, pool in found.items() if isinstance(pool, Pool)}

    without, drawn = domains(False), domains(True)
    assert len(without["surface"].points) == 5000
    assert len(drawn["surface"].points) == len(drawn["surface"].attributes["normals"]) > 14_000
    torch.testing.assert_close(drawn["surface"].points.norm(dim=1), torch.full((len(drawn["surface"].points),), 0.6))
    for name in ("near", "box"):
        assert torch.equal(without[name].points, drawn[name].points)


def test_no_midpoints_from_one_layer_up_to_the_next() -> None:
    steps = np.arange(40) / 40
    points = np.stack(np.meshgrid(steps, steps, [0, 0.02]), axis=-1).reshape(-1, 3)
    more = with_midpoints(PointCloud(points, np.tile([0.0, 0, 1], (len(points), 1))), cKDTree(points))
    inner = more.points[(np.abs(more.points[:, :2] - 0.5) < 0.4).all(axis=1)]  # 8th neighbours there: up at 39 degrees
    assert len(inner) > 1.4 * 0.64 * len(points)
    assert np.isin(inner[:, 2], [0, 0.02]).all()


def test_no_midpoints_from_one_side_of_a_sheet_to_the_other() -> None:
    points = np.insert(np.random.default_rng(0).uniform(-1, 1, (2000, 2)), 2, 0, axis=1)
    up = np.where(np.arange(2000)[:, None] % 2, [0.0, 0, 1], [0.0, 0, -1])
    points[::2, 2] = -0.01
    more = with_midpoints(PointCloud(points, up), cKDTree(points))
    assert more.normals is not None
    assert len(more) > 1.2 * len(points)
    np.testing.assert_allclose(more.points[:, 2], np.where(more.normals[:, 2] > 0, 0, -0.01), atol=1e-12)
