import re
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import index.faiss_scan
import index.segments
import index.structures
from index import HammingIndex
from tests.index.brute import csr_rows, nearest, random_codes, rows_of
from tests.index.compiled import KERNEL, needs_kernel, use_kernel

KINDS = st.sampled_from(["random", "clustered", "equal"])


PATHS = ["numpy", "faiss", "sampled"] + (["kernel", "tables"] if KERNEL else [])


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """All ways of searching must give the same answers, also for small collections."""
    use_path(request.param, monkeypatch)


def use_path(name, monkeypatch):
    use_kernel(monkeypatch, name in ("kernel", "tables"))
    monkeypatch.setattr(index.structures, "_TABLES_ABOVE", 8 if name == "tables" else 1 << 18)
    monkeypatch.setattr(index.faiss_scan, "_NUMPY_UP_TO", 4096 if name == "numpy" else 0)
    monkeypatch.setattr(index.faiss_scan, "_SAMPLE_ABOVE", 8 if name == "sampled" else 1 << 15)
    monkeypatch.setattr(index.segments, "_REBUILD_ABOVE", 8)
    monkeypatch.setattr(index.segments, "_BACKGROUND_ABOVE", 40)


@settings(max_examples=200)
@given(
    name=st.sampled_from(PATHS),
    kind=KINDS,
    n_bits=st.one_of(st.integers(8, 72), st.integers(73, 1024)),
    n=st.integers(0, 120),
    k=st.integers(1, 150),
    radius=st.one_of(st.none(), st.integers(0, 40)),
    share=st.one_of(st.none(), st.floats(0, 1)),
    seed=st.integers(0, 10_000),
)
def test_search_equals_brute_force(name, kind, n_bits, n, k, radius, share, seed):
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_path(name, monkeypatch)
        codes = random_codes(rng, n, n_bits, kind)
        ids = rng.permutation(3 * n + 1)[:n].astype(np.int64)
        searched = HammingIndex(n_bits)
        cuts = sorted(rng.integers(0, n + 1, 3).tolist())
        live = {}
        for start, stop in zip([0, *cuts], [*cuts, n], strict=True):
            searched.add(codes[start:stop], ids[start:stop])
            live.update(zip(ids[start:stop].tolist(), codes[start:stop], strict=True))
            dead = [i for i in live if rng.random() < 0.2]
            assert searched.remove(np.array(dead, dtype=np.int64)) == len(dead)
            for i in dead:
                del live[i]
        allowed = None if share is None else np.array([i for i in range(3 * n + 1) if rng.random() < share], np.int64)
        seen = {i: code for i, code in live.items() if allowed is None or i in allowed}
        queries = np.concatenate([codes[:3], random_codes(rng, 3, n_bits)])
        table = np.array(list(seen.values()), np.uint8).reshape(-1, codes.shape[1])

        assert len(searched) == len(live)
        assert searched.n_distinct == len({code.tobytes() for code in live.values()})
        distances, found = searched.search(queries, k, radius=radius, allowed=allowed)
        assert distances.shape == found.shape == (len(queries), min(k, len(seen)))
        assert rows_of(distances, found) == nearest(queries, table, list(seen), k, radius)
        if radius is not None:
            answer = searched.range_search(queries, radius, allowed=allowed)
            assert csr_rows(*answer) == nearest(queries, table, list(seen), None, radius)


@pytest.mark.parametrize("n_bits", [12, 64])
def test_a_large_collection_is_searched_exactly(n_bits):
    rng = np.random.default_rng(n_bits)
    codes = np.concatenate([random_codes(rng, 20_000, n_bits), random_codes(rng, 20_000, n_bits, "clustered")])
    searched = HammingIndex(n_bits)
    searched.add(codes)
    searched.remove(np.arange(0, 40_000, 7))
    ids = np.setdiff1d(np.arange(40_000), np.arange(0, 40_000, 7))
    queries = codes[::4000]
    for k, radius in [(1, None), (50, None), (50, 3), (5000, None)]:
        distances, found = searched.search(queries, k, radius=radius)
        assert rows_of(distances, found) == nearest(queries, codes[ids], ids, k, radius)


def test_memory_blocks_do_not_change_the_answer(path, monkeypatch):
    monkeypatch.setattr(index.faiss_scan, "_BLOCK_ENTRIES", 50)
    rng = np.random.default_rng(0)
    codes = random_codes(rng, 300, 12, "clustered")
    searched = HammingIndex(12)
    searched.add(codes)
    distances, found = searched.search(codes[:40], 60)
    assert rows_of(distances, found) == nearest(codes[:40], codes, range(300), 60)
    assert csr_rows(*searched.range_search(codes[:40], 3)) == nearest(codes[:40], codes, range(300), None, 3)


def test_rows_with_too_few_results_within_the_radius_are_padded():
    searched = HammingIndex(8)
    searched.add(np.array([[0], [255]], np.uint8))
    distances, ids = searched.search(np.array([[0]], np.uint8), 2, radius=0)
    assert distances.tolist() == [[0, -1]]
    assert ids.tolist() == [[0, -1]]


def test_the_radius_is_inclusive():
    searched = HammingIndex(8)
    searched.add(np.array([[0b111]], np.uint8))
    query = np.array([[0]], np.uint8)
    assert searched.range_search(query, 2)[2].tolist() == []
    assert searched.range_search(query, 3)[2].tolist() == [0]
    assert searched.range_search(query, 3000)[2].tolist() == [0]


def test_an_empty_index_finds_nothing():
    searched = HammingIndex(16)
    query = np.zeros((2, 2), np.uint8)
    assert searched.search(query, 3)[0].shape == (2, 0)
    assert searched.range_search(query, 3)[0].tolist() == [0, 0, 0]
    searched.add(query)
    searched.remove([0, 1])
    assert len(searched) == searched.n_distinct == 0
    assert searched.search(query, 3)[0].shape == (2, 0)
    assert searched.search(query[:0], 3)[0].shape == (0, 0)


def test_ids_continue_after_the_largest_and_are_not_reused():
    searched = HammingIndex(8)
    codes = np.zeros((2, 1), np.uint8)
    assert searched.add(codes).tolist() == [0, 1]
    assert searched.add(codes, [50, 9]).tolist() == [50, 9]
    assert searched.remove([50, 777]) == 1
    assert searched.add(codes).tolist() == [51, 52]
    assert 9 in searched
    assert 50 not in searched


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([1, 1], "twice"),
        ([0, 5], "in the index already"),
        ([-1, 5], "between 0"),
        ([5], "1 ids"),
        ([0.5, 1], "integers"),
    ],
)
def test_wrong_ids_are_refused_and_change_nothing(ids, text):
    searched = HammingIndex(8)
    searched.add(np.zeros((1, 1), np.uint8))
    with pytest.raises(ValueError, match=text):
        searched.add(np.zeros((2, 1), np.uint8), ids)
    assert len(searched) == 1


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"k": 0}, "k is 0: use a positive integer"),
        ({"k": 1.5}, "k is 1.5"),
        ({"k": 1, "radius": -1}, "radius is -1"),
        ({"k": 1, "radius": 2.5}, "radius is 2.5"),
    ],
)
def test_wrong_limits_are_refused(kwargs, text):
    searched = HammingIndex(8)
    with pytest.raises(ValueError, match=re.escape(text)):
        searched.search(np.zeros((1, 1), np.uint8), **kwargs)


def test_queries_of_another_width_are_refused_before_faiss_sees_them():
    searched = HammingIndex(64)
    searched.add(np.zeros((1, 8), np.uint8))
    with pytest.raises(ValueError, match="queries have 4 bytes each, 64 bits take 8"):
        searched.search(np.zeros((1, 4), np.uint8), 1)


def test_groups_round_trip():
    rng = np.random.default_rng(3)
    codes = random_codes(rng, 100, 20, "clustered")
    searched = HammingIndex(20)
    searched.add(codes[:60])
    searched.add(codes[60:])
    searched.remove([3, 70])
    again = HammingIndex.from_groups(20, *searched.groups())
    for answer, expected in zip(again.search(codes, 100), searched.search(codes, 100), strict=True):
        assert np.array_equal(answer, expected)
    assert again.n_distinct == searched.n_distinct


def test_a_copy_changes_on_its_own():
    first = HammingIndex(8)
    first.add(np.zeros((2, 1), np.uint8))
    second = first.copy()
    second.update(np.ones((1, 1), np.uint8), remove=[0])
    assert len(first) == len(second) == 2
    assert 0 in first
    assert 0 not in second


@pytest.mark.parametrize("scan", ["numpy", "faiss"])
def test_threads_search_while_another_adds_and_removes_whole_batches(scan, monkeypatch):
    """Each batch is 10 equal codes: a search within radius 0 must see 10 or none."""
    use_path(scan, monkeypatch)
    rng = np.random.default_rng(5)
    searched = HammingIndex(64)
    searched.add(random_codes(rng, 50, 64))
    batches = [np.repeat(random_codes(rng, 1, 64), 10, axis=0) for _ in range(40)]
    done, wrong = threading.Event(), []

    def read():
        while True:
            last_round = done.is_set()
            for batch in batches:
                count = len(searched.range_search(batch[:1], 0)[2])
                if count not in (0, 10):
                    wrong.append(count)
            if last_round:
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for batch in batches:
            ids = searched.add(batch)
            if ids[0] % 3 == 0:
                searched.remove(ids)
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert wrong == []


@needs_kernel
@pytest.mark.parametrize("n_bits", [20, 64, 130])
def test_what_the_kernel_answers_in_one_call_is_what_it_answers_step_by_step(n_bits, monkeypatch):
    rng = np.random.default_rng(n_bits)
    codes = random_codes(rng, 400, n_bits, "clustered")
    searched = HammingIndex(n_bits)
    searched.add(codes)
    searched.remove(np.arange(0, 400, 3))
    cases = [(codes[:7], 5, None), (codes[:1], 1000, None), (codes[:4], 10, 2), (codes[:2], 3, 5000)]
    at_once = [searched.search(*case[:2], radius=case[2]) for case in cases]
    assert all(searched._state.search(*case, n_bits) is not None for case in cases)
    monkeypatch.setattr(index.segments.State, "search", lambda *_: None)
    for case, (distances, ids) in zip(cases, at_once, strict=True):
        expected = searched.search(*case[:2], radius=case[2])
        assert [distances.dtype, ids.dtype] == [np.int32, np.int64]
        assert np.array_equal(distances, expected[0])
        assert np.array_equal(ids, expected[1])


@needs_kernel
def test_the_kernel_leaves_arguments_that_it_does_not_know_to_python():
    searched = HammingIndex(20)
    searched.add(np.zeros((3, 3), np.uint8))
    query = np.zeros((2, 3), np.uint8)
    padded = np.full((1, 3), 255, np.uint8)
    strange = [
        (query.tolist(), 1, None), (query[0], 1, None), (query[:, :2], 1, None), (query[::-1], 1, None),
        (query.view(np.int8), 1, None), (padded, 1, None), (query[:0], 1, None), (None, 1, None), (query, 0, None),
        (query, 1.0, None), (query, True, None), (query, np.int64(1), None), (query, 1 << 80, None), (query, 1, -1),
        (query, 1, 1.0), (query, 1, 1 << 80),
    ]  # fmt: skip
    assert [case for case in strange if searched._state.search(*case, 20) is not None] == []
    assert searched.search(query, np.int64(2), radius=np.int64(3))[1].tolist() == [[0, 1], [0, 1]]
    assert searched.search(query[::-1], 1)[1].tolist() == [[0], [0]]
    with pytest.raises(ValueError, match="bits set behind bit 20"):
        searched.search(padded, 1)
    with pytest.raises(ValueError, match="k is True"):
        searched.search(query, True)
