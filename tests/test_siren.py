import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sdfrecon.jet import Jet
from sdfrecon.siren import Siren, SirenConfig


def siren(in_dim: int, out_dim: int, layers: int = 3, omega: float = 30.0, seed: int = 0) -> Siren:
    config = SirenConfig(32, layers, omega, omega)
    return Siren(in_dim, out_dim, config, torch.Generator().manual_seed(seed)).double()


def test_every_sine_layer_sees_a_standard_normal_through_ten_layers() -> None:
    # Sitzmann et al. 2020, theorem 1.8 of the supplement: with c = 6 the arguments of the sines keep deviation 1.
    net = Siren(1, 1, SirenConfig(width=1024, hidden_layers=10), torch.Generator().manual_seed(0))
    assert net.weights[0].abs().max().item() == pytest.approx(1, abs=0.01), "the first, uniform over 1 / fan-in"
    x = torch.linspace(-1, 1, 2000)[:, None]
    for layer, (weight, bias) in enumerate(zip(net.weights[:-1], net.biases[:-1], strict=True)):
        z = net.omegas[layer] * (x @ weight.T)
        if layer:
            assert z.std().item() == pytest.approx(1, abs=0.1), f"layer {layer}"
        x = torch.sin(z + net.omegas[layer] * bias)


@pytest.mark.parametrize(("in_dim", "out_dim", "layers"), [(3, 1, 3), (2, 3, 2), (1, 2, 0), (3, 4, 1)])
def test_closed_form_equals_autograd(in_dim: int, out_dim: int, layers: int) -> None:
    net = siren(in_dim, out_dim, layers)
    x = torch.rand(20, in_dim, dtype=torch.float64, requires_grad=True)
    jet = net.jet(x)
    torch.testing.assert_close(jet.value, net(x))
    for c in range(out_dim):
        (gradient,) = torch.autograd.grad(net(x)[:, c].sum(), x, create_graph=True)
        torch.testing.assert_close(jet.gradient[:, c], gradient)
        laplacian = sum(torch.autograd.grad(gradient[:, d].sum(), x, retain_graph=True)[0][:, d] for d in range(in_dim))
        torch.testing.assert_close(jet.laplacian[:, c], laplacian)


@pytest.mark.parametrize("config", [
    SirenConfig(16, 2, activation="tanh"),
    SirenConfig(16, 2, activation="relu"),
    SirenConfig(16, 1, activation="tanh", encoding=3),
    SirenConfig(16, 1, 5.0, 5.0, encoding=2),
], ids=str)  # fmt: skip
def test_closed_form_equals_autograd_for_other_layers(config: SirenConfig) -> None:
    net = Siren(2, 3, config, torch.Generator().manual_seed(0)).double()
    x = torch.rand(20, 2, dtype=torch.float64, requires_grad=True)
    jet = net.jet(x)
    with torch.no_grad():
        torch.testing.assert_close(jet.value, net(x))
    for c in range(3):
        (gradient,) = torch.autograd.grad(net(x)[:, c].sum(), x, create_graph=True)
        torch.testing.assert_close(jet.gradient[:, c], gradient)
        laplacian = torch.zeros(20, dtype=torch.float64)
        for d in range(2):  # a ReLU's gradient has none of its own
            again = torch.autograd.grad(gradient[:, d].sum(), x, retain_graph=True, materialize_grads=True)
            laplacian += again[0][:, d]
        torch.testing.assert_close(jet.laplacian[:, c], laplacian)


def test_a_positional_encoding_is_sines_and_cosines_of_octaves_and_does_not_learn() -> None:
    net = Siren(2, 1, SirenConfig(8, 0, activation="relu", encoding=3), torch.Generator().manual_seed(0))
    x = torch.rand(5, 2)
    angles = torch.cat([x[:, [axis]] * torch.pi * torch.tensor([1.0, 2.0, 4.0]) for axis in (0, 1)], dim=1)
    first = torch.sin(x @ net.weights[0].T + net.biases[0])
    torch.testing.assert_close(first, torch.cat([angles.sin(), angles.cos()], dim=1))
    assert not net.weights[0].requires_grad
    assert net.size == 12 * 8 + 8 + 8 + 1


@torch.no_grad()
def test_finite_differences_approach_closed_form_to_second_order() -> None:
    net = siren(3, 1, omega=5.0)
    x = torch.rand(50, 3, dtype=torch.float64)
    jet = net.jet(x)

    def errors(h: float) -> tuple[float, float]:
        axes = torch.eye(3, dtype=torch.float64) * h
        ahead, behind = (torch.stack([net(x + s * a)[:, 0] for a in axes], -1) for s in (1, -1))
        first = (ahead - behind) / (2 * h) - jet.gradient[:, 0]
        second = ((ahead + behind - 2 * net(x)) / h**2).sum(-1) - jet.laplacian[:, 0]
        return float(first.abs().max()), float(second.abs().max())

    for coarse, fine in zip(errors(2e-2), errors(1e-2), strict=True):
        assert coarse / fine == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize(
    "loss",
    [lambda jet: jet.value.square().mean(), lambda jet: (jet.gradient.norm(dim=-1) - 1).square().mean(),
     lambda jet: jet.laplacian.square().mean()],
    ids=["value", "gradient", "laplacian"],
)  # fmt: skip
def test_one_backward_pass_gives_the_derivative_by_every_parameter(loss: Callable[[Jet], Tensor]) -> None:
    net = siren(2, 2, 1)
    x = torch.rand(10, 2, dtype=torch.float64)
    loss(net.jet(x)).backward()
    for parameter in net.parameters():
        at = (0,) * parameter.dim()
        h = 1e-6
        with torch.no_grad():
            parameter[at] += h
            above = loss(net.jet(x))
            parameter[at] -= 2 * h
            below = loss(net.jet(x))
            parameter[at] += h
        slope = 0.0 if parameter.grad is None else float(parameter.grad[at])
        assert slope == pytest.approx(float((above - below) / (2 * h)), rel=1e-4, abs=1e-7)


def test_a_part_of_a_jet_is_the_jet_of_the_part() -> None:
    net, x = siren(3, 1), torch.rand(9, 3, dtype=torch.float64)
    whole, part = net.jet(x).split([2, 3, 4])[1], net.jet(x[2:5])
    torch.testing.assert_close(whole.value, part.value)
    torch.testing.assert_close(whole.gradient, part.gradient)
    torch.testing.assert_close(whole.laplacian, part.laplacian)
    torch.testing.assert_close(whole.slope, part.gradient.norm(dim=-1))


def test_derivatives_are_computed_once() -> None:
    calls = []
    jet = Jet(torch.zeros(4, 1), lambda: calls.append(1) or torch.zeros(4, 1, 3))  # type: ignore[func-returns-value]
    assert [part.gradient.shape for part in jet.split([1, 3])] == [(1, 1, 3), (3, 1, 3)]
    assert calls == [1]


def test_a_seed_gives_the_same_network() -> None:
    for a, b in zip(siren(3, 1, seed=7).parameters(), siren(3, 1, seed=7).parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_network_can_be_pickled() -> None:
    net = Siren(3, 1, SirenConfig(8, 1, activation="tanh", encoding=2))
    again = pickle.loads(pickle.dumps(net))
    torch.testing.assert_close(again(torch.ones(1, 3)), net(torch.ones(1, 3)))


def test_sines_behind_an_encoding_begin_as_wide_as_others() -> None:
    first, hidden = 60.0, 30.0
    net = Siren(2, 1, SirenConfig(256, 1, first, hidden, encoding=8), torch.Generator().manual_seed(0))
    (encode, shift), (weight, _) = net.scaled()[:2]
    places = torch.rand(2000, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    z = torch.sin(places @ encode.T + shift) @ weight.T
    assert z.std().item() == pytest.approx(1, rel=0.1)


def test_a_network_needs_sines() -> None:
    with pytest.raises(ValueError, match="width >= 1"):
        SirenConfig(width=0)
