"""Counts database items by Hamming distance and shared labels, for every query, without holding or sorting a ranking.

What makes it fast: distances are counted where faiss wrote them, two queries in one pass; the relevant items of a query
with one label are one slice of a database sorted by class; shared labels of multi-hot rows are a Hamming distance, too;
items with equal code and labels are counted once, with a weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.codes import Codes, as_words

from .histograms import fast_width, histograms, span_histograms, write_distances
from .labels import LabelPair
from .levels import LevelCounts

__all__ = ["HammingCounter", "sort_rows"]

# Cells of queries x database held at a time by each thread.
_CELLS = 1 << 19
# Database items in one pass.
_TILE = 1 << 16
# Equal items are merged from this number on: a weighted count takes longer than two plain ones.
_REPEATS = 3

_Ints = NDArray[np.int64]
_Cells = NDArray[np.int32]


class _Items(NamedTuple):
    """Items of the database: codes, their labels (ascending ints, or codes of multi-hot rows), and weights."""

    codes: Codes
    labels: NDArray[Any]
    weights: NDArray[np.float64] | None

    def tiles(self) -> Iterator[_Items]:
        for start in range(0, len(self.codes), _TILE):
            tile = slice(start, start + _TILE)
            yield _Items(self.codes[tile], self.labels[tile], None if self.weights is None else self.weights[tile])


class HammingCounter:
    """Counts for queries against a database, one distinct query at a time.

    Queries with equal code and labels have equal counts: `n_distinct` of them are counted, `distinct[i]` is the one
    that query i equals. With `exclude`, (Q,) database positions or -1, every query is counted by itself.
    """

    def __init__(self, queries: Codes, database: Codes, labels: LabelPair, n_bits: int, exclude: _Ints) -> None:
        self.n_levels = n_bits + 1
        self.n_gains = labels.n_gains
        self._graded = labels.graded

        order, starts = sort_rows(queries, _label_rows(labels.queries))
        alone = bool((exclude >= 0).any())
        chosen = order if alone else order[starts]
        self.n_distinct = len(chosen)
        self.distinct = np.empty(len(queries), np.int64)
        group = np.zeros(len(queries), np.int64)
        group[starts[1:]] = 1
        self.distinct[order] = np.arange(len(queries)) if alone else np.cumsum(group)
        self._excluded = _excluded_cells(queries, database, labels, exclude)[chosen]

        query_labels, item_labels = labels.queries[chosen], labels.database
        if labels.graded:
            # (0, a) and (b, not b) differ in C - |a| + 2 |a and b| bits.
            self._unshared = (~query_labels).sum(axis=1, dtype=np.int32)
            query_labels = _wide_codes(np.zeros_like(query_labels), query_labels)
            item_labels = _wide_codes(item_labels, ~item_labels)
        self._queries, self._query_labels = fast_width(queries[chosen]), query_labels

        order, starts = sort_rows(database, _label_rows(labels.database))
        repeats = np.diff(np.append(starts, len(order)))
        merged = repeats >= _REPEATS
        plain, once = order[np.repeat(~merged, repeats)], order[starts[merged]]
        self._parts = [
            _Items(fast_width(database[plain]), item_labels[plain], None),
            _Items(fast_width(database[once]), item_labels[once], repeats[merged].astype(np.float64)),
        ]

    def count(self, block: slice) -> LevelCounts:
        """Counts of a block of distinct queries."""
        start, stop, _ = block.indices(self.n_distinct)
        counts = np.zeros((stop - start, self.n_levels, self.n_gains), np.int64)
        scratch = np.empty((1 + self._graded, max(_CELLS, 2 * _TILE)), np.int32)
        count = self._count_graded if self._graded else self._count_relevant
        for part in self._parts:
            for tile in part.tiles():
                step = 2 * max(1, _CELLS // (2 * len(tile.codes)))
                for first in range(start, stop, step):
                    rows = slice(first, min(first + step, stop))
                    counts[first - start : rows.stop - start] += count(rows, tile, scratch)
        # What a query leaves out: one cell, (level, gain), or -1 for none.
        level, gain = self._excluded[start:stop].T
        rows_with = np.flatnonzero(level >= 0)
        counts[rows_with, level[rows_with], gain[rows_with]] -= 1
        return LevelCounts(counts)

    def _count_relevant(self, rows: slice, items: _Items, scratch: _Cells) -> _Ints:
        labels = self._query_labels[rows]
        spans = np.stack([np.searchsorted(items.labels, labels, side) for side in ("left", "right")], axis=1)
        distances = write_distances(self._queries[rows], items.codes, scratch[0])
        return span_histograms(distances, spans, self.n_levels, items.weights)

    def _count_graded(self, rows: slice, items: _Items, scratch: _Cells) -> _Cells:
        # The key of a pair is 2 (distance G + shared labels) + unshared.
        keys = write_distances(self._queries[rows], items.codes, scratch[0])
        keys *= np.int32(2 * self.n_gains)
        keys += write_distances(self._query_labels[rows], items.labels, scratch[1])
        keys -= self._unshared[rows, None]
        n_bins = 2 * self.n_levels * self.n_gains
        return histograms(keys, n_bins, items.weights)[:, ::2].reshape(-1, self.n_levels, self.n_gains)


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


def _wide_codes(*bits: NDArray[np.bool_]) -> Codes:
    return fast_width(np.packbits(np.concatenate(bits, axis=1), axis=1))


def _excluded_cells(queries: Codes, database: Codes, labels: LabelPair, exclude: _Ints) -> _Ints:
    """Distance and shared labels of each query and the item it leaves out, (Q, 2); -1 where there is none."""
    cells = np.full((len(queries), 2), -1)
    rows = np.flatnonzero(exclude >= 0)
    items = exclude[rows]
    cells[rows, 0] = np.bitwise_count(queries[rows] ^ database[items]).sum(axis=1)
    cells[rows, 1] = labels.shared_with(items, rows)
    return cells
