"""Segments: groups with what searches them. An index is some of them, the largest first.

New codes become a segment, which takes in the smaller ones before it: there are few, of falling sizes, and an id is
copied a few times only. Once there are many new codes, or codes without ids, beside a large segment, a thread
merges all of them while searches and changes go on.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from index import kernel
from index.choice import AUTO, Choice
from index.groups import Distances, Groups, Ids, Words
from index.kernel import Found, Searcher, merge_found
from index.structures import Structure

__all__ = ["Build", "Segment", "State", "merged"]

# A segment takes in those before it that are smaller than so many times itself.
_GROWTH = 8
# Codes beside the largest segment, and codes without ids, may be this share of it: more are merged, in the background
# from so many codes on.
_STALE_SHARE = 1 / 64
_BACKGROUND_ABOVE = 1 << 14
# A subset is built again when a larger share of its codes than this (and more than the floor) has no ids left.
_REBUILD_SHARE = 0.1
# A table of all ids in a range is looked up where ids are not much fewer.
_TABLE_UP_TO = 16
_REBUILD_ABOVE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Groups and what searches them; `n_empty` of the codes have no ids left."""

    groups: Groups
    structure: Structure
    n_empty: int = 0
    _searcher: list[Searcher | None] = field(default_factory=list, init=False, repr=False)

    @property
    def searcher(self) -> Searcher | None:
        """What the kernel searches it with, if it does; made by the first search."""
        if not self._searcher:
            self._searcher.append(self.structure.searcher(self.groups))
        return self._searcher[0]

    def __len__(self) -> int:
        return len(self.groups.words if self.groups.ids is None else self.groups.ids)

    @classmethod
    def of(cls, groups: Groups, n_bits: int, choice: Choice = AUTO, before: Segment | None = None) -> Segment:
        """Return the segment with the structure that is chosen; `before` is the one that it replaces."""
        arranged, structure = choice.build(groups, n_bits, (before.groups, before.structure) if before else None)
        n_empty = 0 if arranged is groups else int(np.count_nonzero(arranged.sizes() == 0))
        return cls(arranged, structure, n_empty)

    def find(self, queries: Words, k: int | None, radius: int) -> Found:
        """Return the k nearest ids within the radius (inclusive) of each query; with k None, all of them."""
        searcher = self.searcher
        if searcher is None:
            return self.structure.find(self.groups, queries, k, radius)
        return searcher.find(queries, k, radius)

    def without(self, ids: Ids) -> Segment:
        """Return the segment without these ids; codes stay, though none of their ids may be left."""
        mask = _outside(self.groups.ids, ids)
        if mask.all():
            return self
        offsets, kept, n_empty = kernel.keep(self.groups.offsets, self.groups.ids, mask)
        return Segment(Groups(self.groups.words, offsets, kept), self.structure, n_empty)

    def only(self, ids: Ids, build: Build) -> Segment:
        """Return the segment with these ids only; built again where that leaves many codes without ids."""
        words, mask = self.groups.words, ~_outside(self.groups.ids, ids)
        offsets, kept, n_empty = kernel.keep(self.groups.offsets, self.groups.ids, mask)
        groups = Groups(words, offsets, kept)
        if n_empty > max(_REBUILD_ABOVE, _REBUILD_SHARE * len(words)):
            return build(Segment(groups, self.structure).in_order())
        return Segment(groups, self.structure, n_empty)

    def in_order(self) -> Groups:
        """Return the groups that have ids, in the order of `Groups.of`: structures may have another one."""
        return self.groups.compact() if self.structure.exact else Groups.of(*self.groups.rows())


def _outside(ids: Ids, some: Ids) -> npt.NDArray[np.bool_]:
    """Return where ids are none of some others."""
    if not len(ids) or not len(some):
        return np.ones(len(ids), np.bool_)
    low, high = int(ids.min()), int(ids.max())
    some = some[(some >= low) & (some <= high)]
    if not len(some):
        return np.ones(len(ids), np.bool_)
    # From 0 on, where that makes it little longer: nothing has to be subtracted from all ids.
    low = low if low > len(ids) else 0
    if high - low > _TABLE_UP_TO * len(ids):
        return np.isin(ids, some, invert=True)
    table = np.ones(high - low + 1, np.bool_)
    table[some - low] = False
    return table[ids - low] if low else table[ids]


class Build(Protocol):
    """Makes the segment of some groups; `before` is the one that it replaces, all or most of whose codes it has."""

    def __call__(self, groups: Groups, *, before: Segment | None = None) -> Segment:
        """Return it."""


def merged(segments: Sequence[Segment], words: Words | None = None, ids: Ids | None = None) -> Groups:
    """Return the groups of all ids of the segments (at least one), and of those given with their codes (N, n_words)."""
    if len(segments) == 1 and ids is None:
        return segments[0].in_order()
    parts = [segment.groups.rows() for segment in segments]
    if words is not None and ids is not None:
        parts.append((words, ids))
    return Groups.of(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))


class Merge:
    """A thread that makes one segment of several."""

    def __init__(self, segments: tuple[Segment, ...], build: Build) -> None:
        self.n_segments = len(segments)
        self.result: Segment | None = None
        self._todo: tuple[tuple[Segment, ...], Build] | None = (segments, build)
        self._thread = threading.Thread(target=self._run, name="deephash-merge", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        assert self._todo is not None
        segments, build = self._todo
        try:
            self.result = build(merged(segments), before=segments[0])
        finally:
            self._todo = None

    @property
    def ended(self) -> bool:
        """Whether it is done, or will not be: without memory, or in a process that was forked from its own."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Return when it has ended."""
        self._thread.join()


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """All that a search looks at. Never changed, only replaced: readers in other threads need no lock.

    While `merge` goes on over the first segments, `removed` are the ids that have been removed from these.
    """

    segments: tuple[Segment, ...] = ()
    next_id: int = 0
    merge: Merge | None = None
    removed: tuple[Ids, ...] = ()

    def __len__(self) -> int:
        if len(self.segments) == 1:
            return len(self.segments[0])
        return sum(len(segment) for segment in self.segments)

    def search(self, queries: Any, k: Any, radius: Any, n_bits: int) -> tuple[Distances, Ids] | None:
        """Return what `HammingIndex.search` does, checked and found in one call; None where that takes more."""
        if len(self.segments) != 1 or self.merge is not None:
            return None
        searcher = self.segments[0].searcher
        return None if searcher is None else searcher.search(queries, k, radius, n_bits)

    def find(self, queries: Words, k: int | None, radius: int) -> Found:
        """Return the k nearest ids within the radius (inclusive) of each query; with k None, all of them."""
        if len(self.segments) == 1:
            return self.segments[0].find(queries, k, radius)
        parts = []
        for segment in self.segments:
            found = segment.find(queries, k, radius)
            parts.append(found)
            if k is not None and len(found.ids) == k * len(queries) > 0:
                # What is further than the k-th so far is not wanted from the others.
                radius = min(radius, int(found.distances[k - 1 :: k].max()))
        return merge_found(parts, k)

    def settled(self) -> State:
        """Return the state with what a merge that has ended has made."""
        merge = self.merge
        if merge is None or not merge.ended:
            return self
        segments = self.segments
        if merge.result is not None:
            base = merge.result
            if self.removed:
                base = base.without(np.concatenate(self.removed))
            segments = (base, *segments[merge.n_segments :])
        return State(tuple(filter(len, segments)), self.next_id)

    def without(self, ids: Ids) -> State:
        """Return the state without these ids."""
        segments = tuple(segment.without(ids) for segment in self.segments)
        if self.merge is not None:
            return replace(self, segments=segments, removed=(*self.removed, ids))
        return replace(self, segments=tuple(filter(len, segments)))

    def plus(self, words: Words, ids: Ids, build: Build, beside: Build) -> State:
        """Return the state with these codes and their ids, which are not in it; `beside` builds all but the first."""
        cut, n_new = len(self.segments), len(ids)
        # What is being merged stays as it is, and so does what would take long.
        least = self.merge.n_segments if self.merge is not None else 0
        while cut > least and len(self.segments[cut - 1]) < _GROWTH * n_new:
            size = len(self.segments[cut - 1])
            if cut == 1 and size >= _BACKGROUND_ABOVE:
                break
            cut -= 1
            n_new += size
        groups = merged(self.segments[cut:], words, ids)
        segment = beside(groups) if cut else build(groups, before=self.segments[0] if self.segments else None)
        next_id = max(self.next_id, int(ids.max()) + 1)
        return replace(self, segments=(*self.segments[:cut], segment), next_id=next_id)

    def tended(self, build: Build) -> State:
        """Return the state with a merge begun, if there is much to be gained by one."""
        if self.merge is not None or not self.segments or not self._stale:
            return self
        if sum(len(segment.groups.words) for segment in self.segments) < _BACKGROUND_ABOVE:
            return State((build(merged(self.segments), before=self.segments[0]),), self.next_id)
        return replace(self, merge=Merge(self.segments, build))

    def compact(self, build: Build) -> State:
        """Return the state with all ids in one segment."""
        if self.merge is not None:
            self.merge.wait()
        state = self.settled()
        if not state.segments or (len(state.segments) == 1 and state._n_stale <= 0):
            return state
        return State((build(merged(state.segments), before=state.segments[0]),), state.next_id)

    @property
    def _stale(self) -> bool:
        return self._n_stale > max(_REBUILD_ABOVE, _STALE_SHARE * len(self.segments[0].groups.words))

    @property
    def _n_stale(self) -> float:
        base = self.segments[0]
        n_stale = sum(len(segment.groups.words) for segment in self.segments[1:])
        n_stale += sum(segment.n_empty for segment in self.segments)
        return n_stale - base.structure.keeps_empty * len(base.groups.words)
