"""What memory a job will take, and how much of it there is."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from sdfrecon.geometry import InputError

CONTAINER = Path("/sys/fs/cgroup")
A_POINT, A_SQUARE = 600, 1100
"""Bytes held for each point of the scan, and for each square of a face of the grid (benchmarks/speed.py)."""


def meshing_memory(resolution: int) -> float:
    """Bytes for a mesh over so many cells, with the most that this process has held before."""
    return held() + A_SQUARE * resolution**2


def check_memory(needed: float, resolution: int, allowed: float | None = None) -> None:
    """Raises InputError where more bytes are needed, at that resolution, than are allowed, or than are free if None."""
    limit = free_memory() if allowed is None else allowed
    if needed <= limit:
        return
    less = int(np.sqrt(max(limit - (needed - A_SQUARE * resolution**2), 0) / A_SQUARE))
    fewer = int((limit - meshing_memory(resolution)) / A_POINT)
    way = "free some of it" if allowed is None else "allow more"
    way = f"pass --max-points {fewer}" if fewer >= 1000 else way
    way = f"lower --resolution to {less}" if less >= 64 else way
    raise InputError(
        f"this needs about {needed / 1e9:.1f} GB of memory, and {limit / 1e9:.1f} GB are "
        f"{'free' if allowed is None else 'allowed'}: {way}"
    )


def check_free(what: str, needed: float, way: str) -> None:
    """Raises InputError where `what` needs more bytes, beside those held, than are free; `way` is out of that."""
    free = free_memory() - held()
    if needed > free:
        raise InputError(f"{what} need about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free: {way}")


def free_memory() -> float:
    """Bytes that this process may still take, with those that it has held; infinite where the system does not say.

    The machine's, or what is left to the container: its limit less what it uses, without the files it caches.
    """
    machine = _numbers(Path("/proc/meminfo")).get("MemAvailable:", np.inf) * 1024
    limit, used = (_numbers(CONTAINER / name).get("", np.inf) for name in ("memory.max", "memory.current"))
    cached = _numbers(CONTAINER / "memory.stat").get("inactive_file", 0.0)
    container = limit - (used - cached) if np.isfinite([limit, used]).all() else np.inf
    return min(machine, container) + held()


def _numbers(path: Path) -> dict[str, float]:
    """The numbers of a file of the system by name, "" for one that stands alone; none where there is no such file."""
    try:
        lines = [line.split() for line in path.read_text(errors="replace").splitlines()]
    except OSError:
        return {}
    pairs = [(line[0], line[1]) if len(line) > 1 else ("", line[0]) for line in lines if line]
    return {name: float(number) for name, number in pairs if number.isdigit()}


def held() -> float:
    """The most bytes that this process has held; 0 where the system does not say."""
    if peak := _numbers(Path("/proc/self/status")).get("VmHWM:"):
        return 1024 * peak  # getrusage has what the program that started this one held, too
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
