"""Structures side by side on one collection: recall, time, memory, time to build."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from index.choice import Choice
from index.groups import Words
from index.kernel import merge_found
from index.segments import Segment, merged
from index.structures import Scan
from index.tuning import own_queries, probe_of, recall_of

__all__ = ["Trial", "measured_recall", "parameters_of", "try_structures"]

_TIMED = 200
# A single query is timed at least so often, and no longer than these seconds altogether.
_LEAST, _SECONDS = 20, 1.0
# How much faster an approximate structure has to be than an exact one.
_WORTH = 1.25


@dataclass(frozen=True, slots=True)
class Trial:
    """A structure as it was measured. `recall` is of the 10 nearest; seconds are medians of single queries."""

    choice: Choice
    structure: str
    parameters: dict[str, int]
    exact: bool
    recall: float
    seconds_per_query: float
    n_bytes: int
    build_seconds: float

    @property
    def reaches(self) -> bool:
        """Whether it has the recall that was wanted."""
        return self.exact or self.recall >= self.choice.recall


def try_structures(
    segments: Sequence[Segment], n_bits: int, choices: Sequence[Choice]
) -> tuple[list[Trial], Segment | None]:
    """Return the trials on the content of the segments, the best one first, and its segment; of nothing, nothing.

    A choice that gives the structure of another one (few codes are scanned, whatever is chosen) is tried once.
    """
    if not segments:
        return [], None
    groups = merged(segments)
    queries = own_queries(groups)[0]
    tried: list[tuple[Trial, Segment]] = []
    for choice in choices:
        start = time.perf_counter()
        segment = Segment.of(groups, n_bits, choice)
        seconds = time.perf_counter() - start
        if segment.structure.exact and any(other.structure == segment.structure.name for other, _ in tried):
            continue
        tried.append((_trial(choice, segment, queries, n_bits, seconds), segment))
    tried.sort(key=lambda pair: _cost(pair[0]))
    return [trial for trial, _ in tried], tried[0][1] if tried else None


def _cost(trial: Trial) -> tuple[bool, float]:
    return not trial.reaches, trial.seconds_per_query * (1.0 if trial.exact else _WORTH)


def _trial(choice: Choice, segment: Segment, queries: Words, n_bits: int, build_seconds: float) -> Trial:
    recall = 1.0 if segment.structure.exact else getattr(segment.structure, "recall", 1.0)
    seconds: list[float] = []
    for at in range(min(_TIMED, len(queries))):
        if len(seconds) >= _LEAST and sum(seconds) > _SECONDS:
            break
        start = time.perf_counter()
        segment.find(queries[at : at + 1], 10, n_bits)
        seconds.append(time.perf_counter() - start)
    return Trial(
        choice, segment.structure.name, parameters_of(segment), segment.structure.exact, recall,
        float(np.median(seconds)), segment.groups.n_bytes + segment.structure.n_bytes, build_seconds,
    )  # fmt: skip


def parameters_of(segment: Segment) -> dict[str, int]:
    """Return what an approximate structure is searched with; nothing of an exact one."""
    parameters = getattr(segment.structure, "parameters", None)
    return {} if parameters is None else parameters()


def measured_recall(segments: Sequence[Segment], n_bits: int, k: int, queries: Words | None) -> float:
    """Return the recall of a search over all segments, of the k nearest, against scans of the same."""
    n_ids = sum(map(len, segments))
    if n_ids == 0 or all(segment.structure.exact for segment in segments):
        return 1.0
    own = np.empty(0, np.int64) if queries is None else np.full(len(queries), -1)
    # A query is at its place in the segment that it comes from, and in no other.
    places = [own] * len(segments)
    if queries is None:
        parts = [own_queries(segment.groups, len(segment) / n_ids) for segment in segments]
        queries, own = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        sources = np.repeat(np.arange(len(parts)), [len(part[1]) for part in parts])
        joined = np.concatenate([part[2] for part in parts])
        places = [np.where(sources == number, joined, -1) for number in range(len(parts))]
    true, found = [], []
    for segment, at in zip(segments, places, strict=True):
        true.append(Scan(segment.groups.words).find(segment.groups, queries, k + 1, n_bits))
        anew = getattr(segment.structure, "find_anew", None)
        found.append(true[-1] if anew is None else anew(segment.groups, queries, at, k + 1, n_bits))
    return recall_of(merge_found(found, k + 1), probe_of(queries, own, own, k, merge_found(true, k + 1)))
