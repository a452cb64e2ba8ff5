"""A store remembers what it is searched with, and everybody who opens it finds it made."""

import numpy as np
import pytest

import index.choice
import index.ivf
import index.kernel
import index.live
import index.segments
from index import Store, StoreError
from index.codes import hamming_distances
from tests.index.compiled import needs_kernel
from tests.index.samples import codes, entry, filled

N_BITS = 64


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch):
    monkeypatch.setattr(index.choice, "_APPROXIMATE_ABOVE", 50)
    monkeypatch.setattr(index.live, "_CACHE_ABOVE", 50)
    monkeypatch.setattr(index.segments, "_REBUILD_ABOVE", 8)


@pytest.fixture
def folder(tmp_path):
    filled(tmp_path / "a.dhx", 400, n_bits=N_BITS).close()
    return tmp_path / "a.dhx"


@pytest.fixture
def trainings(monkeypatch):
    """How often centroids were fitted."""
    real, counts = index.ivf.majorities, []

    def counted(words, n_lists):
        counts.append(n_lists)
        return real(words, n_lists)

    monkeypatch.setattr(index.ivf, "majorities", counted)
    return counts


def test_a_store_is_exact_unless_something_else_is_chosen(folder):
    with Store.open(folder) as store:
        stats = store.search_stats()
    assert (stats.structure, stats.exact, stats.recall) == ("auto", True, 1.0)
    assert stats.n_bytes >= 400 * (8 + 8 + 8)


def test_what_is_chosen_is_remembered_and_made_once(folder, trainings):
    with Store.open(folder, writable=True) as store:
        (trial,) = store.tune(0.9, structures=["ivf"])
        assert trial.structure == "ivf"
        assert trial.reaches
        made = store.search_stats()
    n_trainings = len(trainings)
    with Store.open(folder) as store:
        stats = store.search_stats()
        assert stats == made
        assert stats.structure == "ivf,recall=0.9"
        assert stats.found.startswith("ivf lists=32 reach=")
        assert not stats.exact
        assert stats.recall == trial.recall >= 0.9
        distances, ids = store.search_ids(codes(30, n_bits=N_BITS), 5)
        assert np.array_equal(ids[:, 0], np.arange(1, 31))
        assert not distances[:, 0].any()
        assert store.verify() == []
    assert len(trainings) == n_trainings


def test_readers_that_are_open_take_it_over(folder, trainings):
    with Store.open(folder) as reader:
        assert reader.search_stats().exact
        with Store.open(folder, writable=True) as writer:
            writer.tune(structures=["ivf"])
        n_trainings = len(trainings)
        assert reader.search_stats().found.startswith("ivf")
        assert len(trainings) == n_trainings
        with Store.open(folder, writable=True) as writer:
            writer.tune(structures=["auto"])
        assert reader.search_stats().exact


def test_images_that_come_and_go_are_found_or_not(folder):
    with Store.open(folder, writable=True) as store:
        store.tune(structures=["ivf"])
        store.put([entry(n) for n in range(400, 460)], codes(60, seed=7, n_bits=N_BITS))
        store.remove(range(1, 100))
        for _ in range(2):
            _, ids = store.search_ids(codes(60, seed=7, n_bits=N_BITS), 1)
            assert ids[:, 0].tolist() == list(range(401, 461))
            limits, distances, ids = store.range_ids(codes(5, n_bits=N_BITS), 20)
            assert limits[-1] == len(ids)
            assert ids.min(initial=100) >= 100
            table = {r.id: r.code for r in store.iterate()}
            rows = np.repeat(codes(5, n_bits=N_BITS), np.diff(limits), axis=0)
            found = np.array([list(table[int(i)]) for i in ids], np.uint8).reshape(-1, 8)
            assert np.array_equal(
                distances, [hamming_distances(a[None], b[None])[0, 0] for a, b in zip(rows, found, strict=True)]
            )
            store.refresh()


def test_a_dry_run_measures_and_leaves_all_as_it_was(folder):
    with Store.open(folder) as store:
        epoch = store.epoch
        assert [trial.structure for trial in store.tune(structures=["ivf"], dry_run=True)] == ["ivf"]
        assert store.search_stats().structure == "auto"
        assert store.epoch == epoch
        with pytest.raises(StoreError, match="reading only"):
            store.tune()


def test_a_full_disk_while_the_choice_is_cached_loses_nothing(folder, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    with Store.open(folder, writable=True) as store:
        monkeypatch.setattr(index.snapshot, "write_array", full)
        store.tune(structures=["ivf"])
        assert store.search_stats().found.startswith("ivf")
    with Store.open(folder) as store:
        assert store.search_stats().found.startswith("ivf")
        assert len(store.search_ids(codes(1, n_bits=N_BITS), 400)[1][0]) == 400


def test_a_structure_that_only_a_newer_version_knows_is_answered_exactly(folder):
    with Store.open(folder, writable=True) as store:
        store._catalogue.set_structure("quantum,qubits=3")
    with Store.open(folder) as store:
        assert store.search_stats().exact
        assert len(store.search_ids(codes(1, n_bits=N_BITS), 3)[1][0]) == 3


@needs_kernel
def test_a_graph_is_kept_in_the_cache(folder):
    with Store.open(folder, writable=True) as store:
        store.tune(structures=["hnsw,m=8"])
        _, expected = store.search_ids(codes(30, seed=5, n_bits=N_BITS), 10)
    assert any(".links." in path.name for path in folder.iterdir())
    with Store.open(folder) as store:
        assert store.search_stats().found.startswith("hnsw m=8")
        assert np.array_equal(store.search_ids(codes(30, seed=5, n_bits=N_BITS), 10)[1], expected)
