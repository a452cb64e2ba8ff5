"""The bare forward pass, pixels at hand: ways to run the network, beside the encoders that deephash has."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deephash.errors import ModelError
from deephash.model import HashModel
from deephash.torch_encoders import PixelsToFeatures, TorchEncoder, choose_encoder

Encode = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

REFERENCE = "torch, as timm gives it"
ONNX_RUNTIME = "ONNX Runtime, float32"
OURS = {
    "torch": "ours: torch, batch norms folded",
    "openvino": "ours: OpenVINO",
    "openvino-bf16": "ours: OpenVINO, bfloat16",
}


def back_ends(model: HashModel, patch: Callable[[str], Any]) -> dict[str, Encode]:
    """Returns what maps pixels ``(B, size, size, 3) uint8`` to features, by name; what this machine lacks is left out.

    Args:
        model: whose features.
        patch: sets the environment variable that names an encoder.
    """
    plain = _Plain(model)
    found: dict[str, Encode] = {REFERENCE: plain}
    if compiled := _compiled(model):
        found["torch.compile, float32"] = compiled
    found[ONNX_RUNTIME] = onnx_runtime(model)
    for name, text in OURS.items():
        patch(name)
        try:
            found[text] = choose_encoder(model)
        except ModelError:
            continue
    return found


def rates(
    found: dict[str, Encode], pixels: NDArray[np.uint8], *, batches: tuple[int, ...], rounds: int
) -> list[dict[str, Any]]:
    """Returns images a second for each at its best batch size: of rounds that all take in turn, and their median."""
    measured: dict[tuple[str, int], list[float]] = {}
    for encode in found.values():
        for batch in batches:
            encode(pixels[:batch])  # what is made or compiled at the first call
    for _ in range(rounds):
        for name, encode in found.items():
            for batch in batches:
                measured.setdefault((name, batch), []).append(rate(encode, pixels, batch))
    medians = {key: statistics.median(each) for key, each in measured.items()}
    best = {name: max(batches, key=lambda batch: medians[name, batch]) for name in found}
    return [
        {"name": name, "batch": batch, "images_per_second": medians[name, batch], "rounds": measured[name, batch]}
        for name, batch in best.items()
    ]


def rate(encode: Encode, pixels: NDArray[np.uint8], batch: int) -> float:
    """Returns images a second of one pass over the pixels in batches of that size."""
    started = time.perf_counter()
    for start in range(0, len(pixels), batch):
        encode(pixels[start : start + batch])
    return len(pixels) / (time.perf_counter() - started)


class _Plain:
    def __init__(self, model: HashModel) -> None:
        self._backbone, self._encoder = (
            model.backbone,
            TorchEncoder(model.backbone, model.input_spec, torch.device("cpu")),
        )
        self._spec = model.input_spec

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self._spec.mean, self._spec.std))
        with torch.inference_mode():
            images = torch.tensor(pixels).permute(0, 3, 1, 2).contiguous().float() / 255
            return torch.nn.functional.normalize(self._backbone((images - mean) / std)).numpy()


def _compiled(model: HashModel) -> Encode | None:
    """Returns the network compiled by torch, or None where that fails: it needs a C++ compiler."""
    module = PixelsToFeatures(model.backbone, model.input_spec).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled = torch.compile(module, dynamic=False)

    def encode(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return compiled(torch.tensor(pixels)).numpy()

    try:
        encode(np.zeros((4, model.input_spec.size, model.input_spec.size, 3), np.uint8))
    except Exception as error:  # torch raises many kinds
        print(f"torch.compile is left out: {str(error).strip().splitlines()[-1]}", flush=True)
        return None
    return encode


def onnx_runtime(model: HashModel) -> Encode:
    """Returns the network as ONNX Runtime computes it in float32."""
    import onnxruntime

    module = PixelsToFeatures(model.backbone, model.input_spec)
    size = model.input_spec.size
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.onnx")
        torch.onnx.export(
            module,
            (torch.zeros(2, size, size, 3, dtype=torch.uint8),),
            path,
            input_names=["pixels"],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            dynamo=True,
            verbose=False,
            external_data=False,
        )
        session = onnxruntime.InferenceSession(path, options)
    return lambda pixels: session.run(None, {"pixels": pixels})[0]
