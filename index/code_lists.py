"""Lists over a file of codes: approximate search for sets that a scan takes too long for. A folder, memory-mapped.

It has the codes in the order of their lists (`words.npy`) and their positions in the file (`ids.npy`), which are
touched for results only; the centroids; and `lists.json`, written last, with the checksums of all. It is made in two
passes over the codes, which are never all in memory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index import kernel
from index.array_files import described, read_array, read_sealed, sync_folder, write_array, write_sealed
from index.code_file import CodeFile
from index.errors import StoreDamaged, StoreError
from index.groups import Distances, Groups, Ids, Words
from index.ivf import InvertedLists, assigned, majorities
from index.search import HammingIndex
from index.segments import Segment

__all__ = ["CodeLists"]

_MANIFEST = "lists.json"
_FORMAT = 1
# More lists take longer to build, at once so many codes against all centroids, than they save in a search.
_MOST_LISTS = 1 << 14
_SAMPLE_A_LIST = 32
_CHUNK = 1 << 22


class CodeLists:
    """Approximate search over the codes of a `CodeFile`, by position. May be shared by threads.

    A query looks into the lists of the `nprobe` nearest centroids, and leaves out those that hold nothing near enough.
    """

    def __init__(self, folder: Path, n_bits: int, groups: Groups, lists: InvertedLists) -> None:
        self.folder = folder
        self.n_bits = n_bits
        self._groups, self._lists = groups, lists

    @classmethod
    def build(cls, codes: CodeFile, folder: str | os.PathLike[str], *, lists: int | None = None) -> CodeLists:
        """Make the lists of all codes of a file, in a new folder; by default some 2 sqrt(N) of them, at most 16,384.

        A kill half-way leaves a folder that cannot be opened.

        Raises:
            ValueError: fewer than one list, or no codes.
            StoreError: the folder exists already.
            OSError: the disk is full, for one.
        """
        folder = Path(folder).absolute()
        if lists is not None and lists < 1:
            raise ValueError(f"lists is {lists}: use a positive integer")
        if not len(codes):
            raise ValueError(f"{codes.path} has no codes: append some first")
        if folder.exists():
            raise StoreError(f"{folder} exists already: choose another name")
        words = codes.words
        n_lists = lists or min(_MOST_LISTS, 1 << max(0, round(np.log2(2 * np.sqrt(max(1, len(words)))))))
        folder.mkdir(parents=True)
        centroids = majorities(_sample(words, _SAMPLE_A_LIST * n_lists), n_lists)
        starts, radii = _arrange(words, centroids, folder)
        small: dict[str, npt.NDArray[Any]] = {"centroids": centroids, "starts": starts, "radii": radii}
        files = {name: write_array(folder / f"{name}.npy", array) for name, array in small.items()}
        files |= {name: described(folder / f"{name}.npy") for name in ("words", "ids")}
        values = {"format": _FORMAT, "n_bits": codes.n_bits, "n_codes": len(words), "files": files}
        write_sealed(folder / _MANIFEST, values)
        return cls.open(folder, check=False)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, check: bool = True) -> CodeLists:
        """Open a folder; `check` reads all of it and compares it with its checksums.

        Raises:
            StoreError: there are no lists, or the compiled kernel is missing.
            StoreDamaged: a file is not as it was written.
        """
        folder = Path(folder).absolute()
        if not kernel.AVAILABLE:
            raise StoreError(f"{folder} needs the compiled kernel: install a C compiler and deephash again")
        if not (folder / _MANIFEST).is_file():
            raise StoreError(
                f"{folder} has no {_MANIFEST}: it was not finished, or it is something else; build it again"
            )
        try:
            values = read_sealed(folder / _MANIFEST)
            n_bits, n_codes = int(values["n_bits"]), int(values["n_codes"])
            arrays = {
                name: read_array(folder / f"{name}.npy", values["files"][name], check=check)
                for name in ("words", "ids", "centroids", "starts", "radii")
            }
            words, ids = arrays.pop("words"), arrays.pop("ids")
            if words.dtype != np.uint64 or words.shape != (n_codes, -(-n_bits // 64)) or ids.shape != (n_codes,):
                raise ValueError("codes of another shape")
            groups = Groups(words, None, ids)  # type: ignore[arg-type]
            # Small, and looked at for every query: in memory.
            arrays = {name: np.array(array) for name, array in arrays.items()}
            arrays["settings"] = np.array([len(arrays["radii"]), 100 * n_bits, np.nan])
            lists = InvertedLists.from_arrays(groups, n_bits, arrays)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreDamaged(f"{folder} is damaged ({error}): build it again") from error
        return cls(folder, n_bits, groups, lists)

    def __len__(self) -> int:
        return len(self._groups.words)

    @property
    def n_lists(self) -> int:
        """The number of lists."""
        return len(self._lists.centroids)

    def search(
        self, queries: npt.ArrayLike, k: int, *, radius: int | None = None, nprobe: int = 16
    ) -> tuple[Distances, Ids]:
        """Return distances and positions of what is nearest in the lists, as `HammingIndex.search` does.

        With as many probes as there are lists the answer is exact.
        """
        return self._index(nprobe).search(queries, k, radius=radius)

    def range_search(self, queries: npt.ArrayLike, radius: int, *, nprobe: int = 16) -> tuple[Ids, Distances, Ids]:
        """Return (limits, distances, positions) of what lies within the radius, as `HammingIndex.range_search` does."""
        return self._index(nprobe).range_search(queries, radius)

    def _index(self, nprobe: int) -> HammingIndex:
        if nprobe < 1:
            raise ValueError(f"nprobe is {nprobe}: use a positive integer")
        lists = self._lists.with_settings(nprobe=min(nprobe, self.n_lists))
        return HammingIndex.from_segments(self.n_bits, [Segment(self._groups, lists)], len(self))


def _sample(words: Words, n: int) -> Words:
    """Return about n codes from all over the file, read where they lie."""
    rng = np.random.default_rng(0)
    if len(words) <= n:
        return np.array(words)
    return np.ascontiguousarray(words[np.sort(rng.choice(len(words), n, replace=False, shuffle=False))])


def _arrange(words: Words, centroids: Words, folder: Path) -> tuple[Ids, npt.NDArray[np.int32]]:
    """Write codes and positions in the order of their lists; return where each list starts, and its radius."""
    n, n_lists = len(words), len(centroids)
    counts, radii = np.zeros(n_lists, np.int64), np.zeros(n_lists, np.int32)
    unfinished = folder / "nearest.tmp"
    try:
        with unfinished.open("wb") as file:
            for start in range(0, n, _CHUNK):
                distances, nearest = assigned(centroids, np.array(words[start : start + _CHUNK]))
                counts += np.bincount(nearest, minlength=n_lists)
                np.maximum.at(radii, nearest, distances)
                file.write(nearest.astype(np.uint32).data)
        starts = np.concatenate(([0], np.cumsum(counts)))
        wide = np.uint32 if n <= 1 << 32 else np.int64
        to_words = np.lib.format.open_memmap(folder / "words.npy", "w+", np.uint64, words.shape)
        to_ids = np.lib.format.open_memmap(folder / "ids.npy", "w+", wide, (n,))
        next_place = starts[:-1].copy()
        with unfinished.open("rb") as file:
            for start in range(0, n, _CHUNK):
                chunk = np.array(words[start : start + _CHUNK])
                nearest = np.fromfile(file, np.uint32, len(chunk)).astype(np.int64)
                order = np.argsort(nearest, kind="stable")
                runs = np.bincount(nearest, minlength=n_lists)
                first = np.cumsum(runs) - runs
                places = np.arange(len(chunk)) + np.repeat(next_place - first, runs)
                to_words[places] = chunk[order]
                to_ids[places] = order + start
                next_place += runs
        to_words.flush()
        to_ids.flush()
    finally:
        unfinished.unlink(missing_ok=True)
    for name in ("words", "ids"):
        with (folder / f"{name}.npy").open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)
    return starts, radii
