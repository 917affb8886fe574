"""The residuals C_m(a(x), Phi(x), grad Phi(x), ...) of the general loss, (n,) each, or their mean, 0 where it is met.

Those of shapes are for scalar fields (c = 1), whose value f is meant to be a signed distance, negative inside; those
that match a signal or its derivatives are for any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sdfrecon.jet import Jet
from sdfrecon.sampling import Attributes

Residual = Callable[[Attributes, Jet], Tensor]
RAMP = (0.3, 0.9)


@dataclass(frozen=True)
class Constraint:
    """weight * mean of `residual` over the samples of the domain called `domain`.

    A `final_weight` is reached by equal factors over the middle of the fit: global shape first, detail then.
    """

    name: str
    domain: str
    weight: float
    residual: Residual
    final_weight: float | None = None

    def weight_at(self, progress: float) -> float:
        """The weight at `progress`, 0 to 1: the first until RAMP begins, the final one after it ends."""
        if self.final_weight is None:
            return self.weight
        begin, end = RAMP
        share = min(1.0, max(0.0, (progress - begin) / (end - begin)))
        return self.weight * (self.final_weight / self.weight) ** share


def zero_level(_: Attributes, jet: Jet) -> Tensor:
    """|f|: the surface passes through the point (Sitzmann et al. 2020, eq. 6)."""
    return jet.value.squeeze(1).abs()


def normal_alignment(known: Attributes, jet: Jet) -> Tensor:
    """1 - cos(grad f, n) with the point's unit normal `normals` (n, d) (Sitzmann et al. 2020, eq. 6, by its code).

    Normals carry the sign: without them f and -f fit equally well.
    """
    return 1 - (jet.gradient.squeeze(1) * known["normals"]).sum(-1) / jet.slope.squeeze(1)


def eikonal(_: Attributes, jet: Jet) -> Tensor:
    """| |grad f| - 1 |: a distance grows by one for each unit walked (Sitzmann et al. 2020, eq. 6)."""
    return (jet.slope.squeeze(1) - 1).abs()


def off_surface(alpha: float) -> Residual:
    """exp(-alpha |f|): no zero away from the data (Sitzmann et al. 2020, eq. 6)."""
    return lambda _, jet: torch.exp(-alpha * jet.value.squeeze(1).abs())


def right_sign(known: Attributes, jet: Jet) -> Tensor:
    """max(0, -s f): how far f lies on the wrong side, with s = `sign` (n,) +1 outside, -1 inside, 0 where unsure."""
    return F.relu(-known["sign"] * jet.value.squeeze(1))


def within_reach(known: Attributes, jet: Jet) -> Tensor:
    """max(0, |f| - r): no point is farther from the surface than from its nearest sample, r = `reach` (n,)."""
    return F.relu(jet.value.squeeze(1).abs() - known["reach"])


def far_distance(beyond: float) -> Residual:
    """(f - s r)^2 where r = `reach` exceeds `beyond`, else 0: far from the samples the nearest one is the surface.

    Not so where the side s = `sign` is unsure, 0: there the surface was not seen. Nearer than `beyond` noise, spacing
    and holes count, and the other constraints decide. The square spares small errors: they are not worth any of the
    network's attention to the surface.
    """

    def residual(known: Attributes, jet: Jet) -> Tensor:
        far = (known["reach"] > beyond) & (known["sign"] != 0)
        return (jet.value.squeeze(1) - known["sign"] * known["reach"]).square() * far

    return residual


def heat(absorption: float) -> Residual:
    """1/2 exp(-2 lambda |f|) (|grad f|^2 + 1): the screened heat's energy, least for the smallest surface.

    The heat loss of HotSpot (Wang et al., CVPR 2025), lambda = `absorption`. Where f is on the other side than `sign`
    (n,) says, |f| counts as 0: the energy must not keep it from coming back. Where that is 0, either side is right.
    """

    def residual(known: Attributes, jet: Jet) -> Tensor:
        f, sign = jet.value.squeeze(1), known["sign"]
        size = f.abs() * (sign * f >= 0)
        return 0.5 * torch.exp(-2 * absorption * size) * (jet.slope.squeeze(1).square() + 1)

    return residual


def match_value(known: Attributes, jet: Jet) -> Tensor:
    """|Phi - v|^2, the mean over the channels, with the signal `value` (n, c) (Sitzmann et al. 2020, section 3)."""
    if known["value"].shape != jet.value.shape:
        raise ValueError(f"values must be {tuple(jet.value.shape)} as the network's; got {tuple(known['value'].shape)}")
    return (jet.value - known["value"]).square().mean(-1)


def match_gradient(known: Attributes, jet: Jet) -> Tensor:
    """|grad Phi - g|^2, the mean over channels and axes, with `gradient` (n, c, d) (Sitzmann et al. 2020, 4.1)."""
    return (jet.gradient - known["gradient"]).square().flatten(1).mean(1)


def match_gradient_at_all_scales(known: Attributes, jet: Jet) -> Tensor:
    """The same with what is broad, too: `at_all_scales`."""
    return at_all_scales((jet.gradient - known["gradient"]).flatten(1))


def match_divergence(inside: Tensor, cell: float) -> Residual:
    """(D^-1 div(grad Phi - g))^2 at cells, mean over channels, with `gradient` (n, c, 2) at all corners of theirs.

    inside: (h, w) which cells of a grid; samples are the `corners_of` them, row after row. Of a field g that is no
    gradient this leaves the part that a value can have (Perez et al. 2003, eq. 3), in the norm of `match_laplacian`.
    """
    cells, corners = inside.nonzero(), corners_of(inside)
    corner_rows, corner_columns = corners.nonzero().T
    inverse = _inverse_laplacian(cells, cell)

    def residual(known: Attributes, jet: Jet) -> Tensor:
        errors = jet.gradient - known["gradient"]
        field = errors.new_zeros(*corners.shape, *errors.shape[1:])
        field[corner_rows, corner_columns] = errors
        across, down = field.permute(3, 2, 0, 1)  # each (c, h - 1, w - 1)
        # An edge has the mean of its two corners, and at the grid's border the one that there is.
        across = F.avg_pool2d(F.pad(across, (0, 0, 1, 1), "replicate"), (2, 1), 1)
        down = F.avg_pool2d(F.pad(down, (1, 1, 0, 0), "replicate"), (1, 2), 1)
        divergence = F.pad(across, (1, 1)).diff(dim=2) + F.pad(down, (0, 0, 1, 1)).diff(dim=1)
        return inverse(divergence[:, cells[:, 0], cells[:, 1]].T / cell).square().mean(-1)

    return residual


def match_laplacian(cells: Tensor, cell: float) -> Residual:
    """(D^-1 (Laplacian of Phi - l))^2, the mean over the channels, with `laplacian` (n, c) at cells (n, 2) of a grid.

    Squared as it is, the Laplacian's error would hardly show what is broad: an error in the value counts by the fourth
    power of its frequency. In this discrete norm of order minus two (Bramble, Lazarov and Pasciak 1997 have that of
    order minus one) it counts as what it is in the value. A harmonic function counts nothing, as it must.
    """
    inverse = _inverse_laplacian(cells, cell)
    return lambda known, jet: inverse(jet.laplacian - known["laplacian"]).square().mean(-1)


def corners_of(inside: Tensor) -> Tensor:
    """(h - 1, w - 1): which corners between four cells touch one of those `inside` (h, w)."""
    return F.max_pool2d(inside[None].float(), 2, 1)[0] > 0


def _inverse_laplacian(cells: Tensor, cell: float) -> Callable[[Tensor], Tensor]:
    """D^-1 at cells (n, 2) of a grid, each `cell` wide: (n, c) -> (n, c).

    D is the five-point Laplacian of the rectangle that holds them, 0 around it and applied to 0 between them.
    """
    rows, columns = (cells - cells.amin(dim=0)).T
    sines, eigenvalues = zip(*(_sines(int(axis.max()) + 1, cells.device) for axis in (rows, columns)), strict=True)
    inverse = cell**2 / (eigenvalues[0][:, None] + eigenvalues[1])

    def solve(errors: Tensor) -> Tensor:
        grid = errors.new_zeros(errors.shape[1], *inverse.shape)
        grid[:, rows, columns] = errors.T
        potential = sines[0] @ (inverse * (sines[0] @ grid @ sines[1])) @ sines[1]
        return potential[:, rows, columns].T

    return solve


def _sines(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Orthonormal eigenvectors (n, n) of minus second differences over n cells, 0 around them, and eigenvalues (n,)."""
    k = torch.arange(1, count + 1, dtype=torch.float64, device=device) * (torch.pi / (count + 1))
    sines = (k[:, None] * torch.arange(1, count + 1, device=device)).sin() * (2 / (count + 1)) ** 0.5
    return sines.float(), (2 - 2 * k.cos()).float()


def at_all_scales(errors: Tensor) -> Tensor:
    """() the mean square of errors (n, k), and of their means over 4, 16, ... in a row, each scale twice the last.

    At the end of the rows, where fewer are left, the mean is of these.

    A derivative hardly shows what is broad: an error of a thousand pixels' width has a thousandth of the slope of one
    of a pixel's, and would be put right last. In means over patches (`sampling.Patches`) what is fine cancels and what
    is broad remains.
    """
    total, weight = errors.square().mean(), 1.0
    while len(errors) >= 4:
        errors, weight = F.avg_pool1d(errors.T[None], 4, ceil_mode=True)[0].T, 2 * weight
        total = total + weight * errors.square().mean()
    return total
