"""Back-ends of PyTorch, and the choice of one: the fastest whose features give the bits of plain PyTorch."""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .bf16_rounding import round_depthwise
from .encoder_cache import EncoderCache
from .encoders import (
    BACK_ENDS,
    VARIABLE,
    Encoder,
    OpenVINOEncoder,
    computes_in_bf16,
    has_openvino,
    keeps_codes,
    wished_back_end,
)
from .errors import ModelError
from .images import preprocess
from .inference import inference_copy
from .input_spec import InputSpec
from .openvino_network import convert
from .samples import load_cifar10_sample
from .shallow import LSH

if TYPE_CHECKING:
    from .model import HashModel

__all__ = ["PixelsToFeatures", "TorchEncoder", "choose_encoder", "probe_pictures"]

_CPU_BATCH = 4
_N_PROBES = 64
_PROBE_BITS = 256


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
        self._lock = threading.Lock()
        module = PixelsToFeatures(backbone, spec)
        self._module = module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the features."""
        # A CPU is fastest with few images at a time, which also leaves memory alone; a GPU with many.
        step = _CPU_BATCH if self._device.type == "cpu" else max(1, len(pixels))
        with self._lock:  # one call has all processors
            parts = [self._features(pixels[start : start + step]) for start in range(0, max(1, len(pixels)), step)]
        return np.concatenate(parts)

    def prepare(self) -> None:
        """Does nothing: all is made at the beginning."""

    def _features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with (
            self._exactly(),
            torch.inference_mode(),
            torch.autocast(self._device.type, torch.float16, enabled=self._half),
        ):
            images = torch.tensor(np.ascontiguousarray(pixels)).to(self._device)
            return self._module(images).float().cpu().numpy()

    def _exactly(self) -> contextlib.AbstractContextManager[None]:
        """Has GPUs convolve float32 in all of float32, and not in TF32, as they do unless told otherwise."""
        if self._device.type != "cuda" or self._half:
            return contextlib.nullcontext()
        return torch.backends.cudnn.flags(enabled=None, benchmark=None, deterministic=None, allow_tf32=False)


def probe_pictures(spec: InputSpec) -> NDArray[np.uint8]:
    """Returns the pixels ``(N, size, size, 3)`` of the pictures by which back-ends are compared; they are included."""
    from PIL import Image

    pictures = load_cifar10_sample().database_images[:_N_PROBES]
    return np.stack([preprocess(Image.fromarray(picture), spec) for picture in pictures])


def choose_encoder(model: HashModel) -> Encoder:
    """Returns the back-end that ``$DEEPHASH_ENCODER`` names, or else the first of ``BACK_ENDS`` that keeps the codes.

    Raises:
        ModelError: the variable names none, or one that this machine lacks.
    """
    wish = wished_back_end()
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
    """Back-ends made for one network, and the reference that they are judged by.

    The verdict is the network's, whatever hash layer follows: bits by random hyperplanes through the mean of the
    reference's features change where the features do. So a hash layer fitted a moment ago needs no probe of its own.
    """

    def __init__(self, model: HashModel) -> None:
        self._backbone, self._spec = model.backbone, model.input_spec
        card = model.card
        self._weights = f"{card.backbone} {card.backbone_digest}"
        self._cache = EncoderCache.default()

    def make(self, name: str) -> Encoder | None:
        """Returns the back-end, or None where this machine has no such thing or it cannot run the network."""
        backbone, spec = self._backbone, self._spec
        if name.startswith("cuda"):
            cuda = torch.device("cuda")
            return TorchEncoder(backbone, spec, cuda, half=name == "cuda-fp16") if torch.cuda.is_available() else None
        if name == "mps":
            return TorchEncoder(backbone, spec, torch.device("mps")) if torch.backends.mps.is_available() else None
        if name == "torch":
            return self.plain
        if not has_openvino() or (name == "openvino-bf16" and not computes_in_bf16()):
            return None
        network = self._cache.compiled(self._weights, self._spec, name) or self._network(name)
        return None if network is None else self._openvino(name, network)

    def _openvino(self, name: str, network: Any | bytes) -> OpenVINOEncoder:
        any_batch = self._cache.any_batch(self._weights, self._spec, name)
        encoder = OpenVINOEncoder(network, bf16=name == "openvino-bf16", any_batch=bool(any_batch))
        if any_batch is None:
            self._cache.put_any_batch(self._weights, self._spec, name, encoder.allow_any_batch(self._probe))
        return encoder

    def make_if_it_keeps_codes(self, name: str) -> Encoder | None:
        """Returns the back-end if its bits on the probe are those of plain PyTorch; asks the cache first."""
        equal = self._cache.equal_bits(self._weights, self._spec, name)
        if equal is not None and not keeps_codes(name, equal):
            return None
        encoder = self.make(name)
        if encoder is not None and equal is None:
            lsh, expected = self._reference
            features = encoder(self._probe)
            equal = float((lsh.bits(_finite(features)) == expected).mean())
            self._cache.put_equal_bits(self._weights, self._spec, name, equal)
            if isinstance(encoder, OpenVINOEncoder) and keeps_codes(name, equal):
                self._keep_compiled(encoder, features)
        return None if equal is None or not keeps_codes(name, equal) else encoder

    def _keep_compiled(self, encoder: OpenVINOEncoder, features: NDArray[np.float32]) -> None:
        """Keeps the compiled network if it can be read again, to compute the same to the last bit."""
        exported = encoder.export()
        again = OpenVINOEncoder(exported, bf16=encoder.name == "openvino-bf16", any_batch=encoder.any_batch)
        with contextlib.suppress(RuntimeError):
            if np.array_equal(again(self._probe), features):
                self._cache.put_compiled(self._weights, self._spec, encoder.name, exported)

    @functools.cached_property
    def plain(self) -> TorchEncoder:
        """The encoder in float32 PyTorch on the CPU."""
        return TorchEncoder(self._backbone, self._spec, torch.device("cpu"))

    def _network(self, name: str) -> Any | None:
        kept = self._cache.network(self._weights, self._spec, name)
        if kept is not None:
            return kept
        module = PixelsToFeatures(self._backbone, self._spec)
        if name == "openvino-bf16":
            round_depthwise(module, torch.from_numpy(self._probe))
        network = convert(module, self._spec.size)
        if network is None:
            return None
        self._cache.put_network(self._weights, self._spec, name, network)
        # As later runs read it: what is written may be ordered in another way, and sums differ by their rounding.
        return self._cache.network(self._weights, self._spec, name) or network

    @functools.cached_property
    def _probe(self) -> NDArray[np.uint8]:
        return probe_pictures(self._spec)

    @functools.cached_property
    def _reference(self) -> tuple[LSH, NDArray[np.bool_]]:
        features = _finite(self.plain(self._probe))
        lsh = LSH(_PROBE_BITS).fit(features)
        return lsh, lsh.bits(features)


def _finite(features: NDArray[np.float32]) -> NDArray[np.float32]:
    # What overflows in float16 is no number, and gives no right bit.
    return np.nan_to_num(features, nan=0.0, posinf=0.0, neginf=0.0)


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
