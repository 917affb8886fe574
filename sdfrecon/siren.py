"""SIREN: a network of sine layers, with its derivatives in closed form (Sitzmann et al., NeurIPS 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfrecon.jet import Jet


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

    def __post_init__(self) -> None:
        if self.width < 1 or self.hidden_layers < 0:
            raise ValueError(f"a SIREN needs width >= 1 and hidden_layers >= 0; got {self.width}, {self.hidden_layers}")


def chunks(points: Tensor) -> tuple[Tensor, ...]:
    """Points (n, d) in parts to evaluate one after the other.

    On a processor a part's activations should stay in its cache; a GPU wants much work at once.
    """
    return points.split(2048 if points.device.type == "cpu" else 1 << 18)


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


class Siren(nn.Module):
    """Phi(x) = W_L sin(omega (W_{L-1} ... sin(omega_first (W_0 x + b_0)) ... + b_{L-1})) + b_L.

    Maps (n, in_dim) to (n, out_dim). Initialisation as in the paper (section 3.2 and supplement 1.5), so that each
    sine layer's argument is close to a standard normal at any depth.
    """

    def __init__(
        self, in_dim: int, out_dim: int, config: SirenConfig | None = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.in_dim, self.out_dim, self.config = in_dim, out_dim, config or SirenConfig()
        c = self.config
        sizes = [in_dim] + [c.width] * (c.hidden_layers + 1) + [out_dim]
        self.omegas = [c.first_omega_0] + [c.hidden_omega_0] * c.hidden_layers
        device = None if generator is None else generator.device
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            bound = 1 / fan_in if layer == 0 else math.sqrt(6 / fan_in) / c.hidden_omega_0
            draw = torch.rand(fan_out, fan_in + 1, generator=generator, device=device) * 2 - 1
            self.weights.append(nn.Parameter((draw[:, :-1] * bound).contiguous()))
            self.biases.append(nn.Parameter(draw[:, -1] / math.sqrt(fan_in)))

    def scaled(self) -> list[tuple[Tensor, Tensor]]:
        """Each layer's weights and bias, times its omega: cheaper than scaling n activations."""
        return [(w * o, b * o) for w, b, o in zip(self.weights, self.biases, [*self.omegas, 1.0], strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_dim) -> (n, out_dim), the value alone. Without gradients, memory does not grow with n."""
        *sines, (weight, bias) = self.scaled()
        train, parts = torch.is_grad_enabled(), []
        for part in [x] if train else chunks(x):
            for w, b in sines:
                z = F.linear(part, w, b)
                part = torch.sin(z) if train else z.sin_()
            parts.append(F.linear(part, weight, bias))
        return torch.cat(parts)

    def jet(self, x: Tensor) -> Jet:
        """Value, gradient and Laplacian at x (n, in_dim), as forward operations that one backward pass can train.

        The gradient runs the chain rule from the output back, one row of (n, c, width) at a time:
        A_L = W_L, A_{l-1} = (A_l cos z_l) W_l (the paper's observation that a SIREN's derivative is a SIREN,
        section 3.1). The Laplacian carries first and second derivatives forward.
        """
        scaled = self.scaled()
        *sines, (weight, bias) = scaled
        activation, waves = x, []
        for w, b in sines:
            sine, cosine = _SinCos.apply(F.linear(activation, w, b))
            waves.append((sine, cosine))
            activation = sine
        value = F.linear(activation, weight, bias)
        return Jet(value, lambda: self._gradient(scaled, waves), lambda: self._laplacian(scaled, waves))

    def _gradient(self, scaled: list[tuple[Tensor, Tensor]], waves: list[tuple[Tensor, Tensor]]) -> Tensor:
        adjoint = scaled[-1][0]
        for (w, _), (_, cosine) in zip(reversed(scaled[:-1]), reversed(waves), strict=True):
            adjoint = (adjoint * cosine[:, None, :]) @ w
        return adjoint

    def _laplacian(self, scaled: list[tuple[Tensor, Tensor]], waves: list[tuple[Tensor, Tensor]]) -> Tensor:
        w = scaled[0][0]
        first: Tensor = w.T  # (d, width): d z / d x_j, then (n, d, width) from the second layer on
        second: Tensor | None = None  # (n, width): the Laplacian of z
        for (sine, cosine), (w, _) in zip(waves, scaled[1:], strict=True):
            squares = (first * first).sum(-2)
            second = -sine * squares if second is None else cosine * second - sine * squares
            first = (cosine[:, None, :] * first) @ w.T
            second = second @ w.T
        assert second is not None  # a SIREN has at least one sine layer
        return second
