"""Evaluates codes and float features over a set of queries: counts, measures, means, report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.codes import check_codes, check_n_bits

from .code_health import code_health
from .counting import HammingCounter
from .labels import LabelPair, check_exclude, check_ks, check_radii
from .legacy import LEGACY_RULES, legacy_means
from .levels import LevelCounts, PositionSums
from .rankings import dense_levels
from .report import RadiusPoint, RetrievalReport

__all__ = ["evaluate_codes", "evaluate_features"]

# Cells of queries x distance levels x gains (or queries x database features) held at a time.
_BLOCK_CELLS = 1 << 20
_BLOCK_ROWS = 256
# Database rows widened to float64 at a time.
_FEATURE_ROWS = 8192
# NumPy and faiss let go of Python's lock in their long loops; what lies between them keeps more threads waiting.
_MAX_THREADS = 4

_Ints = NDArray[np.int64]
_Measures = dict[tuple[str, int | None], NDArray[Any]]


def evaluate_codes(
    query_codes: NDArray[np.uint8],
    database_codes: NDArray[np.uint8],
    *,
    n_bits: int,
    query_labels: ArrayLike,
    database_labels: ArrayLike,
    ks: Sequence[int] = (10,),
    radii: Sequence[int] = (2,),
    exclude: ArrayLike | None = None,
    legacy: str | None = None,
) -> RetrievalReport:
    """Rank the database by Hamming distance for every query and report how well relevant items come first.

    Codes are (N, ceil(n_bits / 8)) uint8. Labels are (N,) int, or (N, C) multi-hot: an item is relevant to a query when
    they share a label; multi-hot labels add the graded metrics. `ks` are the k of every metric @k, `radii` the
    inclusive radii of P@H. `exclude` is (Q,) int: the database position of the query itself, which is left out of its
    own ranking; -1 = none. The order of the database matters to `legacy` alone, one of `LEGACY_RULES`, which takes a
    sort of the database for every query: many times the time of all other metrics together.

    Memory grows with queries + database, not with their product. Works on several threads; the result does not depend
    on their number.

    Raises:
        ValueError: codes, labels, ks, radii or exclude of wrong shape, type or range, an unknown legacy rule; or no
            query has a relevant item.

    Source: mAP over Hamming levels, He et al., CVPR 2018; see `average_precision` and `RetrievalReport`.
    """
    n_bits = check_n_bits(n_bits)
    queries = check_codes(query_codes, n_bits, name="query codes")
    database = check_codes(database_codes, n_bits, name="database codes")
    labels = _check_sets(query_labels, database_labels, len(queries), len(database))
    ks, radii = check_ks(ks), check_radii(radii)
    excluded = check_exclude(exclude, len(queries), len(database))
    if legacy is not None and legacy not in LEGACY_RULES:
        raise ValueError(f"legacy is {legacy!r}: use one of {', '.join(LEGACY_RULES)}, or None")

    counter = HammingCounter(queries, database, labels, n_bits, excluded)
    sums = PositionSums(len(database))
    copies = np.bincount(counter.distinct, minlength=counter.n_distinct)

    def measure(block: slice) -> tuple[_Measures, _Ints]:
        levels = counter.count(block)
        measures = _measure(levels, ks, sums, graded=labels.graded) | _measure_radii(levels, radii)
        # Pairs and relevant pairs inside each radius, over the queries that have relevant items.
        weights = copies[block] * (levels.n_relevant > 0)
        return measures, np.stack([weights @ inside for inside in levels.balls()])

    blocks = _blocks(counter.n_distinct, min(_BLOCK_ROWS, _BLOCK_CELLS // (counter.n_levels * counter.n_gains)))
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as threads:
        parts = list(threads.map(measure, blocks))
    measures = {name: values[counter.distinct] for name, values in _joined([part for part, _ in parts]).items()}
    retrieved, relevant = np.sum([pairs for _, pairs in parts], axis=0)

    fields = _means(measures)
    if legacy is not None:
        values = legacy_means(queries, database, labels, n_bits, excluded, [len(database), *ks], legacy)
        fields |= {
            "legacy_rule": legacy,
            "legacy_map": values[0],
            "legacy_map_at": dict(zip(ks, values[1:], strict=True)),
        }
    return RetrievalReport(
        n_bits=n_bits,
        n_queries=len(queries),
        n_database=len(database),
        pr_by_radius=[
            RadiusPoint(radius=radius, precision=float(p / max(n, 1)), recall=float(p / relevant[-1]))
            for radius, (n, p) in enumerate(zip(retrieved, relevant, strict=True))
        ],
        health=code_health(database, n_bits=n_bits),
        **fields,
    )


def evaluate_features(
    query_features: ArrayLike,
    database_features: ArrayLike,
    *,
    query_labels: ArrayLike,
    database_labels: ArrayLike,
    ks: Sequence[int] = (10,),
    exclude: ArrayLike | None = None,
) -> RetrievalReport:
    """Rank the database by cosine for every query: the same report as `evaluate_codes`, for the float baseline.

    Features are (N, D) float; the distance is 1 - cosine, the cosine summed in float64 and rounded to float32: equal
    vectors tie wherever they stand in the database. A zero vector has distance 1 to everything. What belongs to codes
    (radii, legacy, health) is None.

    Raises:
        ValueError: features, labels, ks or exclude of wrong shape, type or range, a NaN or an infinite value; or no
            query has a relevant item.
    """
    queries = _unit_rows(query_features, "query features")
    database = _unit_rows(database_features, "database features")
    if queries.shape[1] != database.shape[1]:
        raise ValueError(
            f"query features have {queries.shape[1]} dimensions, database features {database.shape[1]}: "
            "take both from the same network"
        )
    labels = _check_sets(query_labels, database_labels, len(queries), len(database))
    ks = check_ks(ks)
    excluded = check_exclude(exclude, len(queries), len(database))
    sums = PositionSums(len(database))
    parts = []
    for block in _blocks(len(queries), _BLOCK_CELLS // (len(database) * labels.n_gains)):
        levels = dense_levels(_cosine_distances(queries[block], database))
        parts.append(_measure(_count(levels, labels, block, excluded[block]), ks, sums, graded=labels.graded))
    return RetrievalReport(n_bits=None, n_queries=len(queries), n_database=len(database), **_means(_joined(parts)))


def _check_sets(query_labels: ArrayLike, database_labels: ArrayLike, n_queries: int, n_database: int) -> LabelPair:
    if n_queries == 0 or n_database == 0:
        raise ValueError(f"nothing to evaluate: {n_queries} queries, {n_database} database items")
    return LabelPair.checked(query_labels, database_labels, n_queries, n_database)


def _measure(levels: LevelCounts, ks: list[int], sums: PositionSums, *, graded: bool) -> _Measures:
    """Every metric of a block of queries, each (B,), by field of the report and k."""
    n_database = len(sums.harmonic) - 1
    names = ("map", "map_optimistic", "map_pessimistic")
    measures: _Measures = {
        ("n_relevant", None): levels.n_relevant,
        ("chance", None): levels.n_relevant / np.maximum(levels.n_items, 1),
    }
    for name, values in zip(names, levels.average_precisions(n_database, sums), strict=True):
        measures[name, None] = values
    if graded:
        measures["wap", None] = levels.weighted_average_precisions(n_database, sums)
    for k in ks:
        for name, values in zip(names, levels.average_precisions(k, sums), strict=True):
            measures[name.replace("map", "map_at"), k] = values
        measures["precision_at", k] = levels.precisions(k)
        measures["recall_at", k] = levels.recalls(k)
        if graded:
            measures["ndcg_at", k] = levels.normalized_discounted_gains(k, sums)
            measures["acg_at", k] = levels.average_gains(k)
            measures["wap_at", k] = levels.weighted_average_precisions(k, sums)
    return measures


def _measure_radii(levels: LevelCounts, radii: list[int]) -> _Measures:
    n, p = levels.balls()
    measures: _Measures = {}
    for radius in radii:
        inside = n[:, min(radius, n.shape[1] - 1)]
        measures["precision_within", radius] = p[:, min(radius, n.shape[1] - 1)] / np.maximum(inside, 1)
        measures["empty_within", radius] = inside == 0
    return measures


def _means(measures: _Measures) -> dict[str, Any]:
    """Fields of the report: means over the queries that have a relevant item."""
    answerable = measures.pop(("n_relevant", None)) > 0
    if not answerable.any():
        raise ValueError(
            f"none of the {len(answerable)} queries shares a label with a database item: mAP is undefined, "
            "check that both label sets number the classes alike"
        )
    fields: dict[str, Any] = {"precision_at": {}, "queries_without_relevant": int((~answerable).sum())}
    for (name, key), values in measures.items():
        mean = float(values[answerable].mean())
        if key is None:
            fields[name] = mean
        else:
            fields.setdefault(name, {})[key] = mean
    return fields


def _joined(parts: list[_Measures]) -> _Measures:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _blocks(n: int, n_rows: int) -> Iterator[slice]:
    step = max(1, n_rows)
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def _count(levels: _Ints, labels: LabelPair, block: slice, excluded: _Ints) -> LevelCounts:
    """Counts of dense levels, (B, N), with as many levels as items and one bin more for what is excluded."""
    n_rows, n_levels = levels.shape
    rows = np.flatnonzero(excluded >= 0)
    levels[rows, excluded[rows]] = n_levels
    levels += np.arange(n_rows)[:, None] * (n_levels + 1)
    levels *= labels.n_gains
    levels += labels.shared(block)
    shape = n_rows, n_levels + 1, labels.n_gains
    counts = np.bincount(levels.ravel(), minlength=int(np.prod(shape))).reshape(shape)
    return LevelCounts(counts[:, :n_levels])


def _cosine_distances(queries: NDArray[np.floating], database: NDArray[np.floating]) -> NDArray[np.float32]:
    wide = queries.astype(np.float64)
    cosines = np.empty((len(wide), len(database)), np.float32)
    for start in range(0, len(database), _FEATURE_ROWS):
        rows = slice(start, start + _FEATURE_ROWS)
        cosines[:, rows] = wide @ database[rows].astype(np.float64).T
    return np.float32(1) - cosines


def _unit_rows(features: ArrayLike, what: str) -> NDArray[np.floating]:
    """Rows of length 1 (zero rows stay zero), in the float type given."""
    array = np.asarray(features)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise ValueError(f"{what} must be (N, D) float, not {array.shape} {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} contain NaN or infinite values")
    array = array.astype(np.promote_types(array.dtype, np.float32), copy=False)
    lengths = np.sqrt(np.einsum("nd,nd->n", array, array, dtype=np.float64)).astype(array.dtype)
    return np.asarray(array / np.where(lengths > 0, lengths, 1)[:, None])
