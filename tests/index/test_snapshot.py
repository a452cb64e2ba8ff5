import json
import shutil

import numpy as np
import pytest

import index.live
import index.snapshot
from index import Store
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


def parts(folder):
    return sorted(path.name for path in folder.glob("snapshot-*"))


def test_a_search_reads_the_cache_and_only_the_rows_behind_it(folder, reads):
    assert parts(folder) == ["snapshot-1.codes.npy", "snapshot-1.ids.npy", "snapshot-1.offsets.npy"]
    search(folder)
    assert sum(reads) == 0
    with Store.open(folder, writable=True) as store:
        store.put([entry(200), entry(4)], codes(2, seed=4))
        store.remove([9])
    assert parts(folder)[0] == "snapshot-1.codes.npy"
    search(folder)
    assert sum(reads) == 2
    cached = answers(folder)
    (folder / "manifest.json").unlink()
    assert answers(folder) == cached


def test_many_changes_make_a_new_cache(folder, reads):
    with Store.open(folder, writable=True) as store:
        store.put([entry(n) for n in range(95, 140)], codes(45, seed=4))
        store.remove(range(1, 10))
    assert parts(folder) == ["snapshot-3.codes.npy", "snapshot-3.ids.npy", "snapshot-3.offsets.npy"]
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
@pytest.mark.parametrize("name", [f"snapshot-1.{part}.npy" for part in ("codes", "offsets", "ids")] + ["manifest.json"])
def test_a_damaged_cache_is_rebuilt_silently(folder, reads, name, damage):
    expected = search(folder, 100)
    damage(folder / name)
    assert search(folder, 100) == expected
    assert sum(reads) == 100
    with Store.open(folder) as store:
        problems = store.verify()
        assert [p.kind for p in problems] == ([] if name == "manifest.json" and damage is gone else ["cache"])
    with Store.open(folder, writable=True):
        pass
    answers(folder)


def test_the_next_writer_replaces_a_damaged_manifest(folder, reads):
    garbage(folder / "manifest.json")
    with Store.open(folder, writable=True):
        pass
    reads.clear()
    search(folder)
    assert reads == []


def test_the_cache_of_another_store_is_not_used(folder, tmp_path, reads):
    other = tmp_path / "b.dhx"
    with Store.create(other, n_bits=20, fingerprint="model-a") as store:
        store.put([entry(n) for n in range(100)], codes(100, seed=77))
    for path in other.glob("*"):
        if path.name.startswith(("snapshot", "manifest")):
            shutil.copy(path, folder)
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


@pytest.mark.parametrize("change", [{"offsets": [0, 5]}, {"ids": [7] * 100}, {"codes": [[1, 2]]}, {"ids": [0.5] * 100}])
def test_arrays_that_do_not_fit_together_are_not_used(folder, reads, change):
    """Even when size and checksum are right."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for part, value in change.items():
        name = f"snapshot-1.{part}.npy"
        old = np.load(folder / name)
        array = np.array(value, dtype=np.float64 if part == "ids" and value[0] == 0.5 else old.dtype)
        if value == [7] * 100:
            array = np.full(100, 10_000)
        np.save(folder / name, array)
        data = (folder / name).read_bytes()
        manifest["files"][name] = {"n_bytes": len(data), "crc32": index.snapshot.zlib.crc32(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert search(folder, 1) == [[1], [2], [3]]
    assert sum(reads) == 100


def test_a_cache_that_contradicts_the_catalogue_is_told(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    name = "snapshot-1.ids.npy"
    ids = np.load(folder / name)
    ids[[0, 1]] = ids[[1, 0]]
    np.save(folder / name, ids)
    data = (folder / name).read_bytes()
    manifest["files"][name] = {"n_bytes": len(data), "crc32": index.snapshot.zlib.crc32(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with Store.open(folder) as store:
        assert [p.message.split(":")[0] for p in store.verify()] == ["the cache contradicts catalogue.db"]


def test_a_full_disk_while_writing_the_cache_loses_nothing(folder, monkeypatch, reads):
    def full(path, data):
        if path.name.endswith("ids.npy"):
            raise OSError(28, "No space left on device")
        real(path, data)

    real = index.snapshot.write_file
    with Store.open(folder, writable=True) as store:
        store.put([entry(n) for n in range(100, 200)], codes(100, seed=6))
        monkeypatch.setattr(index.snapshot, "write_file", full)
    assert len(search(folder, 1000)[0]) == 200
    assert not [name for name in parts(folder) if "snapshot-2" in name]
