"""What one picture may cost: pixels, and memory while many are decoded at once."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext

from .image_errors import ImageError

__all__ = ["MAX_PIXELS", "alone_if_large", "check_size"]

# What one picture may cost: at most about 10 bytes a pixel while it is decoded, so about 1 GB. Photographs of 24 to 60
# megapixels and A4 scans at 1,000 dpi pass; see `images.load_image` for what is counted.
MAX_PIXELS = 100_000_000
# Pictures above this size are decoded one at a time, so that memory does not grow with the number of threads.
_LARGE_PIXELS = 25_000_000
_ONE_LARGE_IMAGE = threading.Lock()


def check_size(size: tuple[int, int], max_pixels: int, n_pixels: int | None = None) -> None:
    """Raises ImageError when the picture, or the ``n_pixels`` of it that are decoded, are over the limit."""
    width, height = size
    if width < 1 or height < 1:
        raise ImageError("has no pixels")
    if (width * height if n_pixels is None else n_pixels) > max_pixels:
        raise ImageError(
            f"has {width * height / 1e6:,.0f} megapixels ({width} x {height}), more than the limit of "
            f"{max_pixels / 1e6:,.3g} megapixels: raise max_pixels to read it"
        )


def alone_if_large(n_pixels: int) -> AbstractContextManager[object]:
    """Returns a context in which one large picture at a time is decoded, and any number of others."""
    return _ONE_LARGE_IMAGE if n_pixels > _LARGE_PIXELS else nullcontext()
