"""Retrieval quality of codes and of float features: tie-aware average precision, precision at k, and their report.

NumPy only: codes or features and labels go in, numbers come out. Nothing here encodes, plots or prints.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.codes import check_codes, check_n_bits, hamming_distances

__all__ = [
    "RetrievalReport",
    "TieAwareAP",
    "average_precision",
    "evaluate_codes",
    "evaluate_features",
    "precision_at_k",
]

# Cells of queries x database (or x distance levels) held at a time: a few dozen MB.
_BLOCK_CELLS = 1 << 20
# Database rows widened to float64 at a time.
_FEATURE_ROWS = 8192

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]


class TieAwareAP(NamedTuple):
    """Average precision of a ranking with ties: the mean, best and worst over all orders of the tied items."""

    expected: float
    optimistic: float
    pessimistic: float


@dataclass(frozen=True, kw_only=True)
class RetrievalReport:
    """Retrieval quality over a set of queries.

    `map`, `map_optimistic` and `map_pessimistic` are mAP@all: the expected, the best and the worst value over all
    orders of the items at equal distance. `precision_at` maps k to the expected precision of the first k; a database of
    fewer than k items is filled up with irrelevant ones.

    `chance` is the mean over queries of R/N, R relevant among N items: the precision that a random order has at any k.
    The expected AP of a random order is the same but for a term below (1 + ln N)/N (N = 1,000, R = 100: .106 for .100).

    Queries without any relevant item have no AP: they are counted in `queries_without_relevant` and in `n_queries`, and
    left out of every mean, `precision_at` and `chance` included. `n_bits` is None for float features.
    """

    n_bits: int | None
    n_queries: int
    n_database: int
    map: float
    map_optimistic: float
    map_pessimistic: float
    precision_at: dict[int, float]
    chance: float
    queries_without_relevant: int

    def to_dict(self) -> dict[str, Any]:
        """All fields as a plain dictionary that `json.dumps` takes."""
        return dataclasses.asdict(self)


def average_precision(distances: ArrayLike, relevant: ArrayLike) -> TieAwareAP:
    """Average precision of one ranking by ascending distance, over all orders of the items at equal distance.

    `distances` is (N,), int or float; `relevant` is (N,) bool. Equal means exactly equal, for floats too.

    Raises:
        ValueError: wrong shapes or types, a NaN, or no relevant item (AP is undefined then).

    Source: expectation: McSherry & Najork, "Computing information retrieval performance measures efficiently in the
    presence of tied scores", ECIR 2008; in Hamming ranking: He et al., "Hashing as tie-aware learning to rank", CVPR
    2018. Their sums over the positions of a level are closed here with harmonic numbers H:
    sum_j (P + 1 + j s)/(N + 1 + j) = n s + (P + 1 - s (N + 1)) (H_{N+n} - H_N), s = (p - 1)/(n - 1).
    """
    n, p = _ranking_histogram(distances, relevant)
    if not p.any():
        raise ValueError("no item is relevant: average precision is undefined, leave such queries out and count them")
    expected, optimistic, pessimistic = _average_precisions(n, p, _harmonic_numbers(int(n.sum())))
    return TieAwareAP(float(expected[0]), float(optimistic[0]), float(pessimistic[0]))


def precision_at_k(distances: ArrayLike, relevant: ArrayLike, k: int) -> float:
    """Expected share of relevant items among the k nearest, over all orders of the items at equal distance.

    `distances` is (N,), int or float; `relevant` is (N,) bool. The divisor is k even when N is smaller.

    Raises:
        ValueError: wrong shapes or types, a NaN, or k below 1.

    Source: McSherry & Najork, ECIR 2008: a level cut by k gives its relevant items in proportion.
    """
    _check_ks([k])
    n, p = _ranking_histogram(distances, relevant)
    return float(_precisions(n, p, k)[0])


def evaluate_codes(
    query_codes: NDArray[np.uint8],
    database_codes: NDArray[np.uint8],
    *,
    n_bits: int,
    query_labels: ArrayLike,
    database_labels: ArrayLike,
    ks: Sequence[int] = (10,),
    exclude: ArrayLike | None = None,
) -> RetrievalReport:
    """Rank the database by Hamming distance for every query and report how well relevant items come first.

    Codes are (N, ceil(n_bits / 8)) uint8. Labels are (N,) int, or (N, C) multi-hot: an item is relevant to a query when
    they share a label. `exclude` is (Q,) int: the database position of the query itself, which is left out of its own
    ranking; -1 = none. The order of the database does not matter. Memory grows with queries + database, not with their
    product.

    Raises:
        ValueError: codes, labels, ks or exclude of wrong shape, type or range; or no query has a relevant item.

    Source: mAP over Hamming levels, He et al., CVPR 2018; see `average_precision`.
    """
    n_bits = check_n_bits(n_bits)
    queries = check_codes(query_codes, n_bits, name="query codes")
    database = check_codes(database_codes, n_bits, name="database codes")

    def levels(block: slice) -> NDArray[np.integer]:
        return hamming_distances(queries[block], database)

    return _evaluate(
        levels,
        n_levels=n_bits + 1,
        n_queries=len(queries),
        n_database=len(database),
        n_bits=n_bits,
        query_labels=query_labels,
        database_labels=database_labels,
        ks=ks,
        exclude=exclude,
    )


def evaluate_features(
    query_features: ArrayLike,
    database_features: ArrayLike,
    *,
    query_labels: ArrayLike,
    database_labels: ArrayLike,
    ks: Sequence[int] = (10,),
    exclude: ArrayLike | None = None,
) -> RetrievalReport:
    """Rank the database by cosine for every query: the same report as `evaluate_codes`, for the float baseline.

    Features are (N, D) float; the distance is 1 - cosine, the cosine summed in float64 and rounded to float32: equal
    vectors tie wherever they stand in the database. A zero vector has distance 1 to everything.

    Raises:
        ValueError: features, labels, ks or exclude of wrong shape, type or range, a NaN or an infinite value; or no
            query has a relevant item.
    """
    queries = _unit_rows(query_features, "query features")
    database = _unit_rows(database_features, "database features")
    if queries.shape[1] != database.shape[1]:
        raise ValueError(
            f"query features have {queries.shape[1]} dimensions, database features {database.shape[1]}: "
            "take both from the same network"
        )

    def levels(block: slice) -> NDArray[np.integer]:
        wide = queries[block].astype(np.float64)
        cosines = np.empty((len(wide), len(database)), np.float32)
        for start in range(0, len(database), _FEATURE_ROWS):
            rows = slice(start, start + _FEATURE_ROWS)
            cosines[:, rows] = wide @ database[rows].astype(np.float64).T
        return _dense_levels(np.float32(1) - cosines)

    return _evaluate(
        levels,
        n_levels=len(database),
        n_queries=len(queries),
        n_database=len(database),
        n_bits=None,
        query_labels=query_labels,
        database_labels=database_labels,
        ks=ks,
        exclude=exclude,
    )


def _evaluate(
    levels: Callable[[slice], NDArray[np.integer]],
    *,
    n_levels: int,
    n_queries: int,
    n_database: int,
    n_bits: int | None,
    query_labels: ArrayLike,
    database_labels: ArrayLike,
    ks: Sequence[int],
    exclude: ArrayLike | None,
) -> RetrievalReport:
    """`levels(block)` gives the (B, N) distance levels, 0 ... n_levels - 1, of a block of queries."""
    if n_queries == 0 or n_database == 0:
        raise ValueError(f"nothing to evaluate: {n_queries} queries, {n_database} database items")
    ks = _check_ks(ks)
    relevance = _relevance(query_labels, database_labels, n_queries, n_database)
    excluded = _check_exclude(exclude, n_queries, n_database)
    harmonic = _harmonic_numbers(n_database)

    aps = np.zeros((3, n_queries))
    precisions = np.zeros((len(ks), n_queries))
    chances = np.zeros(n_queries)
    answerable = np.zeros(n_queries, np.bool_)
    block_rows = max(1, _BLOCK_CELLS // max(n_database, n_levels))
    for start in range(0, n_queries, block_rows):
        block = slice(start, min(start + block_rows, n_queries))
        n, p = _histograms(levels(block), relevance(block), n_levels, excluded[block])
        n_relevant = p.sum(axis=1)
        answerable[block] = n_relevant > 0
        aps[:, block] = _average_precisions(n, p, harmonic)
        for i, k in enumerate(ks):
            precisions[i, block] = _precisions(n, p, k)
        chances[block] = n_relevant / np.maximum(n.sum(axis=1), 1)

    if not answerable.any():
        raise ValueError(
            f"none of the {n_queries} queries shares a label with a database item: mAP is undefined, "
            "check that both label sets number the classes alike"
        )
    expected, optimistic, pessimistic = aps[:, answerable].mean(axis=1).tolist()
    return RetrievalReport(
        n_bits=n_bits,
        n_queries=n_queries,
        n_database=n_database,
        map=expected,
        map_optimistic=optimistic,
        map_pessimistic=pessimistic,
        precision_at=dict(zip(ks, precisions[:, answerable].mean(axis=1).tolist(), strict=True)),
        chance=float(chances[answerable].mean()),
        queries_without_relevant=int(n_queries - answerable.sum()),
    )


def _histograms(levels: NDArray[np.integer], relevant: _Bools, n_levels: int, excluded: _Ints) -> tuple[_Ints, _Ints]:
    """Items and relevant items of each query at each level, both (B, n_levels), in one pass over the (B, N) cells."""
    n_rows = len(levels)
    cells = levels.astype(np.int64)
    # One level too many: the bin for what is excluded.
    rows = np.flatnonzero(excluded >= 0)
    cells[rows, excluded[rows]] = n_levels
    cells += np.arange(n_rows, dtype=np.int64)[:, None] * (n_levels + 1)
    cells *= 2
    cells += relevant
    counts = np.bincount(cells.ravel(), minlength=n_rows * (n_levels + 1) * 2).reshape(n_rows, n_levels + 1, 2)
    p = counts[:, :n_levels, 1]
    return counts[:, :n_levels, 0] + p, p


def _average_precisions(n: _Ints, p: _Ints, harmonic: _Floats) -> _Floats:
    """Expected, optimistic and pessimistic AP, (3, B), from (B, L) counts; 0 for a query without relevant items."""
    n_before = np.cumsum(n, axis=1) - n
    p_before = np.cumsum(p, axis=1) - p
    # Only levels with relevant items add to AP.
    rows, columns = np.nonzero(p)
    n_here, p_here = n[rows, columns], p[rows, columns]
    n_up, p_up = n_before[rows, columns], p_before[rows, columns]

    slope = np.where(n_here > 1, (p_here - 1) / np.maximum(n_here - 1, 1), 0.0)
    spread = harmonic[n_up + n_here] - harmonic[n_up]
    expected = p_here * (slope + (p_up + 1 - slope * (n_up + 1)) * spread / n_here)
    # Relevant items first, at ranks n_up + 1 ... n_up + p_here.
    optimistic = p_here + (p_up - n_up) * (harmonic[n_up + p_here] - harmonic[n_up])
    # Relevant items last, after n_ahead = n_up + n_here - p_here others.
    n_ahead = n_up + n_here - p_here
    pessimistic = p_here + (p_up - n_ahead) * (harmonic[n_ahead + p_here] - harmonic[n_ahead])

    # Without a tie the plain ratio: differences of harmonic numbers would only add rounding.
    single = n_here == 1
    ratio = (p_up + 1) / (n_up + 1)
    sums = np.empty((3, len(n)))
    for i, value in enumerate((expected, optimistic, pessimistic)):
        sums[i] = np.bincount(rows, np.where(single, ratio, value), len(n))
    sums /= np.maximum(p.sum(axis=1), 1)
    # The three agree to about 1e-12 where a level is all relevant; keep their order exact.
    sums[1] = np.maximum(sums[1], sums[2])
    sums[0] = np.clip(sums[0], sums[2], sums[1])
    return sums


def _precisions(n: _Ints, p: _Ints, k: int) -> _Floats:
    """Expected precision of the first k, (B,), from (B, L) counts."""
    n_before = np.cumsum(n, axis=1) - n
    taken = np.clip(k - n_before, 0, n)
    return np.asarray((p * (taken / np.maximum(n, 1))).sum(axis=1) / k)


def _harmonic_numbers(n: int) -> _Floats:
    """H_0 ... H_n."""
    return np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, n + 1))])


def _dense_levels(distances: NDArray[Any]) -> _Ints:
    """Rank of each cell's value among the distinct values of its row, (B, N), from 0."""
    order = np.argsort(distances, axis=1)
    ascending = np.take_along_axis(distances, order, axis=1)
    steps = np.zeros(distances.shape, np.int64)
    np.cumsum(ascending[:, 1:] != ascending[:, :-1], axis=1, out=steps[:, 1:])
    levels = np.empty_like(steps)
    np.put_along_axis(levels, order, steps, axis=1)
    return levels


def _ranking_histogram(distances: ArrayLike, relevant: ArrayLike) -> tuple[_Ints, _Ints]:
    """Check one ranking; counts (1, L) as from `_histograms`."""
    distances, relevant = np.asarray(distances), np.asarray(relevant)
    if distances.ndim != 1 or distances.shape != relevant.shape or distances.size == 0:
        raise ValueError(
            f"distances and relevant must be (N,), of one length above 0, not {distances.shape} and {relevant.shape}"
        )
    if relevant.dtype != np.bool_:
        raise ValueError(f"relevant must be bool, not {relevant.dtype}")
    if distances.dtype.kind not in "iuf":
        raise ValueError(f"distances must be int or float, not {distances.dtype}")
    if np.isnan(distances).any():
        raise ValueError("distances contain NaN: a ranking needs numbers")
    levels = _dense_levels(distances[None])
    return _histograms(levels, relevant[None], int(levels.max()) + 1, np.array([-1]))


def _relevance(
    query_labels: ArrayLike, database_labels: ArrayLike, n_queries: int, n_database: int
) -> Callable[[slice], _Bools]:
    """A function from a block of queries to its (B, N) relevance."""
    queries = _check_labels(query_labels, n_queries, "query")
    database = _check_labels(database_labels, n_database, "database")
    if queries.ndim != database.ndim or queries.shape[1:] != database.shape[1:]:
        raise ValueError(
            f"query labels have shape {queries.shape}, database labels {database.shape}: "
            "both must be (N,) ints, or (N, C) multi-hot with the same C"
        )
    if queries.ndim == 1:
        return lambda block: queries[block, None] == database
    # float32 counts of shared labels: exact, and NumPy has no fast product of bools.
    transposed = database.astype(np.float32).T
    return lambda block: queries[block].astype(np.float32) @ transposed > 0


def _check_labels(labels: ArrayLike, n: int, whose: str) -> NDArray[Any]:
    """Labels as an (N,) int or (N, C) bool array."""
    array = np.asarray(labels)
    if array.ndim not in (1, 2) or len(array) != n:
        raise ValueError(f"{whose} labels must be ({n},) or ({n}, C), one row for each {whose} item, not {array.shape}")
    if array.ndim == 1:
        if array.dtype.kind not in "iu":
            raise ValueError(f"{whose} labels of shape (N,) must be ints, not {array.dtype}")
        return array
    if array.dtype.kind not in "biu" or not np.isin(array, (0, 1)).all():
        raise ValueError(f"{whose} labels of shape (N, C) must be multi-hot: bool, or ints 0 and 1")
    return array.astype(np.bool_)


def _check_ks(ks: Sequence[int]) -> list[int]:
    for k in ks:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise ValueError(f"k must be an int of at least 1, not {k!r}")
    return list(dict.fromkeys(int(k) for k in ks))


def _check_exclude(exclude: ArrayLike | None, n_queries: int, n_database: int) -> _Ints:
    if exclude is None:
        return np.full(n_queries, -1)
    array = np.asarray(exclude)
    if array.shape != (n_queries,) or array.dtype.kind not in "iu":
        raise ValueError(f"exclude must be ({n_queries},) int, one for each query, not {array.shape} {array.dtype}")
    if ((array < -1) | (array >= n_database)).any():
        raise ValueError(
            f"exclude must lie in -1 ... {n_database - 1} (a database position, or -1 for none), "
            f"not {int(array.min())} ... {int(array.max())}"
        )
    return array.astype(np.int64)


def _unit_rows(features: ArrayLike, what: str) -> NDArray[np.floating]:
    """Rows of length 1 (zero rows stay zero), in the float type given."""
    array = np.asarray(features)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise ValueError(f"{what} must be (N, D) float, not {array.shape} {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} contain NaN or infinite values")
    array = array.astype(np.promote_types(array.dtype, np.float32), copy=False)
    lengths = np.sqrt(np.einsum("nd,nd->n", array, array, dtype=np.float64)).astype(array.dtype)
    return np.asarray(array / np.where(lengths > 0, lengths, 1)[:, None])
