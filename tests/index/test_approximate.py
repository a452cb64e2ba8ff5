"""Approximate structures: true distances in order, whatever they miss; and what they promise of recall."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import index.choice
import index.kernel
import index.prefix
import index.segments
from index import HammingIndex, hamming_distances
from index.choice import Choice
from index.groups import Groups, to_words
from index.hnsw import NavigableGraph
from index.ivf import InvertedLists
from index.prefix import PrefixIndex
from index.tuning import own_queries, probe_of, recall_of
from tests.index.brute import nearest, random_codes
from tests.index.compiled import needs_kernel, use_kernel

NAMES = [
    "ivf", "ivf,lists=5,nprobe=2", "ivf,reach=0", "hnsw", "hnsw,m=4,ef=3", "prefix", "prefix,bits=128,oversampling=1",
    "BIVF4", "BHNSW8", "BHash8", "BHash4x4",
]  # fmt: skip


def use(monkeypatch, *, compiled=True):
    """Has structures built of few codes, with or without the kernel."""
    use_kernel(monkeypatch, compiled)
    monkeypatch.setattr(index.choice, "_APPROXIMATE_ABOVE", 8)
    monkeypatch.setattr(index.segments, "_REBUILD_ABOVE", 8)
    monkeypatch.setattr(index.prefix, "_FIRST", 8)
    monkeypatch.setattr(index.prefix, "_SHARE", 0.5)


@pytest.fixture
def small(monkeypatch):
    use(monkeypatch)


def table_of(live, n_bits):
    return np.array(list(live.values()), np.uint8).reshape(-1, (n_bits + 7) // 8)


@settings(max_examples=120)
@given(
    name=st.sampled_from(NAMES),
    compiled=st.booleans(),
    kind=st.sampled_from(["random", "clustered", "equal"]),
    n_bits=st.sampled_from([16, 20, 64, 130, 256]),
    n=st.integers(0, 200),
    k=st.integers(1, 60),
    radius=st.one_of(st.none(), st.integers(0, 60)),
    share=st.one_of(st.none(), st.floats(0, 1)),
    seed=st.integers(0, 10_000),
)
def test_what_is_found_is_true_ordered_and_allowed(name, compiled, kind, n_bits, n, k, radius, share, seed):
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(monkeypatch, compiled=compiled)
        codes = random_codes(rng, n, n_bits, kind)
        searched, live = HammingIndex(n_bits, name), {}
        cut = n - n // 10
        for start, stop in ((0, cut), (cut, n)):
            live.update(zip(searched.add(codes[start:stop]).tolist(), codes[start:stop], strict=True))
            dead = [i for i in live if rng.random() < 0.1]
            assert searched.remove(np.array(dead, np.int64)) == len(dead)
            for i in dead:
                del live[i]
        allowed = None if share is None else np.array([i for i in range(n) if rng.random() < share], np.int64)
        seen = {i: code for i, code in live.items() if allowed is None or i in allowed}
        queries = np.concatenate([codes[:3], random_codes(rng, 2, n_bits)])
        true = nearest(queries, table_of(seen, n_bits), list(seen), None, radius)
        distances, ids = searched.search(queries, k, radius=radius, allowed=allowed)
        assert ids.shape == (len(queries), min(k, len(seen)))
        for row, real in zip((zip(*pair, strict=True) for pair in zip(distances, ids, strict=True)), true, strict=True):
            found = [(int(d), int(i)) for d, i in row if i >= 0]
            assert found == sorted(found)
            assert len({i for _, i in found}) == len(found)
            assert set(found) <= set(real)
        within = n_bits if radius is None else radius
        limits, distances, ids = searched.range_search(queries, within, allowed=allowed)
        pairs = list(zip(distances.tolist(), ids.tolist(), strict=True))
        for (start, stop), real in zip(itertools.pairwise(limits.tolist()), true, strict=True):
            assert pairs[start:stop] == sorted(set(pairs[start:stop]))
            assert set(pairs[start:stop]) <= set(real)


@settings(max_examples=60)
@given(
    compiled=st.booleans(),
    kind=st.sampled_from(["random", "clustered", "equal"]),
    n_bits=st.sampled_from([12, 64, 130, 300]),
    n=st.integers(1, 300),
    k=st.integers(1, 60),
    radius=st.one_of(st.none(), st.integers(0, 60)),
    lists=st.integers(1, 30),
    seed=st.integers(0, 10_000),
)
def test_lists_that_are_all_within_reach_are_exact(compiled, kind, n_bits, n, k, radius, lists, seed):
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(monkeypatch, compiled=compiled)
        codes = random_codes(rng, n, n_bits, kind)
        searched = HammingIndex(n_bits, f"ivf,lists={lists},reach={100 * n_bits}")
        searched.add(codes)
        removed = rng.permutation(n)[: n // 9]
        searched.remove(removed)
        ids = np.setdiff1d(np.arange(n), removed)
        queries = random_codes(rng, 4, n_bits)
        distances, found = searched.search(queries, k, radius=radius)
        rows = [[p for p in zip(*pair, strict=True) if p[1] >= 0] for pair in zip(distances, found, strict=True)]
        assert rows == nearest(queries, codes[ids], ids, k, radius)
        assert searched.recall(5) == 1.0
        radius = 20 if radius is None else radius
        limits, distances, found = searched.range_search(queries, radius)
        pairs = list(zip(distances.tolist(), found.tolist(), strict=True))
        rows = [pairs[a:b] for a, b in itertools.pairwise(limits.tolist())]
        assert rows == nearest(queries, codes[ids], ids, None, radius)


@pytest.mark.parametrize("name", ["hnsw", "BHNSW16", "BIVF8,nprobe=8", "BHash8,flips=8"])
def test_all_is_found_where_all_is_looked_at(small, name):
    rng = np.random.default_rng(1)
    codes = random_codes(rng, 500, 64)
    searched = HammingIndex(64, name)
    searched.add(codes)
    queries = random_codes(rng, 20, 64)
    distances, ids = searched.search(queries, 500)
    rows = [list(zip(*pair, strict=True)) for pair in zip(distances, ids, strict=True)]
    assert rows == nearest(queries, codes, range(500))


@pytest.mark.parametrize("name", NAMES)
def test_copies_do_not_hide_each_other(small, name):
    """faiss alone finds 44 of the top 100 among 5,000 copies in a graph."""
    rng = np.random.default_rng(2)
    copies = np.repeat(random_codes(rng, 1, 192), 5000, axis=0)
    searched = HammingIndex(192, name)
    searched.add(np.concatenate([random_codes(rng, 300, 192), copies]))
    distances, ids = searched.search(copies[:1], 100)
    assert distances.tolist() == [[0] * 100]
    assert ids.tolist() == [list(range(300, 400))]


@needs_kernel
@pytest.mark.parametrize(("name", "n_bits"), [("ivf", 64), ("hnsw", 64), ("prefix", 100)])
@pytest.mark.parametrize("wanted", [0.8, 0.99])
def test_the_wanted_recall_is_reached_and_said(small, name, n_bits, wanted):
    """Also of queries that are not in the index: a graph leads from each of its own codes to all that is near."""
    rng = np.random.default_rng(3)
    codes = random_codes(rng, 9_000, n_bits)
    searched = HammingIndex(n_bits, name, recall=wanted)
    searched.add(codes[:8000])
    structure = searched.segments[0].structure
    assert not searched.exact
    assert structure.recall >= wanted
    assert searched.recall() == structure.recall
    assert searched.recall(queries=codes[8000:]) > structure.recall - 0.03


def slow_recall(found, queries, codes, k, own):
    hits = total = 0
    for row, (query, self_id) in enumerate(zip(queries, own, strict=True)):
        others = sorted(int(d) for i, d in enumerate(hamming_distances(query[None], codes)[0]) if i != self_id)[:k]
        start, stop = found.limits[row], found.limits[row + 1]
        mine = [int(d) for d, i in zip(found.distances[start:stop], found.ids[start:stop], strict=True) if i != self_id]
        hits += sum(d <= others[-1] for d in mine[:k]) if others else 0
        total += len(others)
    return hits / total if total else 1.0


@settings(max_examples=50)
@given(n=st.integers(2, 80), k=st.integers(1, 100), n_bits=st.sampled_from([8, 64]), seed=st.integers(0, 1000))
def test_recall_is_the_share_of_true_results_ties_counted(n, k, n_bits, seed):
    rng = np.random.default_rng(seed)
    codes = random_codes(rng, n, n_bits, "clustered")
    groups = Groups.of(to_words(codes), np.arange(n))
    queries, own, places = own_queries(groups)
    exact = index.structures.Scan(groups.words).find(groups, queries, k + 1, n_bits)
    some = Groups.of(to_words(codes[: n // 2]), np.arange(n // 2))
    found = index.structures.Scan(some.words).find(some, queries, k + 1, n_bits)
    truth = probe_of(queries, own, places, k, exact)
    own_codes = queries.view(np.uint8)[:, : codes.shape[1]]
    assert recall_of(found, truth) == pytest.approx(slow_recall(found, own_codes, codes, k, own))
    assert recall_of(exact, truth) == 1.0


def test_lists_are_the_same_each_time(small):
    codes = random_codes(np.random.default_rng(4), 2000, 128)
    groups = Groups.of(to_words(codes), np.arange(2000))
    first, second = (InvertedLists.build(groups, 128) for _ in range(2))
    for left, right in zip(first[1].arrays().items(), second[1].arrays().items(), strict=True):
        assert np.array_equal(left[1], right[1], equal_nan=left[0] == "settings")
    assert np.array_equal(first[0].ids, second[0].ids)


def test_each_code_lies_in_the_list_of_its_nearest_centroid(small):
    codes = random_codes(np.random.default_rng(5), 1500, 64)
    groups, lists = InvertedLists.build(Groups.of(to_words(codes), np.arange(1500)), 64)
    table = hamming_distances(groups.words.view(np.uint8), lists.centroids.view(np.uint8))
    place = np.repeat(np.arange(len(lists.radii)), np.diff(lists.starts))
    assert np.array_equal(table.argmin(axis=1), place)
    assert all(table[place == i, i].max(initial=0) == lists.radii[i] for i in range(len(lists.radii)))
    assert np.array_equal(codes[groups.ids], groups.words.view(np.uint8))


@needs_kernel
def test_a_graph_grows_by_what_is_added_and_keeps_its_links(small):
    rng = np.random.default_rng(6)
    codes = random_codes(rng, 1000, 64)
    searched = HammingIndex(64, "hnsw,ef=300")
    searched.add(codes[:800])
    before = searched.segments[0]
    searched.remove(np.arange(0, 800, 5))
    searched.add(codes[800:])
    (after,) = searched.segments
    assert np.array_equal(after.groups.words[:800], before.groups.words)
    assert len(after.groups.words) == 1000
    ids = np.setdiff1d(np.arange(1000), np.arange(0, 800, 5))
    distances, _ = searched.search(codes[::10], 5)
    true = [[d for d, _ in row] for row in nearest(codes[::10], codes[ids], ids, 5)]
    assert np.mean(distances <= np.array(true)[:, -1:]) > 0.98


STRUCTURES = [InvertedLists, PrefixIndex, pytest.param(NavigableGraph, marks=needs_kernel)]
N_BITS = 128


def built(kind, n=2000, n_bits=N_BITS):
    codes = random_codes(np.random.default_rng(n), n, n_bits)
    groups, structure = kind.build(Groups.of(to_words(codes), np.arange(n)), n_bits)
    return groups, structure.with_settings(recall=0.5), to_words(codes[:20])


@pytest.mark.parametrize("kind", STRUCTURES)
def test_a_structure_made_of_its_arrays_answers_the_same(kind):
    groups, structure, queries = built(kind)
    again = kind.from_arrays(groups, N_BITS, structure.arrays())
    assert (again.parameters(), again.recall, again.n_bytes) == (structure.parameters(), 0.5, structure.n_bytes)
    for answer, expected in zip(
        again.find(groups, queries, 10, N_BITS), structure.find(groups, queries, 10, N_BITS), strict=True
    ):
        assert np.array_equal(answer, expected)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_arrays_that_do_not_belong_to_the_groups_are_refused(kind):
    groups, structure, _ = built(kind)
    arrays = dict(structure.arrays())
    wrong = [arrays | {"other": np.zeros(3, np.uint32)}, {}]
    for name, array in arrays.items():
        wrong.append({other: arrays[other] for other in arrays if other != name})
        wrong.append(arrays | {name: array.astype(np.float32)})
        if name != "links":
            wrong.append(arrays | {name: array[:-1]})
    for value in (-1, np.nan, np.inf, 1e18):
        settings = arrays["settings"].copy()
        settings[:2] = value
        wrong.append(arrays | {"settings": settings})
    for parts in wrong:
        with pytest.raises(ValueError, match="arrays"):
            kind.from_arrays(groups, N_BITS, parts)


@needs_kernel
@pytest.mark.parametrize("kind", [InvertedLists, NavigableGraph])
def test_arrays_of_any_content_are_searched_within_bounds(kind):
    rng = np.random.default_rng(8)
    groups, structure, queries = built(kind)
    for round in range(60):
        arrays = dict(structure.arrays())
        for name in [name for name in arrays if name != "settings" and rng.random() < 0.6]:
            array = arrays[name].copy()
            some = rng.random(array.shape) < rng.choice([0.001, 0.1, 1.0])
            info = np.iinfo(array.dtype)
            values = [rng.integers(0, info.max, array.shape, array.dtype), info.max, info.min, 1][round % 4]
            arrays[name] = np.where(some, values, array).astype(array.dtype)
        hostile = kind.from_arrays(groups, N_BITS, arrays)
        for k, radius in ((10, N_BITS), (3000, N_BITS), (None, 20)):
            found = hostile.find(groups, queries, k, radius)
            assert len(found.ids) <= (k or 2000) * len(queries)


@needs_kernel
def test_a_graph_whose_links_lead_nowhere_is_built_again_when_it_grows(small):
    groups, structure, queries = built(NavigableGraph)
    arrays = dict(structure.arrays())
    arrays["links"] = np.where(arrays["links"] >= 0, 1 << 30, -1).astype(np.int32)
    broken = NavigableGraph.from_arrays(groups, N_BITS, arrays)
    more = np.concatenate([groups.words, queries ^ np.uint64(1)])
    larger = Groups.of(more, np.arange(len(more)))
    arranged, graph = NavigableGraph.build(larger, N_BITS, before=(groups, broken))
    assert (
        recall_of(
            graph.find(arranged, queries, 11, N_BITS),
            probe_of(
                queries,
                np.full(20, -1),
                np.full(20, -1),
                10,
                index.structures.Scan(larger.words).find(larger, queries, 11, N_BITS),
            ),
        )
        > 0.9
    )


@pytest.mark.parametrize(
    "text", ["auto", "flat", "mih", "ivf", "hnsw,m=8,ef=100", "ivf,recall=0.99", "prefix,bits=128", "BIVF64,nprobe=4"]
)
def test_a_choice_is_a_text(text):
    assert str(Choice.of(text)) == text
    assert Choice.of(str(Choice.of(text))) == Choice.of(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fast", "'fast' is no structure: use auto, flat, mih, ivf, hnsw, prefix"),
        ("BIVF", "is no structure"),
        ("BIVF64_PQ8", "is no structure"),
        ("ivf,ef=3", "ivf has no parameter 'ef'; it has lists, nprobe, reach"),
        ("prefix,reach=3", "prefix has no parameter 'reach'; it has bits, oversampling"),
        ("flat,recall=0.9", "write NAME=NUMBER"),
        ("flat,lists=3", "flat has no parameter 'lists'; it has none"),
        ("ivf,lists", "write NAME=NUMBER"),
        ("ivf,recall=0", "recall is 0"),
        ("ivf,recall=1.5", "recall is 1.5"),
    ],
)
def test_a_choice_that_is_none_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        HammingIndex(64, text)


def test_few_codes_are_scanned_whatever_is_chosen():
    searched = HammingIndex(64, "ivf")
    searched.add(random_codes(np.random.default_rng(9), 1000, 64))
    assert searched.exact
    assert searched.recall() == 1.0


def test_tuning_takes_the_fastest_that_reaches_the_recall(small):
    rng = np.random.default_rng(10)
    searched = HammingIndex(64)
    assert searched.tune(0.9) == []
    searched.add(random_codes(rng, 3000, 64))
    trials = searched.tune(0.9, structures=["flat", "ivf", "hnsw"])
    assert {trial.structure for trial in trials} >= {"flat", "ivf"}
    assert trials[0].reaches
    assert searched.choice == (Choice() if trials[0].exact else trials[0].choice)
    assert searched.segments[0].structure.name == trials[0].structure
    assert all(trial.recall == 1.0 for trial in trials if trial.exact)
    assert all(trial.seconds_per_query > 0 and trial.n_bytes > 0 for trial in trials)
    # What is chosen alone is taken; rebuilt by additions, it is of the same kind.
    (trial,) = searched.tune(0.9, structures=["ivf"])
    assert str(searched.choice) == "ivf,recall=0.9"
    assert (trial.structure, trial.exact, trial.reaches) == ("ivf", False, True)
    searched.add(random_codes(rng, 3000, 64))
    assert len(searched.segments[0]) == 6000
    assert searched.segments[0].structure.name == "ivf"


def test_another_structure_has_the_same_content(small):
    rng = np.random.default_rng(11)
    codes = random_codes(rng, 3000, 40, "clustered")
    searched = HammingIndex(40)
    searched.add(codes[:2900])
    searched.add(codes[2900:])
    searched.remove([5, 2950])
    other = searched.restructured("ivf", recall=0.9)
    assert searched.exact
    assert not other.exact
    assert other.restructured("ivf", recall=0.9).segments == other.segments
    for left, right in zip(searched.groups(), other.groups(), strict=True):
        assert np.array_equal(left, right)
    back = other.restructured("auto")
    for left, right in zip(searched.search(codes[:50], 30), back.search(codes[:50], 30), strict=True):
        assert np.array_equal(left, right)
