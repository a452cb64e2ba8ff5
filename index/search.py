"""Hamming search in memory: codes and ids that come and go. No files, no catalogue."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import partial

import numpy as np
import numpy.typing as npt

from index.choice import AUTO, Choice
from index.codes import Codes, check_codes, check_n_bits, n_code_bytes, pack_bits
from index.groups import Distances, Groups, Ids, to_codes, to_words
from index.kernel import Found
from index.reranking import OVERSAMPLING, Reranked, check_logits, check_oversampling, rerank
from index.segments import Build, Segment, State, merged
from index.trials import Trial, measured_recall, try_structures

__all__ = ["HammingIndex", "check_k", "check_radius"]


class HammingIndex:
    """Search by Hamming distance; results are ordered by (distance, id), and exact unless another structure is chosen.

    Codes are (N, ceil(n_bits / 8)) uint8 arrays as `pack_bits` makes them, with any n_bits from 8 to 1024; ids are
    int64 and at least 0. Any number of threads may search while others add or remove: a search sees a change whole, or
    not at all.

    `structure`: "auto", "flat" and "mih" are exact; "ivf", "hnsw", "prefix" and binary factory strings of faiss are
    approximate: see `Choice`. `recall` is what an approximate one is tuned to (by default 0.95): the share of the true
    k nearest that are found, of any equally near ones. What it gives has true distances, also within a radius, where
    some may lack. Small collections, recent additions and filters that leave little are searched exactly, whatever is
    chosen.
    """

    def __init__(self, n_bits: int, structure: str | Choice = AUTO, *, recall: float | None = None) -> None:
        self.n_bits = check_n_bits(n_bits)
        self._state = State()
        self._choose(Choice.of(structure, recall))
        self._build_exact: Build = partial(Segment.of, n_bits=self.n_bits, choice=AUTO)
        self._writing = threading.Lock()

    def _choose(self, choice: Choice) -> None:
        self.choice = choice
        self._build: Build = partial(Segment.of, n_bits=self.n_bits, choice=choice)

    @classmethod
    def from_groups(cls, n_bits: int, codes: Codes, offsets: Ids, ids: Ids) -> HammingIndex:
        """Return an index of what `groups` gave. The arrays are trusted, and must not change afterwards."""
        index = cls(n_bits)
        segment = Segment.of(Groups(to_words(codes), offsets, ids), n_bits)
        index._state = State((segment,), int(ids.max()) + 1 if len(ids) else 0)
        return index

    def groups(self) -> tuple[Codes, Ids, Ids]:
        """Return (distinct codes, offsets, ids): the ids of codes[g] are ids[offsets[g]:offsets[g + 1]], ascending."""
        groups = self._merged()
        return to_codes(groups.words, n_code_bytes(self.n_bits)), groups.offsets, groups.ids

    @property
    def segments(self) -> tuple[Segment, ...]:
        """What is searched: groups, and what searches them."""
        return self._state.segments

    @classmethod
    def from_segments(cls, n_bits: int, segments: Iterable[Segment], next_id: int) -> HammingIndex:
        """Return an index of these segments, which are trusted; new ids will count from next_id on."""
        index = cls(n_bits)
        index._state = State(tuple(segments), next_id)
        return index

    def _merged(self) -> Groups:
        if self._state.segments:
            return merged(self._state.segments)
        nothing = np.empty((0, n_code_bytes(self.n_bits)), np.uint8)
        return Groups(to_words(nothing), np.zeros(1, np.int64), np.empty(0, np.int64))

    def compact(self) -> None:
        """Merge what was added and removed since now, where that would go on in the background: it searches fastest so.

        A merge that goes on is waited for; other threads search meanwhile.
        """
        with self._writing:
            self._state = self._state.compact(self._build)

    def settle(self) -> None:
        """Wait until nothing is being merged in the background."""
        while (merge := self._state.merge) is not None:
            merge.wait()
            self._settled()

    def copy(self) -> HammingIndex:
        """Return an index that shares the (immutable) content and can be changed on its own, at no cost."""
        index = HammingIndex(self.n_bits, self.choice)
        index._state = self._state
        return index

    def restructured(
        self, structure: str | Choice, *, recall: float | None = None, retune: bool = True
    ) -> HammingIndex:
        """Return an index of the same codes and ids with another structure.

        It is built unless this index has it already; with `retune`, also where another recall was wanted of that.
        """
        index = HammingIndex(self.n_bits, structure, recall=recall)
        state = self._state
        index._state = state
        if not state.segments or (index.choice == self.choice and retune):
            return index
        base = state.segments[0]
        if not index.choice.is_met_by(base.groups, base.structure) or (retune and not base.structure.exact):
            index._state = State((index._build(merged(state.segments), before=state.segments[0]),), state.next_id)
        return index

    @property
    def exact(self) -> bool:
        """Whether the answer is that of brute force."""
        return all(segment.structure.exact for segment in self._state.segments)

    @property
    def n_bytes(self) -> int:
        """Bytes in memory."""
        return sum(segment.groups.n_bytes + segment.structure.n_bytes for segment in self._state.segments)

    def recall(self, k: int = 10, *, queries: npt.ArrayLike | None = None) -> float:
        """Return the share of the true k nearest that a search finds; equally near ones count as each other.

        Measured with the given queries, or with a seeded sample of the index's own codes, each as if it were not in it.
        """
        words = None if queries is None else to_words(check_codes(queries, self.n_bits, name="queries"))
        return measured_recall(self._state.segments, self.n_bits, check_k(k), words)

    def tune(self, recall: float = 0.95, *, structures: Iterable[str] = ("flat", "mih", "ivf")) -> list[Trial]:
        """Try structures, go on with the fastest that reaches the recall (of the 10 nearest), and return all trials.

        An exact one is taken ("auto") unless an approximate one is a quarter faster. "hnsw" is tried where it is asked
        for: it takes minutes to build for each million codes. The best is first, then the others by their time.

        Raises:
            ValueError: no such structure, or a recall that is none.
        """
        choices = [Choice.of(structure, recall) for structure in structures]
        with self._writing:
            state = self._state.compact(self._build)
            trials, best = try_structures(state.segments[:1], self.n_bits, choices)
            if best is not None:
                self._choose(AUTO if trials[0].exact and len(choices) > 1 else trials[0].choice)
                state = State((best,), state.next_id)
            self._state = state
        return trials

    def subset(self, ids: npt.ArrayLike) -> HammingIndex:
        """Return an index of those of the given ids that are here."""
        wanted = _check_ids(ids)
        state = self._state
        index = HammingIndex(self.n_bits)
        kept = (segment.only(wanted, self._build_exact) for segment in state.segments)
        index._state = State(tuple(filter(len, kept)), state.next_id)
        return index

    def __len__(self) -> int:
        return len(self._state)

    def __contains__(self, id: object) -> bool:
        return any(bool(np.any(segment.groups.ids == id)) for segment in self._state.segments)

    @property
    def n_distinct(self) -> int:
        """The number of distinct codes."""
        return len(self._merged().words)

    def add(self, codes: npt.ArrayLike, ids: npt.ArrayLike | None = None) -> Ids:
        """Add codes and return their ids (N,) int64; without `ids` these continue from the largest ever used.

        Raises:
            ValueError: wrong codes, or ids that are negative, given twice or in the index already; nothing is added.
        """
        return self.update(codes, ids)

    def remove(self, ids: npt.ArrayLike) -> int:
        """Remove ids and return how many there were; ids that are not in the index are passed over."""
        before = len(self)
        self.update(np.empty((0, n_code_bytes(self.n_bits)), np.uint8), remove=ids)
        return before - len(self)

    def update(self, codes: npt.ArrayLike, ids: npt.ArrayLike | None = None, *, remove: npt.ArrayLike = ()) -> Ids:
        """Remove ids, then add codes, as one change: a search in another thread sees both or neither.

        Raises:
            ValueError: as `add`.
        """
        array = check_codes(codes, self.n_bits)
        removed = _check_ids(remove)
        with self._writing:
            state = self._state.settled()
            if len(removed):
                state = state.without(removed)
            added = np.arange(state.next_id, state.next_id + len(array)) if ids is None else _check_ids(ids)
            if len(added) != len(array):
                raise ValueError(f"{len(array)} codes came with {len(added)} ids: pass one id for each code")
            if ids is not None:
                self._check_new(added, state.segments, state.next_id)
            if len(array):
                state = state.plus(to_words(array), added, self._build, self._build_exact)
            self._state = state.tended(self._build)
        return added

    @staticmethod
    def _check_new(added: Ids, segments: tuple[Segment, ...], next_id: int) -> None:
        unique, counts = np.unique(added, return_counts=True)
        if len(unique) != len(added):
            raise ValueError(f"id {unique[counts > 1][0]} is given twice: ids are unique")
        if len(unique) and unique[0] < next_id:
            for segment in segments:
                taken = np.isin(unique, segment.groups.ids)
                if taken.any():
                    raise ValueError(f"id {unique[taken][0]} is in the index already: remove it first, or give no ids")

    def search(
        self, queries: npt.ArrayLike, k: int, *, radius: int | None = None, allowed: npt.ArrayLike | None = None
    ) -> tuple[Distances, Ids]:
        """Return the k nearest of each query: distances (Q, m) int32 and ids (Q, m) int64, by (distance, id).

        m is the smaller of k and the number of ids considered. With a radius (inclusive) only results within it are
        given, and rows that have fewer than m end in distance -1 and id -1. `allowed`: consider these ids only.

        Raises:
            ValueError: queries that are no codes of this index, k below 1, or a negative radius.
        """
        if allowed is None and (answer := self._state.search(queries, k, radius, self.n_bits)) is not None:
            return answer
        array = check_codes(queries, self.n_bits, name="queries")
        k, longest = check_k(k), self._check_radius(radius)
        state = self._settled() if allowed is None else self.subset(allowed)._state
        m = min(k, len(state))
        if m == 0 or len(array) == 0:
            return np.empty((len(array), m), np.int32), np.empty((len(array), m), np.int64)
        found = state.find(to_words(array), m, longest)
        if len(found.ids) == len(array) * m:
            return found.distances.reshape(-1, m), found.ids.reshape(-1, m)
        distances, ids = np.full((len(array), m), -1, np.int32), np.full((len(array), m), -1, np.int64)
        real = np.arange(m) < np.diff(found.limits)[:, None]
        distances[real], ids[real] = found.distances, found.ids
        return distances, ids

    def range_search(
        self, queries: npt.ArrayLike, radius: int, *, allowed: npt.ArrayLike | None = None
    ) -> tuple[Ids, Distances, Ids]:
        """Return all within the radius (inclusive): (limits (Q + 1,) int64, distances int32, ids int64).

        The results of query q are distances[limits[q]:limits[q + 1]] and the ids beside them, by (distance, id).

        Raises:
            ValueError: as `search`.
        """
        array = check_codes(queries, self.n_bits, name="queries")
        longest = self._check_radius(radius)
        state = self._settled() if allowed is None else self.subset(allowed)._state
        return _find(state, array, None, longest)

    def search_logits(
        self, logits: npt.ArrayLike, k: int | None = 10, *, oversampling: int = OVERSAMPLING, radius: int | None = None
    ) -> Reranked:
        """Return the k nearest of each query by its logits (Q, n_bits) float, by (asymmetric distance, id).

        Candidates are all that are as near by Hamming distance as the (k * oversampling)-th is; with k None, all within
        the radius. m, radius (of Hamming distance, inclusive) and what is not found are as in `search`.

        Raises:
            ValueError: wrong logits, k or oversampling below 1, a negative radius, or neither k nor radius.
        """
        array, oversampling = check_logits(logits, self.n_bits), check_oversampling(oversampling)
        if k is None and radius is None:
            raise ValueError("neither k nor radius is given: pass one, or both")
        longest, state, queries = self._check_radius(radius), self._settled(), pack_bits(array > 0)
        bounds = np.full(len(array), longest, np.int32)
        m = None
        at_least = np.zeros(len(array), np.int64)
        if k is not None:
            m = min(check_k(k), len(state))
            if m:
                found = _find(state, queries, min(m * oversampling, len(state)), longest)
                last = np.append(found.distances, -1)[found.limits[1:] - 1]
                bounds = np.where(found.limits[1:] > found.limits[:-1], last, -1)
                at_least = np.minimum(np.diff(found.limits), m)
        rows = rerank(state.segments, array, to_words(queries), bounds, m, at_least)
        width = max((len(row[2]) for row in rows), default=0) if m is None else m
        asymmetric = np.full((len(rows), width), np.inf, np.float32)
        distances, ids = np.full((len(rows), width), -1, np.int32), np.full((len(rows), width), -1, np.int64)
        for number, row in enumerate(rows):
            n_found = len(row[2])
            asymmetric[number, :n_found], distances[number, :n_found], ids[number, :n_found] = row
        return Reranked(asymmetric, distances, ids)

    def _settled(self) -> State:
        """Return the state, with what a merge has made as soon as it has ended."""
        if self._state.merge is not None and self._state.merge.ended:
            with self._writing:
                self._state = self._state.settled().tended(self._build)
        return self._state

    def _check_radius(self, radius: int | None) -> int:
        return self.n_bits if radius is None else min(check_radius(radius), self.n_bits)


def check_k(k: int) -> int:
    """Return k as an int.

    Raises:
        ValueError: k is not a positive integer.
    """
    if type(k) is int and k > 0:
        return k
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k is {k!r}: use a positive integer")
    return int(k)


def check_radius(radius: int) -> int:
    """Return radius as an int.

    Raises:
        ValueError: radius is not an integer of at least 0.
    """
    if isinstance(radius, bool) or not isinstance(radius, (int, np.integer)) or radius < 0:
        raise ValueError(f"radius is {radius!r}: use an integer of at least 0 (a number of bits)")
    return int(radius)


def _check_ids(ids: npt.ArrayLike) -> Ids:
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"ids of shape {array.shape} and dtype {array.dtype}: pass integers, (N,)")
    if array.size and (array.min() < 0 or array.max() > np.iinfo(np.int64).max):
        raise ValueError("ids must lie between 0 and 2**63 - 1")
    return array.astype(np.int64)


def _find(state: State, queries: Codes, k: int | None, radius: int) -> Found:
    if not state.segments or not len(queries):
        return Found(np.zeros(len(queries) + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))
    return state.find(to_words(queries), k, radius)
