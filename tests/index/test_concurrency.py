"""Readers beside a writer, in threads and processes: each answer is that of some commit, whole."""

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from index import Store
from index.codes import Codes
from tests.index import stress
from tests.index.samples import entry
from tests.index.stress import History

ROOT = Path(__file__).parents[2]


def start(*arguments):
    command = [sys.executable, "-m", "tests.index.stress", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_processes_read_whole_commits_while_writers_come_and_are_killed(tmp_path):
    folder, chance, acknowledged = tmp_path / "a.dhx", random.Random(1), 0
    Store.create(folder, n_bits=stress.N_BITS, fingerprint="m").close()
    readers = [start("read", folder) for _ in range(2)]
    for reader in readers:
        assert reader.stdout.readline() == "started\n"
    for _ in range(4):
        writer = start("write", folder)
        lines = [writer.stdout.readline() for _ in range(chance.randrange(8, 24))]
        writer.kill()
        rest, errors = writer.communicate()
        assert writer.returncode == -signal.SIGKILL, errors
        lines += rest.splitlines(keepends=True)
        acknowledged = max([acknowledged, *(int(line) for line in lines if line.endswith("\n"))])
    for reader in readers:
        counted, errors = reader.communicate()
        assert reader.returncode == 0, errors
        assert int(counted) > 10
    with Store.open(folder) as store:
        assert store.epoch >= acknowledged >= 32
        assert store.verify() == []
        queries = np.random.default_rng(0).integers(0, 256, (20, 8), dtype=np.uint8)
        found = tuple(part.tolist() for part in store.search_ids(queries, 30))
        assert found == History().nearest(store.epoch, queries, 30)


def test_threads_share_a_store_that_one_of_them_writes_to(tmp_path, monkeypatch):
    for module, name in [(stress.index.live, "_CACHE_ABOVE"), (stress.index.structures, "_TABLES_ABOVE")]:
        monkeypatch.setattr(module, name, 100)
    monkeypatch.setattr(stress.index.segments, "_REBUILD_ABOVE", 16)
    monkeypatch.setattr(stress.index.segments, "_BACKGROUND_ABOVE", 200)
    history, lock, wrong, counts = History(), threading.Lock(), [], [0, 0, 0]
    done = threading.Event()

    def nearest(epoch: int, queries: Codes) -> tuple[list, list]:
        with lock:
            return history.nearest(epoch, queries, 12)

    def read(number):
        rng = np.random.default_rng(number)
        while not done.is_set() and not wrong:
            queries = rng.integers(0, 256, (2, 8), dtype=np.uint8)
            first = store.epoch
            matches = store.search(queries, 12)
            last = store.epoch
            found = tuple([[getattr(m, name) for m in row] for row in matches] for name in ("distance", "id"))
            if not any(found == nearest(epoch, queries) for epoch in range(first, last + 1)):
                wrong.append((first, last))
            if any(m.path != entry(m.id).path for row in matches for m in row):
                wrong.append("a path of another image")
            counts[number] += 1

    with Store.create(tmp_path / "a.dhx", n_bits=stress.N_BITS, fingerprint="m") as store:
        readers = [threading.Thread(target=read, args=(number,)) for number in range(3)]
        for reader in readers:
            reader.start()
        for epoch in range(1, 150):
            with lock:
                kind, ids, codes = history.commit(epoch)
            if kind == "remove":
                store.remove(ids)
            else:
                assert store.put([entry(id) for id in ids], codes).tolist() == ids
        done.set()
        for reader in readers:
            reader.join()
        assert store.verify() == []
    assert wrong == []
    assert min(counts) > 0
