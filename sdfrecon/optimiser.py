"""Muon for the hidden layers' matrices and Adam for the rest, each as a few operations on all its parameters at once.

A SIREN's hidden matrices are of one shape, so that one batched product serves them all, and the rest is one vector.
PyTorch's own go parameter by parameter, and take a second to import, a tenth of a whole draft.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdfrecon.siren import Siren

BETAS, EPSILON = (0.9, 0.999), 1e-8
MOMENTUM, NEWTON_SCHULZ = 0.95, (3.4445, -4.7750, 2.0315)


class Optimiser:
    """Moves a field's parameters against their `grad`.

    Its state, the number of steps among it, is on their device, so that a step never waits for that.

    Adam as Kingma and Ba 2015, algorithm 1; Muon as Jordan et al. 2024: Nesterov momentum, made orthogonal by five
    Newton-Schulz iterations. Where muon_learning_rate is None, Adam moves everything.
    """

    def __init__(
        self, field: Siren, learning_rate: float, muon_learning_rate: float | None, bfloat16: bool = False
    ) -> None:
        """bfloat16: iterate in that precision, which is enough for it."""
        square = (field.config.width, field.config.width)
        hidden: list[Tensor] = (
            [] if muon_learning_rate is None else [w for w in list(field.weights)[1:-1] if w.shape == square]
        )
        self.hidden = hidden
        self.rest: list[Tensor] = [p for p in field.parameters() if p.requires_grad and all(p is not h for h in hidden)]
        self.learning_rate, self.muon_learning_rate = learning_rate, muon_learning_rate or 0.0
        self.bfloat16 = bfloat16
        size, like = sum(p.numel() for p in self.rest), self.rest[0].detach()
        self.state = {
            "step": like.new_zeros(1, dtype=torch.long),
            "slowed": like.new_ones(1),
            "mean": like.new_zeros(size),
            "square": like.new_zeros(size),
        }
        if hidden:
            self.state["momentum"] = torch.zeros_like(torch.stack([p.detach() for p in hidden]))

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for parameter in (*self.rest, *self.hidden):
            parameter.grad = None

    @torch.no_grad()
    def step(self, factor: float | Tensor, momentum: float | Tensor = MOMENTUM) -> None:
        """One step, with both learning rates times `factor`, and times what the state says after a failure.

        momentum: Muon's.
        """
        factor = factor * self.state["slowed"]
        self._adam(factor * self.learning_rate)
        if self.hidden:
            self._muon(factor * self.muon_learning_rate, momentum)

    def _adam(self, rate: Tensor) -> None:
        mean, square = self.state["mean"], self.state["square"]
        grad = torch.cat([_grad(p).flatten() for p in self.rest])
        count = self.state["step"].add_(1).double()
        mean.lerp_(grad, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
        unbiased = (square / (1 - BETAS[1] ** count).float()).sqrt_().add_(EPSILON)
        move = (mean / unbiased).mul_(rate / (1 - BETAS[0] ** count).float())
        parts = zip(move.split([p.numel() for p in self.rest]), self.rest, strict=True)
        torch._foreach_sub_(self.rest, [part.view_as(parameter) for part, parameter in parts])

    def _muon(self, rate: Tensor, momentum: float | Tensor) -> None:
        grad = torch.stack([_grad(p) for p in self.hidden])
        mean = self.state["momentum"].lerp_(grad, 1 - momentum)
        move = orthogonal(grad.lerp_(mean, momentum), self.bfloat16).mul_(rate)
        torch._foreach_sub_(self.hidden, list(move))


def orthogonal(matrices: Tensor, bfloat16: bool = False) -> Tensor:
    """(b, w, w) matrices with the same singular vectors, and singular values drawn to about one.

    Five iterations of the quintic of Jordan et al. 2024, which ask for no more than bfloat16.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    x = x.bfloat16() if bfloat16 else x
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.to(matrices.dtype)


def _grad(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
