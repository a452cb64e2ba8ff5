"""Mean average precision as published deep hashing code computes it: for comparison with its numbers, not for judging.

The order inside ties is that of the database (the published code calls an unstable sort: its ties fall by the CPU and
the NumPy version, so no rule can reproduce it to the last digit). The divisor is the number of relevant items found
among the first k, not the number that could be found.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.codes import Codes, hamming_distances

from .labels import LabelPair, check_k
from .rankings import check_ranking

__all__ = ["LEGACY_RULES", "legacy_average_precision", "legacy_means"]

LEGACY_RULES = MappingProxyType(
    {
        "deephash-pytorch": "a query that finds nothing relevant among its first k counts 0",
        "hashnet": "a query that finds nothing relevant among its first k is left out of the mean",
    }
)
"""Names of the rules, and what each does with a query that finds nothing.

Source: CalcTopMap in utils/tools.py of github.com/swuxyj/DeepHash-pytorch; mean_average_precision in
pytorch/src/test.py of github.com/thuml/HashNet. CalcTopMap's `topK = -1` drops the last item of the ranking: k = N - 1.
"""

# Cells of queries x database sorted at a time.
_CELLS = 1 << 19


def legacy_average_precision(distances: ArrayLike, relevant: ArrayLike, k: int) -> float:
    """AP of the first k of one ranking by (distance, position), divided by the relevant items among them; NaN for none.

    `distances` is (N,), int or float; `relevant` is (N,) bool.

    Raises:
        ValueError: wrong shapes or types, a NaN, or k below 1.

    Source: see `LEGACY_RULES`, which agree on this value.
    """
    k = check_k(k)
    distances, relevant = check_ranking(distances, relevant)
    return float(_average_precisions(distances[None], relevant[None], [k])[0, 0])


def legacy_means(
    queries: Codes,
    database: Codes,
    labels: LabelPair,
    n_bits: int,
    exclude: NDArray[np.int64],
    ks: list[int],
    rule: str,
) -> list[float]:
    """Mean over queries for each k, by one of `LEGACY_RULES`. NaN when the rule leaves out every query."""
    values = np.empty((len(ks), len(queries)))
    # NumPy sorts small ints by radix: a stable sort in a tenth of the time.
    dtype = np.uint8 if n_bits < 255 else np.uint16
    step = max(1, _CELLS // len(database))
    for start in range(0, len(queries), step):
        block = slice(start, min(start + step, len(queries)))
        distances = hamming_distances(queries[block], database).astype(dtype)
        relevant = labels.shared(block) > 0
        rows = np.flatnonzero(exclude[block] >= 0)
        # The item left out goes behind all others, where it changes nothing.
        distances[rows, exclude[block][rows]] = n_bits + 1
        relevant[rows, exclude[block][rows]] = False
        values[:, block] = _average_precisions(distances, relevant, ks)
    if rule == "deephash-pytorch":
        return np.nan_to_num(values).mean(axis=1).tolist()
    return [float(row[~np.isnan(row)].mean()) if not np.isnan(row).all() else float("nan") for row in values]


def _average_precisions(
    distances: NDArray[np.generic], relevant: NDArray[np.bool_], ks: list[int]
) -> NDArray[np.float64]:
    order = np.argsort(distances, axis=1, kind="stable")[:, : max(ks)]
    found = np.take_along_axis(relevant, order, axis=1)
    hits = np.cumsum(found, axis=1)
    sums = np.cumsum(np.where(found, hits / np.arange(1, found.shape[1] + 1), 0.0), axis=1)
    last = [min(k, found.shape[1]) - 1 for k in ks]
    with np.errstate(invalid="ignore"):
        return np.asarray((sums[:, last] / hits[:, last]).T)
