"""What turns pixels into features when nothing is learnt: back-ends, by name, and the one that goes without torch.

``openvino`` compiles the network for a CPU (bfloat16 where the processor computes in it, else float32), ``torch`` runs
it as it is (on CUDA in float16 where that keeps the codes; on Apple's MPS). A back-end is taken for a network only
after it gave the bits of plain float32 PyTorch on a probe of real pictures: ``torch_encoders``.
"""

from __future__ import annotations

import functools
import io
import os
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from .encoder_cache import EncoderCache
from .errors import ModelError
from .input_spec import InputSpec
from .machine import count_cores, has_bf16_instructions, may_have_gpu
from .openvino_import import import_openvino

__all__ = [
    "BACK_ENDS", "VARIABLE", "Encoder", "OpenVINOEncoder", "computes_in_bf16", "has_openvino", "keeps_codes",
    "kept_encoder", "largest_chunk", "wished_back_end",
]  # fmt: skip

VARIABLE = "DEEPHASH_ENCODER"
"""The environment variable that names a back-end: ``auto`` (custom), or one of ``BACK_ENDS``."""

BACK_ENDS = ("cuda-fp16", "cuda", "mps", "openvino-bf16", "openvino", "torch")
"""The back-ends, in the order in which ``auto`` tries them."""

# What a stream of a CPU takes at a time at most: of more images, activations leave the cache. Chunks are of a stream's
# own, so images of one batch never wait for one another.
_CHUNK_PIXELS = 4 * 224 * 224
_MAX_CHUNK = 16  # images
# Of another number of images, a processor may add sums up in another order (AMX does, in small networks). Where that is
# so, or nobody has looked, all chunks have one size, filled up.
_FILLED_PIXELS = 8 * 64 * 64

_MIN_EQUAL_BITS = 0.999
# With half the bits of a number. What they keep on photographs, some 99 %, is for benchmarks.encode to measure: the
# probe is CIFAR-10, whose blurred pictures lie nearer to the thresholds, and random hyperplanes change more of their
# bits than the general models' layer does. It tells what is off from what is rounded.
_MIN_EQUAL_BITS_ROUNDED = 0.96


class Encoder(Protocol):
    """Turns ``(B, size, size, 3) uint8`` pixels into features ``(B, n_features) float32`` of unit length."""

    name: str

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the features."""

    def prepare(self) -> None:
        """Makes now what the first call would make."""


class OpenVINOEncoder:
    """The network compiled by OpenVINO for this CPU, at its first use; its features do not depend on the batch.

    Args:
        network: OpenVINO's own model, of ``(B, size, size, 3) uint8`` to features, for B up to ``largest_chunk``; or
            what ``export`` gave of one, to be ready sooner.
        bf16: compute in bfloat16.
        any_batch: what ``allow_any_batch`` said of this network, on such a processor.
    """

    def __init__(self, network: Any | bytes, *, bf16: bool, any_batch: bool = False) -> None:
        self.name = "openvino-bf16" if bf16 else "openvino"
        self._network = network
        self.any_batch = any_batch
        self._lock = threading.Lock()
        self._running: _Streams | None = None

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the features; of threads that call at the same time, the first go first, and no stream waits."""
        n, pixels = len(pixels), np.ascontiguousarray(pixels)
        if self.any_batch:
            return self._in_chunks(pixels, max(1, min(largest_chunk(pixels.shape[1]), -(-n // self._streams.n))))
        step = _images_of(_FILLED_PIXELS, pixels.shape[1])
        if missing := -n % step:
            pixels = np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), np.uint8)])
        return self._in_chunks(pixels, step)[:n]

    def allow_any_batch(self, probe: NDArray[np.uint8]) -> bool:
        """Takes any number of images at a time from now on, if that leaves features as they are; returns whether.

        Args:
            probe: pixels of pictures, at least 16.
        """
        most = largest_chunk(probe.shape[1])
        alone = self._in_chunks(probe[:most], 1)
        self.any_batch = all(
            np.array_equal(self._in_chunks(probe[:n], n), alone[:n], equal_nan=True) for n in range(2, most + 1)
        )
        return self.any_batch

    def _in_chunks(self, pixels: NDArray[np.uint8], step: int) -> NDArray[np.float32]:
        features = np.empty((len(pixels), self._streams.n_features), np.float32)
        chunks = [(pixels[at : at + step], features[at : at + step]) for at in range(0, len(pixels), step)]
        self._streams.run(chunks)
        return features

    def prepare(self) -> None:
        """Compiles the network, if that was not done yet."""
        _ = self._streams

    def export(self) -> bytes:
        """Returns the compiled network, for the same version of OpenVINO on such a processor."""
        exported: bytes | io.BytesIO = self._streams.network.export_model()
        return exported if isinstance(exported, bytes) else exported.getvalue()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # it never changes

    @property
    def _streams(self) -> _Streams:
        with self._lock:
            if self._running is None:
                self._running = _Streams(self._compile())
            return self._running

    def _compile(self) -> Any:
        config = {
            "INFERENCE_PRECISION_HINT": "bf16" if self.name == "openvino-bf16" else "f32",
            "INFERENCE_NUM_THREADS": count_cores(),
            "PERFORMANCE_HINT": "THROUGHPUT",
            # Threads that are tied to processors wait for those that other processes keep busy.
            "ENABLE_CPU_PINNING": False,
        }
        network, core = self._network, _openvino_core()
        make = core.import_model if isinstance(network, bytes) else core.compile_model
        compiled = make(network, "CPU", config)
        self._network = None  # its weights are in there
        return compiled


class _Streams:
    """A compiled network and as many requests as it has streams, each of which computes a chunk at a time."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.n = int(network.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self.n_features = int(network.outputs[0].get_partial_shape()[1].get_length())
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.n):
            self._idle.put(network.create_infer_request())
        self._threads = ThreadPoolExecutor(self.n, thread_name_prefix="deephash-encode")

    def run(self, chunks: list[tuple[NDArray[np.uint8], NDArray[np.float32]]]) -> None:
        """Fills the second array of each pair with the features of the first."""
        if len(chunks) == 1:
            self._run(*chunks[0])  # here: another thread would have to be woken
            return
        for done in [self._threads.submit(self._run, *chunk) for chunk in chunks]:
            done.result()

    def _run(self, pixels: NDArray[np.uint8], features: NDArray[np.float32]) -> None:
        request = self._idle.get()
        try:
            request.infer(pixels, share_inputs=True)
            features[:] = request.get_output_tensor(0).data
        finally:
            self._idle.put(request)


def largest_chunk(size: int) -> int:
    """Returns how many images of size x size pixels a stream takes at a time at most."""
    return _images_of(_CHUNK_PIXELS, size)


def _images_of(n_pixels: int, size: int) -> int:
    return max(1, min(_MAX_CHUNK, n_pixels // size**2))


def wished_back_end() -> str:
    """Returns what ``$DEEPHASH_ENCODER`` names: a back-end or ``auto``.

    Raises:
        ModelError: it names none.
    """
    wish = os.environ.get(VARIABLE) or "auto"
    if wish != "auto" and wish not in BACK_ENDS:
        raise ModelError(f"{VARIABLE} is {wish!r}: set it to auto, {', '.join(BACK_ENDS)}, or unset it")
    return wish


def keeps_codes(name: str, equal_bits: float) -> bool:
    """Returns whether a back-end that keeps that share of the bits is good enough."""
    return equal_bits >= (_MIN_EQUAL_BITS_ROUNDED if name.endswith("16") else _MIN_EQUAL_BITS)


def kept_encoder(weights: str, spec: InputSpec) -> OpenVINOEncoder | None:
    """Returns what ``torch_encoders.choose_encoder`` would, where earlier runs left all that takes torch in the cache.

    That is the network, compiled or converted, and the verdicts on each back-end up to the one chosen. None means that
    torch has to choose: something is missing, a GPU may be there, or another back-end is wished for.

    Args:
        weights: name of the backbone and digest of its weights, as in ``EncoderCache``.
        spec: of the images.

    Raises:
        ModelError: as ``wished_back_end``.
    """
    chosen, cache = wished_back_end(), EncoderCache.default()
    if chosen not in ("auto", "openvino", "openvino-bf16") or may_have_gpu() or not has_openvino():
        return None
    names = ["openvino-bf16", "openvino"] if computes_in_bf16() else ["openvino"]
    if chosen == "auto":
        for name in names:
            equal = cache.equal_bits(weights, spec, name)
            if equal is None:
                return None
            if keeps_codes(name, equal):
                chosen = name
                break
    if chosen not in names:
        return None
    if (any_batch := cache.any_batch(weights, spec, chosen)) is None:
        return None
    network = cache.compiled(weights, spec, chosen) or cache.network(weights, spec, chosen)
    if network is None:
        return None
    return OpenVINOEncoder(network, bf16=chosen == "openvino-bf16", any_batch=any_batch)


def computes_in_bf16() -> bool:
    """Returns whether the processor does; OpenVINO would imitate it on others."""
    return has_bf16_instructions() and "BF16" in _openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@functools.cache
def has_openvino() -> bool:
    """Returns whether OpenVINO can be imported."""
    try:
        import_openvino()
    except ImportError:
        return False
    return True


@functools.cache
def _openvino_core() -> Any:
    return import_openvino().Core()
