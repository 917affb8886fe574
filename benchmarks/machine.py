"""What every benchmark's table stands under: where it was measured, and from which commit; and how a child is timed."""

import os
import platform
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("SDFRECON_DATA", ROOT.parent / "shared" / "data"))


def heading(command: str) -> str:
    """Two lines of Markdown: the command, the machine, the commit."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    if subprocess.run([*git, "status", "--porcelain", "sdfrecon"], capture_output=True, text=True).stdout:
        commit += " with changes"
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in cpus if line.startswith("model name")]
    return f"`{command}`\n{len(models)} x {models[0]}, Python {platform.python_version()}, commit {commit}\n"


def timed(command: list[str]) -> tuple[float, float]:
    """Runs a command to its end: (wall seconds, peak resident memory in GB). Its output is dropped, its failure not."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e9
