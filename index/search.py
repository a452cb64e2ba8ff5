"""Exact Hamming search in memory, over faiss.IndexBinaryFlat. Codes and ids only: no files, no catalogue.

How it works. faiss scans the distinct codes only; each has the list of its ids (`_Groups`). The k nearest are found in
two scans: the k nearest in a sample of the codes bound the k-th distance from above, and one range search within that
bound finds everything that can belong to the answer. It is faster than faiss's own k-NN over all codes, and it is exact
where k-NN is arbitrary: among equal distances, which short codes are full of, the smaller ids win.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from index.codes import Codes, check_codes, check_n_bits, hamming_distances, n_code_bytes

Ids = npt.NDArray[np.int64]
Distances = npt.NDArray[np.int32]

# Up to so many distinct codes NumPy does it all: no import of faiss (0.2 s), no waking of its threads.
_NUMPY_UP_TO = 4096
# Every 16th distinct code is in the sample, once there are so many that a second full scan would be felt.
_SAMPLE_STEP = 16
_SAMPLE_ABOVE = 1 << 15
# Hits or ids that one block of queries may hold at once (some 30 bytes each in flight).
_BLOCK_ENTRIES = 1 << 22
# Recent additions are a small segment of their own until they exceed a tenth of the base (and this floor); the same for
# codes whose ids are all removed.
_REBUILD_SHARE = 0.1
_REBUILD_ABOVE = 4096
# A place without a result while segments are merged; callers see -1.
_FAR = np.iinfo(np.int32).max


class _Scan:
    """The distinct codes of a segment, and faiss's copies of them, made when something is first searched."""

    __slots__ = ("_lock", "_parts", "codes")

    def __init__(self, codes: Codes) -> None:
        self.codes = codes
        self._parts: tuple[Any, Any, int] | None = None
        self._lock = threading.Lock()

    def parts(self) -> tuple[Any, Any, int]:
        """Return (all codes, a sample of them, its step) as faiss indexes."""
        if self._parts is None:
            with self._lock:
                if self._parts is None:
                    step = _SAMPLE_STEP if len(self.codes) >= _SAMPLE_ABOVE else 1
                    flat = _flat(self.codes)
                    self._parts = (flat, flat if step == 1 else _flat(self.codes[::step]), step)
        return self._parts

    def within(self, queries: Codes, bounds: Distances) -> tuple[Ids, Distances, Ids]:
        """Return (row, distance, position) of every code within bounds[row] of queries[row]; rows in no order."""
        if len(self.codes) <= _NUMPY_UP_TO:
            table = hamming_distances(queries, self.codes)
            rows, positions = np.nonzero(table <= bounds[:, None])
            return rows, table[rows, positions], positions
        flat = self.parts()[0]
        found: list[tuple[Ids, Distances, Ids]] = []
        for bound in np.unique(bounds):
            rows = np.flatnonzero(bounds == bound)
            # faiss's radius is exclusive, its distances come as float32.
            limits, distances, positions = flat.range_search(np.ascontiguousarray(queries[rows]), int(bound) + 1)
            counts = np.diff(limits.astype(np.int64))
            found.append((np.repeat(rows, counts), distances.astype(np.int32), positions))
        if len(found) == 1:
            return found[0]
        rows, distances, positions = (np.concatenate(column) for column in zip(*found, strict=True))
        return rows, distances, positions


def _flat(codes: Codes) -> Any:
    import faiss  # imported here: `import index` must stay fast

    flat = faiss.IndexBinaryFlat(8 * codes.shape[1])
    flat.add(np.ascontiguousarray(codes))
    return flat


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """One immutable segment: the ids of code number g are ids[offsets[g]:offsets[g + 1]], ascending.

    A code whose ids are all removed keeps its place, with no ids, until `compact`.
    """

    scan: _Scan
    offsets: Ids
    ids: Ids

    @classmethod
    def of(cls, codes: Codes, ids: Ids) -> _Groups:
        by_id = np.argsort(ids, kind="stable") if np.any(ids[1:] < ids[:-1]) else None
        if by_id is not None:
            codes, ids = codes[by_id], ids[by_id]
        width = codes.shape[1]
        keys = codes.view(np.uint64 if width == 8 else f"V{width}").ravel()
        order = np.argsort(keys, kind="stable")
        codes, ids = codes[order], ids[order]
        first = np.ones(len(codes), dtype=np.bool_)
        first[1:] = np.any(codes[1:] != codes[:-1], axis=1)
        starts = np.flatnonzero(first)
        return cls(_Scan(codes[starts]), np.append(starts, len(codes)).astype(np.int64), ids)

    def rows(self) -> tuple[Codes, Ids]:
        """Return (codes, ids), one row for each id."""
        return np.repeat(self.scan.codes, np.diff(self.offsets), axis=0), self.ids

    def keep(self, mask: npt.NDArray[np.bool_]) -> _Groups:
        """Return the segment with the ids where mask is true, over the same codes."""
        kept = np.concatenate(([0], np.cumsum(mask, dtype=np.int64)))
        return _Groups(self.scan, kept[self.offsets], self.ids[mask])

    def compact(self) -> _Groups:
        """Return the segment without the codes that have no ids left."""
        used = np.diff(self.offsets) > 0
        if used.all():
            return self
        return _Groups(_Scan(self.scan.codes[used]), np.append(self.offsets[:-1][used], self.offsets[-1:]), self.ids)

    def nearest(self, queries: Codes, k: int, radius: int) -> tuple[Distances, Ids]:
        """Return (distances, ids), both (Q, k), by (distance, id); places without a result are (_FAR, -1)."""
        distances = np.full((len(queries), k), _FAR, dtype=np.int32)
        ids = np.full((len(queries), k), -1, dtype=np.int64)
        bounds = np.minimum(self._bounds(queries, k), radius)
        for chosen, rows, found, groups in self._hits(queries, bounds):
            self._select(rows, found, groups, chosen, k, distances, ids)
        return distances, ids

    def within(self, queries: Codes, radius: int) -> tuple[Ids, Distances, Ids]:
        """Return (row, distance, id) of all within the radius, by (row, distance, id)."""
        parts = []
        for chosen, rows, found, groups in self._hits(queries, np.full(len(queries), radius, dtype=np.int32)):
            entries, ids = self._expand(groups, np.diff(self.offsets)[groups])
            rows, found = chosen[rows[entries]], found[entries]
            order = np.lexsort((ids, found, rows))
            parts.append((rows[order], found[order], ids[order]))
        if not parts:
            return np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64)
        rows, found, ids = (np.concatenate(column) for column in zip(*parts, strict=True))
        return rows, found, ids

    def _bounds(self, queries: Codes, k: int) -> Distances:
        """Return for each query a distance within which there are at least k ids: (Q,) int32."""
        if len(self.scan.codes) <= _NUMPY_UP_TO:
            codes = self.scan.codes[np.diff(self.offsets) > 0]
            kth = min(k, len(codes)) - 1
            step = max(1, _BLOCK_ENTRIES // len(codes))
            blocks = (hamming_distances(queries[i : i + step], codes) for i in range(0, len(queries), step))
            # At least k ids where k codes are; with fewer codes than k, all of them.
            return np.concatenate([np.partition(block, kth, axis=1)[:, kth] for block in blocks])
        _, sample, step = self.scan.parts()
        longest = 8 * self.scan.codes.shape[1]
        bounds = np.full(len(queries), longest, dtype=np.int32)
        open_rows = np.arange(len(queries))
        asked = k
        # Asking for a large part of the sample costs more than the bound is worth.
        while len(open_rows) and asked <= max(1024, sample.ntotal // 4):
            asked = min(asked, sample.ntotal)
            distances, positions = sample.search(np.ascontiguousarray(queries[open_rows]), asked)
            groups = positions * step
            counts = np.cumsum(self.offsets[groups + 1] - self.offsets[groups], axis=1)
            enough = counts[:, -1] >= k
            at = np.argmax(counts[enough] >= k, axis=1)
            bounds[open_rows[enough]] = distances[enough, at]
            open_rows = open_rows[~enough]
            if asked == sample.ntotal:
                break
            asked *= 4
        return bounds

    def _hits(self, queries: Codes, bounds: Distances) -> Iterator[tuple[Ids, Ids, Distances, Ids]]:
        """Yield (queries of the block, row within the block, distance, group) so that memory stays bounded."""
        order = np.argsort(bounds, kind="stable")
        start, step = 0, 16
        while start < len(order):
            chosen = order[start : start + step]
            rows, distances, groups = self.scan.within(queries[chosen], bounds[chosen])
            yield chosen, rows, distances, groups
            start += len(chosen)
            per_query = max(1, len(rows) // len(chosen))
            step = max(1, min(4 * step, 1024, _BLOCK_ENTRIES // per_query))

    def _select(
        self, rows: Ids, found: Distances, groups: Ids, chosen: Ids, k: int, distances: Distances, ids: Ids
    ) -> None:
        """Write the k nearest ids of a block of queries into distances and ids, at the rows `chosen`."""
        n_rows, n_levels = len(chosen), 8 * self.scan.codes.shape[1] + 1
        sizes = self.offsets[groups + 1] - self.offsets[groups]
        # Cumulative number of ids by distance, for each query: where it reaches k is the k-th distance.
        counts = np.bincount(rows * n_levels + found, weights=sizes, minlength=n_rows * n_levels)
        totals = np.cumsum(counts.reshape(n_rows, n_levels), axis=1)
        reached = totals >= k
        last = np.where(reached[:, -1], np.argmax(reached, axis=1), n_levels - 1)
        below = np.where(last > 0, totals[np.arange(n_rows), last - 1], 0).astype(np.int64)

        useful = np.flatnonzero((found <= last[rows]) & (sizes > 0))
        rows, found, groups, sizes = rows[useful], found[useful], groups[useful], sizes[useful]
        # The k nearest ids lie in the k groups that come first by (distance, smallest id).
        order = np.lexsort((self.ids[self.offsets[groups]], found, rows))
        order = order[_ranks(rows[order], n_rows) < k]
        rows, found, groups, sizes = rows[order], found[order], groups[order], sizes[order]
        taken = np.where(found < last[rows], sizes, np.minimum(sizes, (k - below)[rows]))

        ends = np.cumsum(taken)
        start = 0
        while start < len(rows):
            # Whole queries, as many as fit in memory.
            stop = int(np.searchsorted(ends, (ends[start - 1] if start else 0) + _BLOCK_ENTRIES, side="right"))
            if stop < len(rows):
                stop = int(np.searchsorted(rows, rows[stop], side="left"))
                if stop <= start:
                    stop = int(np.searchsorted(rows, rows[start], side="right"))
            entries, members = self._expand(groups[start:stop], taken[start:stop])
            entries += start
            order = np.lexsort((members, found[entries], rows[entries]))
            ranks = _ranks(rows[entries], n_rows)
            order, ranks = order[ranks < k], ranks[ranks < k]
            places = chosen[rows[entries[order]]]
            distances[places, ranks] = found[entries[order]]
            ids[places, ranks] = members[order]
            start = stop

    def _expand(self, groups: Ids, counts: Ids) -> tuple[Ids, Ids]:
        """Return (number of the entry, id) for the first counts[i] ids of groups[i]."""
        entries = np.repeat(np.arange(len(groups)), counts)
        starts = np.cumsum(counts) - counts
        return entries, self.ids[np.arange(len(entries)) + (self.offsets[groups] - starts)[entries]]


def _ranks(sorted_rows: Ids, n_rows: int) -> Ids:
    """Return the place of each entry within its row, for entries sorted by row."""
    return np.arange(len(sorted_rows)) - np.searchsorted(sorted_rows, np.arange(n_rows))[sorted_rows]


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """All that a search looks at. Never changed, only replaced: readers in other threads need no lock."""

    segments: tuple[_Groups, ...]
    next_id: int

    def __len__(self) -> int:
        return sum(len(segment.ids) for segment in self.segments)


class HammingIndex:
    """Exact search by Hamming distance; results are ordered by (distance, id).

    Codes are (N, ceil(n_bits / 8)) uint8 arrays as `pack_bits` makes them, with any n_bits from 8 to 1024; ids are
    int64 and at least 0. Any number of threads may search while others add or remove: a search sees a change whole, or
    not at all.
    """

    def __init__(self, n_bits: int) -> None:
        self.n_bits = check_n_bits(n_bits)
        self._state = _State((), 0)
        self._writing = threading.Lock()

    @classmethod
    def from_groups(cls, n_bits: int, codes: Codes, offsets: Ids, ids: Ids) -> HammingIndex:
        """Return an index of what `groups` gave. The arrays are trusted, and must not change afterwards."""
        index = cls(n_bits)
        index._state = _State((_Groups(_Scan(codes), offsets, ids),), int(ids.max()) + 1 if len(ids) else 0)
        return index

    def groups(self) -> tuple[Codes, Ids, Ids]:
        """Return (distinct codes, offsets, ids): the ids of codes[g] are ids[offsets[g]:offsets[g + 1]], ascending."""
        merged = _merge(self._state.segments, self.n_bits)
        return merged.scan.codes, merged.offsets, merged.ids

    def copy(self) -> HammingIndex:
        """Return an index that shares the (immutable) content and can be changed on its own, at no cost."""
        index = HammingIndex(self.n_bits)
        index._state = self._state
        return index

    def subset(self, ids: npt.ArrayLike) -> HammingIndex:
        """Return an index of those of the given ids that are here."""
        wanted = _check_ids(ids)
        state = self._state
        index = HammingIndex(self.n_bits)
        kept = (segment.keep(np.isin(segment.ids, wanted)).compact() for segment in state.segments)
        index._state = _State(tuple(segment for segment in kept if len(segment.ids)), state.next_id)
        return index

    def __len__(self) -> int:
        return len(self._state)

    def __contains__(self, id: object) -> bool:
        return any(bool(np.any(segment.ids == id)) for segment in self._state.segments)

    @property
    def n_distinct(self) -> int:
        """The number of distinct codes."""
        return len(_merge(self._state.segments, self.n_bits).scan.codes)

    def add(self, codes: npt.ArrayLike, ids: npt.ArrayLike | None = None) -> Ids:
        """Add codes and return their ids (N,) int64; without `ids` these continue from the largest ever used.

        Raises:
            ValueError: wrong codes, or ids that are negative, given twice or in the index already; nothing is added.
        """
        return self.update(codes, ids)

    def remove(self, ids: npt.ArrayLike) -> int:
        """Remove ids and return how many there were; ids that are not in the index are passed over."""
        before = len(self)
        self.update(np.empty((0, n_code_bytes(self.n_bits)), np.uint8), remove=ids)
        return before - len(self)

    def update(self, codes: npt.ArrayLike, ids: npt.ArrayLike | None = None, *, remove: npt.ArrayLike = ()) -> Ids:
        """Remove ids, then add codes, as one change: a search in another thread sees both or neither.

        Raises:
            ValueError: as `add`.
        """
        array = check_codes(codes, self.n_bits)
        removed = _check_ids(remove)
        with self._writing:
            state = self._state
            segments = state.segments
            if len(removed):
                segments = tuple(_without(segment, removed) for segment in segments)
            added = np.arange(state.next_id, state.next_id + len(array)) if ids is None else _check_ids(ids)
            if len(added) != len(array):
                raise ValueError(f"{len(array)} codes came with {len(added)} ids: pass one id for each code")
            if ids is not None:
                self._check_new(added, segments, state.next_id)
            if len(array):
                segments = self._plus(segments, array, added)
            top = max(state.next_id, int(added.max()) + 1) if len(added) else state.next_id
            self._state = _State(tuple(segment for segment in segments if len(segment.ids)), top)
        return added

    @staticmethod
    def _check_new(added: Ids, segments: tuple[_Groups, ...], next_id: int) -> None:
        unique, counts = np.unique(added, return_counts=True)
        if len(unique) != len(added):
            raise ValueError(f"id {unique[counts > 1][0]} is given twice: ids are unique")
        if len(unique) and unique[0] < next_id:
            for segment in segments:
                taken = np.isin(unique, segment.ids)
                if taken.any():
                    raise ValueError(f"id {unique[taken][0]} is in the index already: remove it first, or give no ids")

    def _plus(self, segments: tuple[_Groups, ...], codes: Codes, ids: Ids) -> tuple[_Groups, ...]:
        base, recent = segments[:1], segments[1:]
        n_recent = sum(len(segment.ids) for segment in recent) + len(ids)
        if not base or n_recent > max(_REBUILD_ABOVE, _REBUILD_SHARE * len(base[0].ids)):
            base, recent = (), segments
        parts = [segment.rows() for segment in recent] + [(codes, ids)]
        new = _Groups.of(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))
        return (*base, new)

    def search(
        self, queries: npt.ArrayLike, k: int, *, radius: int | None = None, allowed: npt.ArrayLike | None = None
    ) -> tuple[Distances, Ids]:
        """Return the k nearest of each query: distances (Q, m) int32 and ids (Q, m) int64, by (distance, id).

        m is the smaller of k and the number of ids considered. With a radius (inclusive) only results within it are
        given, and rows that have fewer than m end in distance -1 and id -1. `allowed`: consider these ids only.

        Raises:
            ValueError: queries that are no codes of this index, k below 1, or a negative radius.
        """
        array = check_codes(queries, self.n_bits, name="queries")
        k, longest = check_k(k), self._check_radius(radius)
        state = self._state if allowed is None else self.subset(allowed)._state
        m = min(k, len(state))
        if m == 0 or len(array) == 0:
            return np.empty((len(array), m), np.int32), np.empty((len(array), m), np.int64)
        parts = [segment.nearest(array, min(m, len(segment.ids)), longest) for segment in state.segments]
        distances, ids = parts[0]
        if len(parts) > 1:
            distances = np.concatenate([part[0] for part in parts], axis=1)
            ids = np.concatenate([part[1] for part in parts], axis=1)
            order = np.lexsort((ids, distances), axis=1)[:, :m]
            distances, ids = np.take_along_axis(distances, order, 1), np.take_along_axis(ids, order, 1)
        distances[distances == _FAR] = -1
        return distances, ids

    def range_search(
        self, queries: npt.ArrayLike, radius: int, *, allowed: npt.ArrayLike | None = None
    ) -> tuple[Ids, Distances, Ids]:
        """Return all within the radius (inclusive): (limits (Q + 1,) int64, distances int32, ids int64).

        The results of query q are distances[limits[q]:limits[q + 1]] and the ids beside them, by (distance, id).

        Raises:
            ValueError: as `search`.
        """
        array = check_codes(queries, self.n_bits, name="queries")
        longest = self._check_radius(radius)
        state = self._state if allowed is None else self.subset(allowed)._state
        parts = [segment.within(array, longest) for segment in state.segments] if len(array) else []
        limits = np.zeros(len(array) + 1, dtype=np.int64)
        if not parts:
            return limits, np.empty(0, np.int32), np.empty(0, np.int64)
        rows, distances, ids = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.lexsort((ids, distances, rows))
        limits[1:] = np.cumsum(np.bincount(rows, minlength=len(array)))
        return limits, distances[order], ids[order]

    def _check_radius(self, radius: int | None) -> int:
        return self.n_bits if radius is None else min(check_radius(radius), self.n_bits)


def check_k(k: int) -> int:
    """Return k as an int.

    Raises:
        ValueError: k is not a positive integer.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k is {k!r}: use a positive integer")
    return int(k)


def check_radius(radius: int) -> int:
    """Return radius as an int.

    Raises:
        ValueError: radius is not an integer of at least 0.
    """
    if isinstance(radius, bool) or not isinstance(radius, (int, np.integer)) or radius < 0:
        raise ValueError(f"radius is {radius!r}: use an integer of at least 0 (a number of bits)")
    return int(radius)


def _check_ids(ids: npt.ArrayLike) -> Ids:
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"ids of shape {array.shape} and dtype {array.dtype}: pass integers, (N,)")
    if array.size and (array.min() < 0 or array.max() > np.iinfo(np.int64).max):
        raise ValueError("ids must lie between 0 and 2**63 - 1")
    return array.astype(np.int64)


def _without(segment: _Groups, removed: Ids) -> _Groups:
    gone = np.isin(segment.ids, removed)
    if not gone.any():
        return segment
    kept = segment.keep(~gone)
    n_empty = int(np.count_nonzero(np.diff(kept.offsets) == 0))
    return kept.compact() if n_empty > max(_REBUILD_ABOVE, _REBUILD_SHARE * (len(kept.offsets) - 1)) else kept


def _merge(segments: tuple[_Groups, ...], n_bits: int) -> _Groups:
    if len(segments) == 1:
        return segments[0].compact()
    nothing = np.empty((0, n_code_bytes(n_bits)), np.uint8), np.empty(0, np.int64)
    parts = [nothing, *(segment.rows() for segment in segments)]
    return _Groups.of(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))
