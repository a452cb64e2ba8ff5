"""Re-ranking equals the obvious: all candidates by brute force, their weighted distances bit by bit, sorted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import index.kernel
from index import HammingIndex, Store, hamming_distances, pack_bits, unpack_bits
from index.records import Filter
from index.reranking import asymmetric_distances

from .brute import random_codes
from .samples import codes as sample_codes
from .samples import entry


def slow_distance(logits, bits):
    return sum(abs(float(q)) for q, b in zip(logits, bits, strict=True) if (q > 0) != b)


def brute(logits, codes, ids, k, n_candidates, radius=None):
    """Rows of (asymmetric distance, Hamming distance, id) of one query."""
    hamming = hamming_distances(pack_bits(logits[None] > 0), codes)[0]
    near = np.ones(len(codes), bool) if radius is None else hamming <= radius
    if n_candidates is not None and near.any():
        near &= hamming <= np.sort(hamming[near])[:n_candidates][-1]
    asymmetric = asymmetric_distances(logits, codes)
    rows = [(float(asymmetric[i]), int(hamming[i]), int(ids[i])) for i in np.flatnonzero(near)]
    return sorted(rows, key=lambda row: (row[0], row[2]))[:k]


def rows_of(found, query):
    return [row for row in zip(*(table[query].tolist() for table in found), strict=True) if row[2] >= 0]


@pytest.mark.parametrize("n_bits", [8, 12, 48, 64, 100, 256, 1024])
def test_asymmetric_distance_is_the_weight_of_the_bits_that_differ(n_bits):
    rng = np.random.default_rng(n_bits)
    logits = rng.standard_normal(n_bits).astype(np.float32)
    logits[0] = 0  # the bit of 0 is 0, and costs nothing either way
    bits = rng.random((30, n_bits)) > 0.5
    bits[0] = logits > 0
    found = asymmetric_distances(logits, pack_bits(bits))
    assert found.dtype == np.float32
    assert found == pytest.approx([slow_distance(logits, row) for row in bits], rel=1e-5, abs=1e-5)
    assert found[0] == 0
    # As the dot product orders.
    dots = -(2.0 * bits - 1) @ logits.astype(np.float64)
    assert found == pytest.approx((dots + np.abs(logits).sum()) / 2, rel=1e-4, abs=1e-4)


def test_equal_codes_have_equal_distances_whatever_stands_beside_them():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (257, 32), dtype=np.uint8)
    logits = rng.standard_normal(256).astype(np.float32)
    alone = np.concatenate([asymmetric_distances(logits, code[None]) for code in codes])
    assert np.array_equal(asymmetric_distances(logits, codes), alone)
    assert np.array_equal(asymmetric_distances(logits, codes[::-1]), alone[::-1])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 300),
    n_bits=st.sampled_from([8, 20, 64, 72]),
    kind=st.sampled_from(["random", "clustered", "equal"]),
    k=st.one_of(st.none(), st.integers(1, 30)),
    oversampling=st.integers(1, 5),
    radius=st.one_of(st.none(), st.integers(0, 30)),
)
def test_search_equals_brute_force(seed, n, n_bits, kind, k, oversampling, radius):
    if k is None and radius is None:
        radius = n_bits
    rng = np.random.default_rng(seed)
    codes, ids = random_codes(rng, n, n_bits, kind), rng.permutation(3 * n)[:n]
    index = HammingIndex(n_bits)
    # Two segments, and some ids that are gone.
    index.add(codes[: n // 2], ids[: n // 2])
    index.add(codes[n // 2 :], ids[n // 2 :])
    gone = rng.random(n) < 0.2
    index.remove(ids[gone])
    codes, ids = codes[~gone], ids[~gone]
    # Few values, so that distances tie; queries near the codes.
    near = unpack_bits(random_codes(rng, 3, n_bits, kind), n_bits)
    logits = (np.where(near, 1, -1) * rng.integers(0, 3, (3, n_bits))).astype(np.float32)
    found = index.search_logits(logits, k, oversampling=oversampling, radius=radius)
    m = None if k is None else min(k, len(ids))
    if m is not None:
        assert found.ids.shape == (3, m)
    for query in range(3):
        n_candidates = None if k is None else m * oversampling
        expected = brute(logits[query], codes, ids, m, n_candidates, radius) if len(ids) else []
        assert rows_of(found, query) == expected


def test_looking_at_all_finds_the_nearest_of_all():
    rng = np.random.default_rng(1)
    codes = random_codes(rng, 2000, 64)
    logits = rng.standard_normal((5, 64)).astype(np.float32)
    index = HammingIndex(64)
    index.add(codes)
    found = index.search_logits(logits, 10, oversampling=200)
    for query in range(5):
        order = np.argsort(asymmetric_distances(logits[query], codes), kind="stable")[:10]
        assert found.ids[query].tolist() == order.tolist()
    few = index.search_logits(logits, 10, oversampling=1)
    assert not np.array_equal(few.ids, found.ids)


@pytest.mark.parametrize("structure", ["flat", "mih", "ivf", "hnsw"])
@pytest.mark.parametrize("n_removed", [0, 2900])
def test_every_structure_gives_as_many_as_are_asked_for(structure, n_removed):
    rng = np.random.default_rng(4)
    codes = random_codes(rng, 3000, 64)
    index = HammingIndex(64, structure)
    index.add(codes)
    removed = rng.permutation(3000)[:n_removed]
    index.remove(removed)
    kept = np.setdiff1d(np.arange(3000), removed)
    logits = rng.standard_normal((20, 64)).astype(np.float32)
    for oversampling in (1, 10):
        found = index.search_logits(logits, 10, oversampling=oversampling)
        assert np.isin(found.ids, kept).all()
        # Its own candidates, if not all that there are; ordered, and weighed as they should be.
        n_found = index.search(pack_bits(logits > 0), 10)[1]
        assert found.ids.shape == n_found.shape
        for query in range(20):
            expected = asymmetric_distances(logits[query], codes[found.ids[query]])
            assert np.array_equal(found.asymmetric_distances[query], expected)
            assert found.asymmetric_distances[query].tolist() == sorted(expected.tolist())
            assert len(set(found.ids[query])) == 10
    right = [brute(row, codes[kept], kept, 10, 100)[-1][0] for row in logits]
    assert (found.asymmetric_distances <= np.array(right)[:, None]).mean() > 0.8


@pytest.mark.skipif(not index.kernel.AVAILABLE, reason="needs the compiled kernel")
def test_without_the_kernel_the_answer_is_the_same(monkeypatch):
    rng = np.random.default_rng(2)
    codes = random_codes(rng, 6000, 48, "clustered")
    logits = rng.standard_normal((4, 48)).astype(np.float32)
    answers = []
    for available in (True, False):
        monkeypatch.setattr("index.kernel.AVAILABLE", available)
        index = HammingIndex(48)
        index.add(codes)
        answers.append(index.search_logits(logits, 10))
    for left, right in zip(*answers, strict=True):
        assert np.array_equal(left, right)


def test_wrong_questions_are_refused():
    index = HammingIndex(16)
    index.add(random_codes(np.random.default_rng(0), 5, 16))
    with pytest.raises(ValueError, match="pass floats, as the hash layer gives them, not codes"):
        index.search_logits(np.zeros((1, 2), np.uint8))
    with pytest.raises(ValueError, match=r"logits have shape \(1, 8\), this index has 16 bits"):
        index.search_logits(np.zeros((1, 8), np.float32))
    with pytest.raises(ValueError, match="not finite"):
        index.search_logits(np.full((1, 16), np.nan, np.float32))
    with pytest.raises(ValueError, match="oversampling is 0: use a positive integer"):
        index.search_logits(np.zeros(16), oversampling=0)
    with pytest.raises(ValueError, match="neither k nor radius"):
        index.search_logits(np.zeros(16), None)
    with pytest.raises(ValueError, match="pass those of one query"):
        asymmetric_distances(np.zeros((2, 16)), np.zeros((1, 2), np.uint8))
    assert HammingIndex(16).search_logits(np.zeros((2, 16)), 3).ids.shape == (2, 0)
    assert index.search_logits(np.zeros((0, 16)), 3).ids.shape == (0, 3)


def test_a_store_gives_matches_with_both_distances_and_heeds_its_filter(tmp_path):
    codes = sample_codes(40, n_bits=20)
    logits = np.random.default_rng(3).standard_normal((2, 20)).astype(np.float32)
    with Store.create(tmp_path / "a.dhx", n_bits=20, fingerprint="m") as store:
        ids = store.put([entry(i, label="ab"[i % 2]) for i in range(40)], codes)
        for where, kept in (None, np.arange(40)), (Filter(label="b"), np.arange(1, 40, 2)):
            answers = store.search_logits(logits, 4, oversampling=3, where=where)
            for query, matches in enumerate(answers):
                rows = [(match.asymmetric_distance, match.distance, match.id) for match in matches]
                assert rows == brute(logits[query], codes[kept], ids[kept], 4, 12)
                assert all(match.label == "ab"[(match.id - ids[0]) % 2] for match in matches)
        assert store.search(codes[:1], 1)[0][0].asymmetric_distance is None
