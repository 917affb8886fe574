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

CACHED = 1 << 18
"""Numbers of a layer's activations that are worked on at once on a processor."""


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
        # What a step needs for a moment only, for so many points at once that it stays in a processor's cache.
        most = max(1, min(n, CACHED // width if weight.device.type == "cpu" else n))
        self.parts = [slice(start, min(start + most, n)) for start in range(0, n, most)]
        self.spare = weight.new_empty(2, most, c, width)
        self.wide = weight.new_empty(2, most, width)

    @torch.no_grad()
    def jet(self, points: Tensor) -> Jet:
        """The jet at points (n, d): its value and derivatives are leaves, whose `grad` `backward` reads.

        It is good until the next call. The jets of networks of other layers than sines are autograd's: the loss's own
        backward pass leads them back.
        """
        if not self.field.learns_sines:
            with torch.enable_grad():
                return self.field.jet(points)
        if len(points) != self.sine.shape[1]:
            self._buffers(len(points))
        self.points, self.gradient, self.laplacian = points, points[:0], points[:0]
        self.scaled = [(w.detach(), b.detach()) for w, b in self.field.scaled()]
        *sines, (weight, bias) = self.scaled
        values = []
        for rows in self.parts:
            activation = points[rows]
            for layer, (w, b) in enumerate(sines):
                z = torch.addmm(b, activation, w.T, out=self.sine[layer, rows])
                torch.cos(z, out=self.cosine[layer, rows])
                activation = z.sin_()
            values.append(torch.addmm(bias, activation, weight.T))
        self.value = torch.cat(values).requires_grad_()
        return Jet(self.value, self._gradient, self._laplacian)

    @torch.no_grad()
    def _gradient(self) -> Tensor:
        *sines, (weight, _) = self.scaled
        gradients = []
        for part in self.parts:
            rows: Tensor = weight
            for layer in reversed(range(len(sines))):
                after = torch.mul(rows, self.cosine[layer, part][:, None], out=self.after[layer, part])
                if layer:
                    rows = _mm(after, sines[layer][0], self.before[layer - 1, part])
            gradients.append(after @ sines[0][0])
        self.gradient = torch.cat(gradients).requires_grad_()
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
        weights = [torch.zeros_like(w) for w, _ in self.scaled]
        biases = [torch.zeros_like(b) for _, b in self.scaled]
        for rows in self.parts:
            self._back(rows, weights, biases)
        for parameters, grads in ((self.field.weights, weights), (self.field.biases, biases)):
            for parameter, grad, omega in zip(parameters, grads, [*self.field.omegas, 1.0], strict=True):
                grad *= omega
                parameter.grad = grad if parameter.grad is None else parameter.grad.add_(grad)

    def _back(self, rows: slice, weights: list[Tensor], biases: list[Tensor]) -> None:
        """Adds to the gradients of weights and biases what value and gradient of some of the points bring them."""
        sines, (weight, _) = self.scaled[:-1], self.scaled[-1]
        last, count = len(sines) - 1, rows.stop - rows.start
        (through, moved), (upper, z) = self.spare[:, :count], self.wide[:, :count]
        if self.gradient.grad is not None:  # up through the gradient: what reaches each cosine goes, times -sine, to z
            below = self.gradient.grad[rows]
            for layer, (w, _) in enumerate(sines):
                weights[layer].addmm_(self.after[layer, rows].flatten(0, 1).T, below.flatten(0, 1))
                _mm(below, w.T, through)
                before = self.before[layer, rows]
                torch.mul(before if layer < last else weight, through, out=before)
                below = torch.mul(through, self.cosine[layer, rows][:, None], out=moved)
            weights[-1] += below.sum(0)

        error = torch.zeros_like(self.value[rows]) if self.value.grad is None else self.value.grad[rows]
        weights[-1].addmm_(error.T, self.sine[last, rows])
        biases[-1] += error.sum(0)
        torch.mm(error, weight, out=upper)
        for layer in reversed(range(len(sines))):
            torch.mul(upper, self.cosine[layer, rows], out=z)
            if self.gradient.grad is not None:
                before = self.before[layer, rows]
                z.addcmul_(before.sum(1) if self.field.out_dim > 1 else before[:, 0], self.sine[layer, rows], value=-1)
            weights[layer].addmm_(z.T, self.sine[layer - 1, rows] if layer else self.points[rows])
            biases[layer] += z.sum(0)
            if layer:
                torch.mm(z, sines[layer][0], out=upper)


def _mm(rows: Tensor, matrix: Tensor, out: Tensor) -> Tensor:
    """rows (n, c, j) times matrix (j, k) into out (n, c, k), as one product."""
    torch.mm(rows.flatten(0, 1), matrix, out=out.flatten(0, 1))
    return out
