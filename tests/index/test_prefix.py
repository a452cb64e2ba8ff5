"""Prefixes: exact where it says so, true and complete in number elsewhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import index.choice
import index.live
import index.prefix
import index.segments
import index.structures
from index import HammingIndex, Store
from index.codes import hamming_distances
from index.groups import Groups, to_words
from index.prefix import PrefixIndex
from index.tuning import own_queries, with_recall
from tests.index.brute import csr_rows, nearest, random_codes, rows_of
from tests.index.compiled import needs_kernel, use_kernel
from tests.index.samples import codes as some_codes
from tests.index.samples import entry, filled

N_BITS = 128
BITS = st.sampled_from([65, 100, 128, 256])
KINDS = st.sampled_from(["random", "clustered", "equal", "one prefix", "few prefixes"])


def codes_of(rng, n, n_bits, kind):
    if not kind.endswith(("prefix", "prefixes")):
        return random_codes(rng, n, n_bits, kind)
    codes = random_codes(rng, n, n_bits)
    codes[:, :8] = random_codes(rng, 3, 64)[rng.integers(0, 1 if kind == "one prefix" else 3, n)]
    return codes


@st.composite
def ways(draw):
    """How it is searched: by which inner structure, and how soon it goes from candidates to all within a bound."""
    return {
        "compiled": draw(st.booleans()),
        "tables": draw(st.booleans()),
        "_FIRST": draw(st.sampled_from([1, 8, 256])),
        "_SHARE": draw(st.sampled_from([1 / 128, 0.3, 1.0])),
        "_WIDE": draw(st.sampled_from([3 / 8, 1.0])),
        "_BLOCK": draw(st.sampled_from([16, 1 << 18])),
    }


def use(monkeypatch, way):
    way = dict(way)
    use_kernel(monkeypatch, way.pop("compiled"))
    monkeypatch.setattr(index.structures, "_TABLES_ABOVE", 1 if way.pop("tables") else 1 << 18)
    for name, value in way.items():
        monkeypatch.setattr(index.prefix, name, value)


def case_of(rng, n, n_bits, kind):
    """Codes, groups with a tenth of the ids removed, the ids that stay, and queries near and far."""
    codes = codes_of(rng, n, n_bits, kind)
    mask = rng.random(n) > 0.1
    whole = Groups.of(to_words(codes), np.arange(n))
    queries = np.concatenate([codes[:3], random_codes(rng, 2, n_bits)])
    return codes, whole, whole.keep(mask[whole.ids]), np.flatnonzero(mask), queries


@settings(max_examples=150)
@given(
    way=ways(),
    kind=KINDS,
    n_bits=BITS,
    n=st.integers(0, 200),
    k=st.integers(1, 60),
    radius=st.one_of(st.none(), st.integers(0, 80)),
    seed=st.integers(0, 10_000),
)
def test_the_slowest_setting_is_exact(way, kind, n_bits, n, k, radius, seed):
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(monkeypatch, way)
        codes, whole, groups, ids, queries = case_of(rng, n, n_bits, kind)
        for bits in {64, 64 * ((n_bits - 1) // 64)}:
            _, structure = PrefixIndex.build(whole, n_bits, bits=bits)
            structure = structure.with_settings(**structure.settings()[-1])
            found = structure.find(groups, to_words(queries), k, n_bits if radius is None else radius)
            assert csr_rows(*found) == nearest(queries, codes[ids], ids, k, radius)


@settings(max_examples=150)
@given(
    way=ways(),
    kind=KINDS,
    n_bits=BITS,
    n=st.integers(0, 200),
    k=st.one_of(st.none(), st.integers(1, 60)),
    radius=st.integers(0, 80),
    oversampling=st.integers(1, 4),
    seed=st.integers(0, 10_000),
)
def test_a_radius_is_answered_exactly(way, kind, n_bits, n, k, radius, oversampling, seed):
    """All within any radius; the k nearest within one of up to 3/8 of the prefix."""
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(monkeypatch, way)
        codes, whole, groups, ids, queries = case_of(rng, n, n_bits, kind)
        _, structure = PrefixIndex.build(whole, n_bits, oversampling=oversampling)
        radius = radius if k is None else min(radius, 24)
        found = structure.find(groups, to_words(queries), k, radius)
        assert csr_rows(*found) == nearest(queries, codes[ids], ids, k, radius)


@settings(max_examples=100)
@given(way=ways(), kind=KINDS, n_bits=BITS, n=st.integers(0, 200), k=st.integers(1, 250), seed=st.integers(0, 10_000))
def test_few_candidates_still_give_as_many_as_are_asked_for(way, kind, n_bits, n, k, seed):
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(monkeypatch, way)
        codes, whole, groups, ids, queries = case_of(rng, n, n_bits, kind)
        _, structure = PrefixIndex.build(whole, n_bits, oversampling=1)
        rows = csr_rows(*structure.find(groups, to_words(queries), k, n_bits))
        for row, real in zip(rows, nearest(queries, codes[ids], ids), strict=True):
            assert len(row) == min(k, len(ids))
            assert row == sorted(set(row))
            assert set(row) <= set(real)


def nested_codes(rng, n, n_bits):
    """Signs of components whose noise grows: the first bits tell the most."""
    centres = rng.standard_normal((n // 20 + 1, n_bits))
    noise = rng.standard_normal((n, n_bits)) * np.linspace(0.2, 0.8, n_bits)
    return np.packbits(centres[rng.integers(0, len(centres), n)] + noise > 0, axis=1)


def slow_recall(structure, groups, codes, n_bits, k=10):
    """Of the structure's own codes, each asked for as if it were not there."""
    words, own, _ = own_queries(groups)
    hits = total = 0
    rows = csr_rows(*structure.find(groups, words, k + 1, n_bits))
    for row, query in zip(rows, own.tolist(), strict=True):
        others = np.delete(hamming_distances(codes[query : query + 1], codes)[0], query)
        kth = np.sort(others)[k - 1]
        hits += sum(d <= kth for d, i in [pair for pair in row if pair[1] != query][:k])
        total += k
    return hits / total


def test_the_recall_that_is_told_is_true_and_grows_along_the_settings(monkeypatch):
    monkeypatch.setattr(index.prefix, "_SHARE", 0.5)
    rng = np.random.default_rng(1)
    codes = nested_codes(rng, 1500, 256)
    groups, structure = PrefixIndex.build(Groups.of(to_words(codes), np.arange(1500)), 256)
    recalls = []
    for setting in structure.settings():
        measured = with_recall(structure.with_settings(**setting), groups, 256)
        assert measured.recall == pytest.approx(slow_recall(measured, groups, codes, 256))
        recalls.append(measured.recall)
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.9
    assert recalls[-1] == 1.0


@pytest.mark.parametrize("compiled", [True, False])
def test_an_index_by_prefixes_is_filtered_and_changed(monkeypatch, compiled):
    use_kernel(monkeypatch, compiled)
    monkeypatch.setattr(index.choice, "_APPROXIMATE_ABOVE", 8)
    monkeypatch.setattr(index.segments, "_REBUILD_ABOVE", 8)
    rng = np.random.default_rng(2)
    codes = nested_codes(rng, 900, 256)
    searched = HammingIndex(256, "prefix,oversampling=1000")
    searched.add(codes[:800])
    assert searched.segments[0].structure.name == "prefix"
    removed = rng.permutation(800)[:200]
    searched.remove(removed)
    searched.add(codes[800:])
    ids = np.setdiff1d(np.arange(900), removed)
    queries = nested_codes(rng, 10, 256)
    for k, radius in ((5, None), (50, None), (50, 30), (1000, 90)):
        assert rows_of(*searched.search(queries, k, radius=radius)) == nearest(queries, codes[ids], ids, k, radius)
    allowed = ids[::3]
    found = rows_of(*searched.search(queries, 20, allowed=allowed))
    assert found == nearest(queries, codes[allowed], allowed, 20)
    assert searched.recall() == 1.0
    assert csr_rows(*searched.range_search(queries, 70)) == nearest(queries, codes[ids], ids, None, 70)


def test_codes_of_a_word_are_scanned(monkeypatch):
    monkeypatch.setattr(index.choice, "_APPROXIMATE_ABOVE", 8)
    for n_bits, name in ((64, "flat"), (65, "prefix")):
        searched = HammingIndex(n_bits, "prefix")
        searched.add(random_codes(np.random.default_rng(3), 100, n_bits))
        assert [segment.structure.name for segment in searched.segments] == [name]
        again = searched.restructured("prefix")
        assert again.segments == searched.segments


@pytest.mark.parametrize("given", [{"bits": 0}, {"bits": 100}, {"bits": 128}, {"bits": -64}, {"oversampling": 0}])
def test_a_prefix_that_is_none_is_refused(given):
    groups = Groups.of(to_words(random_codes(np.random.default_rng(4), 100, N_BITS)), np.arange(100))
    with pytest.raises(ValueError, match="prefix: bits is a multiple of 64 below the 128 bits"):
        PrefixIndex.build(groups, N_BITS, **given)


def built(monkeypatch, n=2000):
    monkeypatch.setattr(index.structures, "_TABLES_ABOVE", 1)
    codes = codes_of(np.random.default_rng(5), n, 192, "clustered")
    return *PrefixIndex.build(Groups.of(to_words(codes), np.arange(n)), 192, bits=128), to_words(codes[:20])


@needs_kernel
def test_tables_of_prefixes_are_made_again_of_their_arrays(monkeypatch):
    groups, structure, queries = built(monkeypatch)
    arrays = structure.arrays()
    assert {"starts0", "starts1", "positions1"} <= arrays.keys()
    again = PrefixIndex.from_arrays(groups, 192, arrays)
    assert (again.parameters(), again.n_bytes) == (structure.parameters(), structure.n_bytes)
    for k, radius in ((10, 192), (None, 20), (None, 100)):
        pairs = zip(again.find(groups, queries, k, radius), structure.find(groups, queries, k, radius), strict=True)
        assert all(np.array_equal(*pair) for pair in pairs)
    for wrong in (arrays["firsts"] + 1, np.sort(arrays["firsts"])[::-1].copy(), arrays["firsts"] * 0):
        with pytest.raises(ValueError, match="arrays of prefixes"):
            PrefixIndex.from_arrays(groups, 192, dict(arrays) | {"firsts": wrong})
    with pytest.raises(ValueError, match="starts0"):
        PrefixIndex.from_arrays(groups, 192, dict(arrays) | {"starts0": arrays["starts0"][:-1]})


@needs_kernel
def test_prefixes_and_tables_of_any_content_are_searched_within_bounds(monkeypatch):
    rng = np.random.default_rng(6)
    groups, structure, queries = built(monkeypatch)
    for round in range(40):
        arrays = dict(structure.arrays())
        for name in [name for name in arrays if name not in ("settings", "firsts") and rng.random() < 0.6]:
            array = arrays[name].copy()
            some = rng.random(array.shape) < rng.choice([0.001, 0.1, 1.0])
            most = np.iinfo(array.dtype).max
            values = [rng.integers(0, most, array.shape, array.dtype), most, 0, 1][round % 4]
            arrays[name] = np.where(some, values, array).astype(array.dtype)
        hostile = PrefixIndex.from_arrays(groups, 192, arrays)
        for k, radius in ((10, 192), (3000, 192), (10, 20)):
            assert len(hostile.find(groups, queries, k, radius).ids) <= k * len(queries)


def test_a_store_keeps_prefixes_in_its_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(index.choice, "_APPROXIMATE_ABOVE", 50)
    monkeypatch.setattr(index.live, "_CACHE_ABOVE", 50)
    folder = tmp_path / "a.dhx"
    with filled(folder, 400, n_bits=N_BITS) as store:
        (trial,) = store.tune(0.9, structures=["prefix"])
        assert trial.recall >= 0.9
        made = store.search_stats()
    assert any(".firsts." in path.name for path in folder.iterdir())
    monkeypatch.setattr(PrefixIndex, "build", None)
    with Store.open(folder) as store:
        assert store.search_stats() == made
        assert made.found.startswith("prefix bits=64 oversampling=")
        _, ids = store.search_ids(some_codes(30, n_bits=N_BITS), 5)
        assert ids[:, 0].tolist() == list(range(1, 31))
    monkeypatch.undo()
    with Store.open(folder, writable=True) as store:
        store.put([entry(n) for n in range(400, 460)], some_codes(60, seed=7, n_bits=N_BITS))
        store.remove(range(1, 100))
        _, ids = store.search_ids(some_codes(60, seed=7, n_bits=N_BITS), 1)
        assert ids[:, 0].tolist() == list(range(401, 461))
