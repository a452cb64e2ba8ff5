import sqlite3

import pytest

import index.schema
from index import Store, StoreError, StoreFull, StoreLocked
from index.catalogue import Catalogue
from index.schema import MIGRATIONS, translated_errors
from tests.index.samples import codes, entry, filled


@pytest.fixture
def path(tmp_path):
    Catalogue.create(tmp_path / "catalogue.db", n_bits=20, fingerprint="f", created="now", files="{}")
    return tmp_path / "catalogue.db"


def test_writes_are_durable_and_recognisable(path):
    catalogue = Catalogue.open(path, writable=True)
    names = ("journal_mode", "synchronous", "user_version")
    assert [catalogue._rows(f"PRAGMA {name}")[0][0] for name in names] == ["wal", 2, len(MIGRATIONS)]
    assert path.read_bytes()[68:72] == b"dhx1"
    catalogue.close()


def test_the_epoch_counts_commits_that_touch_images(path):
    catalogue = Catalogue.open(path, writable=True)
    catalogue.put([entry(1), entry(2)], codes(2))
    catalogue.put([entry(2)], codes(1, seed=5))
    catalogue.add_root("/r")
    assert catalogue.remove([55]) == 0
    assert catalogue.epoch == 2
    assert catalogue.remove([1]) == 1
    assert (catalogue.epoch, catalogue.n_images, catalogue.last_id) == (3, 1, 2)
    assert catalogue.changed_ids(0) == [1, 2]
    assert catalogue.changed_ids(2) == [1]
    assert catalogue.changed_ids(3) == []
    catalogue.forget_changes(2)
    assert catalogue.changed_ids(1) is None
    assert catalogue.changed_ids(2) == [1]
    assert catalogue.changed_ids(4) is None
    catalogue.close()


def test_equal_codes_put_again_are_no_change(path):
    catalogue = Catalogue.open(path, writable=True)
    catalogue.put([entry(1)], codes(1))
    catalogue.put([entry(1, label="x")], codes(1))
    assert catalogue.changed_ids(0) == []
    catalogue.close()


def test_each_migration_runs_once_in_one_transaction(path, monkeypatch):
    def add_column(db):
        db.execute("ALTER TABLE images ADD COLUMN colour TEXT")

    def fail(db):
        db.execute("ALTER TABLE images ADD COLUMN half TEXT")
        raise RuntimeError("power cut")

    monkeypatch.setattr(index.schema, "MIGRATIONS", [*MIGRATIONS, add_column])
    Catalogue.open(path, writable=False).close()
    monkeypatch.setattr(index.schema, "_READABLE_FROM", len(MIGRATIONS) + 1)
    with pytest.raises(StoreError, match=f"older format {len(MIGRATIONS)}: open it once for writing"):
        Catalogue.open(path, writable=False)
    for _ in range(2):
        Catalogue.open(path, writable=True).close()
    monkeypatch.setattr(index.schema, "MIGRATIONS", [*MIGRATIONS, add_column, fail])
    with pytest.raises(RuntimeError):
        Catalogue.open(path, writable=True)
    db = sqlite3.connect(path)
    columns = [row[1] for row in db.execute("PRAGMA table_info(images)")]
    assert "colour" in columns
    assert "half" not in columns
    assert db.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS) + 1
    db.close()


def test_iterating_while_another_writes_sees_each_image_once(tmp_path, monkeypatch):
    monkeypatch.setattr(index.catalogue, "_PAGE", 3)
    with filled(tmp_path / "a.dhx", 10) as store:
        seen = []
        for record in store.iterate():
            seen.append(record.id)
            if record.id == 2:
                store.remove([1, 5])
                store.put([entry(50)], codes(1))
        assert seen == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("SQLITE_FULL", StoreFull, "nothing committed is lost, free space and run again"),
        ("SQLITE_IOERR_WRITE", StoreFull, "free space"),
        ("SQLITE_BUSY", StoreLocked, "wait for it"),
        ("SQLITE_READONLY", StoreError, "check its permissions"),
    ],
)
def test_sqlite_errors_say_what_to_do(tmp_path, name, error, text):
    failure = sqlite3.OperationalError("it failed")
    failure.sqlite_errorname = name
    with pytest.raises(error, match=text) as caught, translated_errors(tmp_path / "catalogue.db"):
        raise failure
    assert "catalogue.db" in str(caught.value)


def test_a_miscounted_catalogue_is_a_problem(tmp_path):
    with filled(tmp_path / "a.dhx", 3) as store:
        store._catalogue._db.execute("UPDATE meta SET value = 7 WHERE key = 'n_images'")
        (problem,) = store.verify()
        assert problem.kind == "catalogue"
        assert "3 images, but 7 were counted" in problem.message


def test_ten_thousand_files_are_compared_in_batches(tmp_path):
    with Store.create(tmp_path / "a.dhx", n_bits=20, fingerprint="m") as store:
        entries = [entry(i) for i in range(2500)]
        assert store.put(entries, codes(2500)).tolist() == list(range(1, 2501))
        assert store.changed(entries) == []
        assert store.remove(range(1, 2000)) == 1999
        assert len(store.by_path(e.path for e in entries)) == 501
