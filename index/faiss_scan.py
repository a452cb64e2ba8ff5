"""The scan where there is no compiled kernel: faiss.IndexBinaryFlat, completed so that it equals brute force.

The k nearest are found in two scans: the k nearest in a sample of the codes bound the k-th distance from above, and one
range search within that bound finds everything that can belong to the answer. It is faster than faiss's own k-NN over
all codes, and it is exact where k-NN is arbitrary: among equal distances, which short codes are full of, the smaller
ids win.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from index.codes import Codes, hamming_distances
from index.groups import Distances, Groups, Ids, Words
from index.kernel import Found

__all__ = ["FaissScan"]

# Up to so many distinct codes NumPy does it all: no import of faiss (0.2 s), no waking of its threads.
_NUMPY_UP_TO = 4096
# Every 16th distinct code is in the sample, once there are so many that a second full scan would be felt.
_SAMPLE_STEP = 16
_SAMPLE_ABOVE = 1 << 15
# Hits or ids that one block of queries may hold at once (some 30 bytes each in flight).
_BLOCK_ENTRIES = 1 << 22
# A place without a result.
_FAR = np.iinfo(np.int32).max


class FaissScan:
    """The words of a segment, and faiss's copies of them, made when something is first searched."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._parts: tuple[Any, Any, int] | None = None
        self._lock = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """Bytes of faiss's copies, as far as they are made."""
        if self._parts is None:
            return 0
        flat, sample, _ = self._parts
        n_codes = int(flat.ntotal) + (0 if sample is flat else int(sample.ntotal))
        return n_codes * 8 * int(self._words.shape[1])

    def find(self, groups: Groups, queries: Words, k: int | None, radius: int) -> Found:
        """Return the k nearest ids within the radius (inclusive) of each query; with k None, all of them."""
        if k is None:
            return self._all_within(groups, queries, radius)
        m = min(k, len(groups.ids))
        distances = np.full((len(queries), m), _FAR, dtype=np.int32)
        ids = np.full((len(queries), m), -1, dtype=np.int64)
        if distances.size:
            bounds = np.minimum(self._bounds(groups, queries, m), radius)
            for chosen, rows, found, hits in self._hits(queries, bounds):
                _select(groups, rows, found, hits, chosen, m, distances, ids)
        real = distances != _FAR
        limits = np.concatenate(([0], np.cumsum(np.count_nonzero(real, axis=1))))
        return Found(limits, distances[real], ids[real])

    def _all_within(self, groups: Groups, queries: Words, radius: int) -> Found:
        bounds = np.full(len(queries), radius, dtype=np.int32)
        rows, distances, ids = [np.empty(0, np.int64)], [np.empty(0, np.int32)], [np.empty(0, np.int64)]
        for chosen, hit_rows, found, hits in self._hits(queries, bounds):
            entries, members = _expand(groups, hits, groups.sizes()[hits])
            rows.append(chosen[hit_rows[entries]])
            distances.append(found[entries])
            ids.append(members)
        all_rows, all_distances, all_ids = np.concatenate(rows), np.concatenate(distances), np.concatenate(ids)
        order = np.lexsort((all_ids, all_distances, all_rows))
        limits = np.concatenate(([0], np.cumsum(np.bincount(all_rows, minlength=len(queries)))))
        return Found(limits, all_distances[order], all_ids[order])

    def _faiss(self) -> tuple[Any, Any, int]:
        """Return (all codes, a sample of them, its step) as faiss indexes."""
        if self._parts is None:
            with self._lock:
                if self._parts is None:
                    step = _SAMPLE_STEP if len(self._words) >= _SAMPLE_ABOVE else 1
                    flat = _flat(self._words)
                    self._parts = (flat, flat if step == 1 else _flat(self._words[::step]), step)
        return self._parts

    def _within(self, queries: Words, bounds: Distances) -> tuple[Ids, Distances, Ids]:
        """Return (row, distance, position) of every code within bounds[row] of queries[row]; rows in no order."""
        if len(self._words) <= _NUMPY_UP_TO:
            table = _table(queries, self._words)
            rows, positions = np.nonzero(table <= bounds[:, None])
            return rows, table[rows, positions], positions
        flat = self._faiss()[0]
        found: list[tuple[Ids, Distances, Ids]] = []
        for bound in np.unique(bounds):
            rows = np.flatnonzero(bounds == bound)
            # faiss's radius is exclusive, its distances come as float32.
            limits, distances, positions = flat.range_search(_bytes(queries[rows]), int(bound) + 1)
            counts = np.diff(limits.astype(np.int64))
            found.append((np.repeat(rows, counts), distances.astype(np.int32), positions))
        if len(found) == 1:
            return found[0]
        rows, distances, positions = (np.concatenate(column) for column in zip(*found, strict=True))
        return rows, distances, positions

    def _bounds(self, groups: Groups, queries: Words, k: int) -> Distances:
        """Return for each query a distance within which there are at least k ids: (Q,) int32."""
        if len(self._words) <= _NUMPY_UP_TO:
            codes = self._words[groups.sizes() > 0]
            kth = min(k, len(codes)) - 1
            step = max(1, _BLOCK_ENTRIES // len(codes))
            blocks = (_table(queries[i : i + step], codes) for i in range(0, len(queries), step))
            # At least k ids where k codes are; with fewer codes than k, all of them.
            return np.concatenate([np.partition(block, kth, axis=1)[:, kth] for block in blocks])
        _, sample, step = self._faiss()
        longest = 64 * self._words.shape[1]
        bounds = np.full(len(queries), longest, dtype=np.int32)
        open_rows = np.arange(len(queries))
        asked = k
        # Asking for a large part of the sample costs more than the bound is worth.
        while len(open_rows) and asked <= max(1024, sample.ntotal // 4):
            asked = min(asked, sample.ntotal)
            distances, positions = sample.search(_bytes(queries[open_rows]), asked)
            hits = positions * step
            counts = np.cumsum(groups.offsets[hits + 1] - groups.offsets[hits], axis=1)
            enough = counts[:, -1] >= k
            at = np.argmax(counts[enough] >= k, axis=1)
            bounds[open_rows[enough]] = distances[enough, at]
            open_rows = open_rows[~enough]
            if asked == sample.ntotal:
                break
            asked *= 4
        return bounds

    def _hits(self, queries: Words, bounds: Distances) -> Iterator[tuple[Ids, Ids, Distances, Ids]]:
        """Yield (queries of the block, row within the block, distance, group) so that memory stays bounded."""
        order = np.argsort(bounds, kind="stable")
        start, step = 0, 16
        while start < len(order):
            chosen = order[start : start + step]
            rows, distances, groups = self._within(queries[chosen], bounds[chosen])
            yield chosen, rows, distances, groups
            start += len(chosen)
            per_query = max(1, len(rows) // len(chosen))
            step = max(1, min(4 * step, 1024, _BLOCK_ENTRIES // per_query))


def _flat(words: Words) -> Any:
    import faiss  # imported here: `import index` must stay fast

    flat = faiss.IndexBinaryFlat(64 * words.shape[1])
    flat.add(_bytes(words))
    return flat


def _bytes(words: Words) -> Codes:
    return np.ascontiguousarray(words).view(np.uint8)


def _table(queries: Words, words: Words) -> Distances:
    return hamming_distances(_bytes(queries), _bytes(words))


def _select(
    groups: Groups, rows: Ids, found: Distances, hits: Ids, chosen: Ids, k: int, distances: Distances, ids: Ids
) -> None:
    """Write the k nearest ids of a block of queries into distances and ids, at the rows `chosen`."""
    n_rows, n_levels = len(chosen), 64 * groups.words.shape[1] + 1
    sizes = groups.offsets[hits + 1] - groups.offsets[hits]
    # Cumulative number of ids by distance, for each query: where it reaches k is the k-th distance.
    counts = np.bincount(rows * n_levels + found, weights=sizes, minlength=n_rows * n_levels)
    totals = np.cumsum(counts.reshape(n_rows, n_levels), axis=1)
    reached = totals >= k
    last = np.where(reached[:, -1], np.argmax(reached, axis=1), n_levels - 1)
    below = np.where(last > 0, totals[np.arange(n_rows), last - 1], 0).astype(np.int64)

    useful = np.flatnonzero((found <= last[rows]) & (sizes > 0))
    rows, found, hits, sizes = rows[useful], found[useful], hits[useful], sizes[useful]
    # The k nearest ids lie in the k groups that come first by (distance, smallest id).
    order = np.lexsort((groups.ids[groups.offsets[hits]], found, rows))
    order = order[_ranks(rows[order], n_rows) < k]
    rows, found, hits, sizes = rows[order], found[order], hits[order], sizes[order]
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
        entries, members = _expand(groups, hits[start:stop], taken[start:stop])
        entries += start
        order = np.lexsort((members, found[entries], rows[entries]))
        ranks = _ranks(rows[entries], n_rows)
        order, ranks = order[ranks < k], ranks[ranks < k]
        places = chosen[rows[entries[order]]]
        distances[places, ranks] = found[entries[order]]
        ids[places, ranks] = members[order]
        start = stop


def _expand(groups: Groups, hits: Ids, counts: Ids) -> tuple[Ids, Ids]:
    """Return (number of the entry, id) for the first counts[i] ids of hits[i]."""
    entries = np.repeat(np.arange(len(hits)), counts)
    starts = np.cumsum(counts) - counts
    return entries, groups.ids[np.arange(len(entries)) + (groups.offsets[hits] - starts)[entries]]


def _ranks(sorted_rows: Ids, n_rows: int) -> Ids:
    """Return the place of each entry within its row, for entries sorted by row."""
    return np.arange(len(sorted_rows)) - np.searchsorted(sorted_rows, np.arange(n_rows))[sorted_rows]
