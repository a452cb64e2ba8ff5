"""Whether codes use their bits: balance, correlation, distinct codes. Needs no labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.codes import check_codes, check_n_bits, unpack_bits

from .counting import sort_rows

__all__ = ["CodeHealth", "code_health"]

# Codes unpacked to float32 at a time.
_BLOCK_ROWS = 1 << 14


@dataclass(frozen=True, kw_only=True)
class CodeHealth:
    """How evenly a set of codes uses the code space.

    - `bit_means`: the share of ones of each bit, .5 is balanced. `mean_imbalance` and `worst_imbalance`: mean and
      maximum of |share - .5| over bits, 0 ... .5.
    - `constant_bits`: bits of one value only; they carry nothing.
    - `mean_correlation`, `max_correlation`: of |r| over all pairs of different bits, r Pearson's; constant bits have
      none and are left out. 0 when fewer than two bits vary.
    - `distinct_codes`; `largest_group`: the share of images that have the most frequent code.
    - `entropy`: of the distribution over codes, in bits. At most log2 of the number of images, and at most n_bits.
    """

    n_codes: int
    n_bits: int
    bit_means: list[float]
    mean_imbalance: float
    worst_imbalance: float
    constant_bits: int
    mean_correlation: float
    max_correlation: float
    distinct_codes: int
    largest_group: float
    entropy: float


def code_health(codes: ArrayLike, *, n_bits: int) -> CodeHealth:
    """Measure how evenly codes (N, ceil(n_bits / 8)) uint8 use their bits and the code space.

    Raises:
        ValueError: codes of wrong shape or type, or none at all.
    """
    n_bits = check_n_bits(n_bits)
    checked = check_codes(codes, n_bits)
    n = len(checked)
    if n == 0:
        raise ValueError("no codes: nothing to measure")
    ones = np.zeros(n_bits)
    both = np.zeros((n_bits, n_bits))
    for start in range(0, n, _BLOCK_ROWS):
        # float32 counts up to the block's rows: exact.
        bits = unpack_bits(checked[start : start + _BLOCK_ROWS], n_bits).astype(np.float32)
        ones += bits.sum(axis=0)
        both += bits.T @ bits
    means = ones / n
    imbalance = np.abs(means - 0.5)
    correlations = _correlations(ones, both, n)
    sizes = _group_sizes(checked)
    shares = sizes / n
    return CodeHealth(
        n_codes=n,
        n_bits=n_bits,
        bit_means=means.tolist(),
        mean_imbalance=float(imbalance.mean()),
        worst_imbalance=float(imbalance.max()),
        constant_bits=int(((ones == 0) | (ones == n)).sum()),
        mean_correlation=float(correlations.mean()) if correlations.size else 0.0,
        max_correlation=float(correlations.max()) if correlations.size else 0.0,
        distinct_codes=len(sizes),
        largest_group=float(shares.max()),
        # + 0.0: one single group has entropy 0, not -0.
        entropy=float(-(shares * np.log2(shares)).sum()) + 0.0,
    )


def _correlations(ones: NDArray[np.float64], both: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """|r| of every pair of bits that vary, from the counts of ones and of common ones."""
    varies = (ones > 0) & (ones < n)
    ones, both = ones[varies], both[np.ix_(varies, varies)]
    covariance = n * both - np.outer(ones, ones)
    deviation = np.sqrt(ones * (n - ones))
    r = np.abs(covariance) / np.outer(deviation, deviation)
    return np.minimum(r[np.triu_indices(len(ones), 1)], 1.0)


def _group_sizes(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    _, starts = sort_rows(codes)
    return np.diff(np.append(starts, len(codes)))
