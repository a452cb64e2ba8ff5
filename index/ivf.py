"""Lists: codes are kept by the nearest of some centroids, and a query looks into the lists of the nearest ones.

Approximate, and fast where codes have structure: the longer the codes, the more so. Centroids are bitwise majorities of
their lists, in rounds (k-means with Hamming distance); the sample that they are fitted to is seeded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from index import kernel
from index.codes import hamming_distances
from index.groups import Distances, Groups, Ids, Words
from index.hits import found_of, sizes_of
from index.kernel import Found, Lists, Searcher
from index.structures import Arrays, Scan

__all__ = ["InvertedLists", "assigned", "majorities"]

_ROUNDS = 10
_SAMPLE_A_LIST = 40
# Queries that are compared with all centroids at once.
_CHUNK = 4096
_NEVER = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True, eq=False)
class InvertedLists:
    """An inverted file. Its groups are in the order of its lists: `build` returns them so.

    Lists are looked into from the nearest centroid on, at most `nprobe` of them (more where they hold fewer than k
    ids), until a centroid is further than the nearest one by more than `reach` percent of the distance of the k-th
    result so far: queries that lie well within a list stop early. With a reach of 100 times the number of bits, all
    that can belong to the answer is looked at.
    """

    name: ClassVar[str] = "ivf"
    exact: ClassVar[bool] = False
    keeps_empty: ClassVar[float] = 0.0

    centroids: Words
    starts: Ids
    radii: npt.NDArray[np.int32]
    nprobe: int
    reach: int
    recall: float

    @classmethod
    def build(
        cls,
        groups: Groups,
        n_bits: int,
        *,
        lists: int | None = None,
        nprobe: int | None = None,
        reach: int | None = None,
        before: tuple[Groups, object] | None = None,
    ) -> tuple[Groups, Self]:
        """Return the groups in the order of lists, and the lists.

        `before`: groups and the structure that is to be continued: its centroids stay, where as many are wanted.
        Its recall is not known (nan) until it is measured.

        Raises:
            ValueError: a number of lists, nprobe or reach that is out of range.
        """
        n_lists = lists or 1 << max(0, round(math.log2(2 * math.sqrt(max(1, len(groups.words))))))
        if n_lists < 1 or (nprobe is not None and nprobe < 1) or (reach is not None and reach < 0):
            raise ValueError("ivf: lists and nprobe are positive integers, reach is an integer of at least 0")
        n_lists = min(n_lists, max(1, len(groups.words)))
        old = before[1] if before else None
        if isinstance(old, InvertedLists) and len(old.centroids) == n_lists:
            centroids = old.centroids
        else:
            centroids = majorities(groups.words, n_lists)
        distances, nearest = assigned(centroids, groups.words)
        order = np.argsort(nearest, kind="stable")
        starts = np.concatenate(([0], np.cumsum(np.bincount(nearest, minlength=n_lists)))).astype(np.int64)
        radii = np.zeros(n_lists, np.int32)
        np.maximum.at(radii, nearest, distances)
        most = 100 * n_bits if reach is None else reach
        made = cls(centroids, starts, radii, nprobe or n_lists, most, math.nan)
        return groups.reordered(order), made

    def find(self, groups: Groups, queries: Words, k: int | None, radius: int) -> Found:
        """See `Structure`."""
        searcher = self.searcher(groups)
        return self._find(groups, queries, k, radius) if searcher is None else searcher.find(queries, k, radius)

    def searcher(self, groups: Groups) -> Searcher | None:
        """See `Structure`."""
        if not kernel.AVAILABLE:
            return None
        lists = Lists(self.centroids, self.starts, self.radii, self.nprobe, self.reach)
        return Searcher(groups, lists=lists)

    def find_anew(self, groups: Groups, queries: Words, places: Ids, k: int, radius: int) -> Found:
        """See `Approximate`. Lists do not lead from one of their codes to others."""
        return self.find(groups, queries, k, radius)

    def _find(self, groups: Groups, queries: Words, k: int | None, radius: int) -> Found:
        """Return what `find` does, without the kernel: some lists at a time, twice as many each time."""
        rows, distances, places = [np.empty(0, np.int64)], [np.empty(0, np.int32)], [np.empty(0, np.int64)]
        for row, query in enumerate(queries):
            to_centroids = _distances(query, self.centroids)
            order = np.argsort(to_centroids, kind="stable")
            to_centroids = to_centroids[order]
            bound, at, step = radius, 0, 1
            met: list[tuple[Distances, Ids]] = []
            while at < len(order) and 100 * int(to_centroids[at] - to_centroids[0]) <= self.reach * bound:
                if at >= self.nprobe and (k is None or _kth_distance(groups, met, k) < _NEVER):
                    break
                step = min(step, self.nprobe - at) if at < self.nprobe else step
                chosen = order[at : at + step]
                chosen = chosen[to_centroids[at : at + step] - self.radii[chosen] <= bound]
                at, step = at + step, 2 * step
                ranges = [np.arange(self.starts[place], self.starts[place + 1]) for place in chosen]
                inside = np.concatenate([np.empty(0, np.int64), *ranges])
                inside = inside[sizes_of(groups, inside) > 0]
                near = _distances(query, groups.words[inside])
                met.append((near[near <= bound], inside[near <= bound]))
                bound = min(bound, _kth_distance(groups, met, k))
            for near, inside in met:
                rows.append(np.full(len(inside), row))
                distances.append(near)
                places.append(inside)
        joined = np.concatenate(rows), np.concatenate(distances), np.concatenate(places)
        return found_of(groups, *joined, k, len(queries))

    def settings(self) -> list[dict[str, int]]:
        """Return the parameters to choose from by their recall, from the fastest on."""
        exact = 100 * 64 * self.centroids.shape[1]
        return [{"reach": reach} for reach in (*range(0, 100, 4), *range(100, 320, 20), exact)]

    def parameters(self) -> dict[str, int]:
        """Return what it is searched with."""
        most = {} if self.nprobe >= len(self.centroids) else {"nprobe": self.nprobe}
        return {"lists": len(self.centroids)} | most | {"reach": self.reach}

    def with_settings(self, *, recall: float | None = None, **parameters: int) -> Self:
        """Return the same lists with other parameters, or with the recall that was measured."""
        return replace(self, recall=math.nan if recall is None else recall, **parameters)  # type: ignore[arg-type]

    @property
    def n_bytes(self) -> int:
        """See `Structure`."""
        return sum(array.nbytes for array in self.arrays().values())

    def arrays(self) -> Arrays:
        """See `Structure`."""
        settings = np.array([self.nprobe, self.reach, self.recall])
        return {"centroids": self.centroids, "starts": self.starts, "radii": self.radii, "settings": settings}

    @classmethod
    def from_arrays(cls, groups: Groups, n_bits: int, arrays: Arrays) -> Self:
        """See `Structure`."""
        n_lists = len(arrays["radii"]) if "radii" in arrays else 0
        wanted: dict[str, tuple[Any, tuple[int, ...]]] = {
            "centroids": (np.uint64, (n_lists, groups.words.shape[1])),
            "starts": (np.int64, (n_lists + 1,)),
            "radii": (np.int32, (n_lists,)),
            "settings": (np.float64, (3,)),
        }
        fits = arrays.keys() == wanted.keys() and all(
            array.dtype == wanted[name][0] and array.shape == wanted[name][1] and array.flags.c_contiguous
            for name, array in arrays.items()
        )
        if not fits:
            raise ValueError(f"these are not the arrays of lists of {len(groups.words)} codes")
        nprobe, reach, recall = arrays["settings"].tolist()
        if not (1 <= nprobe <= n_lists and 0 <= reach <= _NEVER):
            raise ValueError("the arrays of lists hold settings that are none")
        return cls(arrays["centroids"], arrays["starts"], arrays["radii"], int(nprobe), int(reach), recall)


def _distances(query: Words, words: Words) -> Distances:
    row: Distances = hamming_distances(query[None].view(np.uint8), np.ascontiguousarray(words).view(np.uint8))[0]
    return row


def _kth_distance(groups: Groups, met: list[tuple[Distances, Ids]], k: int | None) -> int:
    """Return the distance within which there are k ids, or a large number."""
    if k is None:
        return int(_NEVER)
    near, inside = (np.concatenate(column) for column in zip(*met, strict=True))
    counts = np.cumsum(np.bincount(near, weights=sizes_of(groups, inside)))
    return int(np.argmax(counts >= k)) if len(counts) and counts[-1] >= k else int(_NEVER)


def assigned(centroids: Words, words: Words) -> tuple[Distances, Ids]:
    """Return the distance to the nearest centroid, and its place; of equally near ones the first."""
    scan, targets = Scan(centroids), Groups(centroids, np.empty(0, np.int64), np.empty(0, np.int64)).numbered()
    longest = 64 * centroids.shape[1]
    parts = [scan.find(targets, words[at : at + _CHUNK], 1, longest) for at in range(0, len(words), _CHUNK)]
    if not parts:
        return np.empty(0, np.int32), np.empty(0, np.int64)
    return np.concatenate([part.distances for part in parts]), np.concatenate([part.ids for part in parts])


def majorities(words: Words, n_lists: int) -> Words:
    """Return bitwise majorities of lists of a sample: (n_lists, n_words)."""
    rng = np.random.default_rng(0)
    n_sample = min(len(words), _SAMPLE_A_LIST * n_lists)
    sample = words[np.sort(rng.choice(len(words), n_sample, replace=False))] if n_sample < len(words) else words
    if n_sample == 0:
        return np.zeros((n_lists, words.shape[1]), np.uint64)
    centroids = np.ascontiguousarray(sample[rng.choice(n_sample, n_lists, replace=n_sample < n_lists)])
    for _ in range(_ROUNDS):
        _, nearest = assigned(centroids, sample)
        order = np.argsort(nearest, kind="stable")
        counts = np.bincount(nearest, minlength=n_lists)
        used = np.flatnonzero(counts)
        first = (np.cumsum(counts) - counts)[used]
        bits_of_sample = np.ascontiguousarray(sample[order]).view(np.uint8)
        moved = centroids.view(np.uint8).copy()
        for byte in range(moved.shape[1]):
            ones = np.add.reduceat(np.unpackbits(bits_of_sample[:, byte : byte + 1], axis=1), first, 0, np.int32)
            twice, of = 2 * ones, counts[used][:, None]
            # Where it is a tie, the bit stays.
            before = np.unpackbits(moved[used, byte : byte + 1], axis=1)
            moved[used, byte] = np.packbits((twice > of) | ((twice == of) & (before == 1)), axis=1)[:, 0]
        if np.array_equal(moved.view(np.uint64), centroids):
            break
        centroids = moved.view(np.uint64)
    return centroids
