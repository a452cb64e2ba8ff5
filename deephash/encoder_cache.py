"""Networks that OpenVINO has converted, kept on disk: reading one is much faster than converting it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Self

import platformdirs
import xxhash

from .input_spec import InputSpec
from .machine import processor
from .openvino_import import import_openvino
from .writing import replacing

__all__ = ["EncoderCache"]

# A network of EfficientNet-Lite0 takes 24 MB, and as much again compiled.
_MAX_NETWORKS = 8
_MAX_VERDICTS = 1_000
_VERDICTS = "verdicts.json"
_N_SUM_BYTES = 16
# Our own networks, and how any is converted: of the same weights, changed code may make something else.
_SOURCES = (
    "backbones.py", "bf16_rounding.py", "cifar_resnet.py", "class_features.py", "copy_net.py", "inference.py",
    "openvino_network.py", "torch_encoders.py",
)  # fmt: skip


class EncoderCache:
    """A folder of converted networks and of how they compared; whatever fails there is as if it were empty.

    A network is known by ``weights``, the name of a backbone and the digest of its weights, and by what it wants to see
    of an image: both are built into it. Which hash layers follow it is no matter here.

    Args:
        folder: made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def default(cls) -> Self:
        """Returns the cache in ``$DEEPHASH_CACHE``, or in the user's folder for such things."""
        folder = os.environ.get("DEEPHASH_CACHE") or platformdirs.user_cache_dir("deephash", appauthor=False)
        return cls(Path(folder) / "encoders")

    def network(self, weights: str, spec: InputSpec, encoder: str) -> Any | None:
        """Returns the network made of those weights for that encoder, or None where it is not here whole."""
        folder = self._network_folder(weights, spec, encoder)
        try:
            sums = json.loads((folder / "checksums.json").read_text(encoding="ascii"))
            if sums != _checksums(folder):
                return None
            network = import_openvino().Core().read_model(folder / "network.xml")
            os.utime(folder)  # used just now
        except (OSError, ValueError, RuntimeError):
            return None
        return network

    def put_network(self, weights: str, spec: InputSpec, encoder: str, network: Any) -> None:
        """Keeps a network; those that were used longest ago make room."""
        folder = self._network_folder(weights, spec, encoder)
        with contextlib.suppress(OSError, RuntimeError):
            self._folder.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(prefix=".new-", dir=self._folder))
            try:
                import_openvino().save_model(network, made / "network.xml", compress_to_fp16=False)
                (made / "checksums.json").write_text(json.dumps(_checksums(made)), encoding="ascii")
                shutil.rmtree(folder, ignore_errors=True)  # a damaged one
                made.rename(folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)
            kept = sorted((path for path in self._folder.iterdir() if path.is_dir()), key=lambda path: -_time(path))
            for old in kept[_MAX_NETWORKS:]:
                shutil.rmtree(old, ignore_errors=True)

    def compiled(self, weights: str, spec: InputSpec, encoder: str) -> bytes | None:
        """Returns the network as that encoder exported it on such a processor, or None where it is not here whole."""
        try:
            with self._compiled_file(weights, spec, encoder).open("rb") as file:
                digest, compiled = file.read(_N_SUM_BYTES), file.read()
            os.utime(self._network_folder(weights, spec, encoder))  # used just now
        except OSError:
            return None
        return compiled if xxhash.xxh3_128_digest(compiled) == digest else None

    def put_compiled(self, weights: str, spec: InputSpec, encoder: str, compiled: bytes) -> None:
        """Keeps what an encoder exported, beside the network that it was made of."""
        with contextlib.suppress(OSError), replacing(self._compiled_file(weights, spec, encoder)) as file:
            file.write(xxhash.xxh3_128_digest(compiled))  # OpenVINO would compute with damaged weights
            file.write(compiled)

    def equal_bits(self, weights: str, spec: InputSpec, encoder: str) -> float | None:
        """Returns which share of the bits that encoder keeps on such a processor, or None where nobody has looked."""
        value = self._verdicts().get(_verdict_key("equal bits", weights, spec, encoder))
        return value if isinstance(value, float) else None

    def put_equal_bits(self, weights: str, spec: InputSpec, encoder: str, share: float) -> None:
        """Keeps what was found."""
        self._put_verdict(_verdict_key("equal bits", weights, spec, encoder), share)

    def any_batch(self, weights: str, spec: InputSpec, encoder: str) -> bool | None:
        """Returns what ``OpenVINOEncoder.allow_any_batch`` said on such a processor, or None where nobody has asked."""
        value = self._verdicts().get(_verdict_key("any batch", weights, spec, encoder))
        return value if isinstance(value, bool) else None

    def put_any_batch(self, weights: str, spec: InputSpec, encoder: str, is_allowed: bool) -> None:
        """Keeps what it said."""
        self._put_verdict(_verdict_key("any batch", weights, spec, encoder), is_allowed)

    def _put_verdict(self, key: str, verdict: float | bool) -> None:
        latest = dict(list((self._verdicts() | {key: verdict}).items())[-_MAX_VERDICTS:])
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._folder / _VERDICTS, "w") as file:
                json.dump(latest, file, indent=0)

    def _verdicts(self) -> dict[str, Any]:
        try:
            verdicts = json.loads((self._folder / _VERDICTS).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return {}
        return verdicts if isinstance(verdicts, dict) else {}

    def _network_folder(self, weights: str, spec: InputSpec, encoder: str) -> Path:
        return self._folder / _network_key(weights, spec, encoder)

    def _compiled_file(self, weights: str, spec: InputSpec, encoder: str) -> Path:
        return self._network_folder(weights, spec, encoder) / f"{_digest(processor())}.compiled"


def _verdict_key(question: str, weights: str, spec: InputSpec, encoder: str) -> str:
    # Another processor, with which a folder may be shared, may compute something else.
    return f"{question} {encoder} {_digest(_network_key(weights, spec, encoder), processor())}"


def _network_key(weights: str, spec: InputSpec, encoder: str) -> str:
    return _digest(weights, spec.to_dict(), encoder, import_openvino().__version__, _source())


@functools.cache
def _source() -> list[str]:
    folder = Path(__file__).parent
    return [xxhash.xxh3_128_hexdigest(path.read_bytes()) for name in _SOURCES if (path := folder / name).is_file()]


def _digest(*what: object) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(what).encode())


def _checksums(folder: Path) -> dict[str, str]:
    names = ("network.xml", "network.bin")
    return {name: xxhash.xxh3_128_hexdigest((folder / name).read_bytes()) for name in names}


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
