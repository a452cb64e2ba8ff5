import json
import os
import re
import shutil
import sqlite3
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import index.live
from index import (
    FileStat,
    Filter,
    ModelMismatch,
    NotAStore,
    Skipped,
    Store,
    StoreDamaged,
    StoreError,
    StoreLocked,
    StoreTooNew,
    UnknownId,
    pack_bits,
)
from tests.index.brute import nearest, random_codes
from tests.index.samples import N_BITS, codes, entry, filled, stat

NOT_UTF8 = os.fsdecode(b"/photos/caf\xe9/\xff\xfe.jpg")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "photos.dhx"


@pytest.fixture
def store(folder):
    with filled(folder) as store:
        yield store


# -- search equals brute force --


class Model:
    """The obvious store: a dictionary. Search is a sort."""

    def __init__(self):
        self.rows, self.last = {}, 0

    def put(self, entries, table):
        ids = []
        for new, code in zip(entries, table, strict=True):
            id = next((i for i, (old, _) in self.rows.items() if old.path == new.path), None)
            if id is None:
                self.last = id = self.last + 1
            self.rows[id] = (new, code)
            ids.append(id)
        return ids

    def matching(self, where):
        def fits(e):
            if where is None:
                return True
            prefix = where.path is None or e.path.startswith(where.path[:-1])
            label = where.label is None or e.label == where.label
            return prefix and label and all(e.metadata.get(k) == v for k, v in where.metadata.items())

        return {id: code for id, (e, code) in self.rows.items() if fits(e)}

    def search(self, queries, k, radius, where, exclude):
        rows = {id: code for id, code in self.matching(where).items() if id not in exclude}
        table = np.array(list(rows.values()), np.uint8).reshape(-1, queries.shape[1])
        return nearest(queries, table, list(rows), k, radius)


@settings(max_examples=60)
@given(data=st.data(), n_bits=st.one_of(st.integers(8, 70), st.integers(8, 1024)), seed=st.integers(0, 10_000))
def test_search_equals_brute_force(data, n_bits, seed, tmp_path_factory):
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("search") / "a.dhx"
    model = Model()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(index.live, "_CACHE_ABOVE", data.draw(st.sampled_from([5, 10_000]), label="cache above"))
        monkeypatch.setattr(index.segments, "_REBUILD_ABOVE", 8)
        writer = Store.create(folder, n_bits=n_bits, fingerprint="m")
        reader = Store.open(folder)
        kinds = ["put", "put", "update", "remove", "annotate", "reopen", "search"]
        steps = data.draw(st.lists(st.sampled_from(kinds), max_size=10), label="steps")
        for step in [*steps, "search"]:
            known = list(model.rows)
            if step in ("put", "update"):
                n = int(rng.integers(1, 30))
                old = [model.rows[i][0].path for i in known] if step == "update" else []
                entries = [
                    entry(
                        int(number),
                        path=str(rng.choice(old)) if old and rng.random() < 0.7 else None,
                        label=[None, "cat", "dog"][rng.integers(3)],
                        metadata={"n": int(rng.integers(3))} if rng.random() < 0.5 else {},
                    )
                    for number in rng.integers(0, 1000, n)
                ]
                entries = list({e.path: e for e in entries}.values())
                table = random_codes(rng, len(entries), n_bits, str(rng.choice(["random", "clustered", "equal"])))
                assert writer.put(entries, table).tolist() == model.put(entries, table)
            elif step == "remove" and known:
                gone = [i for i in known if rng.random() < 0.3]
                assert writer.remove(gone) == len(gone)
                for i in gone:
                    del model.rows[i]
            elif step == "annotate" and known:
                writer.annotate(known[:3], label="bird")
                for i in known[:3]:
                    e, code = model.rows[i]
                    model.rows[i] = (entry(0, **{f: getattr(e, f) for f in e.__slots__} | {"label": "bird"}), code)
            elif step == "reopen":
                reader.close()
                writer.close()
                writer = Store.open(folder, writable=True)
                reader = Store.open(folder)
            elif step == "search":
                queries = np.concatenate([random_codes(rng, 2, n_bits), *[c[None] for _, c in model.rows.values()][:2]])
                k = data.draw(st.one_of(st.none(), st.integers(1, 40)), label="k")
                radius = data.draw(st.integers(0, n_bits) if k is None else st.none() | st.integers(0, 30), label="r")
                where = data.draw(
                    st.sampled_from(
                        [None, Filter(label="cat"), Filter(path="/photos/a*"), Filter(metadata={"n": 1}),
                         Filter(path="/photos/b*", label="dog"), Filter(label="nobody")]
                    ),
                    label="where",
                )  # fmt: skip
                exclude = known[:2] if data.draw(st.booleans(), label="exclude") else []
                expected = model.search(queries, k, radius, where, exclude)
                for searched in (writer, reader):
                    found = searched.search(queries, k, radius=radius, where=where, exclude=exclude)
                    assert [[(m.distance, m.id) for m in row] for row in found] == expected
                    assert all(m.path == model.rows[m.id][0].path for row in found for m in row)
                    assert searched.ids(where).tolist() == sorted(model.matching(where))
                    assert len(searched) == len(model.rows)
        assert writer.verify() == []
        reader.close()
        writer.close()
    shutil.rmtree(folder.parent)


def test_matches_carry_what_is_known_of_the_image(store):
    store.put([entry(50, label="cat", metadata={"place": "Málaga", "stars": 5, "raw": None})], codes(1, seed=9))
    match = store.search(codes(1, seed=9)[0], 1)[0][0]
    assert (match.id, match.distance, match.path, match.label) == (11, 0, entry(50).path, "cat")
    assert match.metadata == {"place": "Málaga", "stars": 5, "raw": None}


def test_search_ids_and_range_ids_give_arrays(store):
    distances, ids = store.search_ids(codes(10), 3)
    assert distances.shape == ids.shape == (10, 3)
    assert ids[:, 0].tolist() == list(range(1, 11))
    limits, distances, ids = store.range_ids(codes(10), 0)
    assert limits.tolist() == list(range(11))
    assert ids.tolist() == list(range(1, 11))


def test_search_asks_for_k_or_radius(store):
    with pytest.raises(ValueError, match="neither k nor radius"):
        store.search(codes(1), None)


def test_codes_of_another_length_are_refused(store):
    with pytest.raises(ModelMismatch, match=r"query codes have 64 bits.* has 20: encode them with"):
        store.search(codes(1, n_bits=64))
    with pytest.raises(ModelMismatch, match="codes have 64 bits"):
        store.put([entry(1)], codes(1, n_bits=64))
    with pytest.raises(ValueError, match="1 entries came with 2 codes"):
        store.put([entry(1)], codes(2))


def test_an_empty_store_finds_nothing(folder):
    with filled(folder, 0) as store:
        assert store.search(codes(2)) == [[], []]
        assert store.search(codes(2), None, radius=20, where=Filter(label="x")) == [[], []]
        assert store.put([], codes(0)).tolist() == []
        assert store.duplicates(3) == store.duplicates() == store.verify() == []


# -- images in and out --


def test_a_known_path_keeps_its_id_and_ids_are_never_reused(store):
    assert store.put([entry(3, n_bytes=7), entry(77)], codes(2, seed=1)).tolist() == [4, 11]
    assert store.records([4])[0].n_bytes == 7
    assert store.codes([11, 4]).tolist() == codes(2, seed=1)[::-1].tolist()
    assert store.remove([11, 11, 500]) == 1
    assert 11 not in store
    assert store.put([entry(78)], codes(1)).tolist() == [12]
    assert len(store) == 11


def test_the_last_entry_of_a_path_counts(store):
    ids = store.put([entry(90), entry(90, width=5)], codes(2, seed=4))
    assert ids.tolist() == [11, 11]
    assert store.records([11])[0].width == 5
    assert store.records([11])[0].code == codes(2, seed=4)[1].tobytes()


def test_put_is_all_or_nothing(store):
    epoch = store.epoch
    bad = [entry(20), entry(21, metadata={"a": [1]})]
    with pytest.raises(ValueError, match="cannot be stored"):
        store.put(bad, codes(2))
    with pytest.raises(ValueError, match="not a path"):
        store.put([entry(20), entry(21, path="a\0b")], codes(2))
    with pytest.raises((TypeError, OverflowError)):
        store.put([entry(20), entry(21, n_bytes=2**70)], codes(2))
    assert (len(store), store.epoch) == (10, epoch)
    assert store.verify() == []


def test_unknown_ids_are_named(store):
    for call in (store.records, store.codes, lambda ids: store.annotate(ids, label="x")):
        with pytest.raises(UnknownId, match="no image 99"):
            call([1, 99])
    with pytest.raises(UnknownId, match="no image 99"):
        store.relocate([(1, FileStat("/new", 1, 1)), (99, FileStat("/other", 1, 1))])
    assert store.records([1])[0].path == entry(0).path


def test_records_keep_the_order_asked_for(store):
    assert [record.id for record in store.records([5, 2, 5])] == [5, 2, 5]
    assert store.records(np.array([3]))[0].content_hash == entry(2).content_hash
    assert [record.id for record in store.iterate()] == list(range(1, 11))


def test_moved_files_keep_their_ids_and_may_swap_paths(store):
    first, second = entry(0).path, entry(1).path
    store.relocate([(1, FileStat(second, 5, 6)), (2, FileStat(first, 7, 8)), (3, FileStat("/new", 9, 10))])
    records = store.records([1, 2, 3])
    assert [(r.path, r.n_bytes, r.mtime_ns) for r in records] == [(second, 5, 6), (first, 7, 8), ("/new", 9, 10)]
    assert store.verify() == []
    with pytest.raises(ValueError, match="is image 4 already"):
        store.relocate([(1, FileStat(entry(3).path, 5, 6))])
    with pytest.raises(ValueError, match="two images cannot move to one path"):
        store.relocate([(1, FileStat("/x", 5, 6)), (2, FileStat("/x", 5, 6))])


def test_annotate_changes_what_is_given_and_no_more(store):
    store.annotate([1, 2], label="cat", metadata={"a": 1})
    store.annotate([1], metadata={"b": True})
    store.annotate([2], label=None)
    assert [(r.label, r.metadata) for r in store.records([1, 2])] == [("cat", {"b": True}), (None, {"a": 1})]


def test_filters_are_exact_about_types(store):
    for id, value in enumerate([1, True, "1", 1.5, None, "caf\udce9", 'qu"ote\\'], start=1):
        store.annotate([id], metadata={"k\"'\\.$": value, "other": 9})
    key = "k\"'\\.$"

    def ids(value):
        return store.ids(Filter(metadata={key: value})).tolist()

    assert [ids(v) for v in (1, 1.0, True, False, "1", 1.5, "caf\udce9", 'qu"ote\\')] == [
        [1], [1], [2], [], [3], [4], [6], [7],
    ]  # fmt: skip
    assert ids(None) == [5, 8, 9, 10]
    assert store.ids(Filter(metadata={key: 1, "other": 9})).tolist() == [1]


@pytest.mark.parametrize(
    ("pattern", "numbers"),
    [("*", range(10)), ("/photos/a/*", [0, 3, 6, 9]), ("*/[!ab]/*", [2, 5, 8]), ("*/?.jpg", range(10)), ("*.PNG", []),
     ("photos", []), ("*/[ab]/1.jpg", [1])],
)  # fmt: skip
def test_path_filters_are_globs_over_the_whole_path(store, pattern, numbers):
    assert store.ids(Filter(path=pattern)).tolist() == [n + 1 for n in numbers]


def test_paths_under_a_folder(store):
    store.put([entry(60, path="/photos/a-b/x.jpg"), entry(61, path="/photos/a")], codes(2))
    assert [id for id, _ in store.paths("/photos/a")] == [1, 4, 7, 10]
    assert [id for id, _ in store.paths("/photos/a/")] == [1, 4, 7, 10]
    assert len(list(store.paths())) == len(list(store.paths("/"))) == 12


def test_paths_that_are_not_utf8_round_trip(store, folder):
    odd = entry(70, path=NOT_UTF8, label=os.fsdecode(b"caf\xe9"), metadata={"p": os.fsdecode(b"\xff")})
    (id,) = store.put([odd], codes(1, seed=8)).tolist()
    store.add_root(os.fsdecode(b"/photos/\xff"))
    store.remember_skipped([(FileStat(os.fsdecode(b"/bad\xff"), 1, 2), os.fsdecode(b"reason \xfe"))])
    store.close()
    with Store.open(folder, writable=True) as again:
        (record,) = again.records([id])
        assert (record.path, record.label, record.metadata) == (odd.path, odd.label, odd.metadata)
        assert again.by_path([NOT_UTF8])[NOT_UTF8] == record
        assert again.search(codes(1, seed=8), 1)[0][0].path == NOT_UTF8
        assert again.changed([stat(odd)]) == []
        assert again.ids(Filter(label=odd.label)).tolist() == [id]
        assert again.ids(Filter(path=os.fsdecode(b"*/\xff\xfe.jpg"))).tolist() == [id]
        assert dict(again.paths(os.fsdecode(b"/photos/caf\xe9"))) == {id: NOT_UTF8}
        assert again.roots() == [os.fsdecode(b"/photos/\xff")]
        assert again.skipped() == [Skipped(os.fsdecode(b"/bad\xff"), os.fsdecode(b"reason \xfe"))]
        moved = os.fsdecode(b"/moved/\xe9")
        again.relocate([(id, FileStat(moved, 1, 1))])
        assert again.records([id])[0].path == moved
        assert again.verify() == []


def test_by_path_and_by_content(store):
    store.put([entry(0, path="/copy.jpg")], codes(1))
    found = store.by_content([entry(0).content_hash, b"nobody"])
    assert {key: [r.id for r in records] for key, records in found.items()} == {entry(0).content_hash: [1, 11]}
    assert set(store.by_path(["/copy.jpg", "/nowhere"])) == {"/copy.jpg"}


# -- files --


def test_file_sizes_are_those_of_the_images_that_are_there(store):
    expected = {record.n_bytes for record in store.iterate()}
    assert store.file_sizes() == expected
    largest = max(store.iterate(), key=lambda record: record.n_bytes)
    store.remove([record.id for record in store.iterate() if record.n_bytes == largest.n_bytes])
    assert store.file_sizes() == expected - {largest.n_bytes}


def test_changed_files_are_those_of_another_size_or_time(store):
    same, bigger, newer = stat(entry(0)), FileStat(entry(1).path, 1, 1), FileStat(entry(2).path, 1002, 1)
    unseen, bad = FileStat("/unseen.jpg", 1, 1), FileStat("/bad.jpg", 3, 4)
    store.remember_skipped([(bad, "truncated")])
    assert store.changed(iter([newer, same, unseen, bad, bigger])) == [newer, unseen, bigger]
    assert store.changed([FileStat("/bad.jpg", 3, 5)]) == [FileStat("/bad.jpg", 3, 5)]


def test_skipped_files_are_forgotten_when_indexed_or_on_request(store):
    files = [FileStat(entry(n).path, 1, 1) for n in (30, 31, 32)]
    store.remember_skipped([(file, "empty") for file in files])
    store.remember_skipped([(files[0], "still empty")])
    assert store.skipped()[0] == Skipped(files[0].path, "still empty")
    store.put([entry(30)], codes(1))
    store.forget_skipped([files[1].path])
    assert [s.path for s in store.skipped()] == [files[2].path]
    assert store.stats().n_skipped == 1


def test_roots_are_remembered_once(store):
    for root in ("/photos", "/a", "/photos"):
        store.add_root(root)
    assert store.roots() == ["/a", "/photos"]


# -- making and opening --


def test_create_holds_the_given_files_and_stats_counts_them(folder, tmp_path):
    (tmp_path / "m").write_bytes(b"12345")
    files = {"model.safetensors": tmp_path / "m", "card.json": b"{}"}
    with Store.create(folder, n_bits=64, fingerprint="f", files=files) as store:
        assert (folder / "model.safetensors").read_bytes() == b"12345"
        stats = store.stats()
        assert (stats.n_images, stats.n_bits, stats.fingerprint, stats.model_bytes) == (0, 64, "f", 7)
        assert stats.created.startswith("20")
        assert store.verify() == []
        (folder / "model.safetensors").write_bytes(b"1234X")
        (folder / "card.json").unlink()
        assert [(p.kind, p.message.split(":")[0]) for p in store.verify()] == [
            ("model", "the file was changed"),
            ("model", "the file is missing"),
        ]


def test_create_refuses_what_exists_and_leaves_nothing_behind(folder, tmp_path):
    filled(folder).close()
    with pytest.raises(StoreError, match=re.escape(f"{folder} exists already")):
        Store.create(folder, n_bits=64, fingerprint="f")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="exists already"):
        Store.create(tmp_path / "file", n_bits=64, fingerprint="f")
    with pytest.raises(ValueError, match="n_bits is 4"):
        Store.create(tmp_path / "b.dhx", n_bits=4, fingerprint="f")
    with pytest.raises(ValueError, match="cannot be a file of the index"):
        Store.create(tmp_path / "b.dhx", n_bits=64, fingerprint="f", files={"catalogue.db": b""})
    with pytest.raises(StoreError, match="cannot be created"):
        Store.create(tmp_path / "b.dhx", n_bits=64, fingerprint="f", files={"m": tmp_path / "missing"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "photos.dhx"]


def test_what_is_not_a_store_is_said_in_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").mkdir()
    sqlite3.connect(tmp_path / "other" / "catalogue.db").execute("CREATE TABLE t (x)").connection.close()
    for name, text in [("none", "does not exist"), ("empty", "has no catalogue.db"), ("file", "is a file"),
                       ("other", "belongs to another program")]:  # fmt: skip
        for writable in (False, True):
            with pytest.raises(NotAStore, match=text) as caught:
                Store.open(tmp_path / name, writable=writable)
            assert str(tmp_path / name) in str(caught.value)
            assert "\n" not in str(caught.value)
    assert list((tmp_path / "empty").iterdir()) == []


def test_another_model_is_refused_with_the_fix(folder):
    filled(folder).close()
    with pytest.raises(ModelMismatch, match=r"fingerprint model-a, not model-b.*: use the model it was built with"):
        Store.open(folder, fingerprint="model-b", writable=True)
    with Store.open(folder, fingerprint="model-a", writable=True) as store:
        assert len(store) == 10


def test_a_newer_schema_is_refused(folder):
    filled(folder).close()
    db = sqlite3.connect(folder / "catalogue.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreTooNew, match=r"catalogue.db has format 99.*update the program"):
        Store.open(folder)


def test_a_second_writer_is_refused_while_readers_go_on(folder):
    with filled(folder) as writer:
        with pytest.raises(StoreLocked, match="being written by another process: wait"):
            Store.open(folder, writable=True)
        with Store.open(folder) as reader:
            writer.put([entry(40)], codes(1, seed=3))
            assert reader.search(codes(1, seed=3), 1)[0][0].path == entry(40).path
            with pytest.raises(StoreError, match="open for reading only"):
                reader.remove([1])
    with Store.open(folder, writable=True):
        pass


def test_a_second_writer_can_wait(folder):
    first = filled(folder)
    opened = []
    second = threading.Thread(target=lambda: opened.append(Store.open(folder, writable=True, timeout=30)))
    second.start()
    first.put([entry(41)], codes(1))
    first.close()
    second.join()
    assert len(opened[0]) == 11
    opened[0].close()


def test_leaving_by_an_error_releases_the_lock(folder):
    filled(folder).close()
    store = Store.open(folder, writable=True)

    def interrupted():
        with store:
            store.put([entry(42)], codes(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with Store.open(folder, writable=True) as again:
        assert len(again) == 11
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        len(store)


def test_a_folder_on_read_only_media_is_read(folder, monkeypatch):
    """SQLite cannot make its shared files there: the store falls back to an unchanging file."""
    filled(folder).close()
    real, tried = index.schema._configured, []

    def configured(uri):
        tried.append(uri)
        if not uri.endswith("immutable=1"):
            raise sqlite3.OperationalError("unable to open database file")
        return real(uri)

    monkeypatch.setattr(index.schema, "_configured", configured)
    with Store.open(folder) as store:
        assert len(store.search(codes(1), 3)[0]) == 3
    assert len(tried) == 2


# -- damage --


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"garbage" * 1000),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(path.read_bytes()[:50]),
    ],
)
def test_a_catalogue_that_cannot_be_read_is_named_with_the_cure(folder, damage):
    filled(folder, 300).close()
    damage(folder / "catalogue.db")

    def use():
        with Store.open(folder) as store:
            store.search(codes(1))

    with pytest.raises(StoreDamaged, match=r"catalogue\.db is damaged.*: restore the folder from a copy") as caught:
        use()
    assert "\n" not in str(caught.value)


def test_a_flipped_byte_in_a_code_is_found_and_can_be_cured(folder):
    filled(folder, 100).close()
    data = (folder / "catalogue.db").read_bytes()
    # The code stands behind the path in its row.
    path = entry(40).path.encode()
    flip(folder / "catalogue.db", data.index(path + codes(100)[40].tobytes()) + len(path))
    with Store.open(folder, writable=True) as store:
        with pytest.raises(StoreDamaged, match=r"catalogue\.db is damaged \(image 41, .*\): remove the images 41"):
            store.search(codes(1))
        (problem,) = store.verify()
        assert (problem.kind, problem.where) == ("row", entry(40).path)
        store.remove([41])
        assert store.verify() == []
        assert len(store.search(codes(1), 100)[0]) == 99


def test_pad_bits_that_are_set_are_found(folder):
    with filled(folder, 3) as store:
        code = bytes([0, 0, 1])
        crc = store._catalogue._crc(2, entry(1).path.encode(), code)
        store._catalogue._db.execute("UPDATE images SET code = ?, crc = ? WHERE id = 2", (code, crc))
        assert [p.message.split(":")[0] for p in store.verify()] == ["image 2 has a code that is not one of 20 bits"]


# -- several at once --


def test_threads_see_whole_commits_while_another_writes(folder):
    """Each commit puts 10 images with one code of their own: within radius 0 of it a reader sees 10 or none."""
    batches = [np.repeat(pack_bits(row[None]), 10, axis=0) for row in np.random.default_rng(1).random((25, 64)) > 0.5]
    wrong, done = [], threading.Event()
    with filled(folder, 50, n_bits=64) as writer, Store.open(folder) as reader:

        def read(store):
            while True:
                last_round = done.is_set()
                for batch in batches[::3]:
                    found = store.search(batch[:1], None, radius=0)[0]
                    if len(found) not in (0, 10):
                        wrong.append(found)
                if last_round:
                    return

        threads = [threading.Thread(target=read, args=(store,)) for store in (writer, reader, reader)]
        for thread in threads:
            thread.start()
        try:
            for number, batch in enumerate(batches):
                ids = writer.put([entry(1000 + 10 * number + i) for i in range(10)], batch)
                if number % 4 == 0:
                    writer.remove(ids)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert wrong == []
        assert len(reader) == 50 + 10 * 18


def test_the_change_log_does_not_grow_for_ever(folder, monkeypatch):
    with filled(folder, 20) as store:
        for seed in range(3):
            store.put([entry(i) for i in range(20)], codes(20, seed=seed))
        assert store._catalogue.n_changes() == 40
        monkeypatch.setattr(index.live, "_CACHE_ABOVE", 30)
        with Store.open(folder) as reader:
            reader.refresh()
            store.close()
            store = Store.open(folder, writable=True)
            assert store._catalogue.n_changes() == 0
            store.put([entry(0)], codes(1, seed=7))
            assert reader.search(codes(1, seed=7), 1)[0][0].id == 1
            store.close()


def test_stats_are_json(store):
    from dataclasses import asdict

    store.add_root("/photos")
    assert json.loads(json.dumps(asdict(store.stats())))["roots"] == ["/photos"]
    assert store.n_bits == N_BITS


def test_how_far_searches_are_behind_is_told(tmp_path):
    with filled(tmp_path / "a.dhx", 10) as store, Store.open(tmp_path / "a.dhx") as reader:
        assert reader.n_behind() is None  # nothing is loaded yet
        reader.refresh()
        assert reader.n_behind() == 0
        store.put([entry(20), entry(21), entry(3)], codes(3, seed=9))
        assert reader.n_behind() == 3
        store.remove([1])
        assert reader.n_behind() == 4
        reader.search(codes(1), 3)
        assert reader.n_behind() == 0


def test_rows_hold_what_records_do(folder):
    with Store.create(folder, n_bits=N_BITS, fingerprint="f" * 32) as store:
        label, metadata = os.fsdecode(b"caf\xe9"), {"year": 2024, "kept": True}
        given = [entry(0), entry(1, NOT_UTF8, label=label), entry(2, metadata=metadata), entry(3, label="a")]
        store.put(given, codes(4))
        ids = [4, 1, 3, 2, 1]
        assert [row.record() for row in store.rows(ids)] == store.records(ids)
        assert store.codes(ids).tobytes() == b"".join(row.code for row in store.rows(ids))
        assert store.rows([]) == []
        for look_up in (store.rows, store.codes):
            with pytest.raises(UnknownId, match="has no image 9"):
                look_up([1, 9])


def test_more_ids_than_one_statement_takes_are_looked_up_too(tmp_path):
    with filled(tmp_path / "a.dhx", 1_200) as store:
        ids = list(range(1_200, 0, -1))
        assert [row.id for row in store.rows(ids)] == ids
        assert np.array_equal(store.codes(ids), codes(1_200)[::-1])


def test_the_epoch_stays_while_a_commit_is_read(folder, store):
    with Store.open(folder) as reader:
        with reader.reading():
            before = reader.epoch
            store.remove([1])
            assert reader.epoch == before
            with reader.reading():
                assert reader.epoch == before
            assert 1 in reader
        assert reader.epoch == store.epoch == before + 1
        with reader.reading():
            assert reader.epoch == before + 1
