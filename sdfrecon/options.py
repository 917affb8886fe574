"""What every command is told: one dataclass a command, whose docstrings are its help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Reconstruct:
    """Turn a scan into a mesh, in the scan's own units.

    Reads a point cloud with normals, fits a signed distance field to it, and writes the field's surface as a mesh and
    the field itself as a small file, from which `sdfrecon mesh` makes other resolutions. The same command again goes on
    where an interrupted one stopped.
    """

    scan: Positional[Path]
    """The scan: PLY, PCD, PTS, PWN, XYZ, TXT, CSV, NPY, NPZ, or a mesh whose vertices are taken."""
    output: Path | None = None
    """The mesh to write: .ply, .obj, .stl, .glb or .off. If not given, SCAN_mesh.ply beside the scan."""
    preset: Literal["draft", "standard", "fine", "paper"] = "draft"
    """How much work to put in: draft takes well under a minute on two processor cores, standard and fine recover more
    detail for more time. paper is the original SIREN recipe, 10,000 steps of its loss and optimiser, for comparison."""
    field: Path | None = None
    """The field to write. If not given, the mesh's name ending in .safetensors."""
    resolution: int | None = None
    """Cells along the box around the scan when triangles are made: twice as many give four times the triangles."""
    steps: int | None = None
    """Steps of the fit: more give a finer surface and take longer."""
    device: Device = "auto"
    """Where to compute: auto takes a GPU where there is one."""
    seed: int = 0
    """Of every random choice: the same seed gives the same mesh."""
    estimate_normals: bool = False
    """Estimate the normals from the points: for scans that have none, or wrong ones."""
    viewpoint: tuple[float, float, float] | None = None
    """Where the scanner stood, in the scan's coordinates: tells --estimate-normals which side is outside."""
    trim: float | None = None
    """Cut the surface where it is farther than this from every point, in the scan's units; 0 never cuts. If not given,
    closed objects stay closed and open scans are cut where their data end."""
    run_dir: Path | None = None
    """Folder for checkpoints, kept after the run. If not given, one beside the mesh, removed at the end."""
    quiet: bool = False
    """Print nothing but warnings and errors."""


@dataclass(frozen=True)
class MeshCommand:
    """Make a mesh from a field: at another resolution, or at a distance from the surface.

    The surface is whole: what `reconstruct` cut for lack of data is there again.
    """

    field: Positional[Path]
    """The field, as `reconstruct` wrote it (.safetensors)."""
    output: Path
    """The mesh to write: .ply, .obj, .stl, .glb or .off."""
    resolution: int = 256
    """Cells along the box around the scan: twice as many give four times the triangles."""
    level: float = 0.0
    """Distance from the surface, in the scan's units: above 0 outside (thicker), below 0 inside."""
    device: Device = "auto"
    """Where to compute: auto takes a GPU where there is one."""


@dataclass(frozen=True)
class Query:
    """Ask a field for the signed distance and its direction at given points.

    Writes an NPZ with points (n, 3), distance (n,) in the scan's units, negative inside, and gradient (n, 3), the unit
    vector in which the distance grows.
    """

    field: Positional[Path]
    """The field, as `reconstruct` wrote it (.safetensors)."""
    points: Positional[Path]
    """Where to ask: any file that `reconstruct` reads; normals are not needed."""
    output: Path
    """The .npz to write."""
    device: Device = "auto"
    """Where to compute: auto takes a GPU where there is one."""


@dataclass(frozen=True)
class Compare:
    """Measure a mesh against a reference: another mesh, or a scan.

    Distances are exact from point to triangle (of a reference scan: to the nearest point), in the files' units.
    """

    mesh: Positional[Path]
    """The mesh to judge."""
    reference: Positional[Path]
    """What it should be."""
    json: Path | None = None
    """Also write the figures as JSON."""


@dataclass(frozen=True)
class Info:
    """Say what a scan, a mesh or a field holds, and what fitting a scan will cost on this machine."""

    file: Positional[Path]
    """A scan, a mesh or a field."""
    device: Device = "auto"
    """Where the cost is measured."""


@dataclass(frozen=True)
class Demo:
    """Do the whole job on a real scan that comes with the installation: no file and no network needed."""

    output: Path = Path("out/demo")
    """Folder for the mesh (motorcycle.glb), the field and the picture (motorcycle.png)."""
    steps: int | None = None
    """Steps of the fit: more give a finer surface and take longer."""
