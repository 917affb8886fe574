"""A training step's derivatives, written out and run in buffers that every step uses again.

Autograd would allocate, fill and free some thirty arrays as large as the batch in every step, and fetching fresh memory
takes longer than the arithmetic on it. Here the forward pass is `Siren.jet`'s, the backward pass is that of reverse
accumulation (Griewank and Walther 2008, chapter 3) through both the value and the gradient: six matrix products a
layer, and nothing else that is large.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdfrecon.jet import Jet
from sdfrecon.siren import Siren, chunks


class Tape:
    """Records a field's jet at a batch of points, so that a loss of it can be led back to the network's parameters.

    >>> tape = Tape(field)                                                 # doctest: +SKIP
    >>> loss = residual(tape.jet(points)).mean()                           # doctest: +SKIP
    >>> loss.backward()      # as far as the jet                           # doctest: +SKIP
    >>> tape.backward()      # and on to field.parameters()                # doctest: +SKIP
    """

    def __init__(self, field: Siren) -> None:
        self.field = field
        self.points = field.weights[0].new_empty(0, field.in_dim)
        self.value = self.gradient = self.laplacian = self.points
        self._buffers(0)

    def _buffers(self, count: int) -> None:
        weight, layers = self.field.weights[0], len(self.field.omegas)
        n, c, width = count, self.field.out_dim, len(weight)
        self.sine, self.cosine = weight.new_empty(2, layers, n, width)
        # The gradient's row vectors before and after each layer's cosine (Siren.jet: A_l W and A_l cos z).
        self.before, self.after = weight.new_empty(2, layers, n, c, width)
        self.spare = weight.new_empty(2, n, c, width)
        self.wide = weight.new_empty(2, n, width)

    @torch.no_grad()
    def jet(self, points: Tensor) -> Jet:
        """The jet at points (n, d): its value and derivatives are leaves, whose `grad` `backward` reads.

        It is good until the next call. The jets of networks of other layers than sines are autograd's: the loss's own
        backward pass leads them back.
        """
        if not self.field.learns_sines:
            with torch.enable_grad():
                return self.field.jet(points)
        if len(points) != len(self.wide[0]):
            self._buffers(len(points))
        self.points, self.gradient, self.laplacian = points, points[:0], points[:0]
        self.scaled = [(w.detach(), b.detach()) for w, b in self.field.scaled()]
        *sines, (weight, bias) = self.scaled
        activation = points
        for layer, (w, b) in enumerate(sines):
            z = torch.addmm(b, activation, w.T, out=self.wide[0])
            torch.cos(z, out=self.cosine[layer])
            activation = torch.sin(z, out=self.sine[layer])
        self.value = torch.addmm(bias, activation, weight.T).requires_grad_()
        return Jet(self.value, self._gradient, self._laplacian)

    @torch.no_grad()
    def _gradient(self) -> Tensor:
        *sines, (weight, _) = self.scaled
        rows: Tensor = weight
        for layer in reversed(range(len(sines))):
            after = torch.mul(rows, self.cosine[layer][:, None], out=self.after[layer])
            if layer:
                rows = _mm(after, sines[layer][0], self.before[layer - 1])
        self.gradient = (after @ sines[0][0]).requires_grad_()
        return self.gradient

    @torch.no_grad()
    def _laplacian(self) -> Tensor:
        self.laplacian = torch.cat([self.field.jet(part).laplacian for part in chunks(self.points)]).requires_grad_()
        return self.laplacian

    @torch.no_grad()
    def backward(self) -> None:
        """Adds to the parameters' `grad` what the jet's `grad` brings them."""
        if not self.field.learns_sines:
            return
        if self.laplacian.grad is not None:  # autograd's, computed again part by part: kept, it would fill the memory
            with torch.enable_grad():
                for part, grad in zip(chunks(self.points), chunks(self.laplacian.grad), strict=True):
                    self.field.jet(part).laplacian.backward(grad)
        if self.value.grad is None and self.gradient.grad is None:
            return
        sines, (weight, _) = self.scaled[:-1], self.scaled[-1]
        last = len(sines) - 1
        weights = [torch.zeros_like(w) for w, _ in self.scaled]
        biases = [torch.zeros_like(b) for _, b in self.scaled]

        with_gradient = self.gradient.grad is not None
        if with_gradient:  # up through the gradient: what reaches each cosine goes, times -sine, to that layer's z
            below, through = self.gradient.grad, self.spare[0]
            for layer, (w, _) in enumerate(sines):
                weights[layer].addmm_(self.after[layer].flatten(0, 1).T, below.flatten(0, 1))
                _mm(below, w.T, through)
                before = self.before[layer]
                torch.mul(before if layer < last else weight, through, out=before)
                below = torch.mul(through, self.cosine[layer][:, None], out=self.spare[1])
            weights[-1] += below.sum(0)

        if (error := self.value.grad) is None:
            error = torch.zeros_like(self.value)
        weights[-1].addmm_(error.T, self.sine[last])
        biases[-1] += error.sum(0)
        upper = torch.mm(error, weight, out=self.wide[0])
        for layer in reversed(range(len(sines))):
            z = torch.mul(upper, self.cosine[layer], out=self.wide[1])
            if with_gradient:
                before = self.before[layer]
                z.addcmul_(before.sum(1) if self.field.out_dim > 1 else before[:, 0], self.sine[layer], value=-1)
            weights[layer].addmm_(z.T, self.sine[layer - 1] if layer else self.points)
            biases[layer] += z.sum(0)
            if layer:
                upper = torch.mm(z, sines[layer][0], out=self.wide[0])

        for parameters, grads in ((self.field.weights, weights), (self.field.biases, biases)):
            for parameter, grad, omega in zip(parameters, grads, [*self.field.omegas, 1.0], strict=True):
                grad *= omega
                parameter.grad = grad if parameter.grad is None else parameter.grad.add_(grad)


def _mm(rows: Tensor, matrix: Tensor, out: Tensor) -> Tensor:
    """rows (n, c, j) times matrix (j, k) into out (n, c, k), as one product."""
    torch.mm(rows.flatten(0, 1), matrix, out=out.flatten(0, 1))
    return out
