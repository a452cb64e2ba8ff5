"""Arrays and their descriptions as files that are checked against checksums, and appear whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from index import kernel

__all__ = ["described", "read_array", "read_sealed", "sync_folder", "write_array", "write_file", "write_sealed"]

# Files are hashed in pieces, by all threads.
_PIECE = 1 << 24


def write_array(path: Path, array: npt.NDArray[Any]) -> dict[str, Any]:
    """Write an array as .npy; return the size and the checksum of the file."""
    with _whole(path) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)
        file.flush()
        return described(Path(file.name))


def described(path: Path) -> dict[str, Any]:
    """Return the size and the checksum of a file."""
    written = np.memmap(path, np.uint8, "r")
    return {"n_bytes": len(written), "xxh3": _checksum(written)}


def read_array(path: Path, size: Mapping[str, Any], *, check: bool = True) -> npt.NDArray[Any]:
    """Return an array, memory-mapped; unless it is not to be checked, after it was compared with its checksum.

    Raises:
        OSError, ValueError: the file is not as it was written.
    """
    # The size first: what is cut off must not be read.
    if path.stat().st_size != size["n_bytes"]:
        raise ValueError(f"{path} is cut off, or too long")
    if check and _checksum(np.memmap(path, np.uint8, "r")) != size["xxh3"]:
        raise ValueError(f"{path} is not as it was written")
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not array.flags.c_contiguous:
        raise ValueError(f"{path} is not in the order of C")
    return np.asarray(array)


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    """Write values as JSON behind its checksum."""
    body = json.dumps(values, indent=1).encode()
    write_file(path, xxhash.xxh3_64_hexdigest(body).encode() + b"\n" + body)


def read_sealed(path: Path) -> dict[str, Any]:
    """Return what `write_sealed` wrote.

    Raises:
        OSError, ValueError: the file is not as it was written.
    """
    checksum, _, body = path.read_bytes().partition(b"\n")
    if checksum != xxhash.xxh3_64_hexdigest(body).encode():
        raise ValueError(f"{path} is not as it was written")
    values = json.loads(body)
    if not isinstance(values, dict):
        raise ValueError(f"{path} is not as it was written")
    return values


def _checksum(data: npt.NDArray[np.uint8]) -> str:
    pieces = [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]
    digests = kernel.in_threads([partial(xxhash.xxh3_64_digest, piece.data) for piece in pieces])
    return xxhash.xxh3_64_hexdigest(b"".join(digests))


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that its name never stands for half of it, not even after a power cut."""
    with _whole(path) as file:
        file.write(data)


@contextmanager
def _whole(path: Path) -> Iterator[BufferedWriter]:
    """Yield a file that gets its name when all of it is on disk."""
    unfinished = path.with_name(path.name + ".tmp")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames within a folder durable, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
