"""What was added and removed is merged in the background; nobody sees a difference but in time."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import index.segments
from index import HammingIndex
from index.kernel import Found, merge_found
from tests.index.brute import csr_rows, nearest, random_codes, rows_of
from tests.index.compiled import use_kernel


class Gate:
    """Holds merges back until it is opened."""

    def __init__(self, monkeypatch):
        self.opened, self.merges = threading.Event(), []
        run = index.segments.Merge._run

        def held(merge):
            self.merges.append(merge)
            self.opened.wait()
            run(merge)

        monkeypatch.setattr(index.segments.Merge, "_run", held)

    def open(self):
        self.opened.set()
        for merge in self.merges:
            merge.wait()


@pytest.fixture
def gate(monkeypatch):
    monkeypatch.setattr(index.segments, "_REBUILD_ABOVE", 8)
    monkeypatch.setattr(index.segments, "_BACKGROUND_ABOVE", 100)
    gate = Gate(monkeypatch)
    yield gate
    gate.open()


def check(searched, live):
    """Searching finds the codes of `live` (id: code), and nothing else."""
    ids, table = list(live), np.array(list(live.values()), np.uint8).reshape(-1, 8)
    assert len(searched) == len(live)
    queries = np.concatenate([table[:5], random_codes(np.random.default_rng(1), 3, 64)])
    assert rows_of(*searched.search(queries, 20)) == nearest(queries, table, ids, 20)
    assert csr_rows(*searched.range_search(queries, 20)) == nearest(queries, table, ids, None, 20)


def test_changes_while_segments_are_merged_are_kept(gate):
    codes = random_codes(np.random.default_rng(0), 600, 64, "clustered")
    searched = HammingIndex(64)
    searched.add(codes[:400])
    live = dict(enumerate(codes[:400]))

    def change(add=(), remove=()):
        searched.update(codes[list(add)], np.array(list(add), np.int64), remove=list(remove))
        for id in remove:
            live.pop(id, None)
        live.update((id, codes[id]) for id in add)
        check(searched, live)

    change(add=range(400, 420))
    assert len(gate.merges) == 1
    other = searched.copy()
    at_fork = dict(live)
    change(remove=[0, 1, 410])
    change(add=range(420, 430), remove=range(50, 90))
    change(add=[1], remove=[425])
    assert len(searched.segments) > 1
    gate.open()
    check(searched, live)
    searched.settle()
    check(searched, live)
    assert sum(len(segment.groups.words) for segment in searched.segments[1:]) <= 8
    change(add=range(430, 440), remove=[2])
    check(other, at_fork)
    searched.compact()
    assert len(searched.segments) == 1
    check(searched, live)


def test_removing_much_is_merged_too(gate):
    codes = random_codes(np.random.default_rng(0), 400, 64)
    searched = HammingIndex(64)
    searched.add(codes)
    searched.remove(np.arange(300))
    assert len(searched.segments[0].groups.words) == 400
    gate.open()
    check(searched, dict(zip(range(300, 400), codes[300:], strict=True)))
    assert len(searched.segments[0].groups.words) == 100
    searched.remove(np.arange(400))
    check(searched, {})
    assert searched.segments == ()
    searched.compact()


def test_a_merge_that_fails_is_given_up(gate, monkeypatch):
    """Without memory, for one: the index goes on with what it has, and tries again at the next change."""
    codes = random_codes(np.random.default_rng(0), 420, 64)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    searched = HammingIndex(64)
    searched.add(codes[:400])
    build, fails = searched._build, [True]

    def failing(groups, before=None):
        if fails and len(groups.words) > 400:
            raise MemoryError
        return build(groups, before=before)

    searched._build = failing
    searched.add(codes[400:415])
    gate.open()
    live = dict(enumerate(codes[:415]))
    check(searched, live)
    assert len(searched.segments) == 2
    fails.clear()
    searched.add(codes[415:])
    searched.compact()
    assert len(searched.segments) == 1
    check(searched, dict(enumerate(codes)))


def test_many_small_additions_leave_few_segments(gate):
    gate.open()
    codes = random_codes(np.random.default_rng(0), 3000, 64)
    searched = HammingIndex(64)
    searched.add(codes[:2000])
    most = 0
    for start in range(2000, 3000, 5):
        searched.add(codes[start : start + 5])
        most = max(most, len(searched.segments))
    assert 2 <= most <= 12
    check(searched, dict(enumerate(codes)))


@settings(max_examples=50)
@given(
    n_parts=st.integers(2, 5),
    n_queries=st.integers(0, 4),
    k=st.one_of(st.none(), st.integers(1, 30)),
    compiled=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_merging_what_was_found_equals_sorting_it(n_parts, n_queries, k, compiled, seed):
    rng = np.random.default_rng(seed)
    all_ids = rng.permutation(1000).tolist()
    rows, parts = [[] for _ in range(n_queries)], []
    for _ in range(n_parts):
        found = [sorted((int(rng.integers(0, 5)), all_ids.pop()) for _ in range(rng.integers(0, 12))) for _ in rows]
        for row, new in zip(rows, found, strict=True):
            row += new
        flat = [pair for row in found for pair in row]
        parts.append(
            Found(
                np.cumsum([0, *map(len, found)]),
                np.array([distance for distance, _ in flat], np.int32),
                np.array([id for _, id in flat], np.int64),
            )
        )
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_kernel(monkeypatch, compiled)
        merged = merge_found(parts, k)
    assert csr_rows(*merged) == [sorted(row)[:k] for row in rows]
    assert len(merged.limits) == n_queries + 1


def test_nobody_waits_for_a_merge_of_some_ten_thousand_codes(monkeypatch):
    gate = Gate(monkeypatch)
    codes = random_codes(np.random.default_rng(0), 26_000, 64)
    searched = HammingIndex(64)
    searched.add(codes[:20_000])
    searched.add(codes[20_000:])
    assert len(gate.merges) == 1  # and it has not begun
    assert len(searched) == 26_000
    gate.open()
    searched.settle()
    assert len(searched.segments) == 1
