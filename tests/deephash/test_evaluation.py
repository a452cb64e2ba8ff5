"""Metrics against slow, obvious references: all orders inside ties enumerated, rankings walked item by item."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deephash import evaluation
from deephash.evaluation import average_precision, evaluate_codes, evaluate_features, precision_at_k
from index.codes import hamming_distances, pack_bits


def classic_ap(relevant):
    """AP of one fixed order, walked item by item."""
    hits, total = 0, 0.0
    for rank, item in enumerate(relevant, start=1):
        if item:
            hits += 1
            total += hits / rank
    return total / hits


def orders_of(distances):
    """Every order that ascends in distance."""
    for order in itertools.permutations(range(len(distances))):
        if all(distances[a] <= distances[b] for a, b in itertools.pairwise(order)):
            yield list(order)


def slow_expected_ap(distances, relevant):
    """The sum over levels and positions of McSherry & Najork 2008, two plain loops."""
    distances, relevant = np.asarray(distances), np.asarray(relevant)
    n_before = p_before = 0
    total = 0.0
    for level in np.unique(distances):
        n, p = int((distances == level).sum()), int(relevant[distances == level].sum())
        slope = (p - 1) / (n - 1) if n > 1 else 0.0
        total += p * sum((p_before + 1 + j * slope) / (n_before + 1 + j) for j in range(n)) / n
        n_before, p_before = n_before + n, p_before + p
    return total / p_before


def slow_report(distances, relevant, ks, exclude):
    """(map, {k: precision}, chance, queries without relevant items), one query at a time, self deleted."""
    aps, precisions, chances, without = [], {k: [] for k in ks}, [], 0
    for row, rel, self_position in zip(distances, relevant, exclude, strict=True):
        keep = np.arange(len(row)) != self_position
        row, rel = row[keep], rel[keep]
        if not rel.any():
            without += 1
            continue
        aps.append(slow_expected_ap(row, rel))
        for k in ks:
            precisions[k].append(precision_at_k(row, rel, k))
        chances.append(rel.mean())
    return np.mean(aps), {k: np.mean(v) for k, v in precisions.items()}, np.mean(chances), without


small_rankings = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 3), min_size=n, max_size=n), st.lists(st.booleans(), min_size=n, max_size=n)
    )
)
rankings = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 12), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n).filter(any),
        st.permutations(range(n)),
    )
)


@settings(max_examples=60, deadline=None)
@given(small_rankings)
def test_ap_is_the_mean_best_and_worst_over_all_orders_inside_ties(ranking):
    distances, relevant = ranking
    if not any(relevant):
        return
    aps = [classic_ap([relevant[i] for i in order]) for order in orders_of(distances)]
    result = average_precision(distances, relevant)
    assert result.expected == pytest.approx(np.mean(aps), abs=1e-12)
    assert result.optimistic == pytest.approx(max(aps), abs=1e-12)
    assert result.pessimistic == pytest.approx(min(aps), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(small_rankings, st.integers(1, 8))
def test_precision_is_the_mean_over_all_orders_inside_ties(ranking, k):
    distances, relevant = ranking
    values = [sum(relevant[i] for i in order[:k]) / k for order in orders_of(distances)]
    assert precision_at_k(distances, relevant, k) == pytest.approx(np.mean(values), abs=1e-12)


@settings(deadline=None)
@given(rankings)
def test_ap_equals_the_sum_over_positions_and_does_not_depend_on_order(ranking):
    distances, relevant, order = ranking
    result = average_precision(distances, relevant)
    assert result.expected == pytest.approx(slow_expected_ap(distances, relevant), abs=1e-12)
    assert 0 < result.pessimistic <= result.expected <= result.optimistic <= 1
    shuffled = average_precision([distances[i] for i in order], [relevant[i] for i in order])
    assert shuffled == result


@settings(deadline=None)
@given(rankings)
def test_without_ties_the_three_values_are_the_classic_ap(ranking):
    _, relevant, order = ranking
    distances = np.array(order) * 0.25 - 1
    result = average_precision(distances, relevant)
    assert result.expected == result.optimistic == result.pessimistic
    assert result.expected == pytest.approx(classic_ap([relevant[i] for i in np.argsort(order)]), abs=1e-12)


def test_one_large_level_keeps_its_accuracy():
    """Differences of harmonic numbers cancel: compare with the plain sum at 200,000 tied items."""
    relevant = np.zeros(200_000, bool)
    relevant[:7] = True
    distances = np.ones(200_000, np.int32)
    distances[100_000:] = 0
    j = np.arange(100_000)
    expected = ((1 + j * 6 / 99_999) / (100_001 + j)).mean()
    assert average_precision(distances, relevant).expected == pytest.approx(expected, rel=1e-8)


def test_ap_of_a_known_example():
    # One level of three with one relevant item: ranks 1, 2, 3 are equally likely.
    assert average_precision([5, 5, 5], [False, True, False]) == pytest.approx((11 / 18, 1, 1 / 3))
    assert precision_at_k([5, 5, 5], [False, True, False], 1) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("distances", "relevant", "text"),
    [
        ([1, 2], [True], "one length"),
        ([[1, 2]], [[True, False]], "one length"),
        ([], np.array([], bool), "above 0"),
        ([1, 2], [1, 0], "must be bool"),
        ([1.0, np.nan], [True, False], "NaN"),
        (["a", "b"], [True, False], "int or float"),
        ([1, 2], [False, False], "no item is relevant"),
    ],
)
def test_a_wrong_ranking_is_an_error(distances, relevant, text):
    with pytest.raises(ValueError, match=text):
        average_precision(distances, relevant)


@pytest.mark.parametrize("k", [0, -1, 2.5, True])
def test_a_wrong_k_is_an_error(k):
    with pytest.raises(ValueError, match="k must be"):
        precision_at_k([1, 2], [True, False], k)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_bits=st.sampled_from([8, 12, 24, 65]),
    multi_label=st.booleans(),
    with_exclude=st.booleans(),
    block_cells=st.sampled_from([1, 100, 1 << 20]),
)
def test_the_report_on_codes_equals_slow_loops(seed, n_bits, multi_label, with_exclude, block_cells):
    rng = np.random.default_rng(seed)
    n_queries, n_database = rng.integers(1, 8), rng.integers(10, 50)
    query_codes = pack_bits(rng.random((n_queries, n_bits)) < 0.2)
    database_codes = pack_bits(rng.random((n_database, n_bits)) < 0.2)
    if multi_label:
        query_labels, database_labels = rng.random((n_queries, 4)) < 0.3, rng.random((n_database, 4)) < 0.3
        relevant = np.array([[bool((a & b).any()) for b in database_labels] for a in query_labels])
    else:
        query_labels, database_labels = rng.integers(0, 5, n_queries), rng.integers(0, 5, n_database)
        relevant = np.array([[a == b for b in database_labels] for a in query_labels])
    exclude = rng.integers(-1, n_database, n_queries) if with_exclude else np.full(n_queries, -1)
    distances = hamming_distances(query_codes, database_codes)
    if not any(np.delete(rel, e).any() if e >= 0 else rel.any() for rel, e in zip(relevant, exclude, strict=True)):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "_BLOCK_CELLS", block_cells)
        report = evaluate_codes(
            query_codes,
            database_codes,
            n_bits=n_bits,
            query_labels=query_labels,
            database_labels=database_labels,
            ks=(1, 10, 100),
            exclude=exclude if with_exclude else None,
        )
    expected_map, precisions, chance, without = slow_report(distances, relevant, (1, 10, 100), exclude)
    assert report.map == pytest.approx(expected_map, abs=1e-12)
    assert report.precision_at == pytest.approx(precisions, abs=1e-12)
    assert report.chance == pytest.approx(chance)
    assert report.queries_without_relevant == without
    assert (report.n_queries, report.n_database, report.n_bits) == (n_queries, n_database, n_bits)
    assert report.map_pessimistic <= report.map <= report.map_optimistic


def clustered(seed=0, n_queries=20, n_database=300, dims=16):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((5, dims))
    query_labels, database_labels = rng.integers(0, 5, n_queries), rng.integers(0, 5, n_database)
    queries = centres[query_labels] + rng.standard_normal((n_queries, dims))
    database = centres[database_labels] + rng.standard_normal((n_database, dims))
    return queries.astype(np.float32), database.astype(np.float32), query_labels, database_labels


def test_the_report_on_features_equals_classic_ap_by_cosine(monkeypatch):
    queries, database, query_labels, database_labels = clustered()
    monkeypatch.setattr(evaluation, "_BLOCK_CELLS", 2000)
    monkeypatch.setattr(evaluation, "_FEATURE_ROWS", 64)
    report = evaluate_features(
        queries, database, query_labels=query_labels, database_labels=database_labels, ks=(1, 10)
    )
    aps, tops = [], []
    for query, label in zip(queries.astype(float), query_labels, strict=True):
        cosines = [query @ x / np.linalg.norm(query) / np.linalg.norm(x) for x in database.astype(float)]
        relevant = [database_labels[i] == label for i in np.argsort(cosines)[::-1]]
        aps.append(classic_ap(relevant))
        tops.append(np.mean(relevant[:10]))
    assert report.map == pytest.approx(np.mean(aps), abs=1e-9)
    assert report.precision_at[10] == pytest.approx(np.mean(tops))
    assert report.n_bits is None


def test_equal_features_tie_wherever_they_stand(monkeypatch):
    queries, database, query_labels, database_labels = clustered(n_database=101, dims=37)
    database = np.repeat(database, 3, axis=0)
    labels = np.repeat(database_labels, 3)
    labels[::3] = (labels[::3] + 1) % 5
    reports = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(database))
        monkeypatch.setattr(evaluation, "_FEATURE_ROWS", 50 + seed)
        reports.append(
            evaluate_features(queries, database[order], query_labels=query_labels, database_labels=labels[order])
        )
    assert reports[0] == reports[1] == reports[2]
    assert reports[0].map_pessimistic < reports[0].map < reports[0].map_optimistic


def test_an_excluded_self_changes_the_features_report_as_if_it_were_not_there():
    _, database, _, labels = clustered(n_database=40)
    n = len(database)
    report = evaluate_features(database, database, query_labels=labels, database_labels=labels, exclude=np.arange(n))
    aps = []
    for i in range(n):
        rest = np.arange(n) != i
        one = evaluate_features(
            database[i : i + 1], database[rest], query_labels=labels[i : i + 1], database_labels=labels[rest]
        )
        aps.append(one.map)
    assert report.map == pytest.approx(np.mean(aps), abs=1e-12)
    with_self = evaluate_features(database, database, query_labels=labels, database_labels=labels)
    assert with_self.map > report.map


def test_a_zero_vector_is_at_distance_one_from_everything():
    report = evaluate_features(
        np.zeros((1, 3), np.float32), np.eye(3, dtype=np.float32), query_labels=[0], database_labels=[0, 1, 1]
    )
    assert report.map == pytest.approx(11 / 18)


def test_random_codes_score_chance_and_the_stated_excess():
    rng = np.random.default_rng(0)
    codes = pack_bits(rng.random((1100, 64)) < 0.5)
    labels = np.arange(1100) % 10
    report = evaluate_codes(
        codes[:100], codes[100:], n_bits=64, query_labels=labels[:100], database_labels=labels[100:], ks=(10, 100)
    )
    assert report.chance == pytest.approx(0.1)
    assert 0 < report.map - report.chance < (1 + np.log(1000)) / 1000 + 0.005
    assert report.precision_at[100] == pytest.approx(0.1, abs=0.02)
    # One single level: the exact expectation of a random order, .106 as the docstring of RetrievalReport says.
    random_order = average_precision(np.zeros(1000), np.arange(1000) < 100)
    assert random_order.expected == pytest.approx(0.1058, abs=1e-4)


def test_queries_without_relevant_items_are_counted_and_left_out():
    codes = pack_bits(np.eye(8, dtype=bool))
    report = evaluate_codes(codes[:2], codes, n_bits=8, query_labels=[0, 9], database_labels=[0] * 8, ks=(1, 1, 8))
    assert (report.n_queries, report.queries_without_relevant) == (2, 1)
    assert report.map == report.chance == 1
    assert report.precision_at == {1: 1, 8: 1}


def test_the_report_survives_json():
    codes = pack_bits(np.eye(8, dtype=bool))
    report = evaluate_codes(codes, codes, n_bits=8, query_labels=range(8), database_labels=range(8))
    loaded = json.loads(json.dumps(report.to_dict()))
    assert loaded["map"] == report.map == 1
    assert loaded["precision_at"] == {"10": pytest.approx(0.1)}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"query_codes": np.zeros((2, 3), np.uint8)}, "query codes have 3 bytes"),
        ({"database_codes": np.zeros((4, 1), np.uint8)}, "database codes have 1 bytes"),
        ({"n_bits": 7}, "n_bits"),
        ({"query_labels": [0, 1, 2]}, "query labels must be"),
        ({"database_labels": [0]}, "database labels must be"),
        ({"query_labels": [0.5, 1.0]}, "must be ints"),
        ({"query_labels": [[0, 1], [1, 0]]}, "both must be"),
        ({"query_labels": [[0, 1], [1, 0]], "database_labels": np.ones((4, 3), bool)}, "both must be"),
        ({"query_labels": [[0, 2], [1, 0]], "database_labels": np.ones((4, 2), bool)}, "multi-hot"),
        ({"query_labels": [7, 8]}, "none of the 2 queries"),
        ({"ks": (0,)}, "k must be"),
        ({"exclude": [0]}, "exclude must be"),
        ({"exclude": [0, 4]}, "exclude must lie in -1 ... 3"),
        ({"exclude": [0.0, 1.0]}, "exclude must be"),
        ({"query_codes": np.zeros((0, 2), np.uint8), "query_labels": np.zeros(0, int)}, "nothing to evaluate"),
    ],
)
def test_wrong_input_is_an_error_that_says_what(change, text):
    arguments = {
        "query_codes": np.zeros((2, 2), np.uint8),
        "database_codes": np.zeros((4, 2), np.uint8),
        "n_bits": 16,
        "query_labels": [0, 1],
        "database_labels": [0, 1, 1, 0],
    } | change
    with pytest.raises(ValueError, match=text):
        evaluate_codes(arguments.pop("query_codes"), arguments.pop("database_codes"), **arguments)


@pytest.mark.parametrize(
    ("queries", "database", "text"),
    [
        (np.ones((2, 3)), np.ones((4, 5)), "3 dimensions, database features 5"),
        (np.ones(3), np.ones((4, 3)), "query features must be"),
        (np.ones((2, 3)), np.ones((4, 3), int), "database features must be"),
        (np.full((2, 3), np.inf), np.ones((4, 3)), "NaN or infinite"),
    ],
)
def test_wrong_features_are_an_error(queries, database, text):
    with pytest.raises(ValueError, match=text):
        evaluate_features(queries, database, query_labels=[0, 1], database_labels=[0, 1, 1, 0])
