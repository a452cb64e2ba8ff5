"""Scales a part of a picture: by Pillow, or faster by a compiled module that gives the same numbers.

``benchmarks.encode`` measures what decoding takes with and without it. Everything works without it; DEEPHASH_KERNEL=0
turns it off, as it does that of the search.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

__all__ = ["AVAILABLE", "Box", "resize"]

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a picture, in pixels."""

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# From a gap of 3 on the result cannot be told from the slow way (Pillow's documentation; a test measures it).
_REDUCING_GAP = 3.0


def _load() -> ModuleType | None:
    if os.environ.get("DEEPHASH_KERNEL") == "0":
        return None
    try:
        return importlib.import_module("deephash._resize")
    except ImportError:
        return None


_compiled: Any = _load()

AVAILABLE = _compiled is not None
"""Whether the compiled module is here and the processor has AVX2; its absence costs speed, nothing else."""


def resize(image: Image.Image, size: int, box: Box, interpolation: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Returns a box of an RGB picture as (size, size, 3) uint8, scaled by ``interpolation`` (as in `InputSpec`)."""
    if _compiled is not None and interpolation != "lanczos":
        whole = (0.0, 0.0, float(image.width), float(image.height))
        factors = (_factor(box[2] - box[0], size), _factor(box[3] - box[1], size))
        # Of a part, Pillow reduces somewhat more than that, by a rule of its own.
        if factors == (1, 1) or box == whole:
            if factors != (1, 1):
                image = image.reduce(factors)
                box = (0.0, 0.0, whole[2] / factors[0], whole[3] / factors[1])
            if (pixels := _dense_pixels(image)) is not None:
                scaled = np.empty((size, size, 3), np.uint8)
                _compiled.resize(pixels, *image.size, box, interpolation == "bicubic", size, size, scaled)
                return scaled
    resampling = _RESAMPLING[interpolation]
    return np.array(image.resize((size, size), resampling, box=box, reducing_gap=_REDUCING_GAP), dtype=np.uint8)


def _factor(length: float, size: int) -> int:
    """Returns how many pixels are averaged into one, along one side, before the weighing; as Pillow does."""
    return int(length / size / _REDUCING_GAP) or 1


def _dense_pixels(image: Image.Image) -> object | None:
    """Returns a capsule with the picture's own pixels (Arrow's C data interface), or None where its rows lie apart."""
    if Image.core.get_alignment() != 1:  # type: ignore[attr-defined]
        return None
    try:
        return image.__arrow_c_array__()[1]
    except ValueError:  # in several blocks of memory: beyond 4 megapixels
        return None
