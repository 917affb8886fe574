from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sdfrecon.jet import Jet
from sdfrecon.siren import Siren, SirenConfig
from sdfrecon.tape import FUSED, Tape


def parts(first: Jet, second: Jet, third: Jet, _: Jet) -> Tensor:
    """Of some points the value, of others the gradient, of those between both, and nothing of the rest."""
    values, slopes = (first.value, second.value), (second.gradient, third.gradient)
    return torch.cat(values).sum() + torch.cat(slopes)[..., 0].square().sum()


LOSSES: dict[str, Callable[[Jet], Tensor]] = {
    "value": lambda jet: jet.value.square().mean(),
    "gradient": lambda jet: (jet.gradient.norm(dim=-1) - 1).square().mean(),
    "both": lambda jet: jet.value.sin().mean() + (jet.gradient**3).mean(),
    "parts": lambda jet: parts(*jet.split([3, 2, 2, len(jet.value) - 7])),
    "laplacian": lambda jet: jet.laplacian.sin().mean(),
    "all": lambda jet: jet.laplacian.square().mean() + jet.gradient.square().mean() + jet.value.sum(),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(("d", "c", "hidden"), [(3, 1, 3), (2, 3, 1), (3, 2, 0)])
def test_a_tape_leads_a_loss_back_as_autograd_does(
    loss: Callable[[Jet], Tensor], d: int, c: int, hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdfrecon.tape.chunks", lambda points: points.split(7))
    net = Siren(d, c, SirenConfig(16, hidden, 3.0, 2.0), torch.Generator().manual_seed(0)).double()
    points = torch.rand(20, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    tape = Tape(net)
    for batch in (points[:9], points, points[11:18]):  # buffers are made anew for a larger one, and used by a smaller
        net.zero_grad()
        loss(net.jet(batch)).backward()
        expected = [p.grad for p in net.parameters()]
        net.zero_grad()
        loss(tape.jet(batch)).backward()
        tape.backward()
        for p, grad in zip(net.parameters(), expected, strict=True):
            grad = torch.zeros_like(p) if grad is None else grad
            torch.testing.assert_close(p.grad, grad)


def test_a_second_loss_adds_to_the_first() -> None:
    net, points = Siren(3, 1, SirenConfig(16, 2), torch.Generator().manual_seed(0)), torch.rand(20, 3)
    tape = Tape(net)
    for _ in range(2):
        tape.jet(points).value.sum().backward()
        tape.backward()
    twice = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    (2 * net.jet(points).value.sum()).backward()
    for p, grad in zip(net.parameters(), twice, strict=True):
        torch.testing.assert_close(grad, p.grad)


@pytest.mark.parametrize("loss", [LOSSES["value"], LOSSES["gradient"], LOSSES["both"]])
def test_in_bfloat16_values_are_the_same_and_derivatives_nearly(loss: Callable[[Jet], Tensor]) -> None:
    net = Siren(3, 1, SirenConfig(128, 2), torch.Generator().manual_seed(0))
    points, grads, jets = torch.rand(500, 3, generator=torch.Generator().manual_seed(1)), [], []
    for bfloat16 in (False, True):
        net.zero_grad()
        tape = Tape(net, bfloat16)
        jets.append(tape.jet(points))
        loss(jets[-1]).backward()
        tape.backward()
        grads.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert torch.equal(jets[0].value, jets[1].value)
    assert 0 < (jets[1].gradient - jets[0].gradient).norm() < 0.02 * jets[0].gradient.norm()
    assert (grads[1] - grads[0]).norm() < 0.02 * grads[0].norm()


@pytest.mark.parametrize("device", ["cuda"], indirect=True)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(
    ("d", "width", "hidden", "count"),
    [(3, 256, 3, FUSED), (2, 40, 1, FUSED + 3), (3, 512, 2, FUSED + 16), (2, 37, 1, FUSED)],
)
def test_fused_passes_are_the_passes_themselves_and_the_same_each_time(
    loss: Callable[[Jet], Tensor], d: int, width: int, hidden: int, count: int, device: str
) -> None:
    pytest.importorskip("triton", reason="Triton is not there to make kernels with")
    if torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("the kernels are for Hopper GPUs")
    drawn = torch.Generator(device).manual_seed(0)
    net, grads, jets = Siren(d, 1, SirenConfig(width, hidden), drawn), [], []
    points = torch.rand(count, d, generator=drawn, device=device) * 2 - 1
    for bfloat16 in (False, True, True):
        net.zero_grad()
        tape = Tape(net, bfloat16)
        jets.append(tape.jet(points))
        loss(jets[-1]).backward()
        tape.backward()
        assert (tape.fused is not None) == (bfloat16 and width % 8 == 0)
        grads.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert (jets[1].value - jets[0].value).norm() < 3e-5 * jets[0].value.norm()
    assert (jets[1].gradient - jets[0].gradient).norm() < 0.02 * jets[0].gradient.norm()
    assert (grads[1] - grads[0]).norm() < 0.02 * grads[0].norm()
    assert torch.equal(grads[1], grads[2])
