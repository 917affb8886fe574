"""What several test files need: where the data are, a disk that is full, fits that begin sooner."""

import gc
import os
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sdfrecon.cli import alone

alone()  # before torch is there: as the command

import torch  # noqa: E402

from sdfrecon.presets import PRESETS  # noqa: E402

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("SDFRECON_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """Where to compute: everywhere, one after the other."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return str(request.param)


@pytest.fixture(autouse=True)
def _drawn_alike() -> None:
    """Torch's own random numbers are the same in every test, whichever others run."""
    torch.manual_seed(0)


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """Lets no file grow beyond so many bytes: that refuses a write halfway, as a full disk does. -1 ends it."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (before[0] if most < 0 else most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)
    gc.collect()  # trimesh leaves a file that it cannot write open


@pytest.fixture
def few_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a fit of `draft` fewer samples are prepared, which takes a second less."""
    draft = PRESETS["draft"]
    assert draft.surface is not None
    monkeypatch.setitem(PRESETS, "draft", replace(draft, surface=replace(draft.surface, pool=10_000)))


@pytest.fixture
def ring_and_ball() -> Path:
    """The scan that the project ships."""
    return ROOT / "data" / "ring_and_ball.ply"


@pytest.fixture
def gargoyle() -> Path:
    """A real scan, outside the project."""
    path = SHARED / "scans" / "gargoyle.ply"
    if not path.exists():
        pytest.skip(f"no real scans at {SHARED}: set SDFRECON_DATA to test on them")
    return path
