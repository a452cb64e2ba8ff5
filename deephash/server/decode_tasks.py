"""What runs in the decoding processes: strangers' bytes become pixels here and nowhere else. No torch, no index."""

from __future__ import annotations

import ctypes
import io
import pickle
import signal
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from index import FileStat

from ..image_errors import failure_reason
from ..image_files import Decoded, Failed, decode_file
from ..image_formats import open_image
from ..image_limits import check_size
from ..images import decode, preprocess, thumbnail
from ..input_spec import InputSpec

__all__ = [
    "HEAD", "Refused", "attach_process", "decode_listed", "identify", "prepare", "prepare_file", "shrink", "wake",
    "work",
]  # fmt: skip

HEAD = struct.Struct("<Q")
"""Before each answer: its bytes."""

# One image within the limit of pixels costs about 1 GB; the rest is Python, its libraries and what they reserve.
_MEMORY_BYTES = 4 << 30
_PR_SET_PDEATHSIG = 1
_JPEG_QUALITY = 85


@dataclass(frozen=True, slots=True)
class Refused:
    """There is no image to be had, and why: one line that continues a sentence."""

    reason: str


def work(channel: socket.socket) -> None:
    """Does the tasks that come, (function, arguments), one after another, until nobody sends any more."""
    _limit_process()
    with channel, channel.makefile("rb") as tasks:
        while True:
            try:
                task, arguments = pickle.load(tasks)
            except EOFError:
                return
            channel.sendall(_answer(task, arguments))


def _answer(task: Any, arguments: tuple[Any, ...]) -> memoryview:
    answer = io.BytesIO()
    answer.write(bytes(HEAD.size))
    try:
        found = task(*arguments)
    except Exception as error:
        found = Refused(failure_reason(error))
    pickle.dump(found, answer, 5)  # whose arrays are copied once
    view = answer.getbuffer()
    HEAD.pack_into(view, 0, len(view) - HEAD.size)
    return view


def _limit_process() -> None:
    attach_process()
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


def attach_process() -> None:
    """Leaves Ctrl-C to the server, and ends this process with it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def wake() -> None:
    """Does nothing: the first task of a process has it import its libraries."""


def prepare(data: bytes, spec: InputSpec, max_pixels: int) -> np.ndarray[Any, np.dtype[np.uint8]] | Refused:
    """Returns the pixels that a model wants, (size, size, 3) uint8, of the bytes of an image file."""
    try:
        image, _ = decode(io.BytesIO(data), max_pixels=max_pixels, at_least=spec.resize)
        return preprocess(image, spec)
    except Exception as error:
        return Refused(failure_reason(error))


def prepare_file(path: str, spec: InputSpec, max_pixels: int) -> np.ndarray[Any, np.dtype[np.uint8]] | Refused:
    """Returns what `prepare` does, of a file."""
    found = decode_file(FileStat(path, 0, 0), spec, max_pixels=max_pixels)
    return found.pixels if isinstance(found, Decoded) else Refused(found.reason)


def decode_listed(file: FileStat, spec: InputSpec, max_pixels: int) -> Decoded | Failed:
    """Returns an image as indexing wants it."""
    return decode_file(file, spec, max_pixels=max_pixels)


def identify(data: bytes, max_pixels: int) -> str | Refused:
    """Returns the format of an image file, as Pillow calls it, by its bytes; its pixels are not looked at."""
    try:
        image = open_image(io.BytesIO(data))
        check_size(image.size, max_pixels)
        return str(image.format)
    except Exception as error:
        return Refused(failure_reason(error))


def shrink(path: str, size: int) -> bytes | Refused:
    """Returns a JPEG that fits into size x size, upright, without metadata."""
    try:
        out = io.BytesIO()
        thumbnail(path, size).save(out, "JPEG", quality=_JPEG_QUALITY)
        return out.getvalue()
    except Exception as error:
        return Refused(failure_reason(error))
