"""Counts by distance and shared labels, and the histograms under them, against one pair at a time."""

import numpy as np
import pytest

from deephash.evaluation import counting
from deephash.evaluation.counting import HammingCounter
from deephash.evaluation.histograms import fast_width, histograms, span_histograms, write_distances
from deephash.evaluation.labels import LabelPair
from index.codes import hamming_distances


def plain_counts(queries, database, shared, exclude, n_levels, n_gains):
    counts = np.zeros((len(queries), n_levels, n_gains), int)
    for i, row in enumerate(hamming_distances(queries, database)):
        for j, distance in enumerate(row):
            if j != exclude[i]:
                counts[i, distance, shared[i, j]] += 1
    return counts


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("n_codes", [3, 40, 5000])
@pytest.mark.parametrize("n_classes", [1, 4, 60])
@pytest.mark.parametrize("excluding", [False, True])
def test_counts_equal_those_of_one_pair_at_a_time(monkeypatch, multi_label, n_codes, n_classes, excluding):
    """Few codes are merged, many are counted two queries at a time; in several tiles, blocks of odd length."""
    monkeypatch.setattr(counting, "_TILE", 500)
    monkeypatch.setattr(counting, "_CELLS", 3000)
    rng = np.random.default_rng(n_codes)
    pool = rng.integers(0, 256, (n_codes, 1), dtype=np.uint8)
    queries, database = pool[rng.integers(0, n_codes, 41)], pool[rng.integers(0, n_codes, 1203)]
    if multi_label:
        labels = LabelPair.checked(rng.random((41, n_classes)) < 0.4, rng.random((1203, n_classes)) < 0.4, 41, 1203)
        shared = labels.queries.astype(int) @ labels.database.T.astype(int)
    else:
        labels = LabelPair.checked(rng.integers(-1, n_classes, 41), rng.integers(0, n_classes + 1, 1203), 41, 1203)
        shared = (labels.queries[:, None] == labels.database).astype(int)
    exclude = rng.integers(-1, 1203, 41) if excluding else np.full(41, -1)
    counter = HammingCounter(queries, database, labels, 8, exclude)
    blocks = [slice(start, start + 13) for start in range(0, counter.n_distinct, 13)]
    counts = np.concatenate([counter.count(block).counts for block in blocks])
    assert counts.shape == (counter.n_distinct, 9, labels.n_gains)
    assert np.array_equal(counts[counter.distinct], plain_counts(queries, database, shared, exclude, 9, labels.n_gains))


@pytest.mark.parametrize("n_levels", [5, 40])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_rows", [1, 2, 7])
def test_spans_of_two_rows_may_be_equal_overlap_or_be_empty(n_levels, weighted, n_rows):
    rng = np.random.default_rng(n_rows)
    distances = rng.integers(0, n_levels, (n_rows, 900)).astype(np.int32)
    weights = rng.integers(1, 9, 900).astype(float) if weighted else None
    spans = np.array([[10, 300], [10, 300], [0, 900], [899, 900], [50, 50], [0, 0], [200, 700]])[:n_rows]
    expected = np.zeros((n_rows, n_levels, 2), int)
    for row, (start, end) in enumerate(spans):
        for column, distance in enumerate(distances[row]):
            inside = int(start <= column < end)
            expected[row, distance, inside] += 1 if weights is None else int(weights[column])
    assert np.array_equal(span_histograms(distances, spans, n_levels, weights), expected)


def test_a_key_outside_the_bins_is_not_dropped_silently():
    with pytest.raises(AssertionError):
        histograms(np.array([[0, 1, 2]], np.int32), 2, None)


@pytest.mark.parametrize("n_bytes", [1, 6, 8, 9, 33, 65, 128])
def test_distances_land_in_memory_at_hand(n_bytes):
    rng = np.random.default_rng(n_bytes)
    queries, database = (rng.integers(0, 256, (n, n_bytes), dtype=np.uint8) for n in (3, 50))
    out = np.full(200, -1, np.int32)
    distances = write_distances(fast_width(queries), fast_width(database), out)
    assert np.shares_memory(distances, out)
    assert np.array_equal(distances, hamming_distances(queries, database))
    assert (out[150:] == -1).all()
