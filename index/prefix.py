"""Prefixes: codes are searched by their first bits, and what is near by these is compared in full.

For nested codes, whose first bits are a good shorter code. Of others it finds as much, with more candidates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from index.groups import Distances, Groups, Ids, Words
from index.hits import found_of, sizes_of
from index.kernel import Found, merge_found
from index.structures import Arrays, MultiIndex, Scan, Structure, exact_structure

__all__ = ["PrefixIndex"]

_OVERSAMPLING = 16
# The first candidates, if more are wanted: what they give bounds the distance of others. No less than 4 times k.
_FIRST = 256
# To compare more than this share of the codes costs more than to look at all that the bound leaves.
_SHARE = 1 / 128
# Up to so many results have the candidates that the settings say; for more, all that the bound leaves may be cheaper.
_K = 16
# A bound of more than this share of the prefix leaves so many codes that a scan of the whole is faster.
_WIDE = 3 / 8
# Candidates of a block of queries, some 100 bytes each; those within a bound are taken to be a 16th of the codes.
_BLOCK = 1 << 18
_NARROWED = 16
_MOST = 1 << 40


class PrefixIndex:
    """An exact search over the first `bits` bits, a multiple of 64; the codes themselves stay where they are.

    Candidates are the `oversampling` * k codes that are nearest by their prefix (more where they hold fewer than k
    ids). Codes differ in at least as many bits as their prefixes do: the k-th result so far bounds the prefixes that
    are looked at, and an answer that this settles is exact. So is one within a radius of up to 3/8 of the prefix, and
    that to all within any radius. With an oversampling of the number of codes, every answer is.
    """

    name: ClassVar[str] = "prefix"
    exact: ClassVar[bool] = False
    keeps_empty: ClassVar[float] = 0.0

    def __init__(self, groups: Groups, places: Groups, inner: Structure, oversampling: int, recall: float) -> None:
        self.bits = 64 * places.words.shape[1]
        self.oversampling = oversampling
        self.recall = recall
        # Of each prefix, the places of the groups that have it.
        self._places = places
        self._inner = inner
        self._n_codes = len(groups.words)
        self._scan = Scan(groups.words)
        searcher = inner.searcher(places)
        self._nearest = partial(inner.find, places) if searcher is None else searcher.find

    @classmethod
    def build(
        cls,
        groups: Groups,
        n_bits: int,
        *,
        bits: int | None = None,
        oversampling: int | None = None,
        before: object = None,
    ) -> tuple[Groups, Self]:
        """Return the groups, as they are, and the index. Its recall is not known (nan) until it is measured.

        Raises:
            ValueError: bits or an oversampling that is out of range.
        """
        bits, oversampling = 64 if bits is None else bits, _OVERSAMPLING if oversampling is None else oversampling
        if bits < 64 or bits % 64 or bits >= n_bits or oversampling < 1:
            raise ValueError(
                f"prefix: bits is a multiple of 64 below the {n_bits} bits of a code, oversampling a positive integer"
            )
        columns = groups.words[:, : bits // 64]
        first = np.ones(len(columns), np.bool_)
        first[1:] = np.any(columns[1:] != columns[:-1], axis=1)
        firsts = np.append(np.flatnonzero(first), len(columns)).astype(np.int64)
        places = _places_of(np.ascontiguousarray(columns[firsts[:-1]]), firsts)
        return groups, cls(groups, places, exact_structure(places, bits), oversampling, math.nan)

    def find(self, groups: Groups, queries: Words, k: int | None, radius: int) -> Found:
        """See `Structure`."""
        n_codes, n_queries = len(groups.words), len(queries)
        left, bounds = np.arange(n_queries), np.full(n_queries, radius, np.int32)
        met = [(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))]
        scanned: list[Found] = []
        # All within a radius that leaves few, as many as wanted else.
        narrow = k is None or radius <= _WIDE * self.bits
        wanted = max(1, n_codes) if k is None or narrow else k * self.oversampling
        for asked in () if k is None else sorted({min(max(_FIRST, 4 * k), wanted), wanted}):
            if asked > _SHARE * n_codes:
                break
            open_rows = [np.empty(0, np.int64)]
            for rows, bound in _blocks(left, bounds, max(1, _BLOCK // asked)):
                done, kth, hits = self._compared(groups, queries, rows, k, bound, asked, asked >= wanted)
                met.append(hits)
                open_rows.append(rows[~done])
                bounds[rows] = kth
            left = np.sort(np.concatenate(open_rows))
        wide = bounds[left] > _WIDE * self.bits
        if wide.any():
            found = self._scan.find(groups, queries[left[wide]], k, int(bounds[left[wide]].max()))
            scanned.append(_spread(found, left[wide], n_queries))
        for rows, bound in _blocks(left[~wide], bounds, max(1, _NARROWED * _BLOCK // max(1, n_codes))):
            met.append(self._compared(groups, queries, rows, k, bound, None, True)[2])
        rows, distances, places = (np.concatenate(column) for column in zip(*met, strict=True))
        return merge_found([found_of(groups, rows, distances, places, k, n_queries), *scanned], k)

    def _compared(
        self, groups: Groups, queries: Words, rows: Ids, k: int | None, bound: int, asked: int | None, enough: bool
    ) -> tuple[npt.NDArray[np.bool_], Distances, tuple[Ids, Distances, Ids]]:
        """Return what is found among the nearest prefixes, `asked` codes of them or all within the bound.

        That is: which of these rows are done (with k ids, if that is enough, or certainly with all that belong to the
        answer), within what distance the rest of each answer lies, and (row, distance, place) of hits of the rows done.
        """
        chosen = queries[rows]
        prefixes = np.ascontiguousarray(chosen[:, : self.bits // 64])
        found = self._nearest(prefixes, asked, min(bound, self.bits))
        counts, places = np.diff(found.limits), found.ids
        entries = np.repeat(np.arange(len(rows)), counts)
        distances = _distances(groups.words, places, chosen, entries)
        inside = distances <= bound
        entries, distances, places = entries[inside], distances[inside], places[inside]
        kth, done = np.full(len(rows), bound, np.int32), np.ones(len(rows), np.bool_)
        if k is not None and asked is not None:
            n_levels = bound + 1
            sizes = sizes_of(groups, places)
            n_ids = np.bincount(entries * n_levels + distances, weights=sizes, minlength=len(rows) * n_levels)
            within = np.cumsum(n_ids.reshape(-1, n_levels), axis=1) >= k
            full = within[:, -1]
            kth[full] = np.argmax(within[full], axis=1)
            # What is not among the candidates is at least as far as the last of them.
            last = np.append(found.distances, -1)[np.maximum(found.limits[1:] - 1, 0)]
            done = (counts < asked) | (last > kth) | (full & enough)
            useful = done[entries] & (distances <= kth[entries])
            entries, distances, places = entries[useful], distances[useful], places[useful]
        return done, kth, (rows[entries], distances, places)

    def searcher(self, groups: Groups) -> None:
        """See `Structure`. The kernel searches the prefixes only."""
        return None

    def find_anew(self, groups: Groups, queries: Words, places: Ids, k: int, radius: int) -> Found:
        """See `Approximate`. Prefixes do not lead from one to others."""
        return self.find(groups, queries, k, radius)

    def settings(self) -> list[dict[str, int]]:
        """Return the parameters to choose from by their recall, from the fastest on."""
        most = int(_SHARE * self._n_codes) // _K
        values = sorted({round(2 ** (step / 2)) for step in range(2 * most.bit_length() + 1)})
        exact = max(1, self._n_codes)
        return [{"oversampling": value} for value in (*(v for v in values if v <= most), exact)]

    def parameters(self) -> dict[str, int]:
        """Return what it is searched with."""
        return {"bits": self.bits, "oversampling": self.oversampling}

    def with_settings(self, *, recall: float | None = None, **parameters: int) -> Self:
        """Return the same index with another oversampling, or with the recall that was measured."""
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        made.recall = math.nan if recall is None else recall
        made.oversampling = parameters.get("oversampling", self.oversampling)
        return made

    @property
    def n_bytes(self) -> int:
        """See `Structure`."""
        arrays = sum(array.nbytes for array in self.arrays().values())
        return self._places.ids.nbytes + arrays + self._scan.n_bytes

    def arrays(self) -> Arrays:
        """See `Structure`."""
        settings = np.array([self.oversampling, self.recall])
        own = {"prefixes": self._places.words, "firsts": self._places.offsets, "settings": settings}
        return own | dict(self._inner.arrays())

    @classmethod
    def from_arrays(cls, groups: Groups, n_bits: int, arrays: Arrays) -> Self:
        """See `Structure`."""
        (n_codes, n_words), given, none = groups.words.shape, dict(arrays), np.empty(0)
        prefixes, firsts, settings = (given.pop(name, none) for name in ("prefixes", "firsts", "settings"))
        fits = (
            [array.dtype for array in (prefixes, firsts, settings)] == [np.uint64, np.int64, np.float64]
            and prefixes.ndim == 2
            and 1 <= prefixes.shape[1] < n_words
            and (firsts.shape, settings.shape) == ((len(prefixes) + 1,), (2,))
            and prefixes.flags.c_contiguous
            and firsts.flags.c_contiguous
            and (firsts[0], firsts[-1]) == (0, n_codes)
            and bool(np.all(firsts[1:] > firsts[:-1]))
        )
        if not fits:
            raise ValueError(f"these are not the arrays of prefixes of {n_codes} codes")
        oversampling, recall = settings.tolist()
        if not 1 <= oversampling <= _MOST:
            raise ValueError("the arrays of prefixes hold an oversampling that is none")
        places = _places_of(prefixes, firsts)
        kind = MultiIndex if "starts0" in given else Scan
        inner = kind.from_arrays(places, 64 * prefixes.shape[1], given)
        return cls(groups, places, inner, int(oversampling), recall)


def _places_of(prefixes: Words, firsts: Ids) -> Groups:
    """Return the prefixes, each with the places firsts[p] ... firsts[p + 1] - 1 as its ids."""
    n_codes = int(firsts[-1])
    return Groups(prefixes, firsts, np.arange(n_codes, dtype=np.uint32 if n_codes < 1 << 32 else np.int64))


def _distances(words: Words, places: Ids, queries: Words, rows: Ids) -> Distances:
    """Return the distance of words[places[i]] to queries[rows[i]]."""
    counts = np.bitwise_count(words.take(places, axis=0) ^ queries.take(rows, axis=0))
    # Sums of short rows: einsum takes a tenth of the time of np.sum.
    distances: Distances = np.einsum("ij->i", counts, dtype=np.int32)
    return distances


def _spread(found: Found, rows: Ids, n_queries: int) -> Found:
    """Return what was found for some rows, as that of all queries."""
    counts = np.zeros(n_queries, np.int64)
    counts[rows] = np.diff(found.limits)
    return Found(np.concatenate(([0], np.cumsum(counts))), found.distances, found.ids)


def _blocks(rows: Ids, bounds: Distances, size: int) -> Iterator[tuple[Ids, int]]:
    """Yield the rows of each bound, so many at a time."""
    for bound in np.unique(bounds[rows]).tolist():
        same = rows[bounds[rows] == bound]
        for start in range(0, len(same), size):
            yield same[start : start + size], bound
