"""What a reconstruction will take, before it starts: time from a few of its steps, memory from what it holds."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

from sdfrecon.cleaning import first_of_each
from sdfrecon.geometry import InputError, PointCloud, finite
from sdfrecon.reconstruction import ReconstructConfig, seconds_per_step, sized

CONTAINER = Path("/sys/fs/cgroup")
A_POINT, A_SQUARE = 600, 1100
"""Bytes held for each point of the scan, and for each square of a face of the grid (benchmarks/speed.py)."""


@dataclass(frozen=True)
class Plan:
    """What fitting and meshing a cloud will take: who asks waits for what he asks for alone."""

    cloud: PointCloud
    asked: ReconstructConfig
    device: torch.device

    @cached_property
    def points(self) -> PointCloud:
        """Those that will be used, but for outliers."""
        used = PointCloud(self.cloud.points[finite(self.cloud.points)])
        return used.select(first_of_each(used.points))

    @cached_property
    def spacing(self) -> float:
        """Between the points, scan units."""
        return spacing(self.points)

    @cached_property
    def config(self) -> ReconstructConfig:
        """As suits so many points."""
        return sized(self.asked, len(self.points))

    @cached_property
    def seconds(self) -> float:
        """Of the fit, by a few of its steps."""
        return self.config.fit.steps * seconds_per_step(self.config, self.device)

    @cached_property
    def memory(self) -> float:
        """Bytes at the peak, with what this process has held before."""
        return A_POINT * len(self.cloud) + meshing_memory(self.asked.resolution)


def spacing(cloud: PointCloud) -> float:
    """The median distance from a point to the nearest other one, in the cloud's units; 0 where there is none."""
    if len(cloud) < 2:
        return 0.0
    some = cloud.thinned(10_000).points
    return float(np.median(cKDTree(cloud.points).query(some, k=[2], workers=-1)[0]))


def check_coarser(trim: float, spacing: float) -> None:
    """Raises InputError where what is cut at a distance from the points would be the surface between them."""
    if trim < spacing:
        raise InputError(
            f"--trim {trim:g} cuts the surface between the points, which are {spacing:.3g} apart: "
            "give it some times as much"
        )


def meshing_memory(resolution: int) -> float:
    """Bytes for a mesh over so many cells, with the most that this process has held before."""
    return _held() + A_SQUARE * resolution**2


def check_memory(needed: float, resolution: int, allowed: float | None = None) -> None:
    """Raises InputError where more bytes are needed, at that resolution, than are allowed, or than are free if None."""
    limit = free_memory() if allowed is None else allowed
    if needed <= limit:
        return
    less = int(np.sqrt(max(limit - (needed - A_SQUARE * resolution**2), 0) / A_SQUARE))
    way = f"lower --resolution to {less}" if less >= 8 else "take fewer points, with --max-points"
    raise InputError(
        f"this needs about {needed / 1e9:.1f} GB of memory, and {limit / 1e9:.1f} GB are "
        f"{'free' if allowed is None else 'allowed'}: {way}"
    )


def free_memory() -> float:
    """Bytes that this process may still take, with those that it has held; infinite where the system does not say.

    The machine's, or what is left to the container: its limit less what it uses, without the files it caches.
    """
    machine = _numbers(Path("/proc/meminfo")).get("MemAvailable:", np.inf) * 1024
    limit, used = (_numbers(CONTAINER / name).get("", np.inf) for name in ("memory.max", "memory.current"))
    cached = _numbers(CONTAINER / "memory.stat").get("inactive_file", 0.0)
    container = limit - (used - cached) if np.isfinite([limit, used]).all() else np.inf
    return min(machine, container) + _held()


def _numbers(path: Path) -> dict[str, float]:
    """The numbers of a file of the system by name, "" for one that stands alone; none where there is no such file."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    pairs = [(line[0], line[1]) if len(line) > 1 else ("", line[0]) for line in lines if line]
    return {name: float(number) for name, number in pairs if number.isdigit()}


def _held() -> float:
    """The most bytes that this process has held; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
