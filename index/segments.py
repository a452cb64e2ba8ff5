"""Segments: groups with what searches them. An index is some of them, the largest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index.groups import Groups, Ids, Words
from index.kernel import Found
from index.structures import Structure, exact_structure

__all__ = ["Segment", "merged"]

# A segment is built again when a larger share of its codes than this (and more than the floor) has no ids left.
_REBUILD_SHARE = 0.1
_REBUILD_ABOVE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Groups and what searches them."""

    groups: Groups
    structure: Structure

    def __len__(self) -> int:
        return len(self.groups.words if self.groups.ids is None else self.groups.ids)

    @classmethod
    def of(cls, groups: Groups, n_bits: int) -> Segment:
        """Return the segment that answers exactly, and fastest."""
        return cls(groups, exact_structure(groups, n_bits))

    def find(self, queries: Words, k: int | None, radius: int) -> Found:
        """Return the k nearest ids within the radius (inclusive) of each query; with k None, all of them."""
        return self.structure.find(self.groups, queries, k, radius)

    def keep(self, mask: npt.NDArray[np.bool_], n_bits: int) -> Segment:
        """Return the segment with the ids where mask is true; built again where that leaves many codes without ids."""
        kept = self.groups.keep(mask)
        n_empty = int(np.count_nonzero(kept.sizes() == 0))
        if n_empty > max(_REBUILD_ABOVE, _REBUILD_SHARE * len(kept.words)):
            return Segment.of(kept.compact(), n_bits)
        return Segment(kept, self.structure)


def merged(segments: Sequence[Segment], words: Words, ids: Ids) -> Groups:
    """Return the groups of all ids of the segments, and of those given with their codes (N, n_words)."""
    if len(segments) == 1 and not len(ids):
        return segments[0].groups.compact()
    parts = [*(segment.groups.rows() for segment in segments), (words, ids)]
    return Groups.of(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))
