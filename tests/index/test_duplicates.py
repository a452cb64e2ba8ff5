from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import index.duplicates
from index import Filter, Store, hamming_distances
from index.copy_codes import mirrored
from index.duplicates import exact_groups, near_clusters
from tests.index.brute import random_codes
from tests.index.samples import codes, entry


def slow_clusters(table, ids, radius, preference, *, mirrors=False):
    """Leader clustering as one would tell it."""
    distances = hamming_distances(table, table)
    if mirrors:
        distances = np.minimum(distances, hamming_distances(mirrored(table), table))
    free, clusters = set(range(len(ids))), []
    for leader in sorted(free, key=lambda i: (preference[i], ids[i])):
        if leader in free:
            near = [i for i in free if i != leader and distances[leader, i] <= radius]
            free -= {leader, *near}
            if near:
                members = sorted((int(distances[leader, i]), int(ids[i])) for i in near)
                clusters.append((int(ids[leader]), [(id, distance) for distance, id in members]))
    return clusters


@given(
    n=st.integers(0, 80),
    n_bits=st.sampled_from([12, 64, 100]),
    kind=st.sampled_from(["random", "clustered", "equal"]),
    radius=st.integers(0, 30),
    seed=st.integers(0, 999),
    block=st.sampled_from([3, 1 << 20]),
    mirrors=st.booleans(),
)
def test_clusters_equal_the_slow_loop(n, n_bits, kind, radius, seed, block, mirrors):
    if mirrors:
        n_bits = 64
    rng = np.random.default_rng(seed)
    table, ids = random_codes(rng, n, n_bits, kind), rng.permutation(1000)[:n]
    preference = rng.integers(0, 5, n)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(index.duplicates, "_BLOCK_ENTRIES", block)
        found = near_clusters(table, ids, radius, preference, n_bits=n_bits, mirrored=mirrors)
    assert found == slow_clusters(table, ids, radius, preference, mirrors=mirrors)


def test_similarity_is_not_passed_along_chains():
    """1 is near 2 and 2 near 3, but 1 and 3 are apart: keeping 1 must not drop 3."""
    table = np.array([[0b000], [0b001], [0b011]], np.uint8)
    assert near_clusters(table, np.array([1, 2, 3]), 1, [0, 0, 0], n_bits=8) == [(1, [(2, 1)])]
    assert near_clusters(table, np.array([1, 2, 3]), 1, [1, 0, 1], n_bits=8) == [(2, [(1, 1), (3, 1)])]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="radius is -1"):
        near_clusters(codes(2), np.arange(2), -1, [0, 0], n_bits=20)
    with pytest.raises(ValueError, match="one of each"):
        near_clusters(codes(2), np.arange(2), 1, [0], n_bits=20)


def test_exact_groups_are_ordered_by_their_smallest_id():
    assert exact_groups([(b"a", 7), (b"a", 9), (b"b", 1), (b"b", 8)]) == [[1, 8], [7, 9]]


@pytest.fixture
def store(tmp_path):
    """1, 2, 3 have equal content; 4 is one bit away from them and larger; 5 is far; 6 and 7 are equal."""
    far = codes(3, seed=5)
    near = far[0].copy()
    near[0] ^= 0x80
    table = np.stack([far[0], far[0], far[0], near, far[1], far[2], far[2]])
    same, other = b"same", b"other"
    entries = [
        entry(1, content_hash=same),
        entry(2, content_hash=same, n_bytes=9999),
        entry(3, content_hash=same),
        entry(4, width=4000),
        entry(5, content_hash=b""),
        entry(6, content_hash=other, label="cat"),
        entry(7, content_hash=other, label="cat"),
    ]
    entries = [replace(e, n_bytes=5) if e.n_bytes != 9999 else e for e in entries]
    with Store.create(tmp_path / "a.dhx", n_bits=20, fingerprint="m") as store:
        store.put(entries, table)
        yield store


def told(clusters):
    return [(c.kind, c.keep.id, [(record.id, distance) for record, distance in c.drop]) for c in clusters]


def test_identical_images_keep_the_best_copy(store):
    """Most pixels, then most bytes, then the smallest id."""
    assert told(store.duplicates()) == [("identical", 2, [(1, 0), (3, 0)]), ("identical", 6, [(7, 0)])]
    assert told(store.duplicates(where=Filter(label="cat"))) == [("identical", 6, [(7, 0)])]


def test_near_images_are_told_from_identical_ones(store):
    assert told(store.duplicates(0)) == [("identical", 2, [(1, 0), (3, 0)]), ("identical", 6, [(7, 0)])]
    assert told(store.duplicates(1)) == [("near", 4, [(1, 1), (2, 1), (3, 1)]), ("identical", 6, [(7, 0)])]
    assert told(store.duplicates(1, where=Filter(path="*/1.jpg"))) == []
    store.remove([4, 7])
    assert told(store.duplicates(1)) == [("identical", 2, [(1, 0), (3, 0)])]


def test_images_without_a_content_hash_are_never_identical(store):
    store.put([entry(8, content_hash=b"", n_bytes=5)], store.codes([5]))
    assert 5 not in [c.keep.id for c in store.duplicates()]
    assert ("near", 5, [(8, 0)]) in told(store.duplicates(0))
