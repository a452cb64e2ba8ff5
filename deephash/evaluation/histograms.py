"""Hamming distances of all pairs into memory at hand, and their histograms.

Both are faiss's own loops: they take int32 as it is and let go of Python's lock. Arguments are not checked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from index.codes import Codes

__all__ = ["fast_width", "histograms", "span_histograms", "write_distances"]

_Ints = NDArray[np.int64]
_Cells = NDArray[np.int32]
_Weights = NDArray[np.float64]


def fast_width(codes: Codes) -> Codes:
    """Return codes with zero bytes up to a width that faiss has a fast path for."""
    width = codes.shape[1]
    fast = next((size for size in (8, 16, 32, 64) if width <= size), -(-width // 8) * 8)
    padded = np.zeros((len(codes), fast), np.uint8)
    padded[:, :width] = codes
    return padded


def write_distances(queries: Codes, database: Codes, out: _Cells) -> _Cells:
    """Hamming distances, (Q, N), in the first cells of `out`: to touch fresh memory takes longer than the distances."""
    import faiss

    assert queries.flags.c_contiguous
    assert database.flags.c_contiguous
    assert queries.shape[1] == database.shape[1]
    distances = out[: len(queries) * len(database)].reshape(len(queries), len(database))
    faiss.hammings(  # type: ignore[attr-defined]
        faiss.swig_ptr(queries),
        faiss.swig_ptr(database),
        len(queries),
        len(database),
        queries.shape[1],
        faiss.swig_ptr(distances),
    )
    return distances


def histograms(keys: _Cells, n_bins: int, weights: _Weights | None) -> _Cells:
    """How often each of 0 ... n_bins - 1 stands in each row of keys (Q, N): (Q, n_bins).

    With weights (N,), whole numbers, the sum of the weights where it stands.
    """
    counts = np.empty((len(keys), n_bins), np.int32)
    for row, row_keys in enumerate(keys):
        if weights is None:
            _count(row_keys, counts[row])
        else:
            counts[row] = np.bincount(row_keys, weights, n_bins)
    return counts


def span_histograms(distances: _Cells, spans: _Ints, n_levels: int, weights: _Weights | None) -> _Ints:
    """Histograms of rows of distances (Q, N) outside and inside of each row's span of columns: (Q, n_levels, 2).

    `spans` are (Q, 2), start and end. The distances are overwritten.
    """
    n_rows, n = distances.shape
    counts = np.empty((n_rows, n_levels, 2), np.int64)
    # Two rows in one pass, where the table of their joint keys is small beside N.
    paired = n_rows - n_rows % 2 if weights is None and 4 * n_levels**2 <= n else 0
    counts[:paired] = _paired_histograms(distances[:paired], spans[:paired], n_levels)
    for row, (start, end) in enumerate(spans[paired:].tolist(), paired):
        distances[row, start:end] += np.int32(n_levels)
    counts[paired:] = histograms(distances[paired:], 2 * n_levels, weights).reshape(-1, 2, n_levels).transpose(0, 2, 1)
    return counts


def _paired_histograms(distances: _Cells, spans: _Ints, n_levels: int) -> _Ints:
    keys = distances[::2]
    keys *= np.int32(n_levels)
    keys += distances[1::2]
    # All columns, the span of the one row, the span of the other.
    tables = np.empty((3, len(keys), n_levels, n_levels), np.int32)
    for pair, (span, other) in enumerate(spans.reshape(-1, 2, 2).tolist()):
        _count(keys[pair], tables[0, pair])
        _count(keys[pair, slice(*span)], tables[1, pair])
        if other == span:
            tables[2, pair] = tables[1, pair]
        else:
            _count(keys[pair, slice(*other)], tables[2, pair])
    counts = np.empty((len(keys), 2, n_levels, 2), np.int64)
    counts[:, 0, :, 0] = tables[0].sum(axis=2, dtype=np.int32)
    counts[:, 1, :, 0] = tables[0].sum(axis=1, dtype=np.int32)
    counts[:, 0, :, 1] = tables[1].sum(axis=2, dtype=np.int32)
    counts[:, 1, :, 1] = tables[2].sum(axis=1, dtype=np.int32)
    counts[..., 0] -= counts[..., 1]
    return counts.reshape(-1, n_levels, 2)


def _count(keys: _Cells, counts: _Cells) -> None:
    import faiss

    outside = faiss.ivec_hist(  # type: ignore[attr-defined]
        len(keys), faiss.swig_ptr(keys), counts.size, faiss.swig_ptr(counts)
    )
    assert outside == 0
