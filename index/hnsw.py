"""A navigable small-world graph over distinct codes: faiss builds it, the kernel walks it.

Approximate. It takes long to build, and much memory; lists (`ivf`) and tables (`mih`) are faster on codes with
structure. It is for long codes without any.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from index import kernel
from index.groups import Groups, Ids, Words
from index.kernel import Found, Graph, Searcher
from index.structures import Arrays

__all__ = ["NavigableGraph"]

_LINKS = 16


@dataclass(frozen=True, slots=True, eq=False)
class NavigableGraph:
    """A hierarchical navigable graph with `m` links a code and level, twice as many in the lowest; needs the kernel.

    A search looks at the links of the `ef` nearest codes that it meets, and for all within a radius at those of all
    within it. Codes without ids stay in the graph as ways to others; equal ones, which would fill each other's links,
    are one. Malkov & Yashunin, "Efficient and robust approximate nearest neighbor search using hierarchical navigable
    small world graphs", 2018.
    """

    name: ClassVar[str] = "hnsw"
    exact: ClassVar[bool] = False
    keeps_empty: ClassVar[float] = 0.33

    links: npt.NDArray[np.int32]
    starts: Ids
    m: int
    entry: int
    top: int
    ef: int
    recall: float

    @classmethod
    def build(
        cls,
        groups: Groups,
        n_bits: int,
        *,
        m: int | None = None,
        ef: int | None = None,
        before: tuple[Groups, object] | None = None,
    ) -> tuple[Groups, NavigableGraph]:
        """Return the groups in the order of the graph, and the graph: by place, the links of groups[place].

        `before`: the (groups, graph) that is to be continued; codes that it lacks are added to it, unless too many of
        its own are gone. Its recall is not known (nan) until it is measured.

        Raises:
            ValueError: a number of links or an ef that is out of range.
        """
        m, ef = m or _LINKS, ef or 64
        if not 2 <= m <= 512 or ef < 1:
            raise ValueError("hnsw: m is from 2 to 512, ef a positive integer")
        old = _continued(before, groups, m)
        if old is None:
            return groups, cls._of(_built(groups.words, m), m, ef)
        graph, known = old
        merged = Groups.of(np.concatenate([known, groups.words]), np.arange(len(known) + len(groups.words)))
        # A code that is in both has two members, the old place first; one that is gone, or new, has one.
        first, sizes = merged.ids[merged.offsets[:-1]], merged.sizes()
        place_of = np.full(len(groups.words), -1, np.int64)
        both = sizes == 2
        place_of[merged.ids[merged.offsets[:-1][both] + 1] - len(known)] = first[both]
        fresh = np.flatnonzero(place_of < 0)
        place_of[fresh] = len(known) + np.arange(len(fresh))
        sizes = np.zeros(len(known) + len(fresh), np.int64)
        sizes[place_of] = groups.sizes()
        order = np.argsort(place_of)
        words = np.concatenate([known, groups.words[fresh]])
        arranged = Groups(words, np.concatenate(([0], np.cumsum(sizes))), groups.reordered(order).ids)
        if not len(fresh):
            return arranged, replace(graph, ef=ef, recall=math.nan)
        return arranged, cls._of(_extended(graph, known, groups.words[fresh]), m, ef)

    @classmethod
    def _of(cls, index: Any, m: int, ef: int) -> Self:
        import faiss

        graph = index.hnsw
        links = faiss.vector_to_array(graph.neighbors)
        starts = faiss.vector_to_array(graph.offsets).astype(np.int64)
        return cls(links, starts, m, int(graph.entry_point), int(graph.max_level), ef, math.nan)

    def find(self, groups: Groups, queries: Words, k: int | None, radius: int) -> Found:
        """See `Structure`."""
        return self.searcher(groups).find(queries, k, radius)

    def searcher(self, groups: Groups) -> Searcher:
        """See `Structure`."""
        return Searcher(groups, graph=Graph(self.links, self.starts, self.m, self.entry, self.top, self.ef))

    def find_anew(self, groups: Groups, queries: Words, places: Ids, k: int, radius: int) -> Found:
        """See `Approximate`. The walk does not enter the query's own place, whose links lead to all that is near."""
        return self.searcher(groups).find(queries, k, radius, np.ascontiguousarray(places, np.int64))

    def settings(self) -> list[dict[str, int]]:
        """Return the parameters to choose from by their recall, from the fastest on."""
        steps = range(4 * int(math.log2(max(16, len(self.starts)))))
        return [{"ef": ef} for ef in sorted({round(8 * 2 ** (step / 4)) for step in steps})]

    def parameters(self) -> dict[str, int]:
        """Return what it is searched with."""
        return {"m": self.m, "ef": self.ef}

    def with_settings(self, *, recall: float | None = None, **parameters: int) -> Self:
        """Return the same graph with other parameters, or with the recall that was measured."""
        return replace(self, recall=math.nan if recall is None else recall, **parameters)  # type: ignore[arg-type]

    @property
    def n_bytes(self) -> int:
        """See `Structure`."""
        return self.links.nbytes + self.starts.nbytes

    def arrays(self) -> Arrays:
        """See `Structure`."""
        settings = np.array([self.m, self.entry, self.top, self.ef, self.recall])
        return {"links": self.links, "starts": self.starts, "settings": settings}

    @classmethod
    def from_arrays(cls, groups: Groups, n_bits: int, arrays: Arrays) -> Self:
        """See `Structure`."""
        if not kernel.AVAILABLE:
            raise ValueError("a graph needs the compiled kernel")
        n_codes, given = len(groups.words), dict(arrays)
        links, starts, settings = (given.pop(name, np.empty(0)) for name in ("links", "starts", "settings"))
        fits = (
            not given
            and [array.dtype for array in (links, starts, settings)] == [np.int32, np.int64, np.float64]
            and (links.ndim, starts.shape, settings.shape) == (1, (n_codes + 1,), (5,))
            and links.flags.c_contiguous
            and starts.flags.c_contiguous
        )
        if not fits:
            raise ValueError(f"these are not the arrays of a graph of {n_codes} codes")
        m, entry, top, ef, recall = settings.tolist()
        if not (2 <= m <= 512 and 0 <= entry < n_codes and 0 <= top <= 64 and 1 <= ef <= 1 << 31):
            raise ValueError("the arrays of a graph hold settings that are none")
        return cls(links, starts, int(m), int(entry), int(top), int(ef), recall)


def _continued(before: tuple[Groups, object] | None, groups: Groups, m: int) -> tuple[NavigableGraph, Words] | None:
    """Return the graph to continue and its words, or None where a new one is better."""
    if before is None:
        return None
    old, graph = before
    if not isinstance(graph, NavigableGraph) or graph.m != m:
        return None
    n_gone = int(np.count_nonzero(old.sizes() == 0))
    # What a new graph would cost less than: most codes are there already, and are still wanted.
    enough = len(old.words) >= 0.5 * len(groups.words) and n_gone <= NavigableGraph.keeps_empty * len(old.words)
    return (graph, old.words) if enough else None


def _built(words: Words, m: int) -> Any:
    import faiss  # imported here: `import index` must stay fast

    index = faiss.IndexBinaryHNSW(64 * words.shape[1], m)
    index.add(words.view(np.uint8))
    return index


def _extended(graph: NavigableGraph, words: Words, fresh: Words) -> Any:
    """Return faiss's index of the graph, with more codes."""
    import faiss

    index = faiss.IndexBinaryHNSW(64 * words.shape[1], graph.m)
    faiss.downcast_IndexBinary(index.storage).add(np.ascontiguousarray(words).view(np.uint8))
    index.ntotal = len(words)
    links, starts, n = np.array(graph.links), np.array(graph.starts), len(words)
    sizes = np.diff(starts)
    # Whatever a file held: faiss does not look where a link leads.
    sound = starts[0] == 0 and starts[-1] == len(links) and np.all(sizes >= 2 * graph.m) and len(sizes) == n
    if not sound or np.any(sizes % graph.m) or links.min(initial=0) < -1 or links.max(initial=-1) >= n:
        return _built(np.concatenate([words, fresh]), graph.m)
    levels = (sizes // graph.m - 1).astype(np.int32)
    faiss.copy_array_to_vector(levels, index.hnsw.levels)
    faiss.copy_array_to_vector(starts.astype(np.uint64), index.hnsw.offsets)
    faiss.copy_array_to_vector(links, index.hnsw.neighbors)
    index.hnsw.entry_point, index.hnsw.max_level = graph.entry, graph.top
    if len(fresh):
        index.add(np.ascontiguousarray(fresh).view(np.uint8))
    return index
