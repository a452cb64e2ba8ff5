"""Reports on codes and features against slow, obvious loops over queries, and what they refuse."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deephash.evaluation import (
    acg_at_k,
    average_precision,
    counting,
    evaluate,
    evaluate_codes,
    evaluate_features,
    legacy_average_precision,
    ndcg_at_k,
    precision_at_k,
    recall_at_k,
    weighted_average_precision,
)
from index.codes import hamming_distances, pack_bits

KS = (1, 10, 100)
RADII = (0, 2, 9, 2000)


def plain_ap(relevant):
    """AP of one fixed order, walked item by item."""
    hits = np.cumsum(relevant)
    return np.mean([hits[i] / (i + 1) for i in range(len(relevant)) if relevant[i]])


def slow_report(distances, shared, exclude, n_bits, graded):
    """The fields of a report by one loop over the queries, each query's self deleted from its ranking."""
    rankings = []
    for row, gains, self_position in zip(distances, shared, exclude, strict=True):
        keep = np.arange(len(row)) != self_position
        rankings.append((row[keep], gains[keep]))
    legacy = {k: [legacy_average_precision(d, g > 0, k) for d, g in rankings] for k in (*KS, len(shared[0]))}
    answered = [(d, g, g > 0) for d, g in rankings if (g > 0).any()]

    def mean(metric):
        return np.mean([metric(d, g, rel) for d, g, rel in answered])

    def mean_at(metric):
        return {k: mean(lambda d, g, rel, k=k: metric(d, g, rel, k)) for k in KS}

    fields = {"queries_without_relevant": len(rankings) - len(answered), "chance": mean(lambda d, g, rel: rel.mean())}
    for i, name in enumerate(("", "_optimistic", "_pessimistic")):
        fields["map" + name] = mean(lambda d, g, rel, i=i: average_precision(d, rel)[i])
        fields["map_at" + name] = mean_at(lambda d, g, rel, k, i=i: average_precision(d, rel, k)[i])
    fields["precision_at"] = mean_at(lambda d, g, rel, k: precision_at_k(d, rel, k))
    fields["recall_at"] = mean_at(lambda d, g, rel, k: recall_at_k(d, rel, k))
    if graded:
        fields["ndcg_at"] = mean_at(lambda d, g, rel, k: ndcg_at_k(d, g, k))
        fields["acg_at"] = mean_at(lambda d, g, rel, k: acg_at_k(d, g, k))
        fields["wap"] = mean(lambda d, g, rel: weighted_average_precision(d, g))
        fields["wap_at"] = mean_at(lambda d, g, rel, k: weighted_average_precision(d, g, k))
    fields["precision_within"] = {
        r: mean(lambda d, g, rel, r=r: rel[d <= r].mean() if (d <= r).any() else 0) for r in RADII
    }
    fields["empty_within"] = {r: mean(lambda d, g, rel, r=r: not (d <= r).any()) for r in RADII}
    pooled, found = np.concatenate([d for d, _, _ in answered]), np.concatenate([rel for _, _, rel in answered])
    curve = [
        (r, found[pooled <= r].mean() if (pooled <= r).any() else 0, found[pooled <= r].sum() / found.sum())
        for r in range(n_bits + 1)
    ]
    return fields, curve, legacy


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_bits=st.sampled_from([8, 12, 24, 65, 300]),
    multi_label=st.booleans(),
    with_exclude=st.booleans(),
    block=st.sampled_from([(1, 1, 1), (100, 20, 7), (1 << 20, 1 << 17, 1 << 16)]),
    repeats=st.sampled_from([1, 2, 1000]),
    legacy=st.sampled_from(["deephash-pytorch", "hashnet"]),
)
def test_the_report_on_codes_equals_slow_loops(seed, n_bits, multi_label, with_exclude, block, repeats, legacy):
    rng = np.random.default_rng(seed)
    n_queries, n_database = rng.integers(1, 8), rng.integers(10, 50)
    noise = rng.choice([0.01, 0.2])
    query_codes = pack_bits(rng.random((n_queries, n_bits)) < noise)
    database_codes = pack_bits(rng.random((n_database, n_bits)) < noise)
    if multi_label:
        query_labels, database_labels = rng.random((n_queries, 6)) < 0.3, rng.random((n_database, 6)) < 0.3
        shared = np.array([[int((a & b).sum()) for b in database_labels] for a in query_labels])
    else:
        query_labels, database_labels = rng.integers(-1, 5, n_queries), rng.integers(0, 6, n_database)
        shared = np.array([[int(a == b) for b in database_labels] for a in query_labels])
    exclude = rng.integers(-1, n_database, n_queries) if with_exclude else np.full(n_queries, -1)
    distances = hamming_distances(query_codes, database_codes)
    if not any(np.delete(row, e).any() if e >= 0 else row.any() for row, e in zip(shared, exclude, strict=True)):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "_BLOCK_CELLS", block[0])
        patch.setattr(counting, "_CELLS", block[1])
        patch.setattr(counting, "_TILE", block[2])
        patch.setattr(counting, "_REPEATS", repeats)
        report = evaluate_codes(
            query_codes,
            database_codes,
            n_bits=n_bits,
            query_labels=query_labels,
            database_labels=database_labels,
            ks=KS,
            radii=RADII,
            exclude=exclude if with_exclude else None,
            legacy=legacy,
        )
    fields, curve, legacy_values = slow_report(distances, shared, exclude, n_bits, multi_label)
    for name, value in fields.items():
        assert getattr(report, name) == pytest.approx(value, abs=1e-9), name
    points = np.array([(p.radius, p.precision, p.recall) for p in report.pr_by_radius])
    assert points == pytest.approx(np.array(curve))
    assert (report.ndcg_at is None, report.wap is None) == (not multi_label, not multi_label)
    for k, value in {**report.legacy_map_at, n_database: report.legacy_map}.items():
        values = np.array(legacy_values[k])
        kept = np.nan_to_num(values) if legacy == "deephash-pytorch" else values[~np.isnan(values)]
        assert value == pytest.approx(kept.mean() if len(kept) else np.nan, nan_ok=True)
    assert (report.n_queries, report.n_database, report.n_bits) == (n_queries, n_database, n_bits)
    assert report.health.n_codes == n_database
    for k in KS:
        assert report.map_at_pessimistic[k] <= report.map_at[k] <= report.map_at_optimistic[k]


@pytest.mark.parametrize("classes", [1, 3, 500])
@pytest.mark.parametrize("n_distinct", [50, 5000])
def test_counting_two_queries_at_a_time_changes_nothing(classes, n_distinct):
    """Large enough for the joint key of two queries, for merged codes, for several tiles and blocks."""
    rng = np.random.default_rng(0)
    pool = rng.integers(0, 256, (n_distinct, 2), dtype=np.uint8)
    queries, database = pool[rng.integers(0, n_distinct, 75)], pool[rng.integers(0, n_distinct, 6000)]
    query_labels, database_labels = rng.integers(0, classes, 75), rng.integers(0, classes, 6000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_TILE", 2500)
        patch.setattr(evaluate, "_BLOCK_ROWS", 31)
        report = evaluate_codes(
            queries, database, n_bits=16, query_labels=query_labels, database_labels=database_labels
        )
    distances = hamming_distances(queries, database)
    relevant = query_labels[:, None] == database_labels
    aps = [average_precision(d, r).expected for d, r in zip(distances, relevant, strict=True) if r.any()]
    assert report.map == pytest.approx(np.mean(aps), abs=1e-12)
    assert report.pr_by_radius[-1].recall == 1


def test_the_number_of_threads_changes_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    codes, labels = rng.integers(0, 256, (700, 4), dtype=np.uint8), rng.random((700, 9)) < 0.2
    reports = []
    for threads in (1, 4):
        monkeypatch.setattr(evaluate, "_MAX_THREADS", threads)
        reports.append(evaluate_codes(codes, codes, n_bits=32, query_labels=labels, database_labels=labels))
    assert reports[0] == reports[1]


def clustered(seed=0, n_queries=20, n_database=300, dims=16):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((5, dims))
    query_labels, database_labels = rng.integers(0, 5, n_queries), rng.integers(0, 5, n_database)
    queries = centres[query_labels] + rng.standard_normal((n_queries, dims))
    database = centres[database_labels] + rng.standard_normal((n_database, dims))
    return queries.astype(np.float32), database.astype(np.float32), query_labels, database_labels


def test_the_report_on_features_equals_classic_ap_by_cosine(monkeypatch):
    queries, database, query_labels, database_labels = clustered()
    monkeypatch.setattr(evaluate, "_BLOCK_CELLS", 2000)
    monkeypatch.setattr(evaluate, "_FEATURE_ROWS", 64)
    report = evaluate_features(
        queries, database, query_labels=query_labels, database_labels=database_labels, ks=(1, 10)
    )
    aps, tops = [], []
    for query, label in zip(queries.astype(float), query_labels, strict=True):
        cosines = [query @ x / np.linalg.norm(query) / np.linalg.norm(x) for x in database.astype(float)]
        relevant = [database_labels[i] == label for i in np.argsort(cosines)[::-1]]
        aps.append(plain_ap(relevant))
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
        monkeypatch.setattr(evaluate, "_FEATURE_ROWS", 50 + seed)
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


def test_an_empty_ball_counts_as_zero():
    codes = pack_bits(np.array([[0] * 8, [1] * 8], bool))
    report = evaluate_codes(codes, codes[:1], n_bits=8, query_labels=[0, 0], database_labels=[0], radii=(2, 8))
    assert report.precision_within == {2: 0.5, 8: 1}
    assert report.empty_within == {2: 0.5, 8: 0}


def test_the_order_of_the_database_moves_the_legacy_value_alone():
    codes = pack_bits(np.zeros((20, 8), bool))
    labels = np.arange(20) // 10
    arguments = {"n_bits": 8, "query_labels": [0], "legacy": "deephash-pytorch"}
    near = evaluate_codes(codes[:1], codes, database_labels=labels, **arguments)
    far = evaluate_codes(codes[:1], codes, database_labels=1 - labels, **arguments)
    assert near.map == far.map
    assert (near.legacy_map, far.legacy_map) == (near.map_optimistic, pytest.approx(near.map_pessimistic))
    assert (near.legacy_map_at[10], far.legacy_map_at[10]) == (1, 0)


def test_the_report_survives_json():
    codes = pack_bits(np.eye(8, dtype=bool))
    report = evaluate_codes(codes, codes, n_bits=8, query_labels=range(8), database_labels=range(8))
    loaded = json.loads(json.dumps(report.to_dict()))
    assert loaded["map"] == report.map == 1
    assert loaded["precision_at"] == {"10": pytest.approx(0.1)}
    assert loaded["pr_by_radius"][0] == {"radius": 0, "precision": 1, "recall": 1}
    assert loaded["health"]["distinct_codes"] == 8
    assert loaded["legacy_rule"] is None


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
        ({"radii": (-1,)}, "radius must be"),
        ({"radii": (2.0,)}, "radius must be"),
        ({"legacy": "mean"}, "use one of deephash-pytorch, hashnet"),
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
