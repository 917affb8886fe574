"""SIREN: a network of sine layers, with its derivatives in closed form (Sitzmann et al., NeurIPS 2020).

So that it can be measured against what came before, the layers may be others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sdfrecon.device import exact_products
from sdfrecon.frame import Frame
from sdfrecon.geometry import Floats, InputError, numbers
from sdfrecon.jet import Jet

# MKL chooses its sine and cosine at their first call. Threads that make it at once may get different ones, and the same
# seed then another mesh: so one thread makes it here.
torch.zeros(1, dtype=torch.float32, device="cpu").sin().cos()
torch.zeros(1, dtype=torch.float64, device="cpu").sin().cos()


@dataclass(frozen=True)
class SirenConfig:
    """Size and frequency of the network."""

    width: int = 128
    """Sines in each layer: more hold finer detail and take longer."""
    hidden_layers: int = 2
    """Sine layers after the first."""
    first_omega_0: float = 30.0
    """Frequency of the first layer: higher reaches finer detail sooner, and overfits noise sooner."""
    hidden_omega_0: float = 45.0
    """Frequency of the other layers: the paper's 30 takes longer to reach detail."""
    activation: Literal["sine", "relu", "tanh"] = "sine"
    """What the layers are made of; omega_0 is of sines alone."""
    encoding: int = 0
    """Octaves of the positional encoding before the first layer: sines and cosines of pi, 2 pi, 4 pi ... times x."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.hidden_layers < 0:
            raise ValueError(f"a SIREN needs width >= 1 and hidden_layers >= 0; got {self.width}, {self.hidden_layers}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"an activation is one of {', '.join(ACTIVATIONS)}; got {self.activation!r}")


def chunks(points: Tensor) -> tuple[Tensor, ...]:
    """Points (n, d) in parts to evaluate one after the other.

    On a processor a part's activations should stay in its cache; a GPU wants much work at once, and has less memory:
    with 256 sines in each layer a part's take half a gigabyte there.
    """
    return points.split(2048 if points.device.type == "cpu" else 1 << 16)


@exact_products()
@torch.no_grad()
def evaluate(function: Callable[[Tensor], Tensor], points: ArrayLike, frame: Frame, device: torch.device) -> Floats:
    """(n, ...) what `function` has, on `device` in unit coordinates, at points (n, d) in the units of `frame`.

    Raises InputError where the shape differs.
    """
    world, d = numbers("points", points), len(frame.center)
    if world.ndim != 2 or world.shape[1] != d:
        raise InputError(f"points must be (n, {d}); got {world.shape}")
    unit = torch.tensor(frame.points_to_unit(world), dtype=torch.float32, device=device)
    return torch.cat([function(part).cpu() for part in chunks(unit)]).double().numpy()


class _SinCos(torch.autograd.Function):
    """(sin z, cos z): each is the other's derivative up to sign, so the backward pass needs no further sine."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> tuple[Tensor, Tensor]:
        sine, cosine = torch.sin(z), torch.cos(z)
        ctx.save_for_backward(sine, cosine)
        return sine, cosine

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        sine, cosine = ctx.saved_tensors
        return grads[0] * cosine - grads[1] * sine


class Activation(NamedTuple):
    """s(z), into `out` if given; z -> (s(z), s'(z)), which a backward pass can follow; and s'' from the two of them."""

    value: Callable[..., Tensor]
    jet: Callable[[Tensor], tuple[Tensor, Tensor]]
    bend: Callable[[Tensor, Tensor], Tensor]


def _relu(z: Tensor, out: Tensor | None = None) -> Tensor:
    return torch.clamp_min(z, 0, out=out)


def _tanh(z: Tensor) -> tuple[Tensor, Tensor]:
    value = z.tanh()
    return value, 1 - value.square()


ACTIVATIONS = {
    "sine": Activation(torch.sin, _SinCos.apply, lambda sine, _: -sine),
    "relu": Activation(_relu, lambda z: (_relu(z), (z > 0).to(z.dtype)), lambda value, _: torch.zeros_like(value)),
    "tanh": Activation(torch.tanh, _tanh, lambda value, slope: -2 * value * slope),
}


class Siren(nn.Module):
    """Phi(x) = W_L sin(omega (W_{L-1} ... sin(omega_first (W_0 x + b_0)) ... + b_{L-1})) + b_L.

    Maps (n, in_dim) to (n, out_dim). Initialisation as in the paper (section 3.2 and supplement 1.5), so that with its
    frequencies each sine layer's argument is close to a standard normal at any depth. A positional encoding (Mildenhall
    et al. 2020, section 5.1) is one more layer of sines before the others, which does not learn; layers of ReLUs start
    as in He et al. 2015 (section 2.2), of tanh as in Glorot and Bengio 2010 (eq. 16).
    """

    def __init__(
        self, in_dim: int, out_dim: int, config: SirenConfig | None = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.in_dim, self.out_dim, self.config = in_dim, out_dim, config or SirenConfig()
        c = self.config
        encoded = 2 * in_dim * c.encoding
        sizes = [in_dim] + [encoded] * (encoded > 0) + [c.width] * (c.hidden_layers + 1) + [out_dim]
        own = [c.first_omega_0] + [c.hidden_omega_0] * c.hidden_layers
        self.omegas = [1.0] * (encoded > 0) + (own if c.activation == "sine" else [1.0] * len(own))
        self.made_of = ["sine"] * (encoded > 0) + [c.activation] * len(own)
        self.learns_sines = c.activation == "sine" and not encoded
        device = None if generator is None else generator.device
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            draw = torch.rand(fan_out, fan_in + 1, generator=generator, device=device, dtype=torch.float32) * 2 - 1
            weight, bias = draw[:, :-1] * self._bound(layer, fan_in, fan_out), draw[:, -1] / math.sqrt(fan_in)
            if encoded and layer == 0:
                octaves = math.pi * 2.0 ** torch.arange(c.encoding, device=device, dtype=torch.float32)
                weight = torch.kron(torch.eye(in_dim, device=device, dtype=torch.float32), octaves[:, None]).repeat(
                    2, 1
                )
                bias = weight.new_tensor([0.0, math.pi / 2]).repeat_interleave(encoded // 2)
            learns = not (encoded and layer == 0)
            self.weights.append(nn.Parameter(weight.contiguous(), requires_grad=learns))
            self.biases.append(nn.Parameter(bias, requires_grad=learns))

    def _bound(self, layer: int, fan_in: int, fan_out: int) -> float:
        """Weights start uniform within plus and minus this."""
        if self.config.activation == "relu":
            return math.sqrt(6 / fan_in)
        if self.config.activation == "tanh":
            return math.sqrt(6 / (fan_in + fan_out))
        return 1 / fan_in if layer == 0 else math.sqrt(6 / fan_in) / [*self.omegas, self.config.hidden_omega_0][layer]

    @property
    def layers(self) -> list[Activation]:
        """What they are made of; by name in the network, which can be pickled so."""
        return [ACTIVATIONS[name] for name in self.made_of]

    @property
    def size(self) -> int:
        """How many numbers it learns."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def scaled(self) -> list[tuple[Tensor, Tensor]]:
        """Each layer's weights and bias, times its omega: cheaper than scaling n activations."""
        omegas = [*self.omegas, 1.0]
        scaled = (torch._foreach_mul(list(parameters), omegas) for parameters in (self.weights, self.biases))
        return list(zip(*scaled, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_dim) -> (n, out_dim), the value alone. Without gradients, memory does not grow with n."""
        *inner, (weight, bias) = self.scaled()
        train, parts = torch.is_grad_enabled(), []
        for part in [x] if train else chunks(x):
            for (w, b), layer in zip(inner, self.layers, strict=True):
                z = F.linear(part, w, b)
                part = layer.value(z, out=None if train else z)
            parts.append(F.linear(part, weight, bias))
        return torch.cat(parts)

    def jet(self, x: Tensor) -> Jet:
        """Value, gradient and Laplacian at x (n, in_dim), as forward operations that one backward pass can train.

        The gradient runs the chain rule from the output back, one row of (n, c, width) at a time:
        A_L = W_L, A_{l-1} = (A_l cos z_l) W_l (the paper's observation that a SIREN's derivative is a SIREN,
        section 3.1). The Laplacian carries first and second derivatives forward.
        """
        scaled = self.scaled()
        *inner, (weight, bias) = scaled
        activation, waves = x, []
        for (w, b), layer in zip(inner, self.layers, strict=True):
            waves.append(layer.jet(F.linear(activation, w, b)))
            activation = waves[-1][0]
        value = F.linear(activation, weight, bias)
        return Jet(value, lambda: self._gradient(scaled, waves), lambda: self._laplacian(scaled, waves))

    def _gradient(self, scaled: list[tuple[Tensor, Tensor]], waves: list[tuple[Tensor, Tensor]]) -> Tensor:
        adjoint = scaled[-1][0]
        for (w, _), (_, slope) in zip(reversed(scaled[:-1]), reversed(waves), strict=True):
            adjoint = (adjoint * slope[:, None, :]) @ w
        return adjoint

    def _laplacian(self, scaled: list[tuple[Tensor, Tensor]], waves: list[tuple[Tensor, Tensor]]) -> Tensor:
        w = scaled[0][0]
        first: Tensor = w.T  # (d, width): d z / d x_j, then (n, d, width) from the second layer on
        second: Tensor | None = None  # (n, width): the Laplacian of z
        for (value, slope), (w, _), layer in zip(waves, scaled[1:], self.layers, strict=True):
            bent = layer.bend(value, slope) * (first * first).sum(-2)
            second = bent if second is None else slope * second + bent
            first = (slope[:, None, :] * first) @ w.T
            second = second @ w.T
        assert second is not None  # there is at least one layer before the last
        return second
