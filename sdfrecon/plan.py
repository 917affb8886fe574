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

A_POINT, A_SQUARE = 600, 1100
"""Bytes held for each point of the scan, and for each square of a face of the grid (benchmarks/speed.py)."""


@dataclass(frozen=True)
class Plan:
    """points: that will be used. config: as suits them. memory: bytes at the peak."""

    points: PointCloud
    config: ReconstructConfig
    device: torch.device
    memory: float

    @cached_property
    def spacing(self) -> float:
        """Between the points, scan units."""
        return spacing(self.points)

    @cached_property
    def seconds(self) -> float:
        """Of the fit: the first who asks waits for a few steps."""
        return self.config.fit.steps * seconds_per_step(self.config, self.device)


def plan(cloud: PointCloud, config: ReconstructConfig, device: torch.device) -> Plan:
    """What fitting and meshing a cloud will take. The process that asks is counted as it is."""
    used = PointCloud(cloud.points[finite(cloud.points)])
    used = used.select(first_of_each(used.points))
    memory = A_POINT * len(cloud) + meshing_memory(config.resolution)
    return Plan(used, sized(config, len(used)), device, memory)


def spacing(cloud: PointCloud) -> float:
    """The median distance from a point to the nearest other one, in the cloud's units; 0 where there is none."""
    if len(cloud) < 2:
        return 0.0
    some = cloud.thinned(10_000).points
    return float(np.median(cKDTree(cloud.points).query(some, k=[2], workers=-1)[0]))


def check_trim(trim: float, spacing: float) -> None:
    """Raises InputError where what is cut at a distance from the points would be the surface between them."""
    if trim < spacing:
        raise InputError(
            f"--trim {trim:g} cuts the surface between the points, which are {spacing:.3g} apart: "
            "give it some times as much"
        )


def meshing_memory(resolution: int) -> float:
    """Bytes that this process will have held when it has made a mesh over so many cells."""
    return _held() + A_SQUARE * resolution**2


def check_memory(needed: float, resolution: int, allowed: float | None = None) -> None:
    """Raises InputError where more bytes are needed, at that resolution, than are allowed, or than are free if None."""
    limit = free_memory() if allowed is None else allowed
    if needed <= limit:
        return
    less = int(np.sqrt(max(limit - (needed - A_SQUARE * resolution**2), 0) / A_SQUARE))
    way = f"lower --resolution to {less}" if less >= 8 else "give the scan fewer points"
    raise InputError(
        f"this needs about {needed / 1e9:.1f} GB of memory, and {limit / 1e9:.1f} GB are "
        f"{'free' if allowed is None else 'allowed'}: {way}"
    )


def free_memory() -> float:
    """Bytes that this process may still take, with those that it holds; infinite where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024
    return free + _held()


def _held() -> float:
    """The most bytes that this process has held; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
