"""Damaged files through every reader: `python benchmarks/fuzz.py [--count 20000]`.

Each file is a good one with bytes flipped, cut, doubled, or numbers made huge. A reader must give a result or refuse
with its one line (InputError), within seconds and memory: all else is a finding, and its file is kept in out/fuzz.
"""

import dataclasses
import multiprocessing
import re
import resource
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from machine import ROOT, heading

from sdfrecon import fieldfiles, files, libraries
from sdfrecon.field import Field
from sdfrecon.frame import Frame
from sdfrecon.geometry import InputError, Mesh
from sdfrecon.pictures import read_image, write_image
from sdfrecon.siren import Siren, SirenConfig

SECONDS, BYTES = 20, 8 << 30
OUT = ROOT / "out" / "fuzz"


@dataclasses.dataclass
class Args:
    """Counts what the readers make of damaged files."""

    count: int = 20_000
    """How many files, in equal parts of every format."""
    seed: int = 0
    """Of the damage."""


def main(args: Args) -> None:
    print(heading())
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        good = seeds(Path(folder))
        each = -(-args.count // len(good))
        print("| file | tried | read | refused | findings |\n| --- | --- | --- | --- | --- |")
        total: Counter[str] = Counter()
        for path in good:
            counts, findings = tried(path, each, args.seed, Path(folder))
            total += counts
            kinds = ", ".join(f"{n} x {kind}" for kind, n in findings.items()) or "none"
            print(f"| {path.name} | {each} | {counts['read']} | {counts['refused']} | {kinds} |", flush=True)
        print(f"| all | {each * len(good)} | {total['read']} | {total['refused']} | {total['finding']} |")


def seeds(folder: Path) -> list[Path]:
    """One small good file of every format."""
    rng = np.random.default_rng(0)
    points, normals = rng.normal(size=(40, 3)), rng.normal(size=(40, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    colors = rng.integers(0, 255, (40, 3))
    faces = np.array([[i, (i + 1) % 40, (i + 2) % 40] for i in range(40)])
    mesh = Mesh(points, faces, normals, colors.astype(np.uint8))
    for ending in files.MESH_WRITERS:
        files.write_mesh(folder / f"mesh{ending}", mesh)
    rows = "\n".join(" ".join(f"{x:.5f}" for x in row) for row in np.concatenate([points, normals], axis=1))
    for ending in (".xyz", ".txt", ".asc"):
        (folder / f"text{ending}").write_text(rows + "\n")
    (folder / "text.csv").write_text("x,y,z,nx,ny,nz\n" + rows.replace(" ", ",") + "\n")
    (folder / "text.pwn").write_text("40\n" + rows + "\n")
    (folder / "text.pts").write_text("40\n" + rows + "\n")
    header = "ply\nformat ascii 1.0\nelement vertex 40\n" + "".join(
        f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz")
    )
    (folder / "ascii.ply").write_text(header + "end_header\n" + rows + "\n")
    np.save(folder / "array.npy", np.concatenate([points, normals], axis=1))
    np.savez(folder / "arrays.npz", points=points, normals=normals)
    o3d = libraries.open3d()
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    cloud.normals = o3d.utility.Vector3dVector(normals)
    o3d.io.write_point_cloud(str(folder / "binary.pcd"), cloud)
    o3d.io.write_point_cloud(str(folder / "ascii.pcd"), cloud, write_ascii=True)
    for ending in (".png", ".jpg", ".tif"):
        write_image(folder / f"image{ending}", rng.random((12, 9, 3)))
    siren = Siren(3, 1, SirenConfig(8, 1), torch.Generator().manual_seed(0))
    fieldfiles.save_field(folder / "field.safetensors", Field(siren, Frame((0.0, 0.0, 0.0), 1.0), {}))
    return sorted(folder.iterdir())


def readers(path: Path) -> list[Callable[[Path], Any]]:
    """What the commands would read the file with."""
    if path.suffix in (".png", ".jpg", ".tif"):
        return [read_image]
    if path.suffix == ".safetensors":
        return [fieldfiles.load_field]
    return [files.read_cloud] + [files.read_mesh] * (path.stem == "mesh")


def tried(path: Path, count: int, seed: int, folder: Path) -> tuple[Counter[str], Counter[str]]:
    """How many damaged copies were read, refused, or are findings, and of what kinds those are."""
    counts: Counter[str] = Counter()
    findings: Counter[str] = Counter()
    done = 0
    while done < count:
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(target=work, args=(theirs, path, done, count, seed, folder))
        child.start()
        theirs.close()
        try:
            while done < count:
                if not ours.poll(2 * SECONDS):
                    raise TimeoutError
                result = ours.recv()
                counts[result if result in ("read", "refused") else "finding"] += 1
                if result not in ("read", "refused"):
                    findings[result] += 1
                    keep(path, done, seed)
                done += 1
        except (EOFError, TimeoutError) as error:
            kind = "hang" if isinstance(error, TimeoutError) else "crash"
            counts["finding"] += 1
            findings[kind] += 1
            keep(path, done, seed)
            done += 1
        child.kill()
        child.join()
    return counts, findings


def work(pipe: Connection, path: Path, start: int, count: int, seed: int, folder: Path) -> None:
    """Reads damaged copies and says of each what became of it; a crash or a hang ends it."""
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, hung)
    sys.stderr = open("/dev/null", "w")  # noqa: SIM115
    victim = folder / f".victim{path.suffix}"
    for index in range(start, count):
        victim.write_bytes(damaged(path.read_bytes(), np.random.default_rng([seed, index])))
        result = "read"
        for read in readers(path):
            signal.alarm(SECONDS)
            try:
                read(victim)
            except InputError as error:
                result = "refused" if "\n" not in str(error) else "two lines"
                if isinstance(error.__context__, MemoryError):
                    result = "MemoryError"
            except BaseException as error:
                result = type(error).__name__
            signal.alarm(0)
            if result not in ("read", "refused"):
                break
        pipe.send(result)
    pipe.close()


class Hang(BaseException):
    """No Exception, which a reader would take for a damaged file."""


def hung(*_: object) -> None:
    """What the alarm does."""
    raise Hang


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes after one to four mishaps."""
    for _ in range(rng.integers(1, 5)):
        at, length = int(rng.integers(0, len(data) + 1)), int(rng.integers(1, 40))
        kind = rng.integers(0, 7)
        numbers = list(re.finditer(rb"\d+", data[:600]))
        if kind == 0:
            data = data[:at]
        elif kind == 1:
            data = data[:at] + rng.bytes(length) + data[at:]
        elif kind == 2:
            data = data[:at] + data[at + length :]
        elif kind == 3:
            data = data[:at] + data[max(0, at - length) :]
        elif kind == 4 and numbers:
            huge = (b"1000000000000", b"-1", b"0", b"4294967297", b"99999999999999999999", b"nan", b"1e400")
            number = numbers[rng.integers(len(numbers))]
            data = data[: number.start()] + huge[rng.integers(len(huge))] + data[number.end() :]
        elif data:
            flipped = bytearray(data)
            for _ in range(length if kind == 5 else 1):
                flipped[rng.integers(len(flipped))] = rng.integers(256)
            data = bytes(flipped)
    return data


def keep(path: Path, index: int, seed: int) -> None:
    """Writes the damaged file where it can be looked at."""
    data = damaged(path.read_bytes(), np.random.default_rng([seed, index]))
    (OUT / f"{path.stem}-{seed}-{index}{path.suffix}").write_bytes(data)


if __name__ == "__main__":
    main(tyro.cli(Args))
