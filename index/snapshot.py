"""The cache of a store: its search structure as plain .npy files that are memory-mapped. Never the truth.

`snapshot-<token>.json` lists the files of one cache; the catalogue names the token of the one that counts. Every file
is checked against its checksum before it is used: what is not exactly as it was written is not used, and the store then
reads its catalogue. Files are never changed, only replaced, so that readers go on with what they have mapped. A cache
shares the files of the one before where the arrays are the same. No faiss file is ever read.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from index.array_files import read_array, read_sealed, write_array, write_sealed
from index.choice import STRUCTURES
from index.groups import Groups
from index.search import HammingIndex
from index.segments import Segment
from index.structures import exact_structure

__all__ = ["PREFIXES", "Snapshot", "Stored", "files", "load", "manifest", "tidy", "write"]

PREFIXES = ("snapshot-", "manifest.json")
"""What the names of all files of caches begin with; the latter was one of formats up to 2."""

# What the arrays mean; a cache of another format is not read.
_FORMAT = 3
_TOKEN = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"snapshot-[0-9a-f]{8}\.\d+\.[a-z0-9]+\.npy")
_GROUPS = {"words": np.dtype(np.uint64), "offsets": np.dtype(np.int64), "ids": np.dtype(np.int64)}

_Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a cache belongs to: the catalogue with this token, at this epoch, when the largest id was last_id."""

    token: str
    epoch: int
    last_id: int
    n_bits: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A cache on disk: what it is, its files, and their arrays as long as somebody has them."""

    snapshot: Snapshot
    files: dict[str, dict[str, Any]]
    arrays: WeakValueDictionary[str, _Array]


def manifest(token: str) -> str:
    """Return the name of the file that lists the files of a cache."""
    return f"snapshot-{token}.json"


def write(folder: Path, snapshot: Snapshot, index: HammingIndex, before: Stored | None) -> Stored:
    """Write a cache, beside the one that counts until the catalogue names this one; use the files of `before`.

    Raises:
        OSError: the disk is full, for one; the files begun are gone again.
    """
    held = dict(before.arrays) if before else {}
    known = {id(array): name for name, array in held.items()}
    new: list[str] = []
    stored = Stored(snapshot, {}, WeakValueDictionary())
    segments = []
    try:
        for number, segment in enumerate(index.segments):
            names = {}
            for part, array in _arrays(segment).items():
                name = known.get(id(array), "")
                if before and name in before.files:
                    stored.files[name] = before.files[name]
                else:
                    name = f"snapshot-{snapshot.token[:8]}.{number}.{part}.npy"
                    new.append(name)
                    stored.files[name] = write_array(folder / name, array)
                stored.arrays[name] = array
                names[part] = name
            segments.append({"structure": segment.structure.name, "arrays": names})
        described = asdict(snapshot) | {"format": _FORMAT, "segments": segments, "files": stored.files}
        new.append(manifest(snapshot.token))
        write_sealed(folder / new[-1], described)
    except BaseException:
        for name in new:
            (folder / name).unlink(missing_ok=True)
        raise
    return stored


def _arrays(segment: Segment) -> dict[str, _Array]:
    groups = segment.groups
    return {"words": groups.words, "offsets": groups.offsets, "ids": groups.ids} | dict(segment.structure.arrays())


def tidy(folder: Path, stored: Stored) -> None:
    """Delete all files of caches but those of this one: older ones, and what killed writers left."""
    keep = {manifest(stored.snapshot.token), *stored.files}
    for path in files(folder):
        if path.name not in keep:
            # A system that does not delete what another process has mapped: the next writer will.
            with suppress(OSError):
                path.unlink(missing_ok=True)


def load(folder: Path, *, token: str, n_bits: int, fingerprint: str) -> tuple[Stored, HammingIndex] | None:
    """Return the cache with this token, or None where it is in any way not the one of this catalogue."""
    try:
        if not _TOKEN.fullmatch(token):
            return None
        described = read_sealed(folder / manifest(token))
        if described.pop("format") != _FORMAT:
            return None
        sizes, segments = described.pop("files"), described.pop("segments")
        snapshot = Snapshot(**described)
        if (snapshot.token, snapshot.n_bits, snapshot.fingerprint) != (token, n_bits, fingerprint):
            return None
        if not all(map(_NAME.fullmatch, sizes)):
            return None
        arrays = {name: read_array(folder / name, size) for name, size in sizes.items()}
        parts = [_segment({p: arrays[n] for p, n in s["arrays"].items()}, s["structure"], snapshot) for s in segments]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return Stored(snapshot, sizes, WeakValueDictionary(arrays)), HammingIndex.from_segments(
        n_bits, parts, snapshot.last_id + 1
    )


def _segment(arrays: dict[str, _Array], structure: str, snapshot: Snapshot) -> Segment:
    """Return a segment; its arrays are as they were written, but who wrote them is not known.

    Raises:
        ValueError, KeyError: they do not fit together.
    """
    words, offsets, ids = (arrays.pop(part) for part in _GROUPS)
    fits = (
        [array.dtype for array in (words, offsets, ids)] == list(_GROUPS.values())
        and words.ndim == 2
        and words.shape[1] == -(-snapshot.n_bits // 64)
        and offsets.shape == (len(words) + 1,)
        and ids.ndim == 1
        and offsets[0] == 0
        and offsets[-1] == len(ids)
        and bool(np.all(offsets[1:] >= offsets[:-1]))
        and (len(ids) == 0 or 0 < ids.min() <= ids.max() <= snapshot.last_id)
    )
    if not fits:
        raise ValueError("groups that do not fit together")
    groups, n_empty = Groups(words, offsets, ids), int(np.count_nonzero(offsets[1:] == offsets[:-1]))
    try:
        return Segment(groups, STRUCTURES[structure].from_arrays(groups, snapshot.n_bits, arrays), n_empty)
    except (KeyError, ValueError):
        # A structure that is not made here, or differently (without the kernel, by another version).
        return Segment(groups, exact_structure(groups, snapshot.n_bits), n_empty)


def files(folder: Path) -> list[Path]:
    """Return all files of caches, unfinished ones included."""
    return sorted(p for p in folder.iterdir() if p.name.startswith(PREFIXES))
