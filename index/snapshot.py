"""The cache of a store: its search structure as plain .npy files, so that opening reads no rows. Never the truth.

`snapshot-<epoch>.{codes,offsets,ids}.npy` and `manifest.json`, which is written last and makes them count. Whatever is
not exactly as its manifest says is not used: the store then reads its catalogue. No faiss file is ever read.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.codes import n_code_bytes
from index.search import HammingIndex

MANIFEST = "manifest.json"
_PARTS = {"codes": np.dtype(np.uint8), "offsets": np.dtype(np.int64), "ids": np.dtype(np.int64)}


# What the arrays mean; a cache of another format is not read.
_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a cache belongs to: the catalogue with this token, at this epoch, when the largest id was last_id."""

    token: str
    epoch: int
    last_id: int
    n_bits: int
    fingerprint: str


def write(folder: Path, snapshot: Snapshot, index: HammingIndex) -> None:
    """Replace the cache. A kill at any moment leaves the old one, the new one, or none.

    Raises:
        OSError: the disk is full, for one; the files begun are gone again.
    """
    sizes, names = {}, set()
    try:
        arrays: tuple[npt.NDArray[Any], ...] = index.groups()
        for part, array in zip(_PARTS, arrays, strict=True):
            name = f"snapshot-{snapshot.epoch}.{part}.npy"
            names.add(name)
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            data = buffer.getbuffer()
            sizes[name] = {"n_bytes": len(data), "crc32": zlib.crc32(data)}
            write_file(folder / name, data)
        manifest = json.dumps(asdict(snapshot) | {"format": _FORMAT, "files": sizes}, indent=1)
        write_file(folder / MANIFEST, manifest.encode())
    except BaseException:
        for name in names:
            (folder / name).unlink(missing_ok=True)
        raise
    tidy(folder, snapshot)


def tidy(folder: Path, snapshot: Snapshot) -> None:
    """Delete what killed writers left: all files of the cache but those of this snapshot."""
    keep = {MANIFEST, *(f"snapshot-{snapshot.epoch}.{part}.npy" for part in _PARTS)}
    for path in files(folder):
        if path.name not in keep:
            path.unlink(missing_ok=True)


def load(folder: Path, *, token: str, n_bits: int, fingerprint: str) -> tuple[Snapshot, HammingIndex] | None:
    """Return the cache, or None when there is none or it is in any way not the one of this catalogue."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        sizes = manifest.pop("files")
        if manifest.pop("format", 1) != _FORMAT:
            return None
        snapshot = Snapshot(**manifest)
        if not token or (snapshot.token, snapshot.n_bits, snapshot.fingerprint) != (token, n_bits, fingerprint):
            return None
        codes, offsets, ids = (_read(folder, f"snapshot-{snapshot.epoch}.{part}.npy", sizes, part) for part in _PARTS)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    fits = (
        codes.ndim == 2
        and codes.shape[1] == n_code_bytes(n_bits)
        and offsets.shape == (len(codes) + 1,)
        and ids.ndim == 1
        and offsets[0] == 0
        and offsets[-1] == len(ids)
        and bool(np.all(offsets[1:] > offsets[:-1]))
        and (len(ids) == 0 or 0 < ids.min() <= ids.max() <= snapshot.last_id)
    )
    return (snapshot, HammingIndex.from_groups(n_bits, codes, offsets, ids)) if fits else None


def files(folder: Path) -> list[Path]:
    """Return all files of the cache, unfinished ones included."""
    return sorted(p for p in folder.iterdir() if p.name.startswith("snapshot-") or p.name.startswith(MANIFEST))


def _read(folder: Path, name: str, sizes: Any, part: str) -> Any:
    path = folder / name
    # The size first: a damaged header must not make us read or allocate gigabytes.
    if path.stat().st_size != sizes[name]["n_bytes"]:
        raise ValueError(name)
    data = path.read_bytes()
    if zlib.crc32(data) != sizes[name]["crc32"]:
        raise ValueError(name)
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype != _PARTS[part] or not array.flags.c_contiguous:
        raise ValueError(name)
    return array


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that its name never stands for half of it, not even after a power cut."""
    unfinished = path.with_name(path.name + ".tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
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
