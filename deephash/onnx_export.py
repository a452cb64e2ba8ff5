"""Writes a model as ONNX, which other programs run without torch and without deephash."""

from __future__ import annotations

import json
import os
import warnings
from typing import TYPE_CHECKING

import torch
from torch import nn

from .errors import ModelError
from .torch_encoders import PixelsToFeatures
from .writing import replacing

if TYPE_CHECKING:
    from .model import HashModel

__all__ = ["export_onnx"]


def export_onnx(model: HashModel, path: str | os.PathLike[str]) -> None:
    """Writes the whole way from pixels to codes as one file, for ONNX Runtime and its like.

    Its input ``pixels`` is ``(B, size, size, 3) uint8`` RGB, as ``images.preprocess`` makes them; its outputs are
    ``codes (B, ceil(n_bits / 8)) uint8``, packed as everywhere, and ``logits (B, n_bits) float32``. Its metadata says
    how pixels are prepared (``input_spec``) and whose codes these are (``fingerprint``).

    Raises:
        ModelError: the packages of ``deephash[onnx]`` are missing, or the network cannot be exported.
        OSError: the file cannot be written.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter writes with it
    except ImportError as error:
        raise ModelError("writing ONNX needs two more packages: pip install 'deephash[onnx]'") from error
    size = model.input_spec.size
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _PixelsToCodes(model).eval(),
                (example,),
                input_names=["pixels"],
                output_names=["codes", "logits"],
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # torch's exporter raises what it meets
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"{model.name} cannot be written as ONNX ({reason}): use another backbone") from error
    assert program is not None
    proto = program.model_proto
    card = model.card
    facts = {
        "name": card.name, "method": card.method, "n_bits": card.n_bits, "backbone": card.backbone,
        "fingerprint": card.fingerprint, "licence": card.licence, "input_spec": json.dumps(card.input_spec.to_dict()),
    }  # fmt: skip
    onnx.helper.set_model_props(proto, {name: str(value) for name, value in facts.items()})
    with replacing(path, "wb") as file:
        file.write(proto.SerializeToString())


class _PixelsToCodes(nn.Module):
    def __init__(self, model: HashModel) -> None:
        super().__init__()
        self.features = PixelsToFeatures(model.backbone, model.input_spec)
        self.hash_layer = model.hash_layer
        self.n_pad = -model.n_bits % 8
        self.register_buffer("weights", 2.0 ** torch.arange(7, -1, -1))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.hash_layer(self.features(pixels))
        bits = nn.functional.pad((logits > 0).float(), (0, self.n_pad))
        codes = (bits.unflatten(1, (-1, 8)) * self.weights).sum(2)
        return codes.to(torch.uint8), logits
