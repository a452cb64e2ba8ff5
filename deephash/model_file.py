"""What a model file says of itself: the JSON card in the header of a .safetensors file, read without torch.

Also where the built-in models lie. Reading and writing of weights: ``model.py``.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.codes import check_n_bits

from .errors import ModelError
from .input_spec import InputSpec

__all__ = [
    "DEFAULT_MODEL",
    "ModelCard",
    "arrays_digest",
    "builtin_models",
    "compute_fingerprint",
    "find_model",
    "read_card",
]

DEFAULT_MODEL = "general-128"
CARD_VERSION = 1
_METADATA_KEY = "deephash"  # safetensors metadata is a flat str -> str map: one key, one JSON text
_MAX_HEADER_BYTES = 100 * 2**20  # safetensors' own limit


_CARD_TYPES = {
    **dict.fromkeys(
        ("name", "method", "backbone", "backbone_weights", "backbone_digest", "fingerprint", "licence"), str
    ),
    "n_bits": int,
    "input_spec": dict,
    "training": dict,
}


@dataclass(frozen=True)
class ModelCard:
    """What a model is, how images are prepared for it, and where it comes from.

    ``backbone_weights`` is ``package`` (installed by pip, checked against ``backbone_digest``) or ``file`` (inside
    this very file). ``fingerprint``: 32 hex digits over weights, preprocessing and n_bits; codes of two models can be
    compared when and only when it is the same. ``training``: facts for people, free form.
    """

    name: str
    method: str
    n_bits: int
    backbone: str
    backbone_weights: str
    backbone_digest: str
    input_spec: InputSpec
    fingerprint: str
    licence: str
    training: dict[str, Any] = field(default_factory=dict)

    def to_metadata(self) -> dict[str, str]:
        """Returns the metadata map to write into a .safetensors file."""
        values = asdict(self) | {"input_spec": self.input_spec.to_dict(), "version": CARD_VERSION}
        return {_METADATA_KEY: json.dumps(values, sort_keys=True)}


def arrays_digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Returns 64 hex digits: the SHA-256 of arrays that are contiguous: names, types, shapes and bytes, in order."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def compute_fingerprint(
    backbone: str,
    backbone_digest: str,
    input_spec: InputSpec,
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
) -> str:
    """Returns the fingerprint of a model with that hash layer, as in ``ModelCard``."""
    spec = sorted(input_spec.to_dict().items())
    identity = f"{len(weight)} {backbone} {backbone_digest} {spec} "
    hash_layer = arrays_digest({"weight": weight, "bias": bias})
    return hashlib.sha256(identity.encode() + hash_layer.encode()).hexdigest()[:32]


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """Returns the card of a model file; reads its header only, in milliseconds, without torch.

    Raises:
        ModelError: the file is missing, is no model of ours, is damaged, or was written by a newer deephash.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            n_bytes = int.from_bytes(file.read(8), "little")
            if not 2 <= n_bytes <= min(_MAX_HEADER_BYTES, path.stat().st_size):
                raise ModelError(f"{path} is not a model file, or damaged: its .safetensors header is not readable")
            header = json.loads(file.read(n_bytes))
        values = json.loads(header["__metadata__"][_METADATA_KEY])
    except OSError as error:
        raise ModelError(f"cannot read the model file {path}: {error.strerror or error}") from error
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path} is a .safetensors file, but not a deephash model: it has no model card") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not a model file, or damaged: its header is not valid JSON") from error
    try:
        version = values.pop("version")
        if version > CARD_VERSION:
            raise ModelError(f"{path} was written by a newer deephash (card {version}): pip install --upgrade deephash")
        wrong = [name for name, kind in _CARD_TYPES.items() if type(values.get(name, kind())) is not kind]
        if wrong:
            raise ValueError(f"{wrong[0]} is {values[wrong[0]]!r}")
        if values["backbone_weights"] not in ("package", "file"):
            raise ValueError(f"backbone_weights are {values['backbone_weights']!r}")
        values["input_spec"] = InputSpec.from_dict(values["input_spec"])
        card = ModelCard(**values)
        check_n_bits(card.n_bits)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"the model card of {path} is damaged: {error}") from error
    return card


def builtin_models() -> dict[str, Path]:
    """Returns the models shipped with the package: name -> file, the general ones first, shortest codes first."""
    folder = Path(str(resources.files("deephash") / "builtin"))
    files = {path.stem: path for path in folder.glob("*.safetensors")}

    def order(name: str) -> tuple[bool, str, int, str]:
        return not name.startswith("general-"), name.rpartition("-")[0], len(name), name

    return {name: files[name] for name in sorted(files, key=order)}


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """Returns the file of a built-in model's name, or the path itself when it is a file.

    Raises:
        ModelError: neither; the message lists the built-in names.
    """
    path = Path(name_or_path)
    if str(name_or_path) in (known := builtin_models()):
        return known[str(name_or_path)]
    if path.is_file():
        return path
    raise ModelError(f"there is no model {str(name_or_path)!r}: give a .safetensors file, or one of {', '.join(known)}")
