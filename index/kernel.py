"""The compiled part of the search, where the installation has it, and the threads that share its work.

Everything works without it, slower, over faiss: `AVAILABLE` says which. DEEPHASH_KERNEL=0 turns it off.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from index.groups import Groups, Ids, Words


def _load() -> ModuleType | None:
    if os.environ.get("DEEPHASH_KERNEL") == "0":
        return None
    try:
        return importlib.import_module("index._kernel")
    except ImportError:
        return None


_kernel: Any = _load()

__all__ = [
    "AVAILABLE",
    "Found",
    "Graph",
    "Lists",
    "Searcher",
    "Table",
    "build_table",
    "in_threads",
    "keep",
    "merge_found",
    "sort_words",
]

AVAILABLE = _kernel is not None
"""Whether the compiled kernel is here; its absence costs speed, nothing else."""

# What a look-up in a table and a candidate from it cost, in codes scanned.
_COSTS = (20.0, 10.0)
# A thread is woken for no less than so many words scanned.
_WORDS_A_THREAD = 1 << 20
_LOOK_UP_WORDS = 1 << 15
_TASKS_A_THREAD = 4
_ALL = (1 << 63) - 1
_INT32, _INT64 = np.dtype(np.int32), np.dtype(np.int64)

T = TypeVar("T")


class Found(NamedTuple):
    """What was found: of query q, distances[limits[q]:limits[q + 1]] and the ids beside them, by (distance, id)."""

    limits: Ids
    distances: npt.NDArray[np.int32]
    ids: Ids


class Table(NamedTuple):
    """One table of multi-index hashing, over `n_bits` bits from `shift` of one word.

    The groups with key x are positions[starts[x]:starts[x + 1]]; without positions, groups are in the order of keys.
    """

    word: int
    shift: int
    n_bits: int
    starts: npt.NDArray[np.uint32]
    positions: npt.NDArray[np.uint32] | None


class Lists(NamedTuple):
    """An inverted file: list l is the groups starts[l]:starts[l + 1], all within radii[l] of centroids[l].

    Lists are scanned from the nearest centroid on, at most `nprobe` of them once k ids are found, until a centroid is
    further than the nearest one by more than `reach` percent of the k-th distance so far. A list is passed over when
    no code of it can be near enough: with a reach of 100 times the number of bits, the answer is exact.
    """

    centroids: Words
    starts: Ids
    radii: npt.NDArray[np.int32]
    nprobe: int
    reach: int


class Graph(NamedTuple):
    """A navigable graph: group g has links from links[offsets[g]] on, 2 * m of level 0, then m of each level it is in.

    A walk starts at `entry`, a group of the level `top`, and ends when the `ef` nearest groups met (k, if that is more)
    are gone on from.
    """

    links: npt.NDArray[np.int32]
    offsets: Ids
    m: int
    entry: int
    top: int
    ef: int


class Searcher:
    """Groups and what searches them, as the kernel wants them: made once, for any number of searches. A scan, or:

    by tables the answer is exact, whatever it takes; by lists it holds what lies in those that are scanned, by a graph
    what the walk met.

    `search(queries, k, radius, n_bits)` is `HammingIndex.search` for arguments that need no second look, and few
    queries; it returns None for others.
    """

    __slots__ = ("_find", "_n", "_scans", "_work", "search")

    def __init__(
        self, groups: Groups, *, tables: tuple[Table, ...] = (), lists: Lists | None = None, graph: Graph | None = None
    ) -> None:
        self._n = len(groups.words)
        self._scans = not tables and lists is None and graph is None
        # What a query takes, in words that are scanned.
        self._work = max(1, groups.words.size if self._scans else _LOOK_UP_WORDS)
        compiled = _kernel.Searcher(
            groups.words, groups.words.shape[1], groups.offsets, groups.ids, tables, _COSTS, lists, graph,
            (2 * _WORDS_A_THREAD - 1) // self._work,
        )  # fmt: skip
        self._find: Callable[..., tuple[bytes, bytes, bytes]] = compiled.find
        self.search: Callable[[Any, Any, Any, int], Any] = compiled.search

    def find(self, queries: Words, k: int | None, radius: int, skipped: Ids | None = None) -> Found:
        """Return the k nearest ids within the radius (inclusive) of each query (Q, n_words) uint64; with k None, all.

        The walk through a graph does not enter the group skipped[q] for query q.
        """
        n_queries, most = len(queries), k or _ALL
        n_parts = n_queries * self._work // _WORDS_A_THREAD
        if n_parts > 1:
            n_parts = min(_n_threads(), n_parts)
        if n_parts <= 1:
            return _found(self._find(queries, most, radius, 0, self._n, skipped))
        if n_queries == 1 and self._scans:
            cuts = np.linspace(0, self._n, n_parts + 1).astype(np.int64).tolist()
            scans = [partial(self._find, queries, most, radius, a, b, None) for a, b in pairwise(cuts)]
            return merge_found([_found(answer) for answer in in_threads(scans)], k)
        # A scan reads all codes once for each task; other work is cut smaller, so that threads end together.
        step = -(-n_queries // (n_parts if self._scans else n_parts * _TASKS_A_THREAD))
        tasks = []
        for start in range(0, n_queries, step):
            left_out = None if skipped is None else skipped[start : start + step]
            tasks.append(partial(self._find, queries[start : start + step], most, radius, 0, self._n, left_out))
        return _joined([_found(answer) for answer in in_threads(tasks)])


def _found(answer: tuple[bytes, bytes, bytes]) -> Found:
    limits, distances, ids = answer
    return Found(np.frombuffer(limits, _INT64), np.frombuffer(distances, _INT32), np.frombuffer(ids, _INT64))


def _joined(parts: list[Found]) -> Found:
    if len(parts) == 1:
        return parts[0]
    counts = np.concatenate([np.diff(part.limits) for part in parts])
    return Found(
        np.concatenate(([0], np.cumsum(counts))),
        np.concatenate([part.distances for part in parts]),
        np.concatenate([part.ids for part in parts]),
    )


def merge_found(parts: list[Found], k: int | None) -> Found:
    """Return the k nearest (or all) of what was found in several places for the same queries."""
    if len(parts) == 1:
        return parts[0]
    if _kernel is not None:
        return _found(_kernel.merge(tuple(parts), k or _ALL))
    rows = np.concatenate([np.repeat(np.arange(len(part.limits) - 1), np.diff(part.limits)) for part in parts])
    distances = np.concatenate([part.distances for part in parts])
    ids = np.concatenate([part.ids for part in parts])
    order = np.lexsort((ids, distances, rows))
    limits = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=len(parts[0].limits) - 1))))
    if k is not None:
        ranks = np.arange(len(rows)) - limits[:-1][rows[order]]
        order = order[ranks < k]
        limits = np.concatenate(([0], np.cumsum(np.minimum(np.diff(limits), k))))
    return Found(limits, distances[order], ids[order])


def keep(offsets: Ids, ids: Ids, mask: npt.NDArray[np.bool_]) -> tuple[Ids, Ids, int]:
    """Return (offsets, ids) of groups with the ids where mask is true, and the number of groups that have none."""
    if _kernel is None:
        kept = np.concatenate(([0], np.cumsum(mask, dtype=np.int64)))[offsets]
        return kept, ids[mask], int(np.count_nonzero(kept[1:] == kept[:-1]))
    new_offsets, new_ids = np.empty_like(offsets), np.empty_like(ids)
    n_kept, n_empty = _kernel.keep(offsets, ids, mask, new_offsets, new_ids)
    return new_offsets, new_ids[:n_kept], n_empty


def build_table(words: Words, word: int, shift: int, n_bits: int, *, in_order: bool) -> Table:
    """Return the table over these bits of the words (N, n_words) uint64; N below 2**32."""
    starts = np.empty((1 << n_bits) + 1, dtype=np.uint32)
    positions = None if in_order else np.empty(len(words), dtype=np.uint32)
    _kernel.build_table(words, words.shape[1], word, shift, n_bits, starts, positions)
    return Table(word, shift, n_bits, starts, positions)


def sort_words(words: Words) -> Ids:
    """Return the stable order of codes (N, n_words) uint64 by their first word, then the next: (N,) int64."""
    if _kernel is None:
        if words.shape[1] == 1:
            return np.argsort(words[:, 0], kind="stable")
        return np.lexsort(words.T[::-1])
    order = np.empty(len(words), dtype=np.int64)
    _kernel.sort_codes(words, words.shape[1], order)
    return order


# -- threads --

_pool: ThreadPoolExecutor | None = None


def _n_threads() -> int:
    limit = os.environ.get("OMP_NUM_THREADS", "")
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(n, int(limit)) if limit.isdigit() else n)


def in_threads(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Run the tasks, side by side where there are processors, and return what they return, in their order."""
    global _pool
    if len(tasks) <= 1 or _n_threads() == 1:
        return [task() for task in tasks]
    if _pool is None:
        _pool = ThreadPoolExecutor(_n_threads(), thread_name_prefix="deephash-search")
    return list(_pool.map(lambda task: task(), tasks))


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
