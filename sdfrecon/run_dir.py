"""The folder in which a run keeps what it would need to go on: its checkpoint, its losses, and a lock."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from sdfrecon.files import make_folder, may_write
from sdfrecon.geometry import InputError

Losses = dict[int, dict[str, float]]
"""By the number of steps done, every constraint's share of the loss."""
FINISHED = "run.json"
"""What is in the folder of a run that came to its end and is kept."""


class RunDir:
    """Files called after a key that only the same run has: two runs cannot take each other's."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.checkpoint = folder / f"checkpoint-{key}.safetensors"
        self._losses = folder / f"losses-{key}.jsonl"
        self._lock = folder / "lock"

    def losses(self) -> Losses:
        """Those noted before, of an interrupted run too, without those of steps that were taken back."""
        if not self._losses.exists():
            return {}
        found: Losses = {}
        for line in self._losses.read_text("utf-8", "replace").splitlines():
            try:
                step, terms = json.loads(line)
            except ValueError:
                continue  # an empty line, or one that a kill or a full disk cut short
            keep(found, step, terms)
        return found

    def note(self, step: int, terms: dict[str, float]) -> None:
        """Adds a line to the losses. Raises InputError where it cannot be written."""
        try:
            with open(self._losses, "a") as file:
                file.write("\n" + json.dumps([step, terms]) + "\n")  # the line before may have been cut short
        except OSError as error:
            raise _refused(self._losses, error) from None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Holds the folder. Raises InputError where another run does; what a killed one held is free."""
        make_folder(self.folder)
        try:
            file = open(self._lock, "a")  # noqa: SIM115
        except OSError as error:
            raise _refused(self._lock, error) from None
        with file:
            if not _locked(file, self._lock):
                raise InputError(
                    f"another run is using {self.folder}: let it end, or choose another --run-dir or --output"
                )
            yield

    def remove(self) -> bool:
        """Takes away the files of this run, and the folder if nothing else is in it: whether an interrupted run's stay.

        Nothing while another run uses it, nor where one is kept.
        """
        with suppress(InputError, PermissionError), self.in_use():
            if (self.folder / FINISHED).exists():
                return False
            for path in (self.checkpoint, self._losses, *self.folder.glob(".checkpoint-*")):
                path.unlink(missing_ok=True)
            if any(self.folder.glob("checkpoint-*")):
                return True
            for path in (self._lock, *self.folder.glob("losses-*")):
                path.unlink(missing_ok=True)
        with suppress(OSError):  # where anything else is in it
            self.folder.rmdir()
        return False


def keep(losses: Losses, step: int, terms: dict[str, float]) -> None:
    """Adds those of a step to what was noted of steps before; what was of later ones was taken back."""
    while losses and next(reversed(losses)) >= step:
        losses.popitem()
    losses[step] = terms


def check_folder(path: Path) -> None:
    """Raises InputError where a folder cannot be written in, or made, or holds another program's FINISHED."""
    there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if not (there.is_dir() and may_write(there)):
        raise InputError(f"cannot write in the folder {path}: {there} does not allow it: choose another --run-dir")
    kept = path / FINISHED
    if kept.exists() and not (finished(path) and may_write(kept)):
        raise InputError(f"{kept} would be overwritten: choose another --run-dir")


def finished(folder: Path) -> dict[str, Any] | None:
    """What `reconstruct` kept of a run that came to its end there, if one did."""
    try:
        run: dict[str, Any] = json.loads((folder / FINISHED).read_text("utf-8"))
        return run if {"scan", "mesh", "field", "seconds", "notes", "command"} <= run.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def _refused(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write {path}: {error.strerror}: choose another --run-dir")


def _locked(file: TextIO, path: Path) -> bool:
    """Whether nobody else had the open file of that path locked, as it is now; true where there are no locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())  # who held it may have taken it away since
    except (BlockingIOError, FileNotFoundError):
        return False
    except (ImportError, OSError):
        pass  # Windows has none, nor have some network file systems
    return True
