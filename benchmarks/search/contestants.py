"""The contestants: each adapts a library to one small protocol. Libraries are imported when a contestant is made."""

import math
import os
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXPANSIONS", "Contestant", "FaissFlat", "FaissIVF", "FaissIndex", "NumPy", "Ours"]

_Codes = NDArray[np.uint8]
_Ids = NDArray[np.int64]
Setting = dict[str, Any]
EXPANSIONS = [16, 32, 64, 128, 256, 512, 1024]
# Points that a list's centroid is trained on, in IVF: with all of a million it takes minutes.
_TRAINED_A_LIST = 40


class Contestant(Protocol):
    """What is measured. Libraries are imported when it is made: what they cost is not counted."""

    exact: ClassVar[bool]
    packages: ClassVar[tuple[str, ...]]

    def build(self, codes: _Codes, folder: Path) -> None:
        """Builds the index of codes (N, n_bytes) uint8; whatever needs files has them in the folder."""

    def settings(self) -> list[Setting]:
        """Returns what can be set for searching, from the fastest on."""

    def use(self, setting: Setting, threads: int) -> None:
        """Sets it."""

    def search(self, queries: _Codes, k: int) -> Any:
        """Returns the k nearest codes of each query, as the library has them: this is what is timed."""

    def positions(self, found: Any) -> _Ids:
        """Returns positions of codes, (Q, k) int64, of what `search` returned; -1 where there are fewer than k."""

    def save(self, folder: Path) -> None:
        """Writes the index to files in the folder."""

    def open(self, folder: Path, n_bits: int) -> None:
        """Opens what was saved."""


class Ours:
    """index.HammingIndex with a structure of a given name."""

    exact: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("numpy",)

    def __init__(self, structure: str) -> None:
        # All that building and opening import.
        from index import hnsw, ivf, prefix, search, segments, snapshot, structures

        self._kinds: dict[str, Any] = {
            "ivf": ivf.InvertedLists, "hnsw": hnsw.NavigableGraph, "prefix": prefix.PrefixIndex
        }  # fmt: skip
        self._search, self._segments, self._snapshot, self._structures = search, segments, snapshot, structures
        self._name = structure
        self._index: Any = None

    def build(self, codes: _Codes, folder: Path) -> None:
        """See `Contestant`."""
        from index.groups import Groups, to_words

        n_bits = 8 * codes.shape[1]
        # A snapshot has no id 0.
        groups, structure = self._built(Groups.of(to_words(codes), np.arange(1, len(codes) + 1)), n_bits)
        self._index = self._of(n_bits, groups, structure)

    def _built(self, groups: Any, n_bits: int) -> tuple[Any, Any]:
        if self._name == "flat":
            return groups, self._structures.Scan(groups.words)
        if self._name == "mih":
            return groups, self._structures.MultiIndex(groups.words, n_bits)
        built: tuple[Any, Any] = self._kinds[self._name].build(groups, n_bits)
        return built

    def _of(self, n_bits: int, groups: Any, structure: Any) -> Any:
        segment = self._segments.Segment(groups, structure)
        return self._search.HammingIndex.from_segments(n_bits, [segment], len(groups.ids) + 1)

    def settings(self) -> list[Setting]:
        """See `Contestant`."""
        structure = self._index.segments[0].structure
        return [{}] if structure.exact else structure.settings()

    def use(self, setting: Setting, threads: int) -> None:
        """See `Contestant`."""
        os.environ["OMP_NUM_THREADS"] = str(threads)
        if setting:
            (segment,) = self._index.segments
            changed = segment.structure.with_settings(**setting)
            self._index = self._of(self._index.n_bits, segment.groups, changed)

    def search(self, queries: _Codes, k: int) -> Any:
        """See `Contestant`."""
        return self._index.search(queries, k)

    def positions(self, found: Any) -> _Ids:
        """See `Contestant`."""
        positions: _Ids = found[1] - 1
        return positions

    def save(self, folder: Path) -> None:
        """See `Contestant`."""
        made = self._snapshot.Snapshot(_TOKEN, 1, len(self._index), self._index.n_bits, "benchmark")
        self._snapshot.write(folder, made, self._index, None)

    def open(self, folder: Path, n_bits: int) -> None:
        """See `Contestant`."""
        loaded = self._snapshot.load(folder, token=_TOKEN, n_bits=n_bits, fingerprint="benchmark")
        if loaded is None:
            raise ValueError(f"{folder} holds no snapshot")
        self._index = loaded[1]


_TOKEN = "0" * 32


class OursExact(Ours):
    """One of the exact structures."""

    exact: ClassVar[bool] = True


class NumPy:
    """XOR, bitwise_count and argpartition; one thread, whatever is allowed."""

    exact: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("numpy",)

    def build(self, codes: _Codes, folder: Path) -> None:
        """See `Contestant`."""
        self._words = np.array(codes).view(np.uint64)

    def settings(self) -> list[Setting]:
        """See `Contestant`."""
        return [{}]

    def use(self, setting: Setting, threads: int) -> None:
        """See `Contestant`."""

    def search(self, queries: _Codes, k: int) -> _Ids:
        """See `Contestant`."""
        found = np.empty((len(queries), k), np.int64)
        for row, query in enumerate(queries.view(np.uint64)):
            counts = np.bitwise_count(self._words ^ query)
            distances = counts[:, 0] if len(query) == 1 else counts.sum(axis=1, dtype=np.uint16)
            found[row] = np.argpartition(distances, k - 1)[:k]
        return found

    def positions(self, found: Any) -> _Ids:
        """See `Contestant`."""
        positions: _Ids = found
        return positions

    def save(self, folder: Path) -> None:
        """See `Contestant`."""
        np.save(folder / "codes.npy", self._words)

    def open(self, folder: Path, n_bits: int) -> None:
        """See `Contestant`."""
        self._words = np.load(folder / "codes.npy", mmap_mode="r")


class FaissIndex:
    """A binary index of faiss with one parameter of its search."""

    exact: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("faiss-cpu",)

    def __init__(self, kind: str) -> None:
        import faiss

        self._faiss = faiss
        self._kind = kind
        self._index: Any = None

    def build(self, codes: _Codes, folder: Path) -> None:
        """See `Contestant`."""
        n_bits = 8 * codes.shape[1]
        if self._kind == "hnsw":
            self._index = self._faiss.IndexBinaryHNSW(n_bits, 16)
        elif self._kind == "multihash":
            self._index = self._faiss.IndexBinaryMultiHash(n_bits, n_bits // 16, 16)
        else:
            self._index = self._faiss.IndexBinaryFlat(n_bits)
        self._index.add(np.ascontiguousarray(codes))

    def settings(self) -> list[Setting]:
        """See `Contestant`."""
        if self._kind == "hnsw":
            return [{"efSearch": value} for value in EXPANSIONS]
        return [{"nflip": value} for value in range(4)]

    def use(self, setting: Setting, threads: int) -> None:
        """See `Contestant`."""
        self._faiss.omp_set_num_threads(threads)
        for name, value in setting.items():
            setattr(self._index.hnsw if name == "efSearch" else self._index, name, value)

    def search(self, queries: _Codes, k: int) -> Any:
        """See `Contestant`."""
        return self._index.search(queries, k)

    def positions(self, found: Any) -> _Ids:
        """See `Contestant`."""
        positions: _Ids = found[1]
        return positions

    def save(self, folder: Path) -> None:
        """See `Contestant`."""
        self._faiss.write_index_binary(self._index, str(folder / "codes.faiss"))

    def open(self, folder: Path, n_bits: int) -> None:
        """See `Contestant`."""
        self._index = self._faiss.read_index_binary(str(folder / "codes.faiss"))


class FaissFlat(FaissIndex):
    """The scan, with a heap for each query, or counting distances."""

    exact: ClassVar[bool] = True

    def settings(self) -> list[Setting]:
        """See `Contestant`."""
        return [{"use_heap": True}, {"use_heap": False}]


class FaissIVF(FaissIndex):
    """Inverted lists, as many as ours has; trained on a sample."""

    def build(self, codes: _Codes, folder: Path) -> None:
        """See `Contestant`."""
        n_bits, n_lists = 8 * codes.shape[1], 1 << round(math.log2(2 * math.sqrt(len(codes))))
        # The index does not keep the quantizer alive.
        self._quantizer = self._faiss.IndexBinaryFlat(n_bits)
        self._index = self._faiss.IndexBinaryIVF(self._quantizer, n_bits, n_lists)
        sample = np.random.default_rng(0).permutation(len(codes))[: _TRAINED_A_LIST * n_lists]
        self._index.train(np.ascontiguousarray(codes[np.sort(sample)]))
        self._index.add(np.ascontiguousarray(codes))

    def settings(self) -> list[Setting]:
        """See `Contestant`."""
        return [{"nprobe": 1 << step} for step in range(int(math.log2(self._index.nlist)) + 1)]
