"""What a reconstruction will take, before it starts: time from a few of its steps, memory from what it holds."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

from sdfrecon.geometry import InputError, PointCloud, finite
from sdfrecon.reconstruction import ReconstructConfig, seconds_per_step, sized

A_POINT, A_SQUARE = 600, 1100
"""Bytes held for each point of the scan, and for each square of a face of the grid (benchmarks/speed.py)."""


@dataclass(frozen=True)
class Plan:
    """spacing: between the points, scan units. config: as suits them. memory: bytes at the peak."""

    spacing: float
    config: ReconstructConfig
    device: torch.device
    memory: float

    @cached_property
    def seconds(self) -> float:
        """Of the fit: the first who asks waits for a few steps."""
        return self.config.fit.steps * seconds_per_step(self.config, self.device)


def plan(cloud: PointCloud, config: ReconstructConfig, device: torch.device) -> Plan:
    """What fitting and meshing a cloud will take. The process that asks is counted as it is."""
    used = PointCloud(cloud.points[finite(cloud.points)])
    some = used.thinned(10_000).points
    spacing = cKDTree(used.points).query(some, k=[2], workers=-1)[0] if len(used) > 1 else np.zeros(1)
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    memory = now + A_POINT * len(cloud) + A_SQUARE * config.resolution**2
    return Plan(float(np.median(spacing)), sized(config, len(cloud)), device, memory)


def check_memory(plan: Plan, resolution: int, allowed: float | None) -> None:
    """Raises InputError where the plan needs more bytes than are allowed, or than are free if None."""
    limit = free_memory() if allowed is None else allowed
    if plan.memory <= limit:
        return
    less = int(np.sqrt(max(limit - (plan.memory - A_SQUARE * resolution**2), 0) / A_SQUARE))
    way = f"lower --resolution to {less}" if less >= 8 else "give the scan fewer points"
    raise InputError(
        f"this needs about {plan.memory / 1e9:.1f} GB of memory, and {limit / 1e9:.1f} GB are "
        f"{'free' if allowed is None else 'allowed'}: {way}"
    )


def free_memory() -> float:
    """Bytes that this process may still take, with those that it holds; infinite where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024
    return free + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
