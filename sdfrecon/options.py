"""What every command is told: one dataclass a command, whose docstrings are its help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from tyro.conf import Positional, UseAppendAction, arg

Device = Literal["auto", "cpu", "cuda"]
Place = tuple[float, float, float]
Box = tuple[float, float, float, float, float, float]
T = TypeVar("T")
Maybe = Annotated[T | None, arg(help_behavior_hint="")]
"""What need not be given: its help says what is done then, in place of "(default: None)"."""


@dataclass(frozen=True)
class Reconstruct:
    """Turn a scan into a mesh, in the scan's own units.

    Reads a point cloud with normals, fits a signed distance field to it, and writes the field's surface as a mesh and
    the field itself as a small file, from which `sdfrecon mesh` makes other resolutions. The same command again goes on
    where an interrupted one stopped.
    """

    scan: Positional[Path]
    """The scan: PLY, PCD, PTS, PWN, XYZ, XYZN, XYZRGB, TXT, CSV, ASC, NPY, NPZ, or a mesh: its vertices and,
    where these show too little of it, points on its triangles."""
    output: Maybe[Path] = None
    """The mesh to write: .ply, .obj, .stl, .glb or .off; - writes a PLY to standard output. If not given,
    SCAN_mesh.ply."""
    preset: Literal["draft", "standard", "fine", "paper"] = "draft"
    """draft takes 10 to 30 s on two cores, standard up to 5 minutes, fine up to 15, for more detail; paper is the SIREN
    paper's network, loss and optimiser, for 10,000 steps."""
    field: Maybe[Path] = None
    """The field to write. If not given, the mesh's name ending in .safetensors; none beside standard output."""
    resolution: Maybe[int] = None
    """Cells along the cube around the scan: twice as many, four times the triangles. If not given, 256 (draft, paper),
    448 (standard) or 512 (fine)."""
    steps: Maybe[int] = None
    """Steps of the fit: more give a finer surface and take longer. If not given, 640 to 10000 by preset and points."""
    device: Device = "auto"
    """Where to compute: auto takes a GPU where there is one."""
    seed: int = 0
    """Of the fit's random choices: on the same kind of CPU, with as many threads, the same seed
    gives the same mesh."""
    estimate_normals: bool = False
    """Estimate the normals from the points: for scans that have none, or wrong ones."""
    viewpoint: UseAppendAction[tuple[Place, ...]] = ()
    """A place that sees the surface, X Y Z in the scan's coordinates: the scanner, the middle of a room, a point high
    above terrain. Estimated normals face the nearest one; give the option for each. Without, they point outwards."""
    flip_normals: bool = False
    """Turn all normals over: for files whose normals point inwards."""
    box: Maybe[Box] = None
    """Take only what lies in this box: its least x, y, z and its largest, in the scan's coordinates."""
    max_points: Maybe[int] = None
    """Take at most so many points, at random. If not given, all."""
    trim: Maybe[float] = None
    """Cut the surface where it is farther than this from every point, back to half of it, scan units, but not between
    points that are farther apart; 0 cuts nothing: the mesh is closed. If not given, holes are closed, but where more
    than a quarter of the surface has no points near, it is cut there."""
    run_dir: Maybe[Path] = None
    """Folder for checkpoints, kept after the run. If not given, one beside the mesh (with --output -,
    beside the scan), removed at the end."""
    report: bool = False
    """Also write a page to look at, the mesh's name (with --output -, the scan's) ending in .html: scan, mesh
    and error to turn, losses, slices."""
    view: bool = False
    """Serve a page of scan, surface, slices and loss while it fits, and after, until Ctrl-C; needs viser: pip install
    viser."""
    host: str = "127.0.0.1"
    """Who may connect to --view: 127.0.0.1 is this machine alone, 0.0.0.0 anyone who can reach it."""
    port: int = 8080
    """Of --view; the next free one where it is taken."""
    max_memory: Maybe[float] = None
    """Refuse a run that needs more than this, in GB. If not given, more than is free."""
    quiet: bool = False
    """Print nothing but warnings, errors and the address of --view."""


@dataclass(frozen=True)
class View:
    """Show a scan, a mesh or a field in the browser, until Ctrl-C.

    All is scaled into the cube from -1 to 1, meshes are grey, and of many points some are shown.
    """

    file: Positional[Path]
    """A scan, a mesh or a field."""
    resolution: int = 256
    """Of a field: cells along its cube of which triangles are made."""
    host: str = "127.0.0.1"
    """Who may connect: 127.0.0.1 is this machine alone, 0.0.0.0 anyone who can reach it."""
    port: int = 8080
    """Where to listen; the next free one where it is taken."""
    device: Device = "auto"
    """Where a field is computed."""


@dataclass(frozen=True)
class Report:
    """Write the page of a finished run again: scan, mesh and error to turn, losses, slices of the field, figures."""

    run_dir: Positional[Path]
    """The folder that `reconstruct --run-dir` was given."""
    output: Maybe[Path] = None
    """The .html file to write. If not given, report.html in that folder."""
    device: Device = "auto"
    """Where the field is computed."""


@dataclass(frozen=True)
class MeshCommand:
    """Make a mesh from a field: at another resolution, with other holes open, or at a distance from the surface.

    With --scan it is what `reconstruct` has written, but for what is asked for; without, the field's whole surface.
    """

    field: Positional[Path]
    """The field, as `reconstruct` wrote it (.safetensors)."""
    output: Path
    """The mesh to write: .ply, .obj, .stl, .glb or .off, or - for PLY on standard output."""
    resolution: Maybe[int] = None
    """Cells along the cube around the scan. If not given, those of `reconstruct`."""
    level: float = 0.0
    """Distance from the surface, in the scan's units: above 0 outside (thicker), below 0 inside."""
    scan: Maybe[Path] = None
    """The scan that was fitted: pieces without points go, open scans are cut at level 0, and colours come back."""
    trim: Maybe[float] = None
    """With --scan, as `reconstruct` takes it. If not given, what it was given."""
    device: Device = "auto"
    """Where to compute: auto takes a GPU where there is one."""


@dataclass(frozen=True)
class Query:
    """Ask a field for the signed distance and its direction at given points.

    Writes an NPZ with points (n, 3), distance (n,) in the scan's units, negative inside, and gradient (n, 3), the unit
    vector in which the distance grows. Distances are to the whole surface, where holes are closed; beyond the cube
    around the scan they are at least the true ones.
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

    Distances are exact from point to triangle (of a reference scan: to the nearest point), in the files' units, from
    200,000 points on each mesh, always the same: what is smaller than a few of their spacings can escape the largest.
    """

    mesh: Positional[Path]
    """The mesh to judge."""
    reference: Positional[Path]
    """A mesh or a scan that it is compared with; a scan's spacing then bounds the accuracy from below."""
    json: Maybe[Path] = None
    """Also write the figures as JSON; with --others those of each mesh, by its path."""
    report: Maybe[Path] = None
    """Also write a page (.html) with the mesh to turn, coloured by its distance from the reference."""
    others: tuple[Path, ...] = ()
    """More meshes to judge, beside the first and on one scale of colours."""


@dataclass(frozen=True)
class Info:
    """Say what a scan, a mesh or a field holds, and how long fitting a scan will take on this machine."""

    file: Positional[Path]
    """A scan, a mesh or a field."""
    device: Device = "auto"
    """Where a scan's cost is measured."""


@dataclass(frozen=True)
class Demo:
    """Do the whole job on a real scan that comes with the installation: no file and no network needed."""

    output: Path = Path("out/demo")
    """Folder for the mesh (motorcycle.glb), the field and the picture (motorcycle.png)."""
    steps: Maybe[int] = None
    """Steps of the fit: more give a finer surface and take longer. If not given, draft's."""
    device: Device = "auto"
    """Where to compute."""


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """What every command that fits an image is told."""

    steps: Maybe[int] = None
    """Steps of the fit: more come closer and take longer. If not given, what suits the task, 80 to 4,243."""
    width: Maybe[int] = None
    """Sines in each layer: more hold finer detail and take longer. If not given, 128 or 256, as suits the task."""
    device: Device = "auto"
    """Where to compute: auto takes a GPU where there is one."""
    seed: int = 0
    """Of every random choice."""
    quiet: bool = False
    """Print nothing but warnings and errors."""


@dataclass(frozen=True, kw_only=True)
class OneImage(Fitting):
    """And those that fit one."""

    image: Positional[Path] = Path("camera")
    """The picture: PNG, JPEG or TIFF of 8 or 16 bits, grey, RGB or RGBA; or camera or astronaut, which come along.
    Of 16 bits in an LZW TIFF or a PNG in colour or with alpha the upper 8 are read; pictures are written with 8."""
    size: Maybe[int] = None
    """Shrink the picture first so that its longer side has so many pixels. If not given, it stays as it is."""


@dataclass(frozen=True)
class ImageFit(OneImage):
    """Fit a field to an image: a small network that gives the colour at any place, between the pixels too.

    It says the PSNR, how close the field comes: at 30 dB differences show in fine detail, at 40 dB hardly anywhere; and
    the field's size in bits a pixel, of which an 8-bit picture has 8 or 24. Between the pixels it learns what passes
    through them smoothly (Catmull-Rom). It is meant for up to some 512 pixels a side: of a larger picture it is a
    smooth one, but for more --width and --steps, or a smaller --size.
    """

    output: Path
    """The field to write (.safetensors)."""
    preview: Maybe[Path] = None
    """Also write the field's picture, at the image's size."""


@dataclass(frozen=True)
class ImageRender:
    """Make a picture of an image's field: of any size, of all of it or of a part."""

    field: Positional[Path]
    """The field, as `image fit`, `poisson` or `blend` wrote it (.safetensors)."""
    output: Path
    """The picture to write: .png, .jpg or .tif."""
    size: Maybe[tuple[int, int]] = None
    """Its width and height; if not given the image's own, of a region its longer side's."""
    region: Maybe[tuple[float, float, float, float]] = None
    """The part to show, X0 Y0 X1 Y1 in pixels of the image, from its upper left corner; all of it if not given."""
    device: Device = "auto"
    """Where to compute: auto takes a GPU where there is one."""


@dataclass(frozen=True)
class ImageDerivatives:
    """Show an image's field and its derivatives, beside filters of the pixels.

    Writes value.png, gradient.png (length), direction.png (its hue), laplacian.png, and figure.png with all of them
    beside what Sobel's filter and the five-point Laplacian make of the image.
    """

    field: Positional[Path]
    """The field, as `image fit` wrote it (.safetensors)."""
    output: Path
    """The folder to write into."""
    image: Maybe[Path] = None
    """The image that was fitted, to compare with; if not given the field's own picture is filtered."""
    device: Device = "auto"
    """Where to compute: auto takes a GPU where there is one."""


@dataclass(frozen=True)
class ImagePoisson(OneImage):
    """Rebuild an image from its derivatives alone.

    Beside OUTPUT it writes NAME.safetensors, the field, and NAME_figure.png: image, gradient and Laplacian of the
    original, of the result, and of the classical solution.
    """

    output: Path
    """The picture to write: .png, .jpg or .tif."""
    source: Annotated[Literal["gradient", "laplacian"], arg(name="from")] = "gradient"
    """The derivative that is given; for what it lost, the picture is aligned to the original by mean and variance."""
    border: bool = False
    """Give the colours of the border's pixels too: then nothing is lost. Without them a Laplacian's border is grey."""


@dataclass(frozen=True)
class ImageBlend(Fitting):
    """Put one image into another through their gradients, so that no seam shows.

    Beside OUTPUT it writes NAME.safetensors, the field of what is put in with 16 pixels around it, and
    NAME_figure.png: both images, plain averaging, the classical solution and the result.
    """

    source: Positional[Path]
    """The picture to put in."""
    target: Positional[Path]
    """The picture that it is put into."""
    output: Path
    """The picture to write: .png, .jpg or .tif."""
    mask: Maybe[Path] = None
    """A picture of the source's size, light where the source is wanted. If not given, its alpha, or all of it."""
    offset: tuple[int, int] = (0, 0)
    """Where the source's upper left corner comes to lie in the target, pixels to the right and down."""
    mode: Literal["mean", "mixed", "import"] = "import"
    """Whose gradients: import the source's, mixed the stronger of both at every pixel, mean half of each. Where nothing
    of the target is left, its colours count in the mean brightness alone, with half."""


@dataclass(frozen=True)
class ImageActivations(OneImage):
    """Compare a SIREN with networks of ReLU, tanh, and ReLU after a positional encoding, on one image.

    All have as many parameters and steps, and the rate that suits a SIREN. Writes figure.png (image, gradient and
    Laplacian of each), psnr.json, and curves.png (the training).
    """

    output: Path
    """The folder to write into."""
