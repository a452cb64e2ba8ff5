"""Counts database items by Hamming distance and shared labels, for every query, without holding or sorting a ranking.

What makes it fast: equal codes with equal labels are counted once, with a weight; distances come from faiss; two
queries share one pass of `np.bincount` over the joint key of their two distances; the relevant items of a query with
one label are one slice of a database sorted by class; shared labels of multi-hot rows are a Hamming distance, too.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from index.codes import Codes, as_words

from .labels import LabelPair
from .levels import LevelCounts

__all__ = ["HammingCounter", "sort_rows"]

# Cells of queries x database held at a time by each thread; 2^17 int32 stay in a core's cache.
_CELLS = 1 << 17
# Database items in one pass.
_TILE = 1 << 16
# Merging equal rows costs a weighted count: worth it from this share of distinct rows down.
_MERGE_BELOW = 0.8

_Ints = NDArray[np.int64]


class HammingCounter:
    """Counts for queries against a database, one distinct query at a time.

    Queries with equal code and labels have equal counts: `n_distinct` of them are counted, `distinct[i]` is the one
    that query i equals. With `exclude`, (Q,) database positions or -1, every query is counted by itself.
    """

    def __init__(self, queries: Codes, database: Codes, labels: LabelPair, n_bits: int, exclude: _Ints) -> None:
        self.n_levels = n_bits + 1
        self.n_gains = labels.n_gains
        order, starts = sort_rows(database, _label_rows(labels.database))
        merged = len(starts) <= _MERGE_BELOW * len(order)
        self._weights = np.diff(np.append(starts, len(order))).astype(np.float64) if merged else None
        kept = order[starts] if merged else order
        self._database = _padded(database[kept])

        query_order, query_starts = sort_rows(queries, _label_rows(labels.queries))
        alone = bool((exclude >= 0).any())
        chosen = query_order if alone else query_order[query_starts]
        self.n_distinct = len(chosen)
        self.distinct = np.empty(len(queries), np.int64)
        group = np.zeros(len(queries), np.int64)
        group[query_starts[1:]] = 1
        self.distinct[query_order] = np.arange(len(queries)) if alone else np.cumsum(group)
        self._queries = _padded(queries[chosen])

        self._graded = labels.graded
        if labels.graded:
            sets = labels.queries[chosen], labels.database[kept]
            self._label_bytes = [_padded(np.packbits(rows, axis=1)) for rows in sets]
            self._n_labels = [rows.sum(axis=1, dtype=np.int32) for rows in sets]
        else:
            # The slice of the relevant items of each query.
            self._first = np.searchsorted(labels.database[kept], labels.queries[chosen], "left")
            self._last = np.searchsorted(labels.database[kept], labels.queries[chosen], "right")
        self._excluded = _excluded_cells(queries, database, labels, exclude)[chosen]

    def count(self, block: slice) -> LevelCounts:
        """Counts of a block of distinct queries."""
        start, stop, _ = block.indices(self.n_distinct)
        counts = np.zeros((stop - start, self.n_levels, self.n_gains), np.int64)
        tile = min(_TILE, len(self._database))
        step = max(2, _CELLS // tile)
        scratch = _Scratch(step * tile)
        for column in range(0, len(self._database), tile):
            columns = slice(column, min(column + tile, len(self._database)))
            for first in range(start, stop, step):
                rows = slice(first, min(first + step, stop))
                self._add(rows, columns, counts[first - start : rows.stop - start], scratch)
        # What a query leaves out: one cell, (level, gain), or -1 for none.
        level, gain = self._excluded[start:stop].T
        rows_with = np.flatnonzero(level >= 0)
        counts[rows_with, level[rows_with], gain[rows_with]] -= 1
        return LevelCounts(counts)

    def _add(self, rows: slice, tile: slice, counts: _Ints, scratch: _Scratch) -> None:
        distances = _distances(self._queries[rows], self._database[tile], scratch.distances)
        weights = None if self._weights is None else self._weights[tile]
        if self._graded:
            # |a and b| = (|a| + |b| - distance of a and b) / 2: the key has the double, its odd values stay 0.
            keys = distances
            keys *= np.int32(2 * self.n_gains)
            keys += self._n_labels[1][tile]
            keys += self._n_labels[0][rows, None]
            keys -= _distances(self._label_bytes[0][rows], self._label_bytes[1][tile], scratch.label_distances)
            doubled = _histograms(keys, weights, self.n_levels * 2 * self.n_gains, scratch)
            counts += doubled.reshape(len(keys), self.n_levels, 2 * self.n_gains)[:, :, ::2]
            return
        # Queries come sorted by class: each run of one class shares the slice of its relevant items.
        top = 0
        for (first, last), run in groupby(zip(self._first[rows].tolist(), self._last[rows].tolist(), strict=True)):
            bottom = top + len(list(run))
            relevant = slice(max(first - tile.start, 0), max(min(last, tile.stop) - tile.start, 0))
            _add_class(distances[top:bottom], relevant, weights, counts[top:bottom], scratch)
            top = bottom


def sort_rows(*keys: NDArray[np.generic]) -> tuple[_Ints, _Ints]:
    """Sort rows by their keys, the last key first: the order, and in it the start of every run of equal rows.

    Keys are (N,) of any type, or (N, W) uint8.
    """
    columns: list[NDArray[np.generic]] = []
    for key in keys:
        columns += [key] if key.ndim == 1 else list(as_words(np.ascontiguousarray(key)).T)
    order = np.lexsort(columns)
    changes = np.zeros(len(order), np.bool_)
    changes[:1] = True
    for column in columns:
        ordered = column[order]
        changes[1:] |= ordered[1:] != ordered[:-1]
    return order, np.flatnonzero(changes)


def _label_rows(labels: NDArray[np.generic]) -> NDArray[np.generic]:
    return labels if labels.ndim == 1 else np.packbits(labels.astype(np.bool_), axis=1)


def _padded(codes: Codes) -> Codes:
    """Zero bytes up to a width that faiss has a fast path for."""
    width = codes.shape[1]
    fast = next((size for size in (8, 16, 32, 64) if width <= size), -(-width // 8) * 8)
    padded = np.zeros((len(codes), fast), np.uint8)
    padded[:, :width] = codes
    return padded


class _Scratch:
    """Arrays to write into: fresh ones of this size cost more in page faults than the work itself."""

    def __init__(self, n_cells: int) -> None:
        self.distances = np.empty(n_cells, np.int32)
        self.label_distances = np.empty(n_cells, np.int32)
        self.keys = np.empty(n_cells, np.int32)
        # What np.bincount would convert to by itself.
        self.wide_keys = np.empty(n_cells, np.int64)


def _distances(queries: Codes, database: Codes, out: NDArray[np.int32]) -> NDArray[np.int32]:
    """As `index.hamming_distances`, into `out`, at a quarter of its time (which matters nowhere else)."""
    import faiss

    assert queries.flags.c_contiguous
    assert database.flags.c_contiguous
    assert queries.shape[1] == database.shape[1]
    result = out[: len(queries) * len(database)].reshape(len(queries), len(database))
    faiss.hammings(  # type: ignore[attr-defined]
        faiss.swig_ptr(queries),
        faiss.swig_ptr(database),
        len(queries),
        len(database),
        queries.shape[1],
        faiss.swig_ptr(result),
    )
    return result


def _add_class(
    distances: NDArray[np.int32],
    relevant: slice,
    weights: NDArray[np.float64] | None,
    counts: _Ints,
    scratch: _Scratch,
) -> None:
    """Add to counts (B, L, 2) what (B, N) distances hold, the columns `relevant` being the relevant ones."""
    n_rows, n = distances.shape
    n_levels = counts.shape[1]
    n_joint = n_levels * n_levels
    # Two rows at a time by the joint key of their distances: half the work, where the table of keys is small beside N.
    paired = n_rows - n_rows % 2 if 4 * n_joint <= n else 0
    keys, wide_keys = scratch.keys[:n], scratch.wide_keys[:n]
    for row in range(0, paired, 2):
        np.multiply(distances[row], np.int32(n_levels), out=keys)
        np.add(keys, distances[row + 1], out=keys)
        keys[relevant] += np.int32(n_joint)
        np.copyto(wide_keys, keys)
        joint = np.bincount(wide_keys, weights, minlength=2 * n_joint).reshape(2, n_levels, n_levels)
        if weights is not None:
            joint = joint.astype(np.int64)
        counts[row] += joint.sum(axis=2).T
        counts[row + 1] += joint.sum(axis=1).T
    if paired < n_rows:
        rest = distances[paired:]
        rest[:, relevant] += np.int32(n_levels)
        counts[paired:] += _histograms(rest, weights, 2 * n_levels, scratch).reshape(-1, 2, n_levels).transpose(0, 2, 1)


def _histograms(cells: NDArray[np.int32], weights: NDArray[np.float64] | None, n_bins: int, scratch: _Scratch) -> _Ints:
    """Histogram of each row of (B, N) cells 0 ... n_bins - 1, weighted by column: (B, n_bins)."""
    n_rows, n = cells.shape
    keys = scratch.wide_keys[: n_rows * n].reshape(n_rows, n)
    np.copyto(keys, cells)
    if n >= n_bins:
        return np.stack([np.bincount(row, weights, minlength=n_bins).astype(np.int64, copy=False) for row in keys])
    keys += (np.arange(n_rows) * n_bins)[:, None]
    repeated = None if weights is None else np.broadcast_to(weights, (n_rows, n)).ravel()
    counts = np.bincount(keys.ravel(), repeated, minlength=n_rows * n_bins)
    return counts.astype(np.int64, copy=False).reshape(n_rows, n_bins)


def _excluded_cells(queries: Codes, database: Codes, labels: LabelPair, exclude: _Ints) -> _Ints:
    """Distance and shared labels of each query and the item it leaves out, (Q, 2); -1 where there is none."""
    cells = np.full((len(queries), 2), -1)
    rows = np.flatnonzero(exclude >= 0)
    items = exclude[rows]
    cells[rows, 0] = np.bitwise_count(queries[rows] ^ database[items]).sum(axis=1)
    cells[rows, 1] = labels.shared_with(items, rows)
    return cells
