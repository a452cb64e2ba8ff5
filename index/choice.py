"""Which structure searches: names, their parameters as text, and how one is built."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from index import kernel, tuning
from index.faiss_factory import FaissIndex
from index.groups import Groups
from index.hnsw import NavigableGraph
from index.ivf import InvertedLists
from index.prefix import PrefixIndex
from index.structures import EXACT, MultiIndex, Scan, Structure, exact_structure

__all__ = ["AUTO", "NAMES", "STRUCTURES", "Choice"]

_APPROXIMATE = (InvertedLists, NavigableGraph, PrefixIndex, FaissIndex)
STRUCTURES: Mapping[str, type[Structure]] = EXACT | {structure.name: structure for structure in _APPROXIMATE}
"""All structures by their names."""

NAMES = ("auto", "flat", "mih", "ivf", "hnsw", "prefix")
"""What a choice can be, besides factory strings of faiss."""

_PARAMETERS = {
    "ivf": ("lists", "nprobe", "reach"),
    "hnsw": ("m", "ef"),
    "prefix": ("bits", "oversampling"),
    "faiss": ("nprobe", "flips"),
}
_GRAPH = re.compile(r"BHNSW(\d*)((?:,.*)?)")
_SEARCH = {"nprobe", "reach", "ef", "oversampling", "flips"}
# Fewer distinct codes are scanned in less time than anything else takes.
_APPROXIMATE_ABOVE = 1 << 14


@dataclass(frozen=True, slots=True)
class Choice:
    """A structure by its name, its parameters, and the recall that an approximate one is tuned to.

    `auto`, `flat` (a scan) and `mih` (tables) are exact. `ivf` (lists) is approximate, and the fastest for codes of 128
    bits and more; `hnsw` (a graph) is for long codes without structure, takes long to build and much memory; `prefix`
    searches the first bits of nested codes of more than 64 bits, and compares what is near by these in full; factory
    strings of faiss are approximate, too. Parameters: ivf: lists, nprobe, reach; hnsw: m, ef; prefix: bits,
    oversampling; BIVF…: nprobe; BHash…: flips. What is not given is chosen; what a search takes, for the wanted recall.
    As text: "ivf", "ivf,recall=0.99", "ivf,lists=1024,reach=40", "BIVF4096,nprobe=16". BHNSW32 is "hnsw,m=32".
    """

    name: str = "auto"
    parameters: tuple[tuple[str, int], ...] = ()
    recall: float = 0.95

    @classmethod
    def of(cls, text: str | Choice, recall: float | None = None) -> Choice:
        """Return the choice that a text describes, for this recall.

        Raises:
            ValueError: no such structure, or parameters that it does not have.
        """
        if isinstance(text, Choice):
            name, parameters, wanted = text.name, text.parameters, text.recall
        else:
            name, parameters, wanted = _parsed(text)
        if recall is not None:
            wanted = recall
        if not 0 < wanted <= 1:
            raise ValueError(f"recall is {wanted}: use a number above 0, and at most 1")
        return cls(name, parameters, wanted)

    def __str__(self) -> str:
        recall = () if self.exact or self.recall == 0.95 else (f"recall={self.recall:g}",)
        return ",".join([self.name, *(f"{name}={value}" for name, value in self.parameters), *recall])

    @property
    def exact(self) -> bool:
        """Whether the answer is always that of brute force."""
        return self.name in ("auto", "flat", "mih")

    def _is_scan(self, groups: Groups) -> bool:
        needs_kernel = self.name in ("mih", "hnsw")
        few = len(groups.words) < _APPROXIMATE_ABOVE or (self.name == "prefix" and groups.words.shape[1] == 1)
        return self.name == "flat" or few or (needs_kernel and not kernel.AVAILABLE)

    def is_met_by(self, groups: Groups, structure: Structure) -> bool:
        """Return whether these are what `build` would give, but for the recall."""
        if self.name == "auto":
            return structure.exact
        if self.name == "mih" and kernel.AVAILABLE:
            return structure.name == "mih"
        if self._is_scan(groups):
            return structure.name == "flat"
        if structure.exact or not isinstance(structure, _APPROXIMATE):
            return False
        if self.name != (structure.factory if isinstance(structure, FaissIndex) else structure.name):
            return False
        given, has = dict(self.parameters), structure.parameters()
        return all(has.get(name, value) == value for name, value in given.items())

    def build(
        self, groups: Groups, n_bits: int, before: tuple[Groups, Structure] | None = None
    ) -> tuple[Groups, Structure]:
        """Return groups, in the order that the structure wants, and the structure; `before` is what they replace.

        An approximate one comes with its recall measured. Few codes are scanned, whatever was chosen, and so are those
        of up to 64 bits that `prefix` was chosen for; without the kernel, `mih` and `hnsw` are scans.

        Raises:
            ValueError: parameters that are out of range.
        """
        if self.name == "auto":
            return groups, exact_structure(groups, n_bits)
        if self.name == "mih" and kernel.AVAILABLE:
            return groups, MultiIndex(groups.words, n_bits)
        if self._is_scan(groups):
            return groups, Scan(groups.words)
        built, structure = self._built(groups, n_bits, before)
        if any(name in _SEARCH for name, _ in self.parameters):
            return built, tuning.with_recall(structure, built, n_bits)
        return built, tuning.tuned(structure, built, n_bits, self.recall)

    def _built(
        self, groups: Groups, n_bits: int, before: tuple[Groups, Structure] | None
    ) -> tuple[Groups, tuning.Approximate]:
        given: dict[str, Any] = dict(self.parameters)
        if self.name == "ivf":
            return InvertedLists.build(groups, n_bits, before=before, **given)
        if self.name == "hnsw":
            return NavigableGraph.build(groups, n_bits, before=before, **given)
        if self.name == "prefix":
            return PrefixIndex.build(groups, n_bits, **given)
        return FaissIndex.build(groups, n_bits, factory=self.name, **given)


AUTO = Choice()
"""Exact, and the fastest for so many codes."""


def _parsed(text: str) -> tuple[str, tuple[tuple[str, int], ...], float]:
    if graph := _GRAPH.fullmatch(text):
        text = f"hnsw,m={graph[1] or 32}{graph[2]}"
    name, *parts = text.split(",")
    kind = "faiss" if FaissIndex.takes(name) else name
    if kind != "faiss" and name not in NAMES:
        raise ValueError(f"{name!r} is no structure: use {', '.join(NAMES)}, or a binary factory string of faiss")
    parameters, recall = [], 0.95
    for part in parts:
        key, _, value = part.partition("=")
        known = _PARAMETERS.get(kind, ())
        try:
            if key == "recall" and known:
                recall = float(value)
                continue
            number = int(value)
        except ValueError:
            raise ValueError(f"{part!r} in {text!r}: write NAME=NUMBER") from None
        if key not in known:
            raise ValueError(f"{name} has no parameter {key!r}; it has {', '.join(known) or 'none'}")
        parameters.append((key, number))
    return name, tuple(parameters), recall
