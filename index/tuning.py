"""Recall, measured against exact search, and the parameters that reach a wanted one."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, Self

import numpy as np

from index.groups import Distances, Groups, Ids, Words
from index.kernel import Found
from index.structures import Scan, Structure

__all__ = ["Approximate", "Probe", "own_queries", "probe_of", "recall_of", "sampled", "tuned", "with_recall"]

# Codes compared to know the true answers of a sample: some seconds, at most.
_COMPARISONS = 3e9
_MOST, _LEAST = 1000, 100


class Approximate(Structure, Protocol):
    """A structure whose answer may lack something. What it gives has true distances."""

    @property
    def recall(self) -> float:
        """The share of the true results that it finds, as it was measured; nan before."""

    def find_anew(self, groups: Groups, queries: Words, places: Ids, k: int, radius: int) -> Found:
        """Return the k nearest ids of queries that are in the structure, at these places, as if they were not.

        Places are -1 where a query is not in it; the query's own id may be in the answer or not.
        """

    def settings(self) -> list[dict[str, int]]:
        """Return the parameters to choose from by their recall, from the fastest on."""

    def parameters(self) -> dict[str, int]:
        """Return what it is searched with."""

    def with_settings(self, *, recall: float | None = None, **parameters: int) -> Self:
        """Return the same structure with other parameters, or with the recall that was measured."""


class Probe(NamedTuple):
    """Queries, the id and the place that each one's own answer leaves out (-1: none), and what is true.

    The place is -1, too, where other ids have the same code: it stays when the query's own is away. Of query q,
    `wanted[q]` results are within the distance `kth[q]`, at most k.
    """

    queries: Words
    own: Ids
    places: Ids
    k: int
    kth: Distances
    wanted: Ids


def own_queries(groups: Groups, share: float = 1.0) -> tuple[Words, Ids, Ids]:
    """Return (queries, their ids, their places): a seeded sample of the ids of the groups, which are a share of all."""
    most = np.clip(share * _COMPARISONS / max(1, len(groups.words)), _LEAST, _MOST)
    n_queries = min(len(groups.ids), math.ceil(share * most))
    members = np.sort(np.random.default_rng(0).choice(len(groups.ids), n_queries, replace=False))
    places = np.searchsorted(groups.offsets, members, side="right") - 1
    alone = groups.offsets[places + 1] - groups.offsets[places] == 1
    queries = np.ascontiguousarray(groups.words[places])
    return queries, np.asarray(groups.ids[members], np.int64), np.where(alone, places, -1)


def sampled(groups: Groups, n_bits: int, k: int) -> Probe:
    """Return a sample of the groups' own ids as queries, each left out of its own answer."""
    queries, own, places = own_queries(groups)
    return probe_of(queries, own, places, k, Scan(groups.words).find(groups, queries, k + 1, n_bits))


def probe_of(queries: Words, own: Ids, places: Ids, k: int, true: Found) -> Probe:
    """Return the queries with what is true of them: the k + 1 nearest of each, by exact search."""
    found = _without_own(true, own, k)
    wanted = np.diff(found.limits)
    kth = np.append(found.distances, -1)[np.maximum(found.limits[1:] - 1, 0)]
    return Probe(queries, own, places, k, np.where(wanted > 0, kth, -1).astype(np.int32), wanted)


def _without_own(found: Found, own: Ids, k: int) -> Found:
    """Return the first k of each query, without its own id."""
    rows = np.repeat(np.arange(len(own)), np.diff(found.limits))
    others = found.ids != own[rows]
    rows, distances, ids = rows[others], found.distances[others], found.ids[others]
    starts = np.searchsorted(rows, np.arange(len(own) + 1))
    near = np.arange(len(rows)) - starts[rows] < k
    limits = np.concatenate(([0], np.cumsum(np.minimum(np.diff(starts), k))))
    return Found(limits, distances[near], ids[near])


def recall_of(found: Found, truth: Probe) -> float:
    """Return the share of the true results that were found: by distance, so that any of equally near ones counts.

    `found` holds k + 1 results of each query, or as many as there are.
    """
    found = _without_own(found, truth.own, truth.k)
    rows = np.repeat(np.arange(len(truth.own)), np.diff(found.limits))
    hits = int(np.count_nonzero(found.distances <= truth.kth[rows]))
    return hits / int(truth.wanted.sum()) if truth.wanted.any() else 1.0


def tuned(structure: Approximate, groups: Groups, n_bits: int, wanted: float, *, k: int = 10) -> Approximate:
    """Return the structure with the fastest of its settings that reach the wanted recall, and the recall measured.

    Where none does, it is the most thorough one: its recall says so.
    """
    truth = sampled(groups, n_bits, k)

    def measured(settings: dict[str, int]) -> Approximate:
        chosen = structure.with_settings(**settings)
        recall = recall_of(chosen.find_anew(groups, truth.queries, truth.places, k + 1, n_bits), truth)
        return structure.with_settings(recall=recall, **settings)

    options = structure.settings()
    low, high = 0, len(options) - 1
    best = None
    # Recall grows along the settings.
    while low < high:
        middle = (low + high) // 2
        trial = measured(options[middle])
        if trial.recall >= wanted:
            best, high = trial, middle
        else:
            low = middle + 1
    if best is not None and best.parameters() == structure.with_settings(**options[low]).parameters():
        return best
    return measured(options[low])


def with_recall(structure: Approximate, groups: Groups, n_bits: int, *, k: int = 10) -> Approximate:
    """Return the structure as it is, with its recall measured."""
    truth = sampled(groups, n_bits, k)
    recall = recall_of(structure.find_anew(groups, truth.queries, truth.places, k + 1, n_bits), truth)
    return structure.with_settings(recall=recall if not math.isnan(recall) else 1.0)
