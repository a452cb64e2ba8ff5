"""Re-ranking: the asymmetric distance of real-valued query logits to stored bits, over the nearest codes by Hamming.

The asymmetric distance of logits q to bits b is the sum of |q_j| over the bits where (q_j > 0) != b_j: a bit that the
query was hardly decided about costs little. It orders as -<q, 2b - 1> does.
Source: Gordo, Perronnin, Gong and Lazebnik, "Asymmetric distances for binary embeddings", 2014: their lower bound, in
absolute values where theirs has squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from index.codes import Codes, check_codes, n_code_bytes
from index.groups import Distances, Groups, Ids, Words
from index.segments import Segment
from index.structures import Scan, Structure

__all__ = ["OVERSAMPLING", "Reranked", "asymmetric_distances", "check_logits", "check_oversampling", "rerank"]

OVERSAMPLING = 10
"""How many times k candidates are looked at by default: `benchmarks/results/general.json` has what more would bring."""

Logits = npt.NDArray[np.float32]
_Rows: TypeAlias = tuple[npt.NDArray[np.float32], Distances, Ids]

# The bits of every byte, most significant first: (8, 256).
_BITS_OF_BYTES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).T.astype(np.float32)


class Reranked(NamedTuple):
    """Three arrays (Q, m): asymmetric distances float32, Hamming distances int32, ids int64.

    Rows are by (asymmetric distance, id); where fewer than m were found they end in inf, -1, -1.
    """

    asymmetric_distances: npt.NDArray[np.float32]
    distances: Distances
    ids: Ids


def check_logits(logits: npt.ArrayLike, n_bits: int) -> Logits:
    """Return logits as (Q, n_bits) float32; a single row (n_bits,) becomes (1, n_bits).

    Raises:
        ValueError: another shape, no floats, or values that are not finite.
    """
    array = np.asarray(logits)
    if array.dtype.kind != "f":
        raise ValueError(f"logits have dtype {array.dtype}: pass floats, as the hash layer gives them, not codes")
    if array.ndim == 1:
        array = array.reshape(1, -1)
    if array.ndim != 2 or array.shape[1] != n_bits:
        raise ValueError(f"logits have shape {array.shape}, this index has {n_bits} bits: pass (Q, {n_bits})")
    if not np.isfinite(array).all():
        raise ValueError("logits hold values that are not finite")
    return np.ascontiguousarray(array, dtype=np.float32)


def check_oversampling(oversampling: int) -> int:
    """Return oversampling as an int.

    Raises:
        ValueError: it is not a positive integer.
    """
    if isinstance(oversampling, bool) or not isinstance(oversampling, (int, np.integer)) or oversampling < 1:
        raise ValueError(f"oversampling is {oversampling!r}: use a positive integer (candidates for each result)")
    return int(oversampling)


def asymmetric_distances(logits: npt.ArrayLike, codes: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return the asymmetric distances of one query's logits (n_bits,) to codes (N, n_bytes): (N,) float32.

    Equal codes have exactly equal distances, whatever stands beside them.

    Raises:
        ValueError: as `check_logits` and `check_codes`.
    """
    array = np.asarray(logits)
    if array.ndim != 1:
        raise ValueError(f"logits have shape {array.shape}: pass those of one query, (n_bits,)")
    query = check_logits(array, len(array))[0]
    return _sums(_byte_tables(query), check_codes(codes, len(query)))


def _byte_tables(query: Logits) -> npt.NDArray[np.float32]:
    """Return what each value of each byte of a code adds to the distance: (n_bytes, 256)."""
    padded = np.zeros(8 * n_code_bytes(len(query)), np.float32)
    padded[: len(query)] = query
    rows = padded.reshape(-1, 8)
    # A bit that is 0 costs what is positive, one that is 1 what is negative.
    tables = np.maximum(rows, 0) @ (1 - _BITS_OF_BYTES) + np.maximum(-rows, 0) @ _BITS_OF_BYTES
    return tables.astype(np.float32, copy=False)


def _sums(tables: npt.NDArray[np.float32], codes: Codes) -> npt.NDArray[np.float32]:
    n_bytes = len(tables)
    places = codes + np.arange(0, 256 * n_bytes, 256, dtype=np.int32)
    sums: npt.NDArray[np.float32] = tables.ravel()[places].sum(axis=1, dtype=np.float32)
    return sums


def rerank(
    segments: Sequence[Segment],
    logits: Logits,
    queries: Words,
    bounds: Distances,
    m: int | None,
    at_least: Ids,
) -> list[_Rows]:
    """Return for each query (asymmetric distances, Hamming distances, ids), the m nearest or all, by (asymmetric, id).

    Candidates are the ids of all codes within the Hamming distance bounds[q] (inclusive) of queries[q], as far as their
    structure finds them; where an approximate one leaves fewer than at_least[q], its codes are scanned.
    """
    found: list[list[_Rows]] = [[] for _ in logits]
    for bound in np.unique(bounds[bounds >= 0]):
        rows = np.flatnonzero(bounds == bound)
        for segment in segments:
            _add_candidates(found, segment.groups, segment.structure, logits, queries, rows, int(bound), m)
    for row, parts in enumerate(found):
        if sum(len(part[2]) for part in parts) < at_least[row]:
            parts.clear()
            for segment in segments:
                scan = segment.structure if segment.structure.exact else Scan(segment.groups.words)
                only = np.array([row])
                _add_candidates(found, segment.groups, scan, logits, queries, only, int(bounds[row]), m)
    return [_merged(parts, m) for parts in found]


def _add_candidates(
    found: list[list[_Rows]], groups: Groups, structure: Structure, logits: Logits, queries: Words, rows: Ids,
    bound: int, m: int | None,
) -> None:  # fmt: skip
    """Add to found[row], for each of the rows, what a structure finds within the bound."""
    limits, distances, places = structure.find(groups.numbered(), queries[rows], None, bound)
    n_bytes = n_code_bytes(logits.shape[1])
    for row, start, stop in zip(rows, limits[:-1], limits[1:], strict=True):
        chosen = places[start:stop]
        codes = groups.words[chosen].view(np.uint8)[:, :n_bytes]
        asymmetric = _sums(_byte_tables(logits[row]), codes)
        found[row].append(_nearest(groups, chosen, asymmetric, distances[start:stop], m))


def _nearest(
    groups: Groups, chosen: Ids, asymmetric: npt.NDArray[np.float32], distances: Distances, m: int | None
) -> _Rows:
    """Return rows, one for each id, of the chosen groups: at least the m nearest, in no order."""
    starts, sizes = groups.offsets[chosen], groups.offsets[chosen + 1] - groups.offsets[chosen]
    if m is not None and sizes.sum() > m:
        order = np.argsort(asymmetric, kind="stable")
        enough = int(np.searchsorted(np.cumsum(sizes[order]), m))
        near = asymmetric <= asymmetric[order[enough]]
        # Ids ascend within a group: no more than its first m can belong to the answer.
        starts, sizes = starts[near], np.minimum(sizes[near], m)
        asymmetric, distances = asymmetric[near], distances[near]
    ends = np.cumsum(sizes)
    members = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + sizes, sizes)
    return np.repeat(asymmetric, sizes), np.repeat(distances, sizes), groups.ids[members]


def _merged(parts: list[_Rows], m: int | None) -> _Rows:
    asymmetric = np.concatenate([np.empty(0, np.float32), *(part[0] for part in parts)])
    distances = np.concatenate([np.empty(0, np.int32), *(part[1] for part in parts)])
    ids = np.concatenate([np.empty(0, np.int64), *(part[2] for part in parts)])
    order = np.lexsort((ids, asymmetric))[:m]
    return asymmetric[order], distances[order], ids[order]
