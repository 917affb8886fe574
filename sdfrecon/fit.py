"""The optimisation loop: minimise a problem's constraint sum over a field's parameters, and survive interruption."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from sdfrecon import fieldfiles
from sdfrecon.device import exact_products, faster_in_bfloat16, learning
from sdfrecon.geometry import InputError, is_whole
from sdfrecon.jet import Jet
from sdfrecon.optimiser import MOMENTUM, Optimiser
from sdfrecon.problems import Problem
from sdfrecon.recording import captured
from sdfrecon.sampling import Attributes
from sdfrecon.siren import Siren
from sdfrecon.tape import Tape

CHECKPOINT_FORMAT = "sdfrecon-checkpoint-7"
CHECKPOINT_SECONDS = 2.0
WATCHED = 50
"""Steps from one look at the loss to the next, and from one state to go back to, or on from."""
EXPLODED, RETRIES = 100.0, 6
"""How many times the loss before is too much, and how often the steps are halved before the fit is given up."""
LOST, LOOKS = 10.0, 4
"""How many times the least loss so far, each beside its weights, and in how many looks on end, is too much as well."""
SLIGHT = 1e-6
"""A loss of this share of the weights is as good as none: what grows from less does not explode yet."""

Samples = dict[str, tuple[Tensor, Attributes]]
Watch = Callable[[int, dict[str, float]], bool | None]
"""Told the number of steps done and every constraint's share of the loss, by name and domain; True ends the fit."""


@dataclass(frozen=True)
class FitConfig:
    """How the parameters move. Raises InputError for steps that are none."""

    steps: int = 800
    """Optimiser steps: more make a finer surface and take longer."""
    learning_rate: float = 1e-3
    """Adam's step (Kingma and Ba 2015)."""
    muon_learning_rate: float | None = 1.7e-3
    """Muon's step for the hidden layers' matrices (Jordan et al. 2024); None gives them to Adam too."""
    muon_momentum: float = MOMENTUM
    """Muon's momentum at first, from which it grows evenly to the usual: less is calmer while steps are large."""
    warmup: int = 50
    """Steps over which the learning rates rise from zero."""
    final_rate: float = 0.0
    """Share of the learning rates left at the end of their cosine decay; 1 keeps them constant."""
    decay: float = 1.0
    """Power of the decay: above 1 falls sooner and goes on longer with small steps."""
    clip: float | None = None
    """Largest norm of the gradient; None leaves it alone."""
    bfloat16: bool = False
    """Take all but the field's values in bfloat16 where the device is faster at it: exact enough for a surface.

    Muon's iterations are in it there in any case. With many points in a step on a Hopper GPU so are the values, each
    factor as a sum of two: they are off by 1e-5.
    """

    def __post_init__(self) -> None:
        if not is_whole(self.steps, 1):
            raise InputError(f"steps must be a whole number, at least 1; got {self.steps}")

    def rate(self, step: int) -> float:
        """The learning rates' factor at a step: linear warm-up times cosine decay (Loshchilov and Hutter 2017)."""
        decay = (0.5 * (1 + math.cos(math.pi * step / self.steps))) ** self.decay
        return min(1.0, (step + 1) / max(1, self.warmup)) * (self.final_rate + (1 - self.final_rate) * decay)

    def momentum(self, step: int) -> float:
        """Muon's momentum at a step."""
        return self.muon_momentum + (MOMENTUM - self.muon_momentum) * step / self.steps


class Interrupted(KeyboardInterrupt):
    """The user stopped the fit with Ctrl-C; `step` steps are in the checkpoint, if there is one."""

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(f"stopped after {step} of {steps} steps")
        self.step = step


class Diverged(InputError):
    """The loss explodes whatever the step."""


@exact_products()
@learning()
def fit(
    problem: Problem,
    field: Siren,
    config: FitConfig,
    generator: torch.Generator,
    checkpoint: Path | None = None,
    progress: bool = False,
    watch: Watch | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Siren:
    """Trains `field` in place on samples from `generator` and returns it.

    checkpoint: a file that is replaced every few seconds, after a multiple of WATCHED steps, and at the end; if it
    exists, the fit goes on from there and, on the CPU, ends with the same bytes as one that was never stopped: it keeps
    the precision too. Whose problem it is its name must tell. watch: called every WATCHED steps and at the end, not for
    a fit that was finished before. tell: called with a line where it goes on from a checkpoint, and where the loss
    exploded or stays far above its least: the fit goes back to its last good state then, or its best one, and on with
    half the step.

    On a GPU the steps are one CUDA graph: a residual or domain of one's own must not wait for the device there, and is
    run as Python a few times only. What changes from step to step is drawn from `generator`, or kept on the device.

    Raises Interrupted on Ctrl-C, KeyboardInterrupt at once at the second; InputError for a checkpoint of another
    network or device; Diverged where RETRIES halvings did not help.
    """
    begun = _read(checkpoint) if checkpoint is not None and checkpoint.exists() else None
    rounded = bool(begun["bfloat16"]) if begun else faster_in_bfloat16(field.weights[0].device)
    optimiser = Optimiser(field, config.learning_rate, config.muon_learning_rate, rounded)
    tape = Tape(field, config.bfloat16 and rounded)
    planned = _schedule(problem, config)
    schedule, weights = planned.to(field.weights[0].device), planned[:, 2:].sum(dim=1).tolist()

    def take() -> tuple[Tensor, int]:
        optimiser.zero_grad()
        samples, now = draw(problem, generator), schedule[optimiser.state["step"]][0]
        terms = now[2:] * residuals(problem, samples, tape.jet)
        terms.sum().backward()
        tape.backward()
        if config.clip is not None:
            torch.nn.utils.clip_grad_norm_(field.parameters(), config.clip)
        optimiser.step(now[0], now[1])
        return terms.detach(), sum(len(points) for points, _ in samples.values())

    if field.weights[0].is_cuda:
        take = captured(take, generator)
    step, before, least, lost, failures = 0, math.inf, math.inf, 0, 0
    if begun:
        try:
            step, before = _restore(begun, field, optimiser, generator), float(begun["loss"])
            least, lost = float(begun["least"]), int(begun["lost"])
            failures = round(-math.log2(float(begun["optimiser/slowed"])))
        except (RuntimeError, KeyError):
            raise InputError(f"{checkpoint} is of another network or device: delete it to start again") from None
        tell(f"going on after {step} steps")
    good, saved = _state(step, before, field, optimiser, generator), time.monotonic()
    best = {name[5:]: value for name, value in begun.items() if name.startswith("best/")} if begun else good

    def save() -> None:
        if checkpoint is not None:
            both = good | {f"best/{name}": value.clone() for name, value in best.items()}
            both |= {"least": torch.tensor(least, dtype=torch.float64), "lost": torch.tensor(lost)}
            fieldfiles.write_tensors(checkpoint, both, {"format": CHECKPOINT_FORMAT})

    with (
        _deferred_interrupt() as interrupted,
        tqdm(total=config.steps, initial=step, desc="fitting", unit="step", disable=not progress, leave=False) as bar,
        ExitStack() as at_last,
    ):
        at_last.callback(optimiser.zero_grad)  # which are of the graph's memory
        while step < config.steps:
            terms, count = take()
            step += 1
            bar.update()
            if interrupted():
                save()
                raise Interrupted(int(good["step"]), config.steps)
            if step % WATCHED and step < config.steps:
                continue
            shares = terms.tolist()
            now = sum(shares)
            level = now / (weights[step - 1] or 1.0)
            steady = level - before < EXPLODED * max(abs(before), SLIGHT)  # also where a loss is 0, or below
            steady = steady and all(bool(p.isfinite().all()) for p in field.parameters())
            lost = lost + 1 if steady and least > 0 and level > LOST * max(least, SLIGHT) else 0
            if not steady or lost == LOOKS:
                failures += 1
                if failures > RETRIES:
                    raise Diverged(
                        f"the fit diverged before step {step}, with ever smaller steps too: try another --seed"
                    )
                if steady:
                    good, before, lost = best, float(best["loss"]), 0
                good = good | {"optimiser/slowed": optimiser.state["slowed"] / 2}
                back, what = _restore(good, field, optimiser, generator), "grew and grew" if steady else "exploded"
                bar.clear()
                tell(f"warning: the loss {what} before step {step}: back to {back}, and on with half the step")
                bar.update(back - step)
                step = back
                continue
            # Here alone, and not by the clock: what it goes back to, or on from, is the same however often it stopped.
            good, before = _state(step, level, field, optimiser, generator), level
            if level < least:
                best, least = good, level
            names = [f"{c.name}, {c.domain}" for c in problem.constraints]
            ended = bool(watch and watch(step, dict(zip(names, shares, strict=True))))
            speed = count * (bar.format_dict["rate"] or 0) / 1e3
            bar.set_postfix_str(f"loss {now:.3g}, {speed:.0f}k points/s", refresh=False)
            if ended or step == config.steps or time.monotonic() - saved > CHECKPOINT_SECONDS:
                save()
                saved = time.monotonic()
            if ended:
                break
        if interrupted():
            raise Interrupted(step, config.steps)
    return field


def _schedule(problem: Problem, config: FitConfig) -> Tensor:
    """(steps, 2 + constraints): each step's factor of the learning rates, Muon's momentum, and constraints' weights."""
    factors = [
        config.rate,
        config.momentum,
        *(lambda step, c=c: c.weight_at(step / config.steps) for c in problem.constraints),
    ]
    planned = [[factor(step) for step in range(config.steps)] for factor in factors]
    return torch.tensor(planned, dtype=torch.float32).T.contiguous()


def time_step(problem: Problem, field: Siren, config: FitConfig, generator: torch.Generator) -> float:
    """How long a step takes here: what more of them take than a few, the first time aside. Trains `field` by them."""
    few, many = (10, 60) if field.weights[0].is_cuda else (1, 4)
    taken = []
    for steps in (few, few, many):
        start = time.perf_counter()
        fit(problem, field, replace(config, steps=steps), generator)
        taken.append(time.perf_counter() - start)
    return max(taken[2] - taken[1], 0.0) / (many - few)


def draw(problem: Problem, generator: torch.Generator) -> Samples:
    """Samples of every domain, by its name."""
    return {name: domain.sample(generator) for name, domain in problem.domains.items()}


def residuals(problem: Problem, samples: Samples, jet_at: Callable[[Tensor], Jet]) -> Tensor:
    """(constraints,) the mean residual of each; times their weights, the loss (Sitzmann et al. 2020, eq. 4).

    All domains go through the network as one batch.
    """
    points = [points for points, _ in samples.values()]
    jets = dict(zip(samples, jet_at(torch.cat(points)).split([len(p) for p in points]), strict=True))
    return torch.stack([c.residual(samples[c.domain][1], jets[c.domain]).mean() for c in problem.constraints])


def _state(step: int, loss: float, field: Siren, optimiser: Optimiser, generator: torch.Generator) -> dict[str, Tensor]:
    """Copies of all that a step changes, and the loss beside its weights when it was last looked at."""
    tensors = {f"field/{name}": value for name, value in field.state_dict().items()}
    tensors |= {f"optimiser/{name}": value for name, value in optimiser.state.items()}
    return {name: value.clone() for name, value in tensors.items()} | {
        "generator": generator.get_state(),
        "step": torch.tensor(step),
        "loss": torch.tensor(loss, dtype=torch.float64),
        "bfloat16": torch.tensor(optimiser.bfloat16),
    }


def _restore(state: dict[str, Tensor], field: Siren, optimiser: Optimiser, generator: torch.Generator) -> int:
    field.load_state_dict({name[6:]: value for name, value in state.items() if name.startswith("field/")})
    for name, value in optimiser.state.items():
        value.copy_(state[f"optimiser/{name}"])
    generator.set_state(state["generator"])
    return int(state["step"])


def _read(path: Path) -> dict[str, Tensor]:
    tensors, about = fieldfiles.read_tensors(path, "checkpoint")
    if about.get("format") != CHECKPOINT_FORMAT:
        raise InputError(f"{path} is no checkpoint of this version: delete it to start again")
    return tensors


@contextmanager
def _deferred_interrupt() -> Iterator[Any]:
    """Yields a function that says whether Ctrl-C was pressed: a step is finished before the fit stops.

    Where another program handles that, or ignores it, it goes on to.
    """
    pressed, previous = threading.Event(), signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or previous is not signal.default_int_handler:
        yield pressed.is_set
        return

    def press(*_: Any) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
