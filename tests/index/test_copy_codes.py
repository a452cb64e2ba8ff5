import sqlite3
from contextlib import closing

import numpy as np
import pytest

from index import Filter, Store
from index.copy_codes import mirrored
from tests.index.samples import codes, entry, filled

COPY_BITS = 32


@pytest.fixture
def store(tmp_path):
    with filled(tmp_path / "a.dhx", 6) as store:
        store.use_copy_codes(COPY_BITS, "copies-a", 3)
        yield store


def copy_codes(*numbers):
    return np.array(numbers, ">u4")[:, None].view(np.uint8)


def found(store, radius=3, **options):
    clusters = store.duplicates(radius, **options)
    return [(c.kind, c.keep.id, [(record.id, distance) for record, distance in c.drop]) for c in clusters]


def test_near_copies_are_found_by_copy_codes_alone(store):
    store.put_copy_codes(range(1, 7), copy_codes(0, 0b111, 0xFFFF, 0xF0F0F0F0, 0b1111, 0xF0F0F0F1))
    # Of equal sizes the file of most bytes is kept: entry(n) has 1000 + n.
    assert found(store) == [("near", 5, [(2, 1)]), ("near", 6, [(4, 1)])]
    assert found(store, 2, where=Filter(path="*/[abc]/[0-3].jpg")) == []
    assert store.copy_codes.radius == 3
    assert not store.copy_codes.lacking().size


def test_mirrored_copies_are_found_where_asked(store):
    store.put_copy_codes(range(1, 7), copy_codes(0xABCD1234, 0x1234ABCC, 1, 0xFF, 0xFFFF, 0xFFFFFFF0))
    assert found(store) == []
    assert found(store, mirrored=True) == [("near", 2, [(1, 1)])]
    np.testing.assert_array_equal(mirrored(copy_codes(0xABCD1234)), copy_codes(0x1234ABCD))


def test_a_new_picture_at_a_known_path_loses_its_copy_code(store):
    store.put_copy_codes(range(1, 7), codes(6, n_bits=COPY_BITS))
    store.put([entry(0)], codes(1))
    assert not store.copy_codes.lacking().size
    store.put([entry(0)], codes(1, seed=5))
    assert store.copy_codes.lacking().tolist() == [1]
    store.put([entry(0)], codes(1, seed=6), codes(1, n_bits=COPY_BITS))
    assert not store.copy_codes.lacking().size
    store.remove([2])
    assert store.copy_codes.all()[0].tolist() == [1, 3, 4, 5, 6]


def test_equal_content_without_a_copy_code_is_still_a_copy(store):
    same = {"content_hash": b"same".ljust(16)}
    store.put([entry(7, **same), entry(8, **same), entry(9), entry(10, content_hash=entry(9).content_hash)], codes(4))
    store.put_copy_codes([1, 7], copy_codes(0, 1))
    assert found(store) == [("near", 8, [(7, 0), (1, 1)]), ("identical", 10, [(9, 0)])]


def test_codes_of_another_model_are_dropped(store):
    store.put_copy_codes([1], codes(1, n_bits=COPY_BITS))
    store.use_copy_codes(COPY_BITS, "copies-a", 4)
    assert len(store.copy_codes.all()[0]) == 1
    store.use_copy_codes(64, "copies-b", 4)
    assert len(store.copy_codes.all()[0]) == 0
    assert (store.copy_codes.n_bits, store.copy_codes.fingerprint) == (64, "copies-b")


def test_wrong_copy_codes_are_refused(store, tmp_path):
    with pytest.raises(ValueError, match="2 images came with 1 copy codes"):
        store.put_copy_codes([1, 2], codes(1, n_bits=COPY_BITS))
    with pytest.raises(ValueError, match="copy codes"):
        store.put([entry(20)], codes(1), codes(1, n_bits=64))
    with filled(tmp_path / "b.dhx", 1) as plain:
        with pytest.raises(ValueError, match="use_copy_codes"):
            plain.put_copy_codes([1], codes(1, n_bits=COPY_BITS))
        with pytest.raises(ValueError, match="index the folder again"):
            plain.duplicates(3, mirrored=True)
    store.put_copy_codes([99], codes(1, n_bits=COPY_BITS))
    assert len(store.copy_codes.all()[0]) == 0


def test_verify_names_a_damaged_copy_code(store):
    store.put_copy_codes(range(1, 7), codes(6, n_bits=COPY_BITS))
    assert store.verify() == []
    db = sqlite3.connect(store.folder / "catalogue.db")
    db.execute("UPDATE copy_codes SET code = zeroblob(4) WHERE id = 3")
    db.commit()
    db.close()
    (problem,) = store.verify()
    assert (problem.kind, problem.where) == ("row", "image 3")
    assert "copy code is damaged" in problem.message


def test_an_index_from_before_copy_codes_opens_for_readers_and_writers(tmp_path):
    folder = tmp_path / "old.dhx"
    filled(folder, 6).close()
    with closing(sqlite3.connect(folder / "catalogue.db")) as db:
        db.executescript("DROP TABLE copy_codes; PRAGMA user_version = 1")
    with Store.open(folder) as reader:
        assert (reader.copy_codes.n_bits, len(reader), reader.duplicates(2), reader.verify()) == (0, 6, [], [])
        with Store.open(folder, writable=True) as writer:
            writer.use_copy_codes(COPY_BITS, "copies-a", 3)
            writer.put_copy_codes(range(1, 7), copy_codes(0, 1, 2, 0xFF, 0xFFFF, 0xFFFFFF))
        assert [len(cluster.drop) for cluster in reader.duplicates(3)] == [2]
