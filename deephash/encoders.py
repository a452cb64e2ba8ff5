"""What turns pixels into features when nothing is learnt: back-ends, and the fastest one that keeps a model's codes.

``openvino`` compiles the network for a CPU (bfloat16 where the processor computes in it, else float32), ``torch`` runs
it as it is (on CUDA in float16 where that keeps the codes; on Apple's MPS). A back-end is taken for a model only after
it gave the codes of plain float32 PyTorch on a probe of real pictures.
"""

from __future__ import annotations

import functools
import os
import threading
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .encoder_cache import EncoderCache
from .errors import ModelError
from .images import preprocess
from .inference import has_fast_bf16, inference_copy
from .input_spec import InputSpec
from .openvino_import import import_openvino
from .openvino_network import convert
from .samples import load_cifar10_sample

if TYPE_CHECKING:
    from .model import HashModel

__all__ = ["BACK_ENDS", "VARIABLE", "Encoder", "OpenVINOEncoder", "TorchEncoder", "choose_encoder"]

VARIABLE = "DEEPHASH_ENCODER"
"""The environment variable that names a back-end: ``auto`` (custom), or one of ``BACK_ENDS``."""

BACK_ENDS = ("cuda-fp16", "cuda", "mps", "openvino-bf16", "openvino", "torch")
"""The back-ends, in the order in which ``auto`` tries them."""

_N_PROBES = 64
_MIN_EQUAL_BITS = 0.999
# With half the bits of a number. What they keep on photographs, some 99 %, is for benchmarks.encode to measure: the
# probe is CIFAR-10, whose blurred pictures lie nearer to the thresholds. It tells what is off from what is rounded.
_MIN_EQUAL_BITS_ROUNDED = 0.97
# Streams work on chunks of their own: images of one batch never wait for one another, and activations stay in cache.
_CHUNK = 4


class Encoder(Protocol):
    """Turns ``(B, size, size, 3) uint8`` pixels into features ``(B, n_features) float32`` of unit length."""

    name: str

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the features."""


class TorchEncoder:
    """The network in PyTorch, its batch norms folded into its convolutions.

    Args:
        backbone: the network; it is copied.
        spec: of the images.
        device: where it runs.
        half: compute in float16 where autocast does.
    """

    def __init__(self, backbone: nn.Module, spec: InputSpec, device: torch.device, *, half: bool = False) -> None:
        self.name = f"{device.type}-fp16" if half else device.type if device.type != "cpu" else "torch"
        self._device, self._half = device, half
        module = PixelsToFeatures(backbone, spec)
        self._module = module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the features."""
        # A CPU is fastest with few images at a time, which also leaves memory alone; a GPU with many.
        step = _CHUNK if self._device.type == "cpu" else max(1, len(pixels))
        parts = [self._features(pixels[start : start + step]) for start in range(0, max(1, len(pixels)), step)]
        return np.concatenate(parts)

    def _features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode(), torch.autocast(self._device.type, torch.float16, enabled=self._half):
            images = torch.tensor(np.ascontiguousarray(pixels)).to(self._device)
            return self._module(images).float().cpu().numpy()


class OpenVINOEncoder:
    """The network compiled by OpenVINO for this CPU; its features do not depend on the size of the batch.

    Args:
        network: OpenVINO's own model, of ``(B, size, size, 3) uint8`` to features.
        bf16: compute in bfloat16.
    """

    def __init__(self, network: Any, *, bf16: bool) -> None:
        self.name = "openvino-bf16" if bf16 else "openvino"
        config = {
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "THROUGHPUT",
            # Threads that are tied to processors wait for those that other processes keep busy.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = _openvino_core().compile_model(network, "CPU", config)
        self._n_features = int(compiled.outputs[0].get_partial_shape()[1].get_length())
        self._queue = import_openvino().AsyncInferQueue(compiled)
        self._lock = threading.Lock()

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the features."""
        pixels = np.ascontiguousarray(pixels)
        features = np.empty((len(pixels), self._n_features), np.float32)

        def keep(request: Any, start: int) -> None:
            features[start : start + _CHUNK] = request.get_output_tensor(0).data

        with self._lock:
            self._queue.set_callback(keep)
            for start in range(0, len(pixels), _CHUNK):
                self._queue.start_async(pixels[start : start + _CHUNK], start, share_inputs=True)
            self._queue.wait_all()
        return features


def choose_encoder(model: HashModel) -> Encoder:
    """Returns the back-end that ``$DEEPHASH_ENCODER`` names, or else the first of ``BACK_ENDS`` that keeps the codes.

    Raises:
        ModelError: the variable names none, or one that this machine lacks.
    """
    wish = os.environ.get(VARIABLE) or "auto"
    if wish != "auto" and wish not in BACK_ENDS:
        raise ModelError(f"{VARIABLE} is {wish!r}: set it to auto, {', '.join(BACK_ENDS)}, or unset it")
    candidates = _Candidates(model)
    if wish != "auto":
        encoder = candidates.make(wish)
        if encoder is None:
            raise ModelError(f"{VARIABLE} is {wish!r}, which this machine lacks: unset it")
        return encoder
    for name in BACK_ENDS[:-1]:
        encoder = candidates.make_if_it_keeps_codes(name)
        if encoder is not None:
            return encoder
    return candidates.plain


class _Candidates:
    """Back-ends made for one model, and the reference that they are judged by."""

    def __init__(self, model: HashModel) -> None:
        self._model = model
        self._card = model.card
        self._cache = EncoderCache.default()

    def make(self, name: str) -> Encoder | None:
        """Returns the back-end, or None where this machine has no such thing or it cannot run the network."""
        backbone, spec = self._model.backbone, self._model.input_spec
        if name.startswith("cuda"):
            cuda = torch.device("cuda")
            return TorchEncoder(backbone, spec, cuda, half=name == "cuda-fp16") if torch.cuda.is_available() else None
        if name == "mps":
            return TorchEncoder(backbone, spec, torch.device("mps")) if torch.backends.mps.is_available() else None
        if name == "torch":
            return self.plain
        if name == "openvino-bf16" and not _computes_in_bf16():
            return None
        network = self._network
        return None if network is None else OpenVINOEncoder(network, bf16=name == "openvino-bf16")

    def make_if_it_keeps_codes(self, name: str) -> Encoder | None:
        """Returns the back-end if its bits on the probe are those of plain PyTorch; asks the cache first."""
        fingerprint = self._card.fingerprint
        least = _MIN_EQUAL_BITS_ROUNDED if name.endswith("16") else _MIN_EQUAL_BITS
        equal = self._cache.equal_bits(fingerprint, name)
        if equal is not None and equal < least:
            return None
        encoder = self.make(name)
        if encoder is not None and equal is None:
            given = self._model.logits_of_features(encoder(self._probe)) > 0
            equal = float((given == self._reference).mean())
            self._cache.put_equal_bits(fingerprint, name, equal)
        return None if equal is None or equal < least else encoder

    @functools.cached_property
    def plain(self) -> TorchEncoder:
        """The encoder in float32 PyTorch on the CPU."""
        return TorchEncoder(self._model.backbone, self._model.input_spec, torch.device("cpu"))

    @functools.cached_property
    def _network(self) -> Any | None:
        if not _has_openvino():
            return None
        weights, spec = f"{self._card.backbone} {self._card.backbone_digest}", self._card.input_spec
        network = self._cache.network(weights, spec)
        if network is None:
            network = convert(PixelsToFeatures(self._model.backbone, spec), spec.size)
            if network is not None:
                self._cache.put_network(weights, spec, network)
        return network

    @functools.cached_property
    def _probe(self) -> NDArray[np.uint8]:
        from PIL import Image

        pictures = load_cifar10_sample().database_images[:_N_PROBES]
        return np.stack([preprocess(Image.fromarray(picture), self._model.input_spec) for picture in pictures])

    @functools.cached_property
    def _reference(self) -> NDArray[np.bool_]:
        return self._model.logits_of_features(self.plain(self._probe)) > 0


class PixelsToFeatures(nn.Module):
    """From ``(B, size, size, 3) uint8`` pixels to features ``(B, n_features)`` of unit length, in one network.

    Args:
        backbone: the network; it is copied, its batch norms folded into its convolutions.
        spec: of the images.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.network = inference_copy(backbone, spec.size)
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1))
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Returns the features."""
        images = pixels.permute(0, 3, 1, 2)  # NHWC bytes are channels_last
        features = self.network((images.float() / 255 - self.mean) / self.std)
        return nn.functional.normalize(features.float())


def _computes_in_bf16() -> bool:
    """Returns whether the processor does; OpenVINO would imitate it on others."""
    if not (_has_openvino() and has_fast_bf16(torch.device("cpu"))):
        return False
    return "BF16" in _openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@functools.cache
def _has_openvino() -> bool:
    try:
        import_openvino()
    except ImportError:
        return False
    return True


@functools.cache
def _openvino_core() -> Any:
    return import_openvino().Core()
