"""The metrics of one ranking at a time, with ties at equal distance."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .labels import check_k
from .levels import LevelCounts, PositionSums

__all__ = [
    "TieAwareAP",
    "acg_at_k",
    "average_precision",
    "check_ranking",
    "dense_levels",
    "ndcg_at_k",
    "precision_at_k",
    "recall_at_k",
    "weighted_average_precision",
]


class TieAwareAP(NamedTuple):
    """Average precision of a ranking with ties: the mean, best and worst over all orders of the tied items."""

    expected: float
    optimistic: float
    pessimistic: float


def average_precision(distances: ArrayLike, relevant: ArrayLike, k: int | None = None) -> TieAwareAP:
    """Average precision of one ranking by ascending distance, over all orders of the items at equal distance.

    `distances` is (N,), int or float; `relevant` is (N,) bool. Equal means exactly equal, for floats too. With `k` it
    is AP@k: the sum of P@i over the relevant positions i <= k, over min(R, k), R all relevant items.

    Raises:
        ValueError: wrong shapes or types, a NaN, k below 1, or no relevant item (AP is undefined then).

    Source: expectation: McSherry & Najork, "Computing information retrieval performance measures efficiently in the
    presence of tied scores", ECIR 2008; in Hamming ranking: He et al., "Hashing as tie-aware learning to rank", CVPR
    2018. Their sums over the positions of a level are closed here with harmonic numbers H:
    sum_j (P + 1 + j s)/(N + 1 + j) = n s + (P + 1 - s (N + 1)) (H_{N+n} - H_N), s = (p - 1)/(n - 1). A level cut by k
    is the same sum over fewer j. Divisor: Weyand et al., "Google Landmarks Dataset v2", CVPR 2020, eq. 2.
    """
    levels, n = _relevant_levels(distances, relevant)
    values = levels.average_precisions(n if k is None else check_k(k), PositionSums(n))[:, 0]
    return TieAwareAP(*values.tolist())


def precision_at_k(distances: ArrayLike, relevant: ArrayLike, k: int) -> float:
    """Expected share of relevant items among the k nearest, over all orders of the items at equal distance.

    `distances` is (N,), int or float; `relevant` is (N,) bool. The divisor is k even when N is smaller.

    Raises:
        ValueError: wrong shapes or types, a NaN, or k below 1.

    Source: McSherry & Najork, ECIR 2008: a level cut by k gives its relevant items in proportion.
    """
    k = check_k(k)
    distances, relevant = check_ranking(distances, relevant)
    return float(_level_counts(distances, relevant).precisions(k)[0])


def recall_at_k(distances: ArrayLike, relevant: ArrayLike, k: int) -> float:
    """Expected share of all relevant items that stand among the k nearest; as `precision_at_k` otherwise.

    Raises:
        ValueError: as `precision_at_k`, or no relevant item (recall is undefined then).
    """
    k = check_k(k)
    return float(_relevant_levels(distances, relevant)[0].recalls(k)[0])


def ndcg_at_k(distances: ArrayLike, shared: ArrayLike, k: int) -> float:
    """Expected NDCG of the k nearest: gain 2^shared - 1, discount 1/log2(1 + i), over the value of the best ranking.

    `shared` is (N,) int: the number of labels that each item shares with the query.

    Raises:
        ValueError: wrong shapes or types, a NaN, k below 1, or no relevant item (NDCG is undefined then).

    Source: McSherry & Najork, ECIR 2008: at every position of a level the expected gain is the level's mean. Gain and
    discount: Burges et al., ICML 2005; in hashing Zhao et al., CVPR 2015.
    """
    k = check_k(k)
    levels, n = _graded_levels(distances, shared)
    return float(levels.normalized_discounted_gains(k, PositionSums(n))[0])


def acg_at_k(distances: ArrayLike, shared: ArrayLike, k: int) -> float:
    """Expected average cumulative gain: the mean number of shared labels of the k nearest. The divisor is k.

    `shared` is (N,) int. No relevant item gives 0.

    Raises:
        ValueError: wrong shapes or types, a NaN, or k below 1.

    Source: Jarvelin & Kekalainen, SIGIR 2000; in hashing Zhao et al., CVPR 2015.
    """
    k = check_k(k)
    distances, shared = check_ranking(distances, shared, graded=True)
    return float(_level_counts(distances, shared).average_gains(k)[0])


def weighted_average_precision(distances: ArrayLike, shared: ArrayLike, k: int | None = None) -> float:
    """Expected WAP: average precision with ACG@i in the place of P@i; with `k` over the first k, divided by min(R, k).

    `shared` is (N,) int: the number of labels that each item shares with the query. Exact, in closed form.

    Raises:
        ValueError: wrong shapes or types, a NaN, k below 1, or no relevant item (WAP is undefined then).

    Source: Zhao et al., "Deep semantic ranking based hashing for multi-label image retrieval", CVPR 2015, whose WAP@k
    divides by the relevant items found among the first k; the expectation over ties is ours (see `levels`).
    """
    levels, n = _graded_levels(distances, shared)
    return float(levels.weighted_average_precisions(n if k is None else check_k(k), PositionSums(n))[0])


def check_ranking(
    distances: ArrayLike, relevance: ArrayLike, *, graded: bool = False
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return both as (N,) arrays; the relevance is bool, or with `graded` ints from 0 up.

    Raises:
        ValueError: wrong shapes or types, or a NaN.
    """
    distances, relevance = np.asarray(distances), np.asarray(relevance)
    name = "shared" if graded else "relevant"
    if distances.ndim != 1 or distances.shape != relevance.shape or distances.size == 0:
        raise ValueError(
            f"distances and {name} must be (N,), of one length above 0, not {distances.shape} and {relevance.shape}"
        )
    if graded and (relevance.dtype.kind not in "iu" or relevance.min() < 0):
        raise ValueError(f"shared must be ints of at least 0, the number of shared labels, not {relevance.dtype}")
    if not graded and relevance.dtype != np.bool_:
        raise ValueError(f"relevant must be bool, not {relevance.dtype}")
    if distances.dtype.kind not in "iuf":
        raise ValueError(f"distances must be int or float, not {distances.dtype}")
    if np.isnan(distances).any():
        raise ValueError("distances contain NaN: a ranking needs numbers")
    return distances, relevance


def dense_levels(distances: NDArray[Any]) -> NDArray[np.int64]:
    """Rank of each cell's value among the distinct values of its row, (B, N), from 0."""
    order = np.argsort(distances, axis=1)
    ascending = np.take_along_axis(distances, order, axis=1)
    steps = np.zeros(distances.shape, np.int64)
    np.cumsum(ascending[:, 1:] != ascending[:, :-1], axis=1, out=steps[:, 1:])
    levels = np.empty_like(steps)
    np.put_along_axis(levels, order, steps, axis=1)
    return levels


def _relevant_levels(distances: ArrayLike, relevant: ArrayLike) -> tuple[LevelCounts, int]:
    distances, relevant = check_ranking(distances, relevant)
    if not relevant.any():
        raise ValueError("no item is relevant: average precision is undefined, leave such queries out and count them")
    return _level_counts(distances, relevant), len(distances)


def _graded_levels(distances: ArrayLike, shared: ArrayLike) -> tuple[LevelCounts, int]:
    distances, shared = check_ranking(distances, shared, graded=True)
    if not shared.any():
        raise ValueError("no item is relevant: the metric is undefined, leave such queries out and count them")
    return _level_counts(distances, shared), len(distances)


def _level_counts(distances: NDArray[Any], gains: NDArray[Any]) -> LevelCounts:
    levels = dense_levels(distances[None])[0]
    shape = int(levels.max()) + 1, max(2, int(gains.max()) + 1)
    cells = levels * shape[1] + gains.astype(np.int64)
    return LevelCounts(np.bincount(cells, minlength=shape[0] * shape[1]).reshape(1, *shape))
