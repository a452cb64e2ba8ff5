"""Metrics of one ranking against every order inside ties, enumerated, and against rankings walked item by item."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deephash.evaluation import (
    acg_at_k,
    average_precision,
    legacy_average_precision,
    ndcg_at_k,
    precision_at_k,
    recall_at_k,
    weighted_average_precision,
)


def orders_of(distances):
    """Every order that ascends in distance."""
    levels = [[i for i, d in enumerate(distances) if d == level] for level in sorted(set(distances))]
    for parts in itertools.product(*(itertools.permutations(level) for level in levels)):
        yield list(itertools.chain(*parts))


def plain_ap(relevant, k):
    """AP@k of one fixed order, walked item by item."""
    hits, total = 0, 0.0
    for rank, item in enumerate(relevant[:k], start=1):
        if item:
            hits += 1
            total += hits / rank
    return total / min(sum(relevant), k)


def plain_wap(shared, k):
    total = 0.0
    for rank, gain in enumerate(shared[:k], start=1):
        if gain:
            total += sum(shared[:rank]) / rank
    return total / min(sum(gain > 0 for gain in shared), k)


def plain_ndcg(shared, k):
    def dcg(gains):
        return sum((2**gain - 1) / math.log2(1 + rank) for rank, gain in enumerate(gains[:k], start=1))

    return dcg(shared) / dcg(sorted(shared, reverse=True))


small_rankings = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 3), min_size=n, max_size=n), st.lists(st.integers(0, 3), min_size=n, max_size=n)
    )
)
rankings = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 12), min_size=n, max_size=n),
        st.lists(st.integers(0, 4), min_size=n, max_size=n).filter(any),
        st.permutations(range(n)),
    )
)


@settings(max_examples=150, deadline=None)
@given(small_rankings, st.integers(1, 8))
def test_every_metric_is_the_mean_over_all_orders_inside_ties(ranking, k):
    distances, shared = ranking
    relevant = [gain > 0 for gain in shared]
    n = len(shared)
    orders = list(orders_of(distances))

    def mean(metric, values, k=k):
        return pytest.approx(np.mean([metric([values[i] for i in order], k) for order in orders]), abs=1e-12)

    assert precision_at_k(distances, relevant, k) == mean(lambda rel, k: sum(rel[:k]) / k, relevant)
    assert acg_at_k(distances, shared, k) == mean(lambda gains, k: sum(gains[:k]) / k, shared)
    if not any(relevant):
        return
    assert recall_at_k(distances, relevant, k) == mean(lambda rel, k: sum(rel[:k]) / sum(rel), relevant)
    assert ndcg_at_k(distances, shared, k) == mean(plain_ndcg, shared)
    assert weighted_average_precision(distances, shared, k) == mean(plain_wap, shared)
    assert weighted_average_precision(distances, shared) == mean(plain_wap, shared, n)
    for cut in (k, None):
        aps = [plain_ap([relevant[i] for i in order], cut or n) for order in orders]
        result = average_precision(distances, relevant, cut)
        assert result.expected == pytest.approx(np.mean(aps), abs=1e-12)
        assert result.optimistic == pytest.approx(max(aps), abs=1e-12)
        assert result.pessimistic == pytest.approx(min(aps), abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(rankings, st.integers(1, 70))
def test_without_ties_every_metric_is_the_plain_one(ranking, k):
    _, shared, order = ranking
    distances = np.array(order) * 0.25 - 1
    ranked = [shared[i] for i in np.argsort(distances)]
    relevant = np.array(shared) > 0
    result = average_precision(distances, relevant, k)
    assert result.expected == pytest.approx(plain_ap([gain > 0 for gain in ranked], k), abs=1e-12)
    assert result.optimistic == pytest.approx(result.pessimistic, abs=1e-12)
    assert ndcg_at_k(distances, shared, k) == pytest.approx(plain_ndcg(ranked, k), abs=1e-9)
    assert weighted_average_precision(distances, shared, k) == pytest.approx(plain_wap(ranked, k), abs=1e-9)
    assert recall_at_k(distances, relevant, k) == pytest.approx(
        np.mean(np.array(ranked)[:k] > 0) * min(k, len(ranked)) / relevant.sum()
    )


@settings(max_examples=80, deadline=None)
@given(rankings, st.integers(1, 70))
def test_values_are_ordered_and_do_not_depend_on_the_order_of_the_items(ranking, k):
    distances, shared, order = ranking
    relevant = np.array(shared) > 0
    result = average_precision(distances, relevant, k)
    assert 0 <= result.pessimistic <= result.expected <= result.optimistic <= 1 + 1e-12
    shuffled = [distances[i] for i in order]
    assert average_precision(shuffled, relevant[list(order)], k) == result
    assert ndcg_at_k(shuffled, [shared[i] for i in order], k) == ndcg_at_k(distances, shared, k) <= 1 + 1e-12
    assert average_precision(distances, relevant, len(shared) + k) == average_precision(distances, relevant)
    # With one label WAP is AP and ACG is P.
    assert weighted_average_precision(distances, relevant.astype(int), k) == pytest.approx(result.expected, abs=1e-9)
    assert acg_at_k(distances, relevant.astype(int), k) == precision_at_k(distances, relevant, k)


@settings(max_examples=60, deadline=None)
@given(rankings, st.integers(1, 70))
def test_the_legacy_value_lies_between_the_bounds_times_its_divisor(ranking, k):
    distances, shared, _ = ranking
    relevant = [gain > 0 for gain in shared]
    order = sorted(range(len(distances)), key=lambda i: (distances[i], i))
    found = [relevant[i] for i in order][:k]
    value = legacy_average_precision(distances, np.array(relevant), k)
    if not any(found):
        assert math.isnan(value)
        return
    hits = np.cumsum(found)
    expected = np.mean([hits[i] / (i + 1) for i in range(len(found)) if found[i]])
    assert value == pytest.approx(expected)
    bounds = average_precision(distances, relevant, k)
    rescaled = value * sum(found) / min(sum(relevant), k)
    assert bounds.pessimistic - 1e-9 <= rescaled <= bounds.optimistic + 1e-9


def test_the_legacy_divisor_rewards_finding_few():
    distances, relevant = np.arange(6), np.array([True, False, False, True, True, True])
    assert legacy_average_precision(distances, relevant, 3) == 1
    assert average_precision(distances, relevant, 3).expected == pytest.approx(1 / 3)


def test_the_best_ranking_has_1_at_every_k():
    relevant = np.arange(10) < 4
    for k in (1, 3, 4, 7, 50):
        assert average_precision(np.arange(10), relevant, k) == pytest.approx((1, 1, 1))
        assert ndcg_at_k(np.arange(10), relevant.astype(int) * 2, k) == pytest.approx(1)


def test_one_large_level_keeps_its_accuracy():
    """Differences of harmonic numbers cancel: compare with the plain sum at 200,000 tied items."""
    relevant = np.zeros(200_000, bool)
    relevant[:7] = True
    distances = np.ones(200_000, np.int32)
    distances[100_000:] = 0
    j = np.arange(100_000)
    terms = (1 + j * 6 / 99_999) / (100_001 + j)
    assert average_precision(distances, relevant).expected == pytest.approx(terms.mean(), rel=1e-8)
    cut = terms[:50_000].sum() / 100_000
    assert average_precision(distances, relevant, 150_000).expected == pytest.approx(cut, rel=1e-8)


def test_ap_of_a_known_example():
    # One level of three with one relevant item: ranks 1, 2, 3 are equally likely.
    assert average_precision([5, 5, 5], [False, True, False]) == pytest.approx((11 / 18, 1, 1 / 3))
    assert average_precision([5, 5, 5], [False, True, False], 2) == pytest.approx((1 / 2, 1, 0))
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
    with pytest.raises(ValueError, match=text):
        recall_at_k(distances, relevant, 1)


@pytest.mark.parametrize(
    ("shared", "text"),
    [([0.5, 1], "must be ints"), ([-1, 2], "at least 0"), ([1], "one length"), ([0, 0], "no item is relevant")],
)
def test_wrong_gains_are_an_error(shared, text):
    for metric in (lambda: ndcg_at_k([1, 2], shared, 1), lambda: weighted_average_precision([1, 2], shared)):
        with pytest.raises(ValueError, match=text):
            metric()


@pytest.mark.parametrize("k", [0, -1, 2.5, True])
@pytest.mark.parametrize(
    "metric",
    [
        average_precision,
        precision_at_k,
        recall_at_k,
        ndcg_at_k,
        acg_at_k,
        weighted_average_precision,
        legacy_average_precision,
    ],
)
def test_a_wrong_k_is_an_error(metric, k):
    with pytest.raises(ValueError, match="k must be"):
        metric([1, 2], [1, 0] if metric in _GRADED else [True, False], k)


_GRADED = (ndcg_at_k, acg_at_k, weighted_average_precision)
