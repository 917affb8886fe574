"""sdfrecon: from a scan to a mesh, through a signed distance function.

>>> import sdfrecon
>>> result = sdfrecon.reconstruct(sdfrecon.read_cloud("scan.ply"))          # doctest: +SKIP
>>> sdfrecon.write_mesh("mesh.ply", result.mesh)                            # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sdfrecon.field import Field as Field
    from sdfrecon.fieldfiles import load_field as load_field
    from sdfrecon.fieldfiles import save_field as save_field
    from sdfrecon.files import read_cloud as read_cloud
    from sdfrecon.files import read_mesh as read_mesh
    from sdfrecon.files import write_mesh as write_mesh
    from sdfrecon.fit import Diverged as Diverged
    from sdfrecon.fit import Interrupted as Interrupted
    from sdfrecon.geometry import InputError as InputError
    from sdfrecon.geometry import Mesh as Mesh
    from sdfrecon.geometry import PointCloud as PointCloud
    from sdfrecon.imagefield import ImageField as ImageField
    from sdfrecon.metrics import Comparison as Comparison
    from sdfrecon.metrics import compare as compare
    from sdfrecon.normals import estimate_normals as estimate_normals
    from sdfrecon.presets import PRESETS as PRESETS
    from sdfrecon.presets import ReconstructConfig as ReconstructConfig
    from sdfrecon.reconstruction import Reconstruction as Reconstruction
    from sdfrecon.reconstruction import reconstruct as reconstruct

_HOMES = {
    "estimate_normals": "normals",
    "Field": "field",
    "Diverged": "fit",
    "Interrupted": "fit",
    "ImageField": "imagefield",
    "Comparison": "metrics",
    "Reconstruction": "reconstruction",
    "ReconstructConfig": "presets",
    "load_field": "fieldfiles",
    "read_cloud": "files",
    "read_mesh": "files",
    "save_field": "fieldfiles",
    "write_mesh": "files",
    "InputError": "geometry",
    "Mesh": "geometry",
    "PointCloud": "geometry",
    "compare": "metrics",
    "PRESETS": "presets",
    "reconstruct": "reconstruction",
}
__all__ = [*_HOMES, "__version__"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    # Names load their modules when first used: `sdfrecon --help` must not wait for torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'sdfrecon' has no attribute {name!r}")
    return getattr(import_module(f"sdfrecon.{_HOMES[name]}"), name)
