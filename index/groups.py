"""Groups: distinct codes, each with the ascending list of the ids that have it. The unit that is searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from index import kernel
from index.codes import Codes

__all__ = ["Distances", "Groups", "Ids", "Words", "to_codes", "to_words"]

Ids = npt.NDArray[np.int64]
Distances = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint64]
"""(N, n_words) uint64, C-contiguous: codes as words, padded with zero bytes to whole words."""


def to_words(codes: Codes) -> Words:
    """Return codes (N, n_bytes) uint8 as words: a view where n_bytes is a multiple of 8, else a copy."""
    width = codes.shape[1]
    if width % 8 == 0:
        return np.ascontiguousarray(codes).view(np.uint64)
    padded = np.zeros((len(codes), -(-width // 8) * 8), dtype=np.uint8)
    padded[:, :width] = codes
    return padded.view(np.uint64)


def to_codes(words: Words, n_bytes: int) -> Codes:
    """Return words as codes (N, n_bytes) uint8."""
    return np.ascontiguousarray(words.view(np.uint8)[:, :n_bytes])


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Immutable: the ids of the code words[g] are ids[offsets[g]:offsets[g + 1]], ascending.

    A code whose ids are all removed keeps its place, with no ids, until `compact`. Codes are in the order of
    `kernel.sort_words`, unless whoever made the groups says otherwise.
    """

    words: Words
    offsets: Ids
    ids: Ids

    @classmethod
    def of(cls, words: Words, ids: Ids) -> Groups:
        """Return the groups of codes (N, n_words) and their ids (N,)."""
        if np.any(ids[1:] < ids[:-1]):
            by_id = np.argsort(ids, kind="stable")
            words, ids = words[by_id], ids[by_id]
        words = np.ascontiguousarray(words)
        order = kernel.sort_words(words)
        words, ids = words[order], ids[order]
        first = np.ones(len(words), dtype=np.bool_)
        first[1:] = np.any(words[1:] != words[:-1], axis=1)
        starts = np.flatnonzero(first)
        distinct = words if len(starts) == len(words) else words[starts]
        return cls(distinct, np.append(starts, len(words)).astype(np.int64), ids)

    def sizes(self) -> Ids:
        """Return the number of ids of each code."""
        return np.diff(self.offsets)

    def rows(self) -> tuple[Words, Ids]:
        """Return (words, ids), one row for each id."""
        return np.repeat(self.words, self.sizes(), axis=0), self.ids

    def numbered(self) -> Groups:
        """Return the same codes, each with its place as its only id."""
        if kernel.AVAILABLE:
            # What is missing counts up, in the kernel: nothing of the size of the groups is made.
            return Groups(self.words, None, None)  # type: ignore[arg-type]
        places = np.arange(len(self.words) + 1, dtype=np.int64)
        return Groups(self.words, places, places[:-1])

    def reordered(self, order: Ids) -> Groups:
        """Return the same groups in this order of places."""
        sizes = self.sizes()[order]
        offsets = np.concatenate(([0], np.cumsum(sizes)))
        members = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][order] - offsets[:-1], sizes)
        return Groups(np.ascontiguousarray(self.words[order]), offsets, self.ids[members])

    def keep(self, mask: npt.NDArray[np.bool_]) -> Groups:
        """Return the groups with the ids where mask is true, over the same codes."""
        offsets, ids, _ = kernel.keep(self.offsets, self.ids, mask)
        return Groups(self.words, offsets, ids)

    def compact(self) -> Groups:
        """Return the groups without the codes that have no ids left."""
        used = self.sizes() > 0
        if used.all():
            return self
        return Groups(self.words[used], np.append(self.offsets[:-1][used], self.offsets[-1:]), self.ids)

    @property
    def n_bytes(self) -> int:
        """Bytes in memory."""
        arrays: tuple[npt.NDArray[Any], ...] = (self.words, self.offsets, self.ids)
        return sum(array.nbytes for array in arrays)
