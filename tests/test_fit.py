import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sdfrecon import fieldfiles, tape
from sdfrecon import fit as fit_module
from sdfrecon.constraints import Constraint
from sdfrecon.fit import FitConfig, Interrupted, draw, fit, residuals
from sdfrecon.geometry import InputError, PointCloud
from sdfrecon.jet import Jet
from sdfrecon.optimiser import Optimiser
from sdfrecon.problems import Problem, SurfaceConfig, surface
from sdfrecon.sampling import Attributes, Box
from sdfrecon.shapes import evenly_spread
from sdfrecon.siren import Siren, SirenConfig


def line(_: Attributes, jet: Jet) -> Tensor:
    """| d Phi / dx - 1 | + | d Phi / dy |: met by x and a constant."""
    return (jet.gradient[:, 0, 0] - 1).abs() + jet.gradient[:, 0, 1].abs()


PROBLEM = Problem({"box": Box(2, 64)}, [Constraint("line", "box", 2.0, line)])


def network(device: str = "cpu") -> Siren:
    return Siren(2, 1, SirenConfig(16, 2, 3.0, 3.0), torch.Generator(device).manual_seed(0))


def generator(device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(1)


def same(a: Siren, b: Siren) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("muon", [None, 1e-3], ids=["adam", "muon"])
def test_a_linear_field_is_learnt_from_its_gradient(muon: float | None) -> None:
    net = fit(PROBLEM, network(), FitConfig(400, 3e-3, muon), generator())
    x = torch.rand(100, 2)
    assert (net.jet(x).gradient[:, 0] - torch.tensor([1.0, 0.0])).abs().mean() < 0.03


@pytest.mark.parametrize("muon", [None, 1e-3], ids=["adam", "muon"])
def test_training_200_is_training_100_and_resuming_100(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, muon: float | None
) -> None:
    config, checkpoint = FitConfig(200, muon_learning_rate=muon), tmp_path / "checkpoint.safetensors"
    whole = fit(PROBLEM, network(), config, generator())

    class Killed(Exception):
        pass

    save = fieldfiles.write_tensors

    def save_then_die(path: Path, state: dict[str, Tensor], about: object) -> None:
        if state["step"] == 150:  # the steps after the last checkpoint are lost
            raise Killed
        save(path, state, about)

    monkeypatch.setattr(fit_module, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(fieldfiles, "write_tensors", save_then_die)
    with pytest.raises(Killed):
        fit(PROBLEM, network(), config, generator(), checkpoint)
    monkeypatch.undo()
    assert same(whole, fit(PROBLEM, network(), config, generator(), checkpoint))
    assert same(whole, fit(PROBLEM, network(), config, generator(), checkpoint)), "a finished fit is not fitted further"


def test_every_step_has_its_rate_and_no_larger_gradient_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    factors, momenta, norms, step = list[float](), list[float](), list[Tensor](), Optimiser.step

    def watched(self: Optimiser, factor: Tensor, momentum: Tensor) -> None:
        factors.append(float(factor))
        momenta.append(float(momentum))
        norms.append(torch.stack([p.grad.norm() for p in (*self.rest, *self.hidden) if p.grad is not None]).norm())
        step(self, factor, momentum)

    monkeypatch.setattr(Optimiser, "step", watched)
    config = FitConfig(70, muon_momentum=0.88, clip=1e-3, decay=2.0)
    fit(PROBLEM, network(), config, generator())
    assert factors == pytest.approx([config.rate(step) for step in range(70)])
    assert momenta == pytest.approx(np.linspace(0.88, 0.95, 71)[:70])
    torch.testing.assert_close(torch.stack(norms), torch.full((70,), 1e-3))


def test_a_checkpoint_keeps_the_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, checkpoint = FitConfig(60, bfloat16=True), tmp_path / "checkpoint.safetensors"
    monkeypatch.setattr(fit_module, "faster_in_bfloat16", lambda device: True)
    whole = fit(PROBLEM, network(), config, generator())
    fit(PROBLEM, network(), config, generator(), checkpoint, watch=lambda step, terms: step == 50)
    monkeypatch.setattr(fit_module, "faster_in_bfloat16", lambda device: False)
    assert not same(whole, fit(PROBLEM, network(), config, generator())), "the precisions differ"
    assert same(whole, fit(PROBLEM, network(), config, generator(), checkpoint))


def test_ctrl_c_leaves_a_checkpoint_that_goes_on(tmp_path: Path) -> None:
    config, checkpoint = FitConfig(200), tmp_path / "checkpoint.safetensors"
    whole = fit(PROBLEM, network(), config, generator())
    before, steps = signal.getsignal(signal.SIGINT), 0

    def press_at_130(known: Attributes, jet: Jet) -> Tensor:
        nonlocal steps
        steps += 1
        if steps == 130:
            os.kill(os.getpid(), signal.SIGINT)
        return line(known, jet)

    with pytest.raises(Interrupted) as stopped:
        fit(
            Problem(PROBLEM.domains, [Constraint("line", "box", 2.0, press_at_130)]),
            network(),
            config,
            generator(),
            checkpoint,
        )
    assert stopped.value.step == 100
    told: list[str] = []
    assert same(whole, fit(PROBLEM, network(), config, generator(), checkpoint, tell=told.append))
    assert told == ["going on after 100 steps"]
    assert signal.getsignal(signal.SIGINT) is before


def test_who_ignores_ctrl_c_goes_on_to_and_the_second_stops_at_once() -> None:
    presses, times = 0, 2

    def press(step: int, terms: object) -> None:
        nonlocal presses
        presses += 1
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        fit(PROBLEM, network(), FitConfig(100), generator(), watch=press)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert presses == 2
    with pytest.raises(KeyboardInterrupt) as stopped:
        fit(PROBLEM, network(), FitConfig(100), generator(), watch=press)
    assert presses == 3
    assert not isinstance(stopped.value, Interrupted)
    times = 1
    with pytest.raises(Interrupted, match="stopped after 50 of 50"):
        fit(PROBLEM, network(), FitConfig(50), generator(), watch=press)


def test_the_loss_is_of_weighted_means_over_each_domain() -> None:
    def ones(_: Attributes, jet: Jet) -> Tensor:
        return 0 * jet.value[:, 0] + 1

    problem = Problem(
        {"few": Box(2, 3), "many": Box(2, 300)}, [Constraint("a", "few", 2.0, ones), Constraint("b", "many", 5.0, ones)]
    )
    samples = draw(problem, generator())
    assert sum(len(points) for points, _ in samples.values()) == 303
    assert residuals(problem, samples, network().jet).tolist() == [1, 1]
    seen: dict[str, float] = {}
    fit(problem, network(), FitConfig(1), generator(), watch=lambda _, terms: seen.update(terms))
    assert seen == {"a, few": 2, "b, many": 5}
    grows = Constraint("c", "few", 10.0, ones, final_weight=1000.0)
    on_the_way: list[float] = []
    problem = Problem(problem.domains, [grows])
    fit(problem, network(), FitConfig(100), generator(), watch=lambda _, terms: on_the_way.extend(terms.values()))
    assert on_the_way == pytest.approx([grows.weight_at(0.49), 1000])
    steep = Problem(problem.domains, [replace(grows, weight=1.0, final_weight=1e4)])
    fit(steep, network(), FitConfig(100), generator(), tell=pytest.fail)


def test_rates_warm_up_and_decay() -> None:
    config = FitConfig(1000, warmup=100, final_rate=0.1)
    assert config.rate(0) == pytest.approx(0.01)
    assert config.rate(99) == pytest.approx(1, abs=0.03)
    assert config.rate(999) == pytest.approx(0.1, abs=1e-4)
    assert FitConfig(1000, decay=2.0).rate(500) == pytest.approx(0.25)
    assert {FitConfig(10, warmup=0, final_rate=1.0).rate(s) for s in range(10)} == {1.0}


@pytest.mark.parametrize("steps", [0, -5, 100.0])
def test_a_fit_has_steps(steps: Any) -> None:
    with pytest.raises(InputError, match=f"steps must be a whole number, at least 1; got {steps}"):
        FitConfig(steps)


def test_a_lost_loss_is_said(tmp_path: Path) -> None:
    broken = Problem(PROBLEM.domains, [Constraint("nan", "box", 1.0, lambda _, jet: jet.value[:, 0] * torch.nan)])
    with pytest.raises(InputError, match="the fit diverged before step 50, with ever smaller steps"):
        fit(broken, network(), FitConfig(100), generator(), tmp_path / "checkpoint.safetensors")
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(InputError, match="cannot read .* as a checkpoint"):
        fit(PROBLEM, network(), FitConfig(10), generator(), path)
    path.unlink()
    fit(PROBLEM, network(), FitConfig(10), generator(), path)
    other = Siren(2, 1, SirenConfig(8, 1))
    with pytest.raises(InputError, match="is of another network or device: delete it to start again"):
        fit(PROBLEM, other, FitConfig(10), generator(), path)


def test_an_exploding_fit_goes_back_and_on_with_smaller_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(fit_module, "CHECKPOINT_SECONDS", -1.0)
    said: list[str] = []
    steps = torch.zeros((), device=device)

    def explode_once(known: Attributes, jet: Jet) -> Tensor:
        steps.add_(1)
        return line(known, jet) / (steps != 120).float()

    problem = Problem(PROBLEM.domains, [Constraint("line", "box", 2.0, explode_once)])
    checkpoint = tmp_path / "checkpoint.safetensors"
    net = fit(problem, network(device), FitConfig(400, 3e-3), generator(device), checkpoint, tell=said.append)
    assert said == ["warning: the loss exploded before step 150: back to 100, and on with half the step"]
    assert line({}, net.jet(torch.rand(100, 2, device=device))).mean() < 0.1
    assert fit_module._read(checkpoint)["optimiser/slowed"].item() == 0.5


def test_a_fit_that_stays_lost_goes_back_to_its_best_also_when_resumed(tmp_path: Path) -> None:
    def fitted(checkpoint: Path | None = None, before: int = 0, until: int | None = None) -> tuple[Siren, list[str]]:
        said, calls, net = list[str](), torch.tensor(float(before)), network()

        def lose(known: Attributes, jet: Jet) -> Tensor:
            calls.add_(1)
            return line(known, jet) / (calls != 120).float() + (2.0 if 150 < calls <= 350 else 0.0)

        problem, config = Problem(PROBLEM.domains, [Constraint("line", "box", 2.0, lose)]), FitConfig(600, 3e-3)
        fit(problem, net, config, generator(), checkpoint, watch=lambda step, _: step == until, tell=said.append)
        return net, said

    whole, said = fitted()
    assert said == [
        "warning: the loss exploded before step 150: back to 100, and on with half the step",
        "warning: the loss grew and grew before step 300: back to 100, and on with half the step",
    ]
    assert line({}, whole.jet(torch.rand(100, 2))).mean() < 0.1
    for stopped, drawn in ((100, 100), (250, 300)):
        checkpoint = tmp_path / f"{stopped}.safetensors"
        fitted(checkpoint, until=stopped)
        again, resumed = fitted(checkpoint, before=drawn)
        assert resumed == [f"going on after {stopped} steps", *said[drawn > stopped :]]
        assert same(whole, again)
        assert fit_module._read(checkpoint)["optimiser/slowed"].item() == 0.25


def test_it_fits_in_another_thread_too() -> None:
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(fit, PROBLEM, network(), FitConfig(60), generator()).result()
    assert same(made, fit(PROBLEM, network(), FitConfig(60), generator()))


@pytest.mark.parametrize("lowest", [0.0, -3.0])
def test_a_loss_that_is_met_or_below_zero_does_not_explode(lowest: float) -> None:
    said, seen = list[str](), list[float]()

    def hinge(known: Attributes, jet: Jet) -> Tensor:
        return torch.relu(line(known, jet) - 0.05) + lowest

    def watch(_: int, terms: dict[str, float]) -> None:
        seen.append(sum(terms.values()))

    problem = Problem(PROBLEM.domains, [Constraint("line", "box", 2.0, hinge)])
    fit(problem, network(), FitConfig(600, 3e-3), generator(), watch=watch, tell=said.append)
    assert said == []
    assert min(seen) == 2 * lowest, "it is met"


@pytest.mark.parametrize("device", ["cuda"], indirect=True)
@pytest.mark.parametrize(
    ("config", "fused"),
    [
        (FitConfig(60), tape.FUSED),
        (FitConfig(60, muon_learning_rate=None, clip=1.0, bfloat16=True), tape.FUSED),
        (FitConfig(60, bfloat16=True), 1),
    ],
)
def test_recorded_steps_are_the_steps_themselves(
    monkeypatch: pytest.MonkeyPatch, config: FitConfig, fused: int, device: str
) -> None:
    if fused == 1 and torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("the kernels are for Hopper GPUs")
    monkeypatch.setattr(tape, "FUSED", fused)

    def fitted() -> Siren:
        points = torch.Generator(device).manual_seed(1)
        ball = evenly_spread(500)
        problem = surface(PointCloud(ball / 2, ball), SurfaceConfig(pool=500), points)
        return fit(problem, Siren(3, 1, SirenConfig(32, 2), points), config, points)

    recorded = fitted()
    monkeypatch.setattr(fit_module, "captured", lambda take, _: take)
    for a, b in zip(recorded.parameters(), fitted().parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_a_watch_sees_every_constraint_and_may_end_the_fit() -> None:
    seen: list[tuple[int, dict[str, float]]] = []

    def watch(step: int, terms: dict[str, float]) -> bool:
        seen.append((step, terms))
        return step == 150

    fit(PROBLEM, network(), FitConfig(400), generator(), watch=watch)
    assert [step for step, _ in seen] == [50, 100, 150]
    assert seen[0][1].keys() == {"line, box"}
    assert seen[0][1]["line, box"] > seen[2][1]["line, box"] > 0


def test_a_step_takes_what_more_of_them_take_than_few(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def taking(problem: Problem, field: Siren, config: FitConfig, generator: torch.Generator) -> None:
        now[0] += 0.5 + 0.02 * config.steps

    monkeypatch.setattr(fit_module, "fit", taking)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    assert fit_module.time_step(PROBLEM, network(), FitConfig(), generator()) == pytest.approx(0.02)
