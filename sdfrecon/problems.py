"""What is fitted: the domains and the constraints of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from sdfrecon import constraints as c
from sdfrecon.constraints import Constraint
from sdfrecon.frame import Frame
from sdfrecon.geometry import Floats, InputError, PointCloud, is_whole, unit_vectors
from sdfrecon.sampling import Box, Domain, Patches, Pool, Raster, moved, uniform_points

NEIGHBOURS = 8
FEW = 20_000
LEAF = 48
"""Points in a leaf of a KD-tree that is asked from afar: from there nearly all are as near."""
SURE = 0.7
"""Size of the mean cosine between the nearest normals and the ways from them, from which on their side is believed in
the box: of a surface that was seen, the nearest points lie straight below; where none was, at the rim, to one side. Off
corners and closer than the spacing it is smaller, too: there the samples beside the scan tell."""
MIDWAY, ALIKE, UPRIGHT = (4, 8), 0.94, 0.8
"""Which of the nearest, itself the first, a point has others midway to; and the cosines between their normals, and from
the normals to the upright of the way between, from which on it is smooth."""
RIM_WEIGHT = 3.0
"""What the values around a guided part weigh: all that is harmonic in it hangs on them."""
GUIDED = 0.01
"""What a guiding gradient weighs beside its divergence: that is fine sooner, this is right where both cannot be."""


@dataclass(frozen=True)
class Problem:
    """L = sum over constraints of weight * mean residual, each over the samples of its own domain."""

    domains: Mapping[str, Domain]
    constraints: Sequence[Constraint]

    def __post_init__(self) -> None:
        if len({(c.name, c.domain) for c in self.constraints}) < len(self.constraints):
            raise ValueError("two constraints of one name share a domain: they would be one in the loss")


@dataclass(frozen=True)
class SurfaceConfig:
    """How many samples a step draws, and what each constraint weighs."""

    on_surface: int = 1024
    """Points on the surface in a step: the scan's."""
    between: bool = False
    """And those midway between its neighbours."""
    near_surface: int = 256
    """Points beside the scan in a step."""
    in_box: int = 256
    """Points anywhere in the box in a step."""
    pool: int = 100_000
    """Points beside the scan and in the box, each, that are prepared before the fit and drawn from in its steps."""
    near_spread: float = 4.0
    """How far points beside the scan stray, times the distance to the eighth neighbour there."""
    zero_level: float = 1500.0
    """Weight of passing through the points, at first; of noisy ones at most that at last."""
    final_zero_level: float = 15000.0
    """Weight of passing through the points, at last, where they are not noisy."""
    normal: float = 2000.0
    """Weight of the normals, where they are not noisy."""
    normal_noise: float = 8.0
    """By how many degrees they may be off (`noise.spacing_and_noise`) until they weigh less."""
    eikonal: float = 15.0
    """Weight, beside the points and in the box, of growing by one for each unit walked."""
    surface_eikonal: float = 15.0
    """The same at the points, where they are not noisy."""
    sign: float = 500.0
    """Weight of being outside and inside where the nearest points say so."""
    reach: float = 500.0
    """Weight of not being farther from the surface than from the nearest point."""
    far: float = 500.0
    """Weight of the distance to the nearest point being the distance to the surface far from all points."""
    far_beyond: float = 0.25
    """From which distance on a point is far, unit."""
    heat: float = 100.0
    """Weight of the screened heat's energy, which keeps the surface small."""
    heat_absorption: float = 15.0
    """Its absorption lambda: the energy is felt within about 1 / lambda of the surface."""

    def __post_init__(self) -> None:
        for name in ("on_surface", "near_surface", "in_box", "pool"):
            if not is_whole(count := getattr(self, name), 1):
                raise InputError(f"{name} must be a whole number, at least 1; got {count}")
        for name in ("zero_level", "final_zero_level"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}, from or to which a weight grows, must be above 0; got {getattr(self, name)}")


def surface(cloud: PointCloud, config: SurfaceConfig, generator: torch.Generator) -> Problem:
    """The signed distance of an oriented cloud (unit coordinates), on the generator's device.

    Beside the terms of Sitzmann et al. 2020 (section 4.2), those from the nearest oriented samples (`sign_and_reach`)
    and HotSpot's heat energy keep zero levels away from where there are no data, and make the field a distance far
    from them. They replace the paper's exp(-100 |f|), which leaves phantom sheets.
    """
    device = generator.device
    tree = cKDTree(cloud.points)
    points = _tensor(cloud.points, generator)
    shown = with_midpoints(cloud, tree) if config.between else cloud
    rows = torch.randint(len(points), (config.pool,), generator=generator, device=device)
    drawn, again = np.unique(rows.cpu().numpy(), return_inverse=True)
    spacing = tree.query(cloud.points[drawn], k=[min(NEIGHBOURS + 1, len(cloud))], workers=-1)[0][again, 0]
    near = moved(points[rows], _tensor(spacing * config.near_spread, generator), generator)
    box = uniform_points(config.pool, 3, generator)
    # Far from the surface some of the samples say as much as all, and finding the nearest is many times faster.
    some = cloud.select(torch.randperm(len(cloud), generator=generator, device=device)[:FEW].cpu().numpy())
    return Problem(
        {
            "surface": Pool(
                _tensor(shown.points, generator), {"normals": _tensor(shown.normals, generator)}, config.on_surface
            ),
            "near": Pool(near, sign_and_reach(near, cloud, tree), config.near_surface),
            "box": Pool(box, sign_and_reach(box, some, cKDTree(some.points, leafsize=LEAF), SURE), config.in_box),
        },
        [
            Constraint("zero level", "surface", config.zero_level, c.zero_level, config.final_zero_level),
            Constraint("normal", "surface", config.normal, c.normal_alignment),
            Constraint("eikonal", "surface", config.surface_eikonal, c.eikonal),
            *(Constraint("eikonal", where, config.eikonal, c.eikonal) for where in ("near", "box")),
            *(Constraint("sign", where, config.sign, c.right_sign) for where in ("near", "box")),
            *(Constraint("reach", where, config.reach, c.within_reach) for where in ("near", "box")),
            Constraint("far distance", "box", config.far, c.far_distance(config.far_beyond)),
            Constraint("heat", "box", config.heat, c.heat(config.heat_absorption)),
        ],
    )


def paper_surface(cloud: PointCloud, generator: torch.Generator) -> Problem:
    """The problem of the SIREN paper (Sitzmann et al. 2020, eq. 6) as its code has it.

    1400 points of the cloud and as many in the box. The code's weights 3000, 100, 100 and 50 are of means over both
    halves together; of means over each domain they are half as large.
    """
    points = _tensor(cloud.points, generator)
    return Problem(
        {"surface": Pool(points, {"normals": _tensor(cloud.normals, generator)}, 1400), "box": Box(3, 1400)},
        [
            Constraint("zero level", "surface", 1500.0, c.zero_level),
            Constraint("normal", "surface", 50.0, c.normal_alignment),
            Constraint("off surface", "box", 50.0, c.off_surface(100.0)),
            *(Constraint("eikonal", where, 25.0, c.eikonal) for where in ("surface", "box")),
        ],
    )


def image(
    frame: Frame,
    batch: int,
    generator: torch.Generator,
    picture: Floats | None = None,
    values: tuple[Floats, Floats] | None = None,
    gradients: tuple[Floats, Floats] | None = None,
    laplacians: tuple[Floats, Floats] | None = None,
    guidance: tuple[NDArray[np.bool_], Floats] | None = None,
    rim: tuple[Floats, Floats] | None = None,
) -> Problem:
    """A signal from what is known of it, each at samples of its own, in pixels.

    picture: (h, w, c) colours, sampled between the pixels too (`sampling.Raster`), so that the signal is as smooth
    there as they are. values: places (n, 2), colours (n, c). gradients: places, gradients a pixel (n, c, 2), of an
    image. laplacians: centres of pixels, Laplacians a square pixel (n, c). guidance: which pixels (h, w), and gradients
    a pixel (h - 1, w - 1, c, 2) at all corners between pixels, of no image: what comes nearest is sought. rim: places
    around these pixels and their colours. batch: how many of each a step draws, of gradients in patches; of Laplacians
    and guidance it takes all, since what is broad shows in them all together.

    The network's signal is 2 * colour - 1 over the frame's square: a gradient is 2 * scale, a Laplacian 2 * scale^2
    times what it is in pixels. Gradients are weighed by one over their mean square, guiding ones by GUIDED of
    that, at most, beside their divergence with weight 1 (Sitzmann et al. 2020, section 4.1, has factors for it).
    """
    domains: dict[str, Domain] = {}
    constraints = []

    def add(name: str, domain: Domain, weight: float, residual: c.Residual) -> None:
        domains[name] = domain
        constraints.append(Constraint(name, name, weight, residual))

    def unit(places: Floats) -> Tensor:
        return _tensor(frame.points_to_unit(places), generator)

    def colours(known: tuple[Floats, Floats]) -> Domain:
        return Pool(unit(known[0]), {"value": _tensor(2 * known[1] - 1, generator)}, batch)

    def slopes(gradients: Floats) -> tuple[Tensor, float]:
        steep = 2 * frame.scale * gradients
        return _tensor(steep, generator), 1 / max(float(np.square(steep).mean()), 1e-6)

    if picture is not None:
        corners = unit(np.array([(0, 0), picture.shape[1::-1]]))
        add("value", Raster(_tensor(2 * picture - 1, generator), corners, batch), 1.0, c.match_value)
    if values is not None:
        add("value", colours(values), 1.0, c.match_value)
    if rim is not None:
        add("rim", colours(rim), RIM_WEIGHT, c.match_value)
    if gradients is not None:
        steep, evened = slopes(gradients[1])
        patches = Patches.of(unit(gradients[0]), {"gradient": steep}, batch)
        add("gradient", patches, evened, c.match_gradient_at_all_scales)
    if laplacians is not None:
        bent = {"laplacian": _tensor(2 * frame.scale**2 * laplacians[1], generator)}
        cells = torch.tensor(np.floor(laplacians[0]), dtype=torch.long, device=generator.device)
        everywhere = Pool(unit(laplacians[0]), bent, len(cells))
        add("laplacian", everywhere, 1.0, c.match_laplacian(cells, 1 / frame.scale))
    if guidance is not None:
        inside = torch.tensor(guidance[0], device=generator.device)
        touched = c.corners_of(inside).cpu().numpy()
        steep, evened = slopes(guidance[1][touched])
        everywhere = Pool(unit(1 + np.argwhere(touched)[:, ::-1].astype(float)), {"gradient": steep}, len(steep))
        # Where it is nearly flat, its slopes must not weigh so much that what is put in is flat, too.
        add("guidance", everywhere, GUIDED * min(evened, 1.0), c.match_gradient)
        constraints.append(Constraint("divergence", "guidance", 1.0, c.match_divergence(inside, 1 / frame.scale)))
    return Problem(domains, constraints)


def with_midpoints(cloud: PointCloud, tree: cKDTree) -> PointCloud:
    """The cloud, and the points midway from each to two of its neighbours where the surface is smooth between them.

    They lie on the cubic through both that is square to their normals at its ends (after Vlachos et al. 2001, section
    3.3). A network that could bend between the points to pass through them all has no room for it then.
    """
    points, normals = cloud.points, cloud.normals
    assert normals is not None
    _, pairs = tree.query(points, k=MIDWAY, workers=-1)
    start, end = np.repeat(np.arange(len(points)), len(MIDWAY)), pairs.ravel()
    start, end = start[end < len(points)], end[end < len(points)]

    def dot(a: Floats, b: Floats) -> Floats:
        return np.einsum("nd,nd->n", a, b)[:, None]

    way = points[end] - points[start]
    along, up = unit_vectors(way), normals[start] + normals[end]
    up = unit_vectors(up - dot(up, along) * along)
    upright = np.minimum(dot(normals[start], up), dot(normals[end], up)) > UPRIGHT
    smooth = (upright & (dot(normals[start], normals[end]) > ALIKE))[:, 0]
    start, end, way, along, up = start[smooth], end[smooth], way[smooth], along[smooth], up[smooth]

    tilted = [normals[i] / dot(normals[i], up) for i in (start, end)]
    first, last = (-dot(normal, along) for normal in tilted)
    across = np.cross(along, up)
    middle = points[start] + way / 2 + up * np.linalg.norm(way, axis=1, keepdims=True) * (first - last) / 8
    normal = up + (first + last) / 4 * along + dot(tilted[0] + tilted[1], across) / 2 * across
    return PointCloud(np.concatenate([points, middle]), np.concatenate([normals, unit_vectors(normal)]))


def sign_and_reach(points: Tensor, cloud: PointCloud, tree: cKDTree, sure: float = 0.0) -> dict[str, Tensor]:
    """What the nearest oriented samples say of points (n, 3): the side they are on, and how far the surface can be.

    sign: (n,) +1 outside, -1 inside: the sign of the mean cosine between the normals of the 8 nearest samples and the
    ways from them, which is that of the inverse-distance mean of the signed distances to their tangent planes (after
    Hoppe et al. 1992, section 3.4); 0 where it is smaller than `sure` in size. reach: (n,) distance to the nearest
    sample, unit.
    """
    query = points.double().cpu().numpy()
    distance, index = tree.query(query, k=range(1, min(NEIGHBOURS, len(cloud)) + 1), workers=-1)
    assert cloud.normals is not None
    of_plane = np.einsum("nd,nd->n", cloud.points, cloud.normals)
    to_plane = np.einsum("nd,nkd->nk", query, cloud.normals[index]) - of_plane[index]
    cosine = (to_plane / (distance + 1e-9)).mean(axis=1)
    sign = np.sign(cosine) * (np.abs(cosine) >= sure)
    return {
        "sign": torch.tensor(sign, dtype=torch.float32, device=points.device),
        "reach": torch.tensor(distance[:, 0], dtype=torch.float32, device=points.device),
    }


def _tensor(values: Floats | None, generator: torch.Generator) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=generator.device)
