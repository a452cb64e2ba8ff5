"""Contestants that are search engines or libraries of others: usearch, LanceDB, Milvus Lite."""

import math
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.contestants import EXPANSIONS, Setting

__all__ = ["LanceFlat", "LanceIVF", "MilvusLite", "USearchExact", "USearchGraph"]

_Codes = NDArray[np.uint8]
_Ids = NDArray[np.int64]
_INSERTED_AT_ONCE = 10_000
# LanceDB makes one plan of a batch: it is slower for a thousand queries than for ten times a hundred.
_ASKED_AT_ONCE = 100


class USearchExact:
    """usearch's scan."""

    exact: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("usearch",)

    def __init__(self) -> None:
        import usearch.index

        self._usearch = usearch.index
        self._threads = 1

    def build(self, codes: _Codes, folder: Path) -> None:
        """See `Contestant`."""
        self._codes = np.array(codes)

    def settings(self) -> list[Setting]:
        """See `Contestant`."""
        return [{}]

    def use(self, setting: Setting, threads: int) -> None:
        """See `Contestant`."""
        self._threads = threads

    def search(self, queries: _Codes, k: int) -> Any:
        """See `Contestant`."""
        return self._usearch.search(
            self._codes, queries, k, self._usearch.MetricKind.Hamming, exact=True, threads=self._threads,
            dtype=self._usearch.ScalarKind.B1,
        )  # fmt: skip

    def positions(self, found: Any) -> _Ids:
        """See `Contestant`."""
        return np.atleast_2d(np.asarray(found.keys)).astype(np.int64)

    def save(self, folder: Path) -> None:
        """See `Contestant`."""
        np.save(folder / "codes.npy", self._codes)

    def open(self, folder: Path, n_bits: int) -> None:
        """See `Contestant`."""
        self._codes = np.load(folder / "codes.npy", mmap_mode="r")


class USearchGraph:
    """usearch's HNSW, with its own defaults for building."""

    exact: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("usearch",)

    def __init__(self) -> None:
        import usearch.index

        self._usearch = usearch.index
        self._threads = 0

    def build(self, codes: _Codes, folder: Path) -> None:
        """See `Contestant`."""
        self._index = self._made(8 * codes.shape[1])
        self._index.add(np.arange(len(codes)), np.ascontiguousarray(codes))

    def _made(self, n_bits: int) -> Any:
        kind = self._usearch
        return kind.Index(ndim=n_bits, metric=kind.MetricKind.Hamming, dtype=kind.ScalarKind.B1)

    def settings(self) -> list[Setting]:
        """See `Contestant`."""
        return [{"expansion_search": value} for value in EXPANSIONS]

    def use(self, setting: Setting, threads: int) -> None:
        """See `Contestant`."""
        self._threads = threads
        for name, value in setting.items():
            setattr(self._index, name, value)

    def search(self, queries: _Codes, k: int) -> Any:
        """See `Contestant`."""
        return self._index.search(queries[0] if len(queries) == 1 else queries, k, threads=self._threads)

    def positions(self, found: Any) -> _Ids:
        """See `Contestant`."""
        keys = np.atleast_2d(np.asarray(found.keys)).astype(np.int64)
        if hasattr(found, "counts"):
            keys[np.arange(keys.shape[1]) >= np.asarray(found.counts)[:, None]] = -1
        return keys

    def save(self, folder: Path) -> None:
        """See `Contestant`."""
        self._index.save(str(folder / "codes.usearch"))

    def open(self, folder: Path, n_bits: int) -> None:
        """See `Contestant`."""
        self._index = self._made(n_bits)
        self._index.load(str(folder / "codes.usearch"))


class LanceFlat:
    """A LanceDB table without an index: a scan of files."""

    exact: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("lancedb",)

    def __init__(self) -> None:
        import lancedb
        import pyarrow

        self._lancedb, self._arrow = lancedb, pyarrow

    def build(self, codes: _Codes, folder: Path) -> None:
        """See `Contestant`."""
        pa = self._arrow
        column = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(codes).ravel()), codes.shape[1])
        data = pa.table({"id": pa.array(np.arange(len(codes))), "code": column})
        self._table = self._lancedb.connect(str(folder)).create_table("codes", data)

    def settings(self) -> list[Setting]:
        """See `Contestant`."""
        return [{}]

    def use(self, setting: Setting, threads: int) -> None:
        """See `Contestant`."""
        self._setting = setting
        limit_processors(threads)

    def search(self, queries: _Codes, k: int) -> _Ids:
        """See `Contestant`."""
        parts = [self._search(queries[i : i + _ASKED_AT_ONCE], k) for i in range(0, len(queries), _ASKED_AT_ONCE)]
        return np.concatenate(parts)

    def _search(self, queries: _Codes, k: int) -> _Ids:
        given: Any = queries[0] if len(queries) == 1 else list(queries)
        query = self._table.search(given, vector_column_name="code").distance_type("hamming").limit(k)
        if "nprobes" in self._setting:
            query = query.nprobes(self._setting["nprobes"])
        answer = query.select(["id", "_distance"]).to_arrow()
        rows = answer["query_index"].to_numpy() if len(queries) > 1 else np.zeros(answer.num_rows, np.int64)
        found = np.full((len(queries), k), -1, np.int64)
        order = np.argsort(rows, kind="stable")
        ranks = np.arange(len(rows)) - np.searchsorted(rows[order], rows[order])
        found[rows[order], ranks] = answer["id"].to_numpy()[order]
        return found

    def positions(self, found: Any) -> _Ids:
        """See `Contestant`."""
        positions: _Ids = found
        return positions

    def save(self, folder: Path) -> None:
        """See `Contestant`."""

    def open(self, folder: Path, n_bits: int) -> None:
        """See `Contestant`."""
        self._table = self._lancedb.connect(str(folder)).open_table("codes")
        self._setting = {}


class LanceIVF(LanceFlat):
    """The same with inverted lists, as many as ours has."""

    exact: ClassVar[bool] = False

    def build(self, codes: _Codes, folder: Path) -> None:
        """See `Contestant`."""
        super().build(codes, folder)
        from lancedb.index import IvfFlat

        self._n_lists = 1 << round(math.log2(2 * math.sqrt(len(codes))))
        self._table.create_index("code", config=IvfFlat(distance_type="hamming", num_partitions=self._n_lists))

    def settings(self) -> list[Setting]:
        """See `Contestant`."""
        return [{"nprobes": 1 << step} for step in range(int(math.log2(self._n_lists)) + 1)]


class MilvusLite:
    """Milvus in one process beside this one; binary codes have a flat index there."""

    exact: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("milvus-lite",)

    def __init__(self) -> None:
        import pymilvus

        self._milvus = pymilvus

    def build(self, codes: _Codes, folder: Path) -> None:
        """See `Contestant`."""
        types = self._milvus.DataType
        self._connect(folder)
        schema = self._client.create_schema(auto_id=False)
        schema.add_field("id", types.INT64, is_primary=True)
        schema.add_field("code", types.BINARY_VECTOR, dim=8 * codes.shape[1])
        indexes = self._client.prepare_index_params()
        indexes.add_index(field_name="code", index_type="BIN_FLAT", metric_type="HAMMING")
        self._client.create_collection("codes", schema=schema, index_params=indexes)
        for first in range(0, len(codes), _INSERTED_AT_ONCE):
            part = codes[first : first + _INSERTED_AT_ONCE]
            rows = [{"id": first + number, "code": code.tobytes()} for number, code in enumerate(part)]
            self._client.insert("codes", rows)

    def _connect(self, folder: Path) -> None:
        self._client = self._milvus.MilvusClient(str(folder / "codes.db"))

    def settings(self) -> list[Setting]:
        """See `Contestant`."""
        return [{}]

    def use(self, setting: Setting, threads: int) -> None:
        """See `Contestant`."""
        limit_processors(threads)

    def search(self, queries: _Codes, k: int) -> _Ids:
        """See `Contestant`."""
        given = [query.tobytes() for query in queries]
        answer = self._client.search("codes", given, limit=k, search_params={"metric_type": "HAMMING"})
        found = np.full((len(queries), k), -1, np.int64)
        for row, matches in enumerate(answer):
            found[row, : len(matches)] = [match["id"] for match in matches]
        return found

    def positions(self, found: Any) -> _Ids:
        """See `Contestant`."""
        positions: _Ids = found
        return positions

    def save(self, folder: Path) -> None:
        """See `Contestant`."""

    def open(self, folder: Path, n_bits: int) -> None:
        """See `Contestant`."""
        self._connect(folder)
        self._client.load_collection("codes")


def limit_processors(n: int) -> None:
    """Lets all threads of this process and of those that it started run on so many processors: some know no number."""
    allowed = sorted(os.sched_getaffinity(os.getppid()))[:n]
    for process in [os.getpid(), *descendants(os.getpid())]:
        for thread in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(thread.name), allowed)


def descendants(process: int) -> list[int]:
    """Returns the processes that this one has started, and those that they have."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == process:
            found += [int(status.parent.name), *descendants(int(status.parent.name))]
    return found
