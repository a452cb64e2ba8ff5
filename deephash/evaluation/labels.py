"""Labels and the other arguments of an evaluation: checked at the border, and how many labels two images share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["LabelPair", "check_exclude", "check_k", "check_ks", "check_radii"]

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LabelPair:
    """Labels of the queries and of the database: both (N,) int, or both (N, C) bool, multi-hot."""

    queries: NDArray[Any]
    database: NDArray[Any]

    @classmethod
    def checked(cls, queries: ArrayLike, database: ArrayLike, n_queries: int, n_database: int) -> LabelPair:
        """Check both label sets.

        Raises:
            ValueError: a wrong length, shape or type, or two kinds of labels.
        """
        pair = cls(_check_labels(queries, n_queries, "query"), _check_labels(database, n_database, "database"))
        if pair.queries.ndim != pair.database.ndim or pair.queries.shape[1:] != pair.database.shape[1:]:
            raise ValueError(
                f"query labels have shape {pair.queries.shape}, database labels {pair.database.shape}: "
                "both must be (N,) ints, or (N, C) multi-hot with the same C"
            )
        return pair

    @property
    def graded(self) -> bool:
        """Whether images can share more than one label: multi-hot labels."""
        return self.queries.ndim == 2

    @property
    def n_gains(self) -> int:
        """Upper limit of the numbers of shared labels, 0 included."""
        if not self.graded:
            return 2
        return int(min(self.queries.sum(axis=1).max(), self.database.sum(axis=1).max())) + 1

    @cached_property
    def _columns(self) -> NDArray[np.float32]:
        # Counts in float32 are exact, and NumPy has no fast product of bools.
        return np.ascontiguousarray(self.database.T.astype(np.float32))

    def shared(self, queries: slice) -> NDArray[np.integer]:
        """How many labels each query shares with each item, (B, N); for int labels 0 or 1."""
        if not self.graded:
            return (self.queries[queries, None] == self.database).astype(np.int8)
        return (self.queries[queries].astype(np.float32) @ self._columns).astype(np.int32)

    def shared_with(self, items: _Ints, queries: _Ints) -> _Ints:
        """How many labels `queries[i]` shares with the item `items[i]`, (N,)."""
        left, right = self.queries[queries], self.database[items]
        return (left & right).sum(axis=1) if self.graded else (left == right).astype(np.int64)


def _check_labels(labels: ArrayLike, n: int, whose: str) -> NDArray[Any]:
    array = np.asarray(labels)
    if array.ndim not in (1, 2) or len(array) != n:
        raise ValueError(f"{whose} labels must be ({n},) or ({n}, C), one row for each {whose} item, not {array.shape}")
    if array.ndim == 1:
        if array.dtype.kind not in "iu":
            raise ValueError(f"{whose} labels of shape (N,) must be ints, not {array.dtype}")
        return array
    if array.dtype.kind not in "biu" or not ((array == 0) | (array == 1)).all():
        raise ValueError(f"{whose} labels of shape (N, C) must be multi-hot: bool, or ints 0 and 1")
    return array.astype(np.bool_)


def check_k(k: int) -> int:
    """Return k as an int.

    Raises:
        ValueError: k is not an int of at least 1.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k must be an int of at least 1, not {k!r}")
    return int(k)


def check_ks(ks: Sequence[int]) -> list[int]:
    """Return the distinct ks in the order given; `ValueError` as `check_k`."""
    return list(dict.fromkeys(check_k(k) for k in ks))


def check_radii(radii: Sequence[int]) -> list[int]:
    """Return the distinct radii in the order given.

    Raises:
        ValueError: a radius is not an int of at least 0.
    """
    for radius in radii:
        if isinstance(radius, bool) or not isinstance(radius, (int, np.integer)) or radius < 0:
            raise ValueError(f"a radius must be an int of at least 0, not {radius!r}")
    return list(dict.fromkeys(int(radius) for radius in radii))


def check_exclude(exclude: ArrayLike | None, n_queries: int, n_database: int) -> _Ints:
    """Return the database position that each query leaves out, (Q,), -1 for none.

    Raises:
        ValueError: a wrong shape or type, or positions outside the database.
    """
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
