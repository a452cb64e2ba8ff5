"""What finds the nearest groups: a scan, or tables over parts of the codes.

A structure is made for the codes of `Groups` and is immutable; the ids of the groups may change beneath it (`keep`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from index import faiss_scan, kernel
from index.groups import Groups, Words
from index.kernel import Found, Searcher, Table

__all__ = ["EXACT", "Arrays", "MultiIndex", "Scan", "Structure", "exact_structure"]

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""What a structure is made of, besides the groups: by names that are part of a file name."""

# Fewer distinct codes are scanned in less time than a look-up in tables takes to start.
_TABLES_ABOVE = 1 << 18
# Positions in tables are 32-bit numbers.
_TABLES_UP_TO = (1 << 32) - 1


class Structure(Protocol):
    """What searches groups."""

    name: ClassVar[str]
    exact: ClassVar[bool]
    keeps_empty: ClassVar[float]
    """The share of its codes that may have no ids left without harm: building again would keep them."""

    def find(self, groups: Groups, queries: Words, k: int | None, radius: int) -> Found:
        """Return the k nearest ids within the radius (inclusive) of each query; with k None, all of them."""

    def searcher(self, groups: Groups) -> Searcher | None:
        """Return what does the same for these groups, again and again; None where the kernel does not search them."""

    @property
    def n_bytes(self) -> int:
        """Bytes in memory, besides those of the groups."""

    def arrays(self) -> Arrays:
        """Return what `from_arrays` makes the structure of again: C-contiguous, to be kept in files."""

    @classmethod
    def from_arrays(cls, groups: Groups, n_bits: int, arrays: Arrays) -> Self:
        """Return the structure that gave these arrays, which may lie in a memory-mapped file.

        Their contents are not looked at: whatever they hold, a search reads within bounds.

        Raises:
            ValueError: names, dtypes or shapes that do not belong to these groups.
        """


class Scan:
    """Compares a query with every code. Exact."""

    name: ClassVar[str] = "flat"
    exact: ClassVar[bool] = True
    keeps_empty: ClassVar[float] = 0.0

    def __init__(self, words: Words) -> None:
        self._faiss = None if kernel.AVAILABLE else faiss_scan.FaissScan(words)

    def find(self, groups: Groups, queries: Words, k: int | None, radius: int) -> Found:
        """See `Structure`."""
        if self._faiss is None:
            return Searcher(groups).find(queries, k, radius)
        return self._faiss.find(groups, queries, k, radius)

    def searcher(self, groups: Groups) -> Searcher | None:
        """See `Structure`."""
        return Searcher(groups) if self._faiss is None else None

    @property
    def n_bytes(self) -> int:
        """See `Structure`."""
        return 0 if self._faiss is None else self._faiss.n_bytes

    def arrays(self) -> Arrays:
        """See `Structure`."""
        return {}

    @classmethod
    def from_arrays(cls, groups: Groups, n_bits: int, arrays: Arrays) -> Self:
        """See `Structure`."""
        if arrays:
            raise ValueError(f"a scan has no arrays, and here are {', '.join(arrays)}")
        return cls(groups.words)


class MultiIndex:
    """Multi-index hashing: codes are looked up by their parts, in growing distance, until no nearer one can be missing.

    Exact. Where look-ups would cost more than a scan (of codes without structure, say), it scans. Norouzi, Punjani and
    Fleet, "Fast exact search in Hamming space with multi-index hashing", 2014. Needs the kernel.
    """

    name: ClassVar[str] = "mih"
    exact: ClassVar[bool] = True
    keeps_empty: ClassVar[float] = 0.0

    def __init__(self, words: Words, n_bits: int) -> None:
        tables: list[Table] = []
        for word, shift, size in _parts(len(words), n_bits):
            # Codes are sorted by their first word: by its highest bits, too.
            in_order = not tables
            tables.append(kernel.build_table(words, word, shift, size, in_order=in_order))
        self.tables: tuple[Table, ...] = tuple(tables)

    def find(self, groups: Groups, queries: Words, k: int | None, radius: int) -> Found:
        """See `Structure`."""
        return self.searcher(groups).find(queries, k, radius)

    def searcher(self, groups: Groups) -> Searcher:
        """See `Structure`."""
        return Searcher(groups, tables=self.tables)

    @property
    def n_bytes(self) -> int:
        """See `Structure`."""
        return sum(array.nbytes for array in self.arrays().values())

    def arrays(self) -> Arrays:
        """See `Structure`."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        for number, table in enumerate(self.tables):
            arrays[f"starts{number}"] = table.starts
            if table.positions is not None:
                arrays[f"positions{number}"] = table.positions
        return arrays

    @classmethod
    def from_arrays(cls, groups: Groups, n_bits: int, arrays: Arrays) -> Self:
        """See `Structure`."""
        n_codes, tables, given = len(groups.words), [], dict(arrays)
        if not kernel.AVAILABLE:
            raise ValueError("tables need the compiled kernel")
        for number, (word, shift, size) in enumerate(_parts(n_codes, n_bits)):
            starts = _taken(given, f"starts{number}", (1 << size) + 1)
            positions = _taken(given, f"positions{number}", n_codes) if number else None
            tables.append(Table(word, shift, size, starts, positions))
        if given:
            raise ValueError(f"tables of {n_codes} codes have no arrays {', '.join(given)}")
        structure = cls.__new__(cls)
        structure.tables = tuple(tables)
        return structure


def _taken(arrays: dict[str, npt.NDArray[Any]], name: str, length: int) -> npt.NDArray[np.uint32]:
    array = arrays.pop(name, None)
    if array is None or array.dtype != np.uint32 or array.shape != (length,) or not array.flags.c_contiguous:
        raise ValueError(f"{name} is not the array of {length} numbers that belongs to these codes")
    return array


def _parts(n_codes: int, n_bits: int) -> list[tuple[int, int, int]]:
    """Return (word, shift, n_bits) of each part: some log2(n_codes) bits, so that a look-up finds a few codes."""
    wanted = max(16.0, math.log2(max(1, n_codes)) + 1.5)
    parts = []
    n_bytes = (n_bits + 7) // 8
    for word in range((n_bytes + 7) // 8):
        shift = 8 * min(8, n_bytes - 8 * word)
        n_parts = math.ceil(shift / wanted)
        for part in range(n_parts):
            size = shift // (n_parts - part)
            shift -= size
            parts.append((word, shift, size))
    return parts


EXACT: dict[str, type[Structure]] = {structure.name: structure for structure in (Scan, MultiIndex)}
"""The exact structures by their names."""


def exact_structure(groups: Groups, n_bits: int) -> Structure:
    """Return the structure that answers exactly, and fastest, for so many codes."""
    if kernel.AVAILABLE and _TABLES_ABOVE <= len(groups.words) <= _TABLES_UP_TO:
        return MultiIndex(groups.words, n_bits)
    return Scan(groups.words)
