"""What every benchmark's table stands under: where it was measured, and from which commit; and how a child is timed."""

import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
LAUNCHER = """
import os, sys, time
start, pid = time.perf_counter(), os.fork()
if not pid:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.execv(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), time.perf_counter() - start, usage.ru_maxrss)
"""
SHARED = Path(os.environ.get("SDFRECON_DATA", ROOT.parent / "shared" / "data"))


def heading() -> str:
    """Two lines of Markdown: the command that runs, the machine, the commit."""
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    return f"`{command}`\n{machine()}, Python {platform.python_version()}, commit {commit()}\n"


def machine() -> str:
    """Its processors, with the widest instructions that torch finds, and its GPU."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in cpus if line.startswith("model name")]
    widest = torch.backends.cpu.get_cpu_capability()
    name = f"{os.cpu_count()} x {models[0] if models else platform.machine()}, {widest}"
    return f"{name}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else name


def commit() -> str:
    """The project's commit, and whether its code differs from it."""
    git, code = ["git", "-C", str(ROOT)], ["sdfrecon", ":(glob)benchmarks/*.py"]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain", *code], capture_output=True, text=True).stdout
    return f"{head} with changes" if changed else head


def timed(command: list[str]) -> tuple[float, float]:
    """Runs a command to its end: (wall seconds, peak resident memory in GB). Its output is dropped.

    Raises SystemExit where it fails, with the last line of what it said.
    """
    # Linux counts for a child the memory of the process that it was forked from: a small one in between has little.
    done = subprocess.run([sys.executable, "-S", "-c", LAUNCHER, *command], capture_output=True, text=True, check=True)
    status, seconds, kilobytes = done.stdout.split()
    if int(status):
        raise SystemExit(f"status {status}: {(done.stderr.splitlines() or ['it said nothing'])[-1]}")
    return float(seconds), float(kilobytes) * 1024 / 1e9
