"""The formulas: every metric of a ranking with ties as a closed form over its distance levels, many queries at a time.

Items at equal distance form a level. Arrays are (B, L): B queries, L levels in ascending distance. All orders of the
items inside a level count alike, and the expectation over them is exact everywhere in this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["LevelCounts", "PositionSums"]

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


class PositionSums:
    """Sums over the first i positions of a ranking, i = 0 ... n: of 1/i and of NDCG's discount 1/log2(1 + i)."""

    def __init__(self, n: int) -> None:
        positions = np.arange(1, n + 1)
        self.harmonic = np.concatenate([[0.0], np.cumsum(1.0 / positions)])
        self.discount = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(1 + positions))])


@dataclass(frozen=True)
class LevelCounts:
    """How many items with how many shared labels stand at each level.

    `counts` is (B, L, G) int64: the items at level l that share g labels with the query. G is 2 for plain relevance.
    """

    counts: _Ints

    @cached_property
    def n(self) -> _Ints:
        """Items, (B, L)."""
        return np.asarray(np.einsum("blg->bl", self.counts))

    @cached_property
    def p(self) -> _Ints:
        """Relevant items, which share at least one label, (B, L)."""
        return self.n - self.counts[:, :, 0]

    @cached_property
    def gain(self) -> _Floats:
        """Sum of the shared labels, (B, L)."""
        return np.asarray(self.counts @ np.arange(self.counts.shape[2], dtype=np.float64))

    @cached_property
    def n_relevant(self) -> _Ints:
        """Relevant items of each query, (B,)."""
        return np.asarray(self.p.sum(axis=1))

    @cached_property
    def n_items(self) -> _Ints:
        """Items of each query, (B,)."""
        return np.asarray(self.n.sum(axis=1))

    @cached_property
    def _n_before(self) -> _Ints:
        return np.cumsum(self.n, axis=1) - self.n

    @cached_property
    def _p_before(self) -> _Ints:
        return np.cumsum(self.p, axis=1) - self.p

    def average_precisions(self, k: int, sums: PositionSums) -> _Floats:
        """Expected, optimistic and pessimistic AP@k, (3, B); 0 for a query without relevant items.

        AP@k sums P@i over the relevant positions i <= k and divides by min(R, k).
        """
        rows, reached, taken = self._reached(k)
        n, p = self.n[reached], self.p[reached]
        n_before, p_before = self._n_before[reached], self._p_before[reached]
        expected = _weighted_precision_sums(n, p, p, n_before, p_before, taken, sums)
        # Relevant items first, or last, behind the others of the level.
        best, first = np.minimum(p, taken), n_before
        worst, behind = np.maximum(0, taken - (n - p)), n_before + n - p
        harmonic = sums.harmonic
        optimistic = best + (p_before - first) * (harmonic[first + best] - harmonic[first])
        pessimistic = worst + (p_before - behind) * (harmonic[behind + worst] - harmonic[behind])
        # Without a tie the plain ratio: differences of harmonic numbers would only add rounding.
        single = n == 1
        ratio = (p_before + 1) / (n_before + 1)
        values: _Floats = np.stack(
            [expected, np.where(single, ratio, optimistic), np.where(single, ratio, pessimistic)]
        )
        # Without any row np.bincount returns ints.
        totals = np.stack([np.bincount(rows, value, len(self.n)) for value in values])
        result: _Floats = totals / np.clip(self.n_relevant, 1, k)
        # The three agree to about 1e-12 where a level is all relevant; keep their order exact.
        result[1] = np.maximum(result[1], result[2])
        result[0] = np.clip(result[0], result[2], result[1])
        return result

    def weighted_average_precisions(self, k: int, sums: PositionSums) -> _Floats:
        """Expected WAP@k, (B,): as AP@k, with ACG@i in the place of P@i."""
        rows, reached, taken = self._reached(k)
        gain_before = np.cumsum(self.gain, axis=1) - self.gain
        terms = _weighted_precision_sums(
            self.n[reached],
            self.p[reached],
            self.gain[reached],
            self._n_before[reached],
            gain_before[reached],
            taken,
            sums,
        )
        return np.bincount(rows, terms, len(self.n)) / np.clip(self.n_relevant, 1, k)

    def precisions(self, k: int) -> _Floats:
        """Expected share of relevant items among the first k, (B,); the divisor is k even when there are fewer."""
        return self._expected_sum(self.p, k) / k

    def recalls(self, k: int) -> _Floats:
        """Expected share of the relevant items that stand among the first k, (B,)."""
        return self._expected_sum(self.p, k) / np.maximum(self.n_relevant, 1)

    def average_gains(self, k: int) -> _Floats:
        """Expected ACG@k, (B,): the mean number of shared labels of the first k."""
        return self._expected_sum(self.gain, k) / k

    def normalized_discounted_gains(self, k: int, sums: PositionSums) -> _Floats:
        """Expected NDCG@k, (B,): gain 2^shared - 1, discount 1/log2(1 + i); 0 for a query without relevant items."""
        k = min(k, len(sums.discount) - 1)
        exponential = np.exp2(np.arange(self.counts.shape[2])) - 1
        reached = np.minimum(self._n_before, k)
        discount = sums.discount[np.minimum(self._n_before + self.n, k)] - sums.discount[reached]
        dcg = ((self.counts @ exponential) * discount / np.maximum(self.n, 1)).sum(axis=1)
        # The ideal ranking has one level for each gain, the highest first.
        totals = self.counts.sum(axis=1)[:, ::-1]
        ends = np.minimum(np.cumsum(totals, axis=1), k)
        starts = np.minimum(np.cumsum(totals, axis=1) - totals, k)
        ideal = (sums.discount[ends] - sums.discount[starts]) @ exponential[::-1]
        return np.asarray(dcg / np.where(ideal > 0, ideal, 1))

    def balls(self) -> tuple[_Ints, _Ints]:
        """Items and relevant items at a level or below it, both (B, L)."""
        return self._n_before + self.n, self._p_before + self.p

    def _taken(self, k: int) -> _Ints:
        """How many of the first k positions lie in each level, (B, L)."""
        return np.clip(k - self._n_before, 0, self.n)

    def _expected_sum(self, values: NDArray[np.number], k: int) -> _Floats:
        """A level cut by k gives its values in proportion."""
        return np.asarray((values * (self._taken(k) / np.maximum(self.n, 1))).sum(axis=1))

    def _reached(self, k: int) -> tuple[_Ints, NDArray[np.bool_], _Ints]:
        """Row of each level that adds to AP@k, these levels as a mask (B, L), and how many positions of each count."""
        taken = self._taken(k)
        reached = (self.p > 0) & (taken > 0)
        return np.nonzero(reached)[0], reached, taken[reached]


def _weighted_precision_sums(
    n: _Ints,
    p: _Ints,
    gain: NDArray[np.number],
    n_before: _Ints,
    gain_before: NDArray[np.number],
    taken: _Ints,
    sums: PositionSums,
) -> _Floats:
    """Expected sum over the first `taken` positions of a level of [relevant] * (gain so far) / position.

    At position j = 0 ... n - 1 of a level the expectation is (gain_before p + gain + j s) / (n (n_before + 1 + j)) with
    s = gain (p - 1)/(n - 1): the item at a position adds its own gain, gain/n in expectation, and each of the j before
    it adds gain (p - 1)/(n (n - 1)) where the item is relevant. Summed over j it closes with harmonic numbers. Plain AP
    has gain = p.

    Source: McSherry & Najork, ECIR 2008, eq. for AP; the extension to graded gains is ours.
    """
    slope = gain * (p - 1) / np.maximum(n - 1, 1)
    spread = sums.harmonic[n_before + taken] - sums.harmonic[n_before]
    tied = (taken * slope + (gain_before * p + gain - slope * (n_before + 1)) * spread) / n
    return np.where(n == 1, (gain_before + gain) / (n_before + 1), tied)
