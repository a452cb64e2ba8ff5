"""From the codes that were met to the answer: ids by (distance, id). For structures that run outside of the kernel."""

from __future__ import annotations

import numpy as np

from index.groups import Distances, Groups, Ids
from index.kernel import Found

__all__ = ["found_of", "sizes_of"]


def sizes_of(groups: Groups, places: Ids) -> Ids:
    """Return the number of ids of each of these codes."""
    if groups.offsets is None:
        return np.ones(len(places), np.int64)
    return groups.offsets[places + 1] - groups.offsets[places]


def found_of(groups: Groups, rows: Ids, distances: Distances, places: Ids, k: int | None, n_queries: int) -> Found:
    """Return the k nearest ids (or all) of each query, where query rows[i] met code places[i] at distances[i]."""
    sizes = sizes_of(groups, places)
    # Ids ascend within a code: no more than its first k can belong to the answer.
    taken = sizes if k is None else np.minimum(sizes, k)
    starts = places if groups.offsets is None else groups.offsets[places]
    ends = np.cumsum(taken)
    members = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + taken, taken)
    ids = members if groups.ids is None else groups.ids[members].astype(np.int64)
    rows, distances = np.repeat(rows, taken), np.repeat(distances, taken)
    order = np.lexsort((ids, distances, rows))
    rows = rows[order]
    limits = np.searchsorted(rows, np.arange(n_queries + 1))
    if k is not None:
        near = np.arange(len(rows)) - limits[rows] < k
        order = order[near]
        limits = np.concatenate(([0], np.cumsum(np.minimum(np.diff(limits), k))))
    return Found(limits.astype(np.int64), distances[order].astype(np.int32), ids[order])
