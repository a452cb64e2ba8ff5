"""Decodes one image safely and prepares its pixels for a model or a page.

Pictures come from strangers: nothing here trusts a name, a header or a size. No torch, no model, no index.
"""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeAlias, cast

import numpy as np
from PIL import Image, JpegImagePlugin

from .image_errors import ImageError, failure_reason
from .image_formats import open_image, png_without_comments
from .image_limits import MAX_PIXELS, alone_if_large, check_size
from .image_pixels import rgb_from_array, to_rgb, upright_rgb
from .image_resizing import resize
from .input_spec import InputSpec

__all__ = [
    "ImageSource",
    "decode",
    "load_image",
    "open_regular",
    "preprocess",
    "thumbnail",
]

# A JPEG that is shrunk while it is decoded still costs time in proportion to its full size.
_DRAFT_DISCOUNT = 4
# draft() is a coarse filter: leave the good one at least a factor of 2 to work on.
_DRAFT_MARGIN = 2

ImageSource: TypeAlias = "str | os.PathLike[str] | BinaryIO | bytes | Image.Image | np.ndarray[Any, Any]"


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None) -> Image.Image:
    """Returns one picture as RGB, as a person sees it: EXIF orientation applied, first frame, on white, no metadata.

    ``source`` is a path, an open binary file (read from its start), the bytes of a file, a Pillow image, or an array
    (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), RGB(A). More than 8 bits a channel are scaled, not clipped: from 0 to the
    smallest of 1 (floats), 255, 1023, 4095, 16383 or 65535 that holds the picture; from its minimum to its maximum
    where none fits (negative values, or everything in the lowest sixteenth).

    Args:
        source: What to read.
        max_pixels: The largest number of pixels to decode. A JPEG that is shrunk on the way counts with its smaller
            size, but never less than a quarter of its full one, and a progressive one in full.
        at_least: The short side that is wanted: a JPEG may be decoded smaller (several times faster), though never
            below twice this. The same file with the same ``at_least`` always gives the same pixels.

    Raises:
        ImageError: There is no picture in it; ``reason`` says why.
        TypeError: ``source`` is none of the above.
    """
    path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    try:
        if path is not None:
            with open_regular(path) as stream:
                return decode(stream, max_pixels=max_pixels, at_least=at_least)[0]
        if isinstance(source, Image.Image):
            check_size(source.size, max_pixels)
            with _quiet():
                source.load()
                return upright_rgb(source)[0]
        if isinstance(source, np.ndarray):
            return rgb_from_array(source, max_pixels)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return decode(io.BytesIO(source), max_pixels=max_pixels, at_least=at_least)[0]
        if hasattr(source, "read"):
            file = cast("BinaryIO", source)
            file = file if file.seekable() else io.BytesIO(file.read())
            return decode(file, max_pixels=max_pixels, at_least=at_least)[0]
    except Exception as error:
        raise ImageError(failure_reason(error), path=path) from error
    raise TypeError(f"an image must be a path, a file, bytes, a Pillow image or an array, not {type(source).__name__}")


def open_regular(path: str) -> BinaryIO:
    """Opens a file that may have been swapped for something else since it was listed: a FIFO would hang `open`."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise ImageError("is a folder", path=path)
        if not stat.S_ISREG(mode):
            raise ImageError("is not a regular file", path=path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def decode(file: BinaryIO, *, max_pixels: int, at_least: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """Returns the picture and the full (width, height) it has after rotation."""
    try:
        return _decode_once(file, max_pixels, at_least)
    except ValueError as error:
        # Pillow gives up a PNG for its comments (a text of more than 1 MB): try once more without them.
        if isinstance(error, ImageError) or (picture := png_without_comments(file)) is None:
            raise
        return _decode_once(picture, max_pixels, at_least)


def _decode_once(file: BinaryIO, max_pixels: int, at_least: int | None) -> tuple[Image.Image, tuple[int, int]]:
    with _quiet():
        image = open_image(file)
        size = image.size
        if at_least is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
            image.draft(None, (_DRAFT_MARGIN * at_least, _DRAFT_MARGIN * at_least))
        is_draft = image.size != size
        # The coefficients of a progressive JPEG are kept for the whole picture.
        discount = _DRAFT_DISCOUNT if is_draft and "progressive" not in image.info else 1
        n_pixels = max(image.width * image.height, size[0] * size[1] // discount)
        check_size(size, max_pixels, n_pixels)
        with alone_if_large(n_pixels):
            image.load()
            upright, is_on_its_side = upright_rgb(image)
        if not is_draft:
            return upright, upright.size
        return upright, (size[1], size[0]) if is_on_its_side else size


def preprocess(image: Image.Image, spec: InputSpec) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Returns the centre of an image as (spec.size, spec.size, 3) uint8, its short side scaled to spec.resize.

    With spec.squash, the whole image. Only the crop is ever computed: an image of 1 x 50,000 costs no more than any
    other.
    """
    if image.mode != "RGB":
        image = to_rgb(image)
    width, height = image.size
    if spec.squash:
        box = (0.0, 0.0, float(width), float(height))
    else:
        side = min(width, height) * spec.size / spec.resize
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, min(left + side, width), min(top + side, height))
    return resize(image, spec.size, box, spec.interpolation)


def thumbnail(source: ImageSource, size: int) -> Image.Image:
    """Returns a picture that fits into ``size`` x ``size``: RGB, upright, no metadata, never enlarged.

    Raises:
        ImageError: There is no picture in it; ``reason`` says why.
    """
    image = load_image(source, at_least=size)
    image.thumbnail((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return image


class _WhileDecoding(threading.local):
    """Stands where a warnings filter has its pattern, and matches only in threads that are decoding."""

    depth = 0

    def match(self, *_: object) -> bool:
        return self.depth > 0


_WHILE_DECODING = _WhileDecoding()
_QUIET_FILTER: Any = ("ignore", _WHILE_DECODING, Warning, None, 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Pillow's warnings about a stranger's file from the terminal, in this thread only.

    warnings.catch_warnings swaps the filters of the whole process, and threads that overlap restore the wrong ones.
    """
    filters = cast("list[Any]", warnings.filters)
    if not filters or filters[0] is not _QUIET_FILTER:
        filters.insert(0, _QUIET_FILTER)
    _WHILE_DECODING.depth += 1
    try:
        yield
    finally:
        _WHILE_DECODING.depth -= 1
