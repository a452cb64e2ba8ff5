"""What goes into a store and what comes out of it: plain frozen values, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

Scalar: TypeAlias = str | int | float | bool | None
Metadata: TypeAlias = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class FileStat:
    """A file as the file system shows it. `path` is a str as os.fsdecode makes it (surrogates for other encodings)."""

    path: str
    n_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Entry:
    """An image about to be stored: what is known of its file and pixels. The path is unique within a store."""

    path: str
    n_bytes: int
    mtime_ns: int
    content_hash: bytes
    width: int
    height: int
    label: str | None = None
    metadata: Metadata = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Record(Entry):
    """A stored image: its entry, its id (never reused) and its code."""

    id: int = field(kw_only=True)
    code: bytes = field(kw_only=True)


class Row(NamedTuple):
    """What a `Record` holds, as a tuple, which is made faster."""

    id: int
    path: str
    n_bytes: int
    mtime_ns: int
    content_hash: bytes
    width: int
    height: int
    label: str | None
    metadata: Metadata
    code: bytes

    def record(self) -> Record:
        """Return the record."""
        id, path, n_bytes, mtime_ns, content_hash, width, height, label, metadata, code = self
        return Record(path, n_bytes, mtime_ns, content_hash, width, height, label, metadata, id=id, code=code)


@dataclass(frozen=True, slots=True)
class Match:
    """One result of a search; `distance` is Hamming's, `asymmetric_distance` what a re-ranked search orders by."""

    id: int
    distance: int
    path: str
    label: str | None
    metadata: Metadata = field(hash=False)
    asymmetric_distance: float | None = None


@dataclass(slots=True)
class _OpenMatch:
    """A match while it is made: a frozen class sets each field by a call, which takes four times as long."""

    id: int
    distance: int
    path: str
    label: str | None
    metadata: Metadata
    asymmetric_distance: float | None = None


def matches_of(
    ids: list[int], distances: list[int], faces: Mapping[int, tuple[str, str | None, Metadata]]
) -> list[Match]:
    """Return the matches of ids at these distances, with path, label and metadata of each: thousands at a time.

    Raises:
        KeyError: an id that has none.
    """
    made: list[Any] = []
    for id, distance in zip(ids, distances, strict=True):
        path, label, metadata = faces[id]
        match = _OpenMatch(id, distance, path, label, metadata)
        match.__class__ = Match  # type: ignore[assignment]
        made.append(match)
    return made


@dataclass(frozen=True, slots=True)
class Filter:
    """Which images to consider: all conditions must hold.

    `path` is a glob over the whole path (`*`, `?`, `[ab]`, `[!ab]`) in which `*` also matches `/`. `metadata` asks for
    equal values under all given keys (true is not 1); None asks for a key that is null or absent.
    """

    path: str | None = None
    label: str | None = None
    metadata: Metadata = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that could not be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that `Store.verify` found. `where` is a file of the index or the path of an image."""

    kind: Literal["catalogue", "row", "cache", "model"]
    where: str
    message: str


@dataclass(frozen=True, slots=True)
class StoreStats:
    """A store in numbers. Sizes are bytes on disk; `created` is an ISO 8601 time in UTC."""

    n_images: int
    n_skipped: int
    n_bits: int
    fingerprint: str
    catalogue_bytes: int
    cache_bytes: int
    model_bytes: int
    roots: tuple[str, ...]
    epoch: int
    created: str


@dataclass(frozen=True, slots=True)
class SearchStats:
    """What searches a store. `structure` is the choice as text, `found` what it is now, with its parameters.

    `recall` is the share of the true 10 nearest that are found, as it was measured; 1 where the answer is exact.
    """

    structure: str
    found: str
    exact: bool
    recall: float
    n_bytes: int


@dataclass(frozen=True, slots=True)
class DuplicateCluster:
    """Images that are copies of one: which to keep, and the others with their Hamming distance to it, nearest first."""

    kind: Literal["identical", "near"]
    keep: Record
    drop: tuple[tuple[Record, int], ...]
