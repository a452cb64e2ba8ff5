import random
import shutil

import numpy as np
import pytest

import index.array_files
import index.kernel
import index.live
import index.snapshot
import index.structures
from index import Store
from tests.index.compiled import use_kernel
from tests.index.samples import codes, entry, filled


@pytest.fixture(autouse=True)
def cache_for_few_rows(monkeypatch):
    monkeypatch.setattr(index.live, "_CACHE_ABOVE", 50)


@pytest.fixture
def folder(tmp_path):
    filled(tmp_path / "a.dhx", 100).close()
    return tmp_path / "a.dhx"


@pytest.fixture
def reads(monkeypatch):
    """The rows read from the catalogue for the search structure: 0 when the cache was used."""
    read, counts = index.catalogue.Catalogue._checked, []

    def counted(self, rows):
        counts.append(len(rows))
        return read(self, rows)

    monkeypatch.setattr(index.catalogue.Catalogue, "_checked", counted)
    return counts


def answers(folder):
    with Store.open(folder) as store:
        assert store.verify() == []
    with Store.open(folder) as store:
        distances, ids = store.search_ids(codes(20, seed=3), 200)
        return distances.tolist(), ids.tolist()


def search(folder, k=5):
    with Store.open(folder) as store:
        return store.search_ids(codes(3), k)[1].tolist()


def manifest_of(folder):
    [path] = folder.glob("snapshot-*.json")
    return path


def array_file(folder, part):
    [path] = folder.glob(f"snapshot-*.{part}.npy")
    return path


def parts(folder):
    return sorted(path.name.partition(".")[2] for path in folder.glob("snapshot-*"))


PARTS = ["0.ids.npy", "0.offsets.npy", "0.words.npy", "json"]


def rewritten(folder, change):
    """Write arrays by their parts, with sizes and checksums that are right."""
    path = manifest_of(folder)
    described = index.array_files.read_sealed(path)
    for part, array in change.items():
        file = array_file(folder, part)
        described["files"][file.name] = index.array_files.write_array(file, np.array(array))
    index.array_files.write_sealed(path, described)


def test_a_search_reads_the_cache_and_only_the_rows_behind_it(folder, reads):
    assert parts(folder) == PARTS
    before = manifest_of(folder)
    search(folder)
    assert sum(reads) == 0
    with Store.open(folder, writable=True) as store:
        store.put([entry(200), entry(4)], codes(2, seed=4))
        store.remove([9])
    assert manifest_of(folder) == before
    search(folder)
    assert sum(reads) == 2
    cached = answers(folder)
    before.unlink()
    with Store.open(folder, writable=True):
        pass
    assert manifest_of(folder) != before
    assert answers(folder) == cached


def test_many_changes_make_a_new_cache(folder, reads):
    before = manifest_of(folder)
    with Store.open(folder, writable=True) as store:
        store.put([entry(n) for n in range(95, 140)], codes(45, seed=4))
        store.remove(range(1, 10))
    assert manifest_of(folder) != before
    reads.clear()
    search(folder)
    assert reads == []


def test_a_reader_that_was_open_goes_on(folder):
    with Store.open(folder) as reader:
        reader.refresh()
        with Store.open(folder, writable=True) as store:
            store.put([entry(n) for n in range(90, 150)], codes(60, seed=4))
            store.remove([5])
        assert reader.search_ids(codes(2), 200)[1].shape == (2, 149)
        assert reader.search(codes(60, seed=4)[:1], 1)[0][0].path == entry(90).path


def test_small_stores_have_no_cache(tmp_path):
    filled(tmp_path / "b.dhx", 20).close()
    assert parts(tmp_path / "b.dhx") == []


def truncated(path):
    path.write_bytes(path.read_bytes()[:-1])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def longer(path):
    path.write_bytes(path.read_bytes() + b"x")


def garbage(path):
    path.write_bytes(b"\0" * path.stat().st_size)


def gone(path):
    path.unlink()


@pytest.mark.parametrize("damage", [truncated, flipped, longer, garbage, gone])
@pytest.mark.parametrize("part", ["words", "offsets", "ids", "manifest"])
def test_a_damaged_cache_is_rebuilt_silently(folder, reads, part, damage):
    expected = search(folder, 100)
    damage(manifest_of(folder) if part == "manifest" else array_file(folder, part))
    assert search(folder, 100) == expected
    assert sum(reads) == 100
    with Store.open(folder) as store:
        assert [p.kind for p in store.verify()] == ["cache"]
    with Store.open(folder, writable=True):
        pass
    answers(folder)


def test_the_next_writer_replaces_a_damaged_manifest(folder, reads):
    garbage(manifest_of(folder))
    with Store.open(folder, writable=True):
        pass
    reads.clear()
    search(folder)
    assert reads == []


def test_the_cache_of_another_store_is_not_used(folder, tmp_path, reads):
    other = tmp_path / "b.dhx"
    with Store.create(other, n_bits=20, fingerprint="model-a") as store:
        store.put([entry(n) for n in range(100)], codes(100, seed=77))
    ours, theirs = manifest_of(folder), manifest_of(other)
    for path in other.glob("snapshot-*"):
        shutil.copy(path, folder)
    shutil.copy(theirs, ours)
    reads.clear()
    assert search(folder, 1) == [[1], [2], [3]]
    assert sum(reads) == 100


def test_a_catalogue_restored_from_an_older_copy_does_not_trust_a_newer_cache(folder, tmp_path, reads):
    shutil.copy(folder / "catalogue.db", tmp_path / "backup.db")
    with Store.open(folder, writable=True) as store:
        store.put([entry(n) for n in range(100)], codes(100, seed=5))
    for name in ("catalogue.db-wal", "catalogue.db-shm"):
        (folder / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup.db", folder / "catalogue.db")
    reads.clear()
    assert search(folder, 1) == [[1], [2], [3]]
    assert sum(reads) == 100


@pytest.mark.parametrize(
    "change",
    [
        {"offsets": [0, 5]},
        {"offsets": np.zeros(101, np.int64)},
        {"ids": [10_000] * 100},
        {"ids": [0.5] * 100},
        {"words": [[1, 2]]},
        {"words": np.zeros((100, 1), np.int64)},
        {"words": np.zeros((100, 2), np.uint64)},
    ],
)
def test_arrays_that_do_not_fit_together_are_not_used(folder, reads, change):
    """Even when size and checksum are right."""
    rewritten(folder, change)
    assert search(folder, 1) == [[1], [2], [3]]
    assert sum(reads) == 100


def test_a_cache_that_contradicts_the_catalogue_is_told(folder):
    ids = np.load(array_file(folder, "ids"))
    ids[[0, 1]] = ids[[1, 0]]
    rewritten(folder, {"ids": ids})
    with Store.open(folder) as store:
        assert [p.message.split(":")[0] for p in store.verify()] == ["the cache contradicts catalogue.db"]


def test_a_full_disk_while_writing_the_cache_loses_nothing(folder, monkeypatch, reads):
    def full(path, array):
        if path.name.endswith("ids.npy"):
            raise OSError(28, "No space left on device")
        return real(path, array)

    real, before = index.snapshot.write_array, sorted(folder.glob("snapshot-*"))
    with Store.open(folder, writable=True) as store:
        store.put([entry(n) for n in range(100, 200)], codes(100, seed=6))
        monkeypatch.setattr(index.snapshot, "write_array", full)
    assert sorted(folder.glob("snapshot-*")) == before
    reads.clear()
    assert len(search(folder, 1000)[0]) == 200
    assert sum(reads) == 100


@pytest.fixture
def tables(monkeypatch):
    """Look-up tables for few codes; the number of those built is counted."""
    if not index.kernel.AVAILABLE:
        pytest.skip("needs the compiled kernel")
    build, counts = index.kernel.build_table, []

    def counted(*args, **kwargs):
        counts.append(1)
        return build(*args, **kwargs)

    monkeypatch.setattr(index.structures, "_TABLES_ABOVE", 50)
    monkeypatch.setattr(index.kernel, "build_table", counted)
    return counts


def test_tables_are_part_of_the_cache(tables, tmp_path, reads):
    filled(tmp_path / "a.dhx", 400, n_bits=64).close()
    assert "0.positions1.npy" in parts(tmp_path / "a.dhx")
    with Store.open(tmp_path / "a.dhx") as store:
        del tables[:], reads[:]
        distances, ids = store.search_ids(codes(400, n_bits=64), 1)
    assert distances.max() == 0
    assert ids.ravel().tolist() == list(range(1, 401))
    assert sum(reads) == len(tables) == 0


def test_a_cache_with_tables_serves_without_the_kernel(tables, tmp_path, reads, monkeypatch):
    filled(tmp_path / "a.dhx", 400, n_bits=64).close()
    reads.clear()
    use_kernel(monkeypatch, False)
    with Store.open(tmp_path / "a.dhx") as store:
        assert store.search_ids(codes(400, n_bits=64), 1)[1].ravel().tolist() == list(range(1, 401))
    assert sum(reads) == 0


def test_any_byte_of_any_file_of_the_cache_may_be_wrong(tables, tmp_path, reads):
    """Answers stay right: nothing is used before its checksum is checked."""
    folder, chance = tmp_path / "a.dhx", random.Random(7)
    filled(folder, 120, n_bits=32).close()
    with Store.open(folder, writable=True) as store:
        store.put([entry(500)], codes(1, seed=8, n_bits=32))
        store.remove([3])
    queries = codes(5, n_bits=32)
    with Store.open(folder) as store:
        expected = store.search(queries, 200)
    for path in sorted(folder.glob("snapshot-*")):
        whole = path.read_bytes()
        for _ in range(12):
            data = bytearray(whole)
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
            reads.clear()
            with Store.open(folder) as store:
                assert store.search(queries, 200) == expected
                assert sum(reads) == len(store)
        path.write_bytes(whole)


def test_a_new_cache_shares_the_files_that_have_not_changed(folder):
    before = {path.name: path.stat().st_ino for path in folder.glob("snapshot-*")}
    with Store.open(folder, writable=True) as store:
        store.put([entry(n) for n in range(100, 110)], codes(10, seed=4))
    after = {path.name: path.stat().st_ino for path in folder.glob("snapshot-*")}
    assert len(set(before.items()) & set(after.items())) == 3
    assert parts(folder) == sorted([*PARTS, "1.ids.npy", "1.offsets.npy", "1.words.npy"])
    answers(folder)
    with Store.open(folder, writable=True) as store:
        store.remove(range(1, 10))
    assert len({path.name for path in folder.glob("snapshot-*")} & set(after)) == 4
    answers(folder)


def test_a_reader_catches_up_over_several_caches_without_reading_all_rows(folder, reads):
    with Store.open(folder) as reader:
        reader.refresh()
        for round in range(1, 4):
            with Store.open(folder, writable=True) as store:
                store.put([entry(1000 * round + n) for n in range(20)], codes(20, seed=round))
                store.remove([round])
        reads.clear()
        assert reader.search_ids(codes(1), 1000)[1].shape == (1, 157)
        assert sum(reads) == 0
