"""Real processes, really killed; real limits, really hit."""

import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import index.live
from index import FileStat, Filter, Store, StoreError, StoreLocked
from index.search import HammingIndex
from tests.index.samples import codes, entry, filled

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
ROOT = Path(__file__).parents[2]


def code_of(number):
    """The code of image number: recomputable, so that what is found can be checked."""
    return np.random.default_rng(number).integers(0, 256, (1, 8), dtype=np.uint8)


def start(*arguments):
    command = [sys.executable, "-m", "tests.index.writer", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def killed_after(process, n_lines, seconds):
    """Read n lines, give it a random moment more, kill it; return all lines it has printed."""
    lines = [process.stdout.readline() for _ in range(n_lines)]
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    lines += process.stdout.readlines()
    assert process.wait() == -signal.SIGKILL
    return [line for line in lines if line.endswith("\n")]


def check(folder, acknowledged):
    """All acknowledged images are there, with the right codes, and nothing is damaged."""
    with Store.open(folder) as store:
        assert store.verify() == []
        records = {record.path: record for record in store.iterate()}
        assert len(records) == len(store) >= acknowledged
        for number in range(acknowledged):
            assert records[entry(number).path].code == code_of(number).tobytes()
        true = HammingIndex(64)
        true.add(np.frombuffer(b"".join(r.code for r in records.values()), np.uint8).reshape(-1, 8), store.ids())
        queries = np.concatenate([code_of(i) for i in range(5)])
        for found, expected in zip(store.search_ids(queries, 20), true.search(queries, 20), strict=True):
            assert np.array_equal(found, expected)


def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path):
    folder, chance, acknowledged = tmp_path / "a.dhx", random.Random(1), 0
    Store.create(folder, n_bits=64, fingerprint="m").close()
    for round in range(6):
        process = start("put", folder, round)
        lines = killed_after(process, chance.randrange(1, 20), chance.random() / 20)
        for line in lines:
            _, first, count = line.split()
            acknowledged = max(acknowledged, int(first) + int(count))
        check(folder, acknowledged)
    with Store.open(folder, writable=True) as store:
        assert store.put([entry(10**6)], code_of(10**6)).tolist() == [store._catalogue.last_id]


def test_a_kill_while_creating_leaves_a_whole_store_or_none(tmp_path):
    chance = random.Random(2)
    for round in range(4):
        process = start("create", tmp_path / str(round))
        killed_after(process, 1, chance.random() / 5)
    made = list(tmp_path.glob("*.dhx"))
    assert made
    for folder in made:
        with Store.open(folder, writable=True) as store:
            assert store.verify() == []
            assert (folder / "model").stat().st_size == 300_000
    # What is left of a killed creation is hidden, and cleared once it is old.
    (tmp_path / ".x.dhx.00.tmp").mkdir()
    os.utime(tmp_path / ".x.dhx.00.tmp", (0, 0))
    Store.create(tmp_path / "x.dhx", n_bits=64, fingerprint="m").close()
    assert not (tmp_path / ".x.dhx.00.tmp").exists()


def test_a_kill_while_writing_the_cache_leaves_right_answers(tmp_path):
    folder, chance, acknowledged = tmp_path / "a.dhx", random.Random(3), 0
    Store.create(folder, n_bits=64, fingerprint="m").close()
    for _ in range(5):
        lines = killed_after(start("cache", folder), chance.randrange(1, 6), chance.random() / 50)
        for line in lines:
            acknowledged = max(acknowledged, int(line.split()[1]) + 20)
        with Store.open(folder) as store:
            # A cache between its two commits may be useless, never wrong.
            assert {problem.kind for problem in store.verify()} <= {"cache"}
            assert all("contradicts" not in problem.message for problem in store.verify())
        Store.open(folder, writable=True).close()
        with Store.open(folder) as store:
            found = store.search_ids(np.concatenate([code_of(i) for i in range(acknowledged)]), 1)
            assert found[0].max() == 0
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(index.live, "_CACHE_ABOVE", 10)
        Store.open(folder, writable=True).close()
        check(folder, acknowledged)
        assert not list(folder.glob("*.tmp"))
        assert len(list(folder.glob("snapshot-*.json"))) == 1


def test_a_killed_writer_releases_its_lock(tmp_path):
    folder = tmp_path / "a.dhx"
    Store.create(folder, n_bits=64, fingerprint="m").close()
    process = start("put", folder, 0)
    process.stdout.readline()
    with pytest.raises(StoreLocked):
        Store.open(folder, writable=True)
    with Store.open(folder) as reader:
        before = len(reader)
        while process.stdout.readline() and len(reader) < before + 100:
            assert reader.search_ids(code_of(0), 1)[1].tolist() == [[1]]
    process.kill()
    process.communicate()
    Store.open(folder, writable=True).close()


def test_a_damaged_catalogue_is_always_told_as_such(tmp_path):
    """Whatever was flipped or cut: an answer, or a StoreError that says what to do; never an error of another kind."""
    folder, chance = tmp_path / "a.dhx", random.Random(4)
    with filled(folder, 200) as store:
        store.annotate(range(1, 100), label="cat", metadata={"a": 1})
        store.remember_skipped([(FileStat("/bad", 1, 2), "truncated")])
        store.add_root("/photos")
    whole, told = (folder / "catalogue.db").read_bytes(), 0
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 5, 30])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        if chance.random() < 0.1:
            del data[chance.randrange(len(data)) :]
        for name in ("catalogue.db-wal", "catalogue.db-shm"):
            (folder / name).unlink(missing_ok=True)
        (folder / "catalogue.db").write_bytes(data)
        uses = [
            lambda store: store.search(codes(2), 5),
            lambda store: store.search(codes(2), 5, where=Filter(path="*", label="cat", metadata={"a": 1})),
            lambda store: [list(store.iterate()), list(store.paths()), store.stats(), store.skipped()],
            lambda store: [store.duplicates(), store.duplicates(2)],
            lambda store: store.put([entry(1)], codes(1)),
            lambda store: store.verify(),
        ]
        for use in uses:
            try:
                with Store.open(folder, writable=True) as store:
                    use(store)
            except StoreError:
                told += 1
    assert told > 100


FULL_DISK = """
    import resource, sys
    import numpy as np
    from index import Store, StoreFull
    from tests.index.samples import codes, entry, filled
    from tests.index.test_durability import code_of

    folder = sys.argv[1]
    with Store.open(folder, writable=True) as store:
        limit = 600_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        committed = 0
        try:
            while committed < 100_000:
                numbers = range(committed, committed + 100)
                store.put([entry(i) for i in numbers], np.concatenate([code_of(i) for i in numbers]))
                committed += 100
        except StoreFull as error:
            print(error, file=sys.stderr)
            assert "free space and run again" in str(error) and "catalogue.db" in str(error)
        else:
            raise SystemExit("the limit was not hit")
        # The store is still usable for reading, and knows what it has.
        assert len(store) == committed
        assert store.search(code_of(3), 1)[0][0].path == entry(3).path
    print(committed)
"""


def test_a_full_disk_loses_nothing_that_was_committed(tmp_path):
    folder = tmp_path / "a.dhx"
    Store.create(folder, n_bits=64, fingerprint="m").close()
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    committed = int(done.stdout)
    assert committed > 0
    check(folder, committed)
    with Store.open(folder, writable=True) as store:
        # Space is there again: the same batch goes in.
        numbers = range(committed, committed + 100)
        store.put([entry(i) for i in numbers], np.concatenate([code_of(i) for i in numbers]))
    check(folder, committed + 100)


NO_ROOM = """
    import resource, sys
    from index import Store, StoreFull

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    for files in ({"model": b"x" * 100_000}, {}):
        try:
            Store.create(sys.argv[1], n_bits=64, fingerprint="m", files=files)
        except StoreFull as error:
            assert "free space and run again" in str(error)
        else:
            raise SystemExit("the limit was not hit")
"""


def test_no_room_for_a_new_store_leaves_nothing(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(NO_ROOM), str(tmp_path / "a.dhx")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
