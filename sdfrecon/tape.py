"""A training step's derivatives, written out and run in buffers that every step uses again.

Autograd would allocate, fill and free some thirty arrays as large as the batch in every step, and fetching fresh memory
takes longer than the arithmetic on it. Here the forward pass is `Siren.jet`'s, the backward pass is that of reverse
accumulation (Griewank and Walther 2008, chapter 3) through both the value and the gradient: six matrix products a
layer, and nothing else that is large. All but the value's own may be in bfloat16: a derivative's error of 0.3% is less
than what a batch's draw changes in it. On a Hopper GPU large batches go through `fused`, where the value's factors are
sums of two such numbers. The Laplacian, and the gradient of several channels, carry derivatives forward, a part of the
batch at a time that stays in a processor's cache, and once more on the way back.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sdfrecon.jet import Jet
from sdfrecon.siren import Siren, chunks

if TYPE_CHECKING:
    from sdfrecon.fused import Fused

FUSED = 1 << 14
"""Points from which on the passes of a field of one channel are fused on a Hopper GPU: a few thousand would lose."""


class _Layer(NamedTuple):
    """A sine layer at n points: of z its cosine, slopes (d, n, width), and where asked |grad z|^2 and Laplacian.

    after: (1 + d or 2 + d, n, width) the value, slopes and, where asked, Laplacian of sin z.
    """

    cosine: Tensor
    slopes: Tensor
    steep: Tensor
    bend: Tensor | None
    after: Tensor


class Tape:
    """Records a field's jet at a batch of points, so that a loss of it can be led back to the network's parameters.

    >>> tape = Tape(field)                                                 # doctest: +SKIP
    >>> loss = residual(tape.jet(points)).mean()                           # doctest: +SKIP
    >>> loss.backward()      # as far as the jet                           # doctest: +SKIP
    >>> tape.backward()      # and on to field.parameters()                # doctest: +SKIP
    """

    def __init__(self, field: Siren, bfloat16: bool = False) -> None:
        """bfloat16: take the gradient of one channel, and the way back from it and the value, in that precision."""
        self.field = field
        self.points = field.weights[0].new_empty(0, field.in_dim)
        self.value = self.gradient = self.laplacian = self.points
        self.dtype = torch.bfloat16 if bfloat16 else self.points.dtype
        self.rooms: dict[str, Tensor] = {}

    @torch.no_grad()
    def jet(self, points: Tensor) -> Jet:
        """The jet at points (n, d): its value and derivatives are leaves, whose `grad` `backward` reads.

        It is good until the next call. The jets of networks of other layers than sines are autograd's: the loss's own
        backward pass leads them back.
        """
        if not self.field.learns_sines:
            with torch.enable_grad():
                return self.field.jet(points)
        self.points, self.gradient, self.laplacian = points, points[:0], points[:0]
        self.scaled = [(w.detach(), b.detach()) for w, b in self.field.scaled()]
        self.rounded = [w.to(self.dtype) for w, _ in self.scaled]
        *sines, (weight, bias) = self.scaled
        self.fused = self._fused()
        if self.fused:
            self.value = self.fused.value(points, self.scaled, self.rounded).requires_grad_()
            return Jet(self.value, self._gradient, self._laplacian)
        self.sine, self.cosine = self._room("waves", 2, len(sines), len(points), len(sines[0][0]), dtype=self.dtype)
        rounded = self.dtype != points.dtype
        activation, (z, exact) = points, self._room("z", 2, *self.sine[0].shape)
        for layer, (w, b) in enumerate(sines):
            torch.addmm(b, activation, w.T, out=z)
            torch.cos(z, out=self.cosine[layer])
            activation = torch.sin(z, out=exact if rounded else self.sine[layer])
            if rounded:
                self.sine[layer].copy_(activation)
        self.value = torch.addmm(bias, activation, weight.T).requires_grad_()
        return Jet(self.value, self._gradient, self._laplacian)

    def _fused(self) -> Fused | None:
        """Kernels that have the passes over many points inside of their products, where they can be made."""
        points, net = self.points, self.field
        if not (points.is_cuda and points.device.index == torch.cuda.current_device() and self.dtype == torch.bfloat16):
            return None
        many = FUSED <= len(points) < (1 << 31) // net.config.width  # they count numbers in 32 bits
        whole = net.config.width % 8 == 0  # rows must begin at multiples of 16 bytes
        if not (many and whole and net.out_dim == 1 and net.in_dim < 16 and net.config.hidden_layers):
            return None
        try:
            from sdfrecon import fused
        except Exception:  # Triton comes with PyTorch's wheels for GPUs, not with all others
            return None
        return fused.Fused(self._room) if fused.usable(points.device) else None

    @torch.no_grad()
    def _gradient(self) -> Tensor:
        *sines, (weight, _) = self.scaled
        if self.field.out_dim > 1:
            slopes = [self._carried(part, bent=False)[-1].after[1:] @ weight.T for part in chunks(self.points)]
            self.gradient = torch.cat(slopes, dim=1).permute(1, 2, 0).requires_grad_()
            return self.gradient
        if self.fused:
            self.gradient = self.fused.gradient()[:, None].requires_grad_()
            return self.gradient
        # Row vectors before and after each layer's cosine (Siren.jet: A_l W and A_l cos z).
        self.before, self.after = self._room("rows", 2, *self.cosine.shape, dtype=self.dtype)
        rows = self.rounded[-1]
        for layer in reversed(range(len(sines))):
            after = torch.mul(rows, self.cosine[layer], out=self.after[layer])
            if layer:
                rows = torch.mm(after, self.rounded[layer], out=self.before[layer - 1])
        # Here and in `_backward_rows`: three rows times a matrix take half of the time of a matrix times three columns.
        self.gradient = (sines[0][0].T @ after.to(weight.dtype).T).T[:, None].requires_grad_()
        return self.gradient

    @torch.no_grad()
    def _laplacian(self) -> Tensor:
        last = self.scaled[-1][0]
        parts = [self._carried(part, bent=True)[-1].after[-1] @ last.T for part in chunks(self.points)]
        self.laplacian = torch.cat(parts).requires_grad_()
        return self.laplacian

    @torch.no_grad()
    def backward(self) -> None:
        """Adds to the parameters' `grad` what the jet's `grad` brings them."""
        if not self.field.learns_sines:
            return
        learnt = [tensor for pair in self.scaled for tensor in pair]
        sizes = [tensor.numel() for tensor in learnt]
        room = self.points.new_zeros(sum(sizes)).split(sizes)
        grads = [part.view_as(tensor) for part, tensor in zip(room, learnt, strict=True)]
        weights, biases = grads[::2], grads[1::2]
        slopes, bends, begin = self.gradient.grad, self.laplacian.grad, 0
        by_rows, carried = (slopes, None) if self.field.out_dim == 1 else (None, slopes)
        if carried is not None or bends is not None:
            for points in chunks(self.points):
                rows = slice(begin, begin + len(points))
                begin = rows.stop
                along, bent = (None if grad is None else grad[rows] for grad in (carried, bends))
                self._backward_carried(points, along, bent, weights, biases)
        if by_rows is not None or self.value.grad is not None:
            self._backward_rows(by_rows, weights, biases)
        for parameters, own in ((self.field.weights, weights), (self.field.biases, biases)):
            torch._foreach_mul_(own, [*self.field.omegas, 1.0])
            for parameter, grad in zip(parameters, own, strict=True):
                parameter.grad = grad if parameter.grad is None else parameter.grad.add_(grad)

    def _backward_rows(self, gradient: Tensor | None, weights: list[Tensor], biases: list[Tensor]) -> None:
        """Adds what the `grad` of the value, and of one channel's `gradient`, bring the scaled weights and biases."""
        if (error := self.value.grad) is None:
            error = torch.zeros_like(self.value)
        if self.fused:
            slope = torch.zeros_like(self._gradient()) if gradient is None else gradient
            self.fused.backward(error, slope[:, 0], weights, biases)
            return
        *sines, weight = self.rounded
        last = len(sines) - 1
        one, two = self._room("errors", 2, *self.cosine[0].shape, dtype=self.dtype)
        ones = one.new_ones(1, len(one))  # times which a sum over the rows is a product, and takes a fifth of the time
        if gradient is not None:  # up through it: what reaches each cosine goes, times -sine, to that layer's z
            below, through = gradient[:, 0].to(self.dtype), one
            for layer, w in enumerate(sines):
                weights[layer] += self.after[layer].T @ below if layer else (below.T @ self.after[0]).T
                torch.mm(below, w.T, out=through)
                before = self.before[layer]
                torch.mul(before if layer < last else weight, through, out=before)
                below = torch.mul(through, self.cosine[layer], out=two)
            weights[-1] += ones @ below

        biases[-1] += error.sum(0)
        error = error.to(self.dtype)
        weights[-1] += error.T @ self.sine[last]
        upper = torch.mm(error, weight, out=one)
        for layer in reversed(range(len(sines))):
            z = torch.mul(upper, self.cosine[layer], out=two)
            if gradient is not None:
                z.addcmul_(self.before[layer], self.sine[layer], value=-1)
            weights[layer] += z.T @ self.sine[layer - 1] if layer else (self.points.to(self.dtype).T @ z).T
            biases[layer] += (ones @ z)[0]
            if layer:
                upper = torch.mm(z, sines[layer], out=one)

    def _carried(self, points: Tensor, bent: bool) -> list[_Layer]:
        """Every sine layer at points (n, d), with the Laplacian if `bent`."""
        *sines, _ = self.scaled
        d = self.field.in_dim
        size, layers = (len(points), len(sines[0][0])), list[_Layer]()
        for layer, (w, b) in enumerate(sines):
            cosine, steep = self._room(f"cosine {layer}", 2, *size)
            after, bend = self._room(f"after {layer}", 1 + d + bent, *size), None
            if layer:
                before = _mm(layers[-1].after, w.T, self._room(f"before {layer}", 1 + d + bent, *size))
                z, slopes = before[0].add_(b), before[1 : 1 + d]
                bend = before[-1] if bent else None
            else:
                z, slopes = torch.addmm(b, points, w.T, out=after[0]), w.T[:, None].expand(d, *size)
            torch.cos(z, out=cosine)
            sine = torch.sin(z, out=after[0])
            if bent:
                torch.sum(torch.mul(slopes, slopes, out=after[1 : 1 + d]), 0, out=steep)
                torch.mul(sine, steep, out=after[-1]).neg_()
            if bend is not None:
                after[-1].addcmul_(cosine, bend)
            torch.mul(cosine, slopes, out=after[1 : 1 + d])
            layers.append(_Layer(cosine, slopes, steep, bend, after))
        return layers

    def _backward_carried(
        self,
        points: Tensor,
        gradient: Tensor | None,
        laplacian: Tensor | None,
        weights: list[Tensor],
        biases: list[Tensor],
    ) -> None:
        """The same at points (n, d) for a loss's derivatives by the gradient (n, c, d) and the Laplacian (n, c)."""
        *sines, (weight, _) = self.scaled
        layers, along = self._carried(points, bent=laplacian is not None), slice(1, 1 + self.field.in_dim)
        upper, lower = (self._room(name, *layers[0].after.shape) for name in ("upper", "lower"))
        spare, spare2 = self._room("spare", 2, *layers[0].cosine.shape)
        upper.zero_()
        if gradient is not None:
            for axis, error in enumerate(gradient.unbind(-1), 1):
                torch.mm(error, weight, out=upper[axis])
                weights[-1].addmm_(error.T, layers[-1].after[axis])
        if laplacian is not None:
            torch.mm(laplacian, weight, out=upper[-1])
            weights[-1].addmm_(laplacian.T, layers[-1].after[-1])
        for layer in reversed(range(len(sines))):
            cosine, slopes, steep, bend, after = layers[layer]
            sine, z = after[0], upper[0].mul_(cosine)
            torch.sum(torch.mul(upper[along], slopes, out=lower[along]), 0, out=spare)
            z.addcmul_(sine, spare, value=-1)
            upper[along].mul_(cosine)
            if laplacian is not None:  # that of sin z is cos z times that of z, less sin z |grad z|^2
                torch.mul(cosine, steep, out=spare)
                if bend is not None:
                    spare.addcmul_(sine, bend)
                z.addcmul_(spare, upper[-1], value=-1)
                upper[along].addcmul_(torch.mul(sine, upper[-1], out=spare2), slopes, value=-2)
                upper[-1].mul_(cosine)
            biases[layer] += z.sum(0)
            if layer:
                weights[layer].addmm_(upper.flatten(0, 1).T, layers[layer - 1].after.flatten(0, 1))
                upper, lower = _mm(upper, sines[layer][0], lower), upper
            else:
                weights[0].addmm_(z.T, points)
                weights[0] += upper[along].sum(1).T

    def _room(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """A tensor of that shape, whose memory is used again by the next of that name."""
        count = math.prod(shape)
        if name not in self.rooms or len(self.rooms[name]) < count:
            self.rooms[name] = self.points.new_empty(count, dtype=dtype)
        return self.rooms[name][:count].view(shape)


def _mm(rows: Tensor, matrix: Tensor, out: Tensor) -> Tensor:
    """rows (m, n, j) times matrix (j, k) into out (m, n, k), as one product."""
    torch.mm(rows.flatten(0, 1), matrix, out=out.flatten(0, 1))
    return out
