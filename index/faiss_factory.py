"""Binary indexes of faiss by their factory strings, such as BIVF4096 or BHash4x16, for those who know them.

Approximate, all of them but BFlat. BHNSW32 is not among them: it is `hnsw` with 32 links. faiss's index holds the
distinct codes; ids, removals and order are ours.
"""

from __future__ import annotations

import math
import re
import threading
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from index.groups import Distances, Groups, Ids, Words
from index.hits import found_of, sizes_of
from index.kernel import Found
from index.structures import Arrays

__all__ = ["FaissIndex"]

_FACTORY = re.compile(r"B(Flat|IVF\d+(_HNSW\d+)?|Hash\d+(x\d+)?)")
_POINTS_A_LIST = 40


class FaissIndex:
    """An index that faiss makes of a factory string, and one parameter of its search: nprobe or flips.

    faiss cannot remove from all of these, and does not count ids: it is asked for more codes until the ids suffice.
    """

    name: ClassVar[str] = "faiss"
    exact: ClassVar[bool] = False
    keeps_empty: ClassVar[float] = 0.0

    def __init__(self, index: Any, factory: str, value: int, recall: float) -> None:
        self.factory = factory
        self.value = value
        self.recall = recall
        self._index = index
        # The parameter of hash tables is the index's own.
        self._setting: threading.Lock | None = threading.Lock() if "Hash" in factory else None

    @staticmethod
    def takes(factory: str) -> bool:
        """Return whether this is a factory string."""
        return _FACTORY.fullmatch(factory) is not None

    @classmethod
    def build(
        cls, groups: Groups, n_bits: int, *, factory: str, before: object = None, **parameters: int
    ) -> tuple[Groups, Self]:
        """Return the groups, as they are, and the index.

        Raises:
            ValueError: faiss refuses the factory string.
        """
        codes = np.ascontiguousarray(groups.words).view(np.uint8)
        try:
            index = _faiss().index_binary_factory(8 * codes.shape[1], factory)
            if not index.is_trained:
                n_sample = min(len(codes), _POINTS_A_LIST * index.nlist)
                index.train(codes[np.sort(np.random.default_rng(0).choice(len(codes), n_sample, replace=False))])
            index.add(codes)
        except RuntimeError as error:
            raise ValueError(f"faiss does not make {factory!r} of {len(codes)} codes: {error}") from None
        name = cls._parameter(factory)
        unknown = parameters.keys() - {name}
        if unknown:
            raise ValueError(f"{factory} has no parameter {', '.join(sorted(unknown))}; it has {name or 'none'}")
        return groups, cls(index, factory, parameters.get(name, 1), math.nan)

    @staticmethod
    def _parameter(factory: str) -> str:
        return {"I": "nprobe", "H": "flips", "F": ""}[factory[1]]

    def find(self, groups: Groups, queries: Words, k: int | None, radius: int) -> Found:
        """See `Structure`."""
        n_codes, n_queries = len(groups.words), len(queries)
        rows, distances, places = [np.empty(0, np.int64)], [np.empty(0, np.int32)], [np.empty(0, np.int64)]
        left, asked = np.arange(n_queries), min(n_codes, k or 64)
        while len(left) and asked:
            near, met = self._search(queries[left], asked)
            inside = (met >= 0) & (near <= radius)
            counts = np.zeros(near.shape, np.int64)
            counts[inside] = sizes_of(groups, met[inside])
            # Done: k ids are found, or all within the radius, or faiss has no more.
            done = (near[:, -1] > radius) | (met[:, -1] < 0) | (asked == n_codes)
            if k is not None:
                done |= counts.sum(axis=1) >= k
            inside &= done[:, None] & (counts > 0)
            rows.append(np.repeat(left, inside.sum(axis=1)))
            distances.append(near[inside])
            places.append(met[inside])
            left, asked = left[~done], min(n_codes, 4 * asked)
        return found_of(groups, np.concatenate(rows), np.concatenate(distances), np.concatenate(places), k, n_queries)

    def searcher(self, groups: Groups) -> None:
        """See `Structure`."""
        return None

    def find_anew(self, groups: Groups, queries: Words, places: Ids, k: int, radius: int) -> Found:
        """See `Approximate`. Lists and buckets do not lead from one of their codes to others."""
        return self.find(groups, queries, k, radius)

    def _search(self, queries: Words, k: int) -> tuple[Distances, Ids]:
        codes = np.ascontiguousarray(queries).view(np.uint8)
        if self._setting is not None:
            with self._setting:
                self._index.nflip = self.value
                near, met = self._index.search(codes, k)
        elif "IVF" in self.factory:
            near, met = self._index.search(codes, k, params=_faiss().SearchParametersIVF(nprobe=self.value))
        else:
            near, met = self._index.search(codes, k)
        return near, met

    def settings(self) -> list[dict[str, int]]:
        """Return the parameters to choose from by their recall, from the fastest on."""
        if name := self._parameter(self.factory):
            top = {"nprobe": getattr(self._index, "nlist", 1), "flips": 4}[name]
            return [{name: value} for value in (range(top + 1) if name == "flips" else _doubling(top))]
        return [{}]

    def parameters(self) -> dict[str, int]:
        """Return what it is searched with."""
        name = self._parameter(self.factory)
        return {name: self.value} if name else {}

    def with_settings(self, *, recall: float | None = None, **parameters: int) -> Self:
        """Return the same index with another parameter, or with the recall that was measured."""
        value = next(iter(parameters.values()), self.value)
        made = type(self)(self._index, self.factory, value, math.nan if recall is None else recall)
        made._setting = self._setting
        return made

    @property
    def n_bytes(self) -> int:
        """See `Structure`. faiss's indexes do not say: its copy of the codes, with the number of each."""
        n_codes: int = self._index.ntotal
        return n_codes * int(self._index.d // 8 + 8)

    def arrays(self) -> Arrays:
        """See `Structure`. No file of faiss is kept: the index is made again."""
        settings: npt.NDArray[np.float64] = np.array([self.value, self.recall])
        return {"factory": np.frombuffer(self.factory.encode(), np.uint8), "settings": settings}

    @classmethod
    def from_arrays(cls, groups: Groups, n_bits: int, arrays: Arrays) -> Self:
        """See `Structure`. This takes as long as `build`."""
        given = dict(arrays)
        factory, settings = (given.pop(name, np.empty(0)) for name in ("factory", "settings"))
        if given or factory.dtype != np.uint8 or settings.dtype != np.float64 or settings.shape != (2,):
            raise ValueError("these are not the arrays of an index of faiss")
        text = bytes(factory).decode("ascii", "replace")
        if not cls.takes(text) or not 0 <= settings[0] <= 1 << 31:
            raise ValueError("the arrays of an index of faiss hold settings that are none")
        made = cls.build(groups, n_bits, factory=text)[1]
        return cls(made._index, text, int(settings[0]), float(settings[1]))


def _faiss() -> Any:
    import faiss  # imported here: `import index` must stay fast

    return faiss


def _doubling(top: int) -> list[int]:
    values = {min(top, round(2 ** (step / 2))) for step in range(2 * math.ceil(math.log2(max(2, top))) + 1)}
    return sorted(values)
