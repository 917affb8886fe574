"""Fields and checkpoints in files: safetensors, which run no code as they are loaded."""

from __future__ import annotations

import json
from dataclasses import asdict
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from sdfrecon.files import reading, replacing
from sdfrecon.geometry import InputError

FIELD_FORMAT = "sdfrecon-field-1"


def write_tensors(path: Path, tensors: dict[str, Any], about: dict[str, Any]) -> None:
    """Writes named tensors and JSON metadata as safetensors, whole or not at all."""
    from safetensors.torch import save

    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(held, {"sdfrecon": json.dumps(about, default=np.generic.item)}))


def read_tensors(path: Path, what: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors and the metadata of `write_tensors`; never runs code. Raises InputError for another file."""
    from safetensors import safe_open

    with reading(path, what), safe_open(path, framework="pt") as file:
        about = (file.metadata() or {}).get("sdfrecon")
        about = None if about is None else json.loads(about)
        if not isinstance(about, dict):
            raise InputError(f"{path} is a safetensors file but no sdfrecon {what}")
        return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118


def save_field(path: str | Path, field: Any) -> None:
    """Writes a Field or an ImageField as safetensors: the network's weights; its size, place and origin as metadata.

    Raises InputError for another ending than .safetensors and a place that refuses it.
    """
    if Path(path).suffix.lower() != ".safetensors":
        raise InputError(f"a field's file must end in .safetensors; got {path}")
    about = {
        "format": FIELD_FORMAT,
        "siren": {"in_dim": field.siren.in_dim, "out_dim": field.siren.out_dim, **asdict(field.siren.config)},
        "about": field.about,
    }
    if field.siren.in_dim == 2:
        about["image"] = {"height": field.height, "width": field.width}
    else:
        about["frame"] = asdict(field.frame)
    write_tensors(Path(path), field.siren.state_dict(), about)


def load_field(path: str | Path) -> Any:
    """Reads a Field or an ImageField, on the CPU.

    Raises InputError for a file that is damaged, of another kind or another version.
    """
    import torch

    from sdfrecon.field import Field
    from sdfrecon.frame import Frame
    from sdfrecon.imagefield import ImageField
    from sdfrecon.siren import Siren, SirenConfig

    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise InputError(f"{path} is no field: one that `reconstruct` or `image fit` wrote ends in .safetensors")
    tensors, about = read_tensors(path, "field")
    if about.get("format") != FIELD_FORMAT:
        raise InputError(
            f"{path} has format {about.get('format')!r}; this version reads {FIELD_FORMAT!r}: fit it again"
        )
    with reading(path, "field"):
        size = dict(about["siren"])
        if size["width"] ** 2 * size["hidden_layers"] > sum(tensor.numel() for tensor in tensors.values()):
            raise InputError(f"{path} promises a larger network than it holds: the file is damaged")
        with torch.device("meta"):  # whatever it promises, memory is only for what it holds
            siren = Siren(size.pop("in_dim"), size.pop("out_dim"), SirenConfig(**size))
        # Copies: what was read may be a view of the file, which somebody may write to.
        siren.load_state_dict({name: tensor.float().clone() for name, tensor in tensors.items()}, assign=True)
        if not all(bool(t.isfinite().all()) for t in [*siren.parameters(), torch.tensor(siren.omegas)]):
            raise InputError(f"{path} holds weights or frequencies that are not finite: fit it again")
        origin = dict(about["about"])
        for part in ("scan", "config", "versions"):
            if not isinstance(origin.get(part, {}), dict):
                raise InputError(f"{path} says of its {part} what `reconstruct` does not: the file is damaged")
        if siren.in_dim == 2 and 1 <= siren.out_dim <= 4:
            return ImageField(siren, index(about["image"]["height"]), index(about["image"]["width"]), origin)
        if (siren.in_dim, siren.out_dim) != (3, 1):
            raise ValueError(f"a network of {siren.in_dim} inputs and {siren.out_dim} outputs is no field")
        x, y, z = map(float, about["frame"]["center"])
        return Field(siren, Frame((x, y, z), float(about["frame"]["scale"])), origin)
