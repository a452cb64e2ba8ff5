"""Long jobs in a process of their own: it does what a sync does, yields, takes changes, and can end at any moment."""

import os
import shutil
import signal
import sys
import threading

import pytest

from deephash import CollectionError, ImageSearch, ModelError
from deephash.engine import MODEL_FILE
from deephash.progress import Progress
from deephash.server.background import Background, Decoding
from deephash.server.stores import Stores
from deephash.server.sync_jobs import SyncJob
from deephash.sync import SyncInterrupted
from index import Store, StoreDamaged, StoreLocked, UnknownId
from tests.deephash.photos import write_photos

N_MANY = 128
DECODING = Decoding(workers=2, seconds=20, max_pixels=1_000_000)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "photos"
    write_photos(folder, 100, 100 + N_MANY)
    return folder


@pytest.fixture
def stores(made, tmp_path):
    stores = Stores(shutil.copytree(made.index, tmp_path / "photos.dhx"))
    yield stores
    stores.close()


def label(store, id, label):
    store.annotate([id], label=label)
    return os.getpid()


def remove(store, id):
    return store.remove([id])


def fail(store):
    raise UnknownId("no such image")


def test_a_job_does_what_a_sync_does_and_takes_changes_meanwhile(stores, made, many):
    background = Background(stores, DECODING)
    assert background.change(label, 1, "before") == os.getpid()
    done, others = [], []

    def change():
        others.append(background.change(label, 1, "during"))
        others.append(background.change(remove, 2))
        with pytest.raises(UnknownId, match="no such image"):
            background.change(fail)

    def on_progress(progress):
        if not done:
            with pytest.raises(StoreLocked):
                Store.open(stores.folder, writable=True)
            if sys.platform == "linux":
                assert os.sched_getscheduler(background._process._process.pid) == os.SCHED_IDLE
            thread.start()
        done.append(progress)

    thread = threading.Thread(target=change)
    report = background.sync(SyncJob([str(many)], with_folder_labels=True), on_progress)
    thread.join()
    assert (report.added, report.decoded, report.skipped) == (N_MANY, N_MANY, [])
    assert done[-1] == Progress("encode", N_MANY, N_MANY)
    assert others[0] not in (0, os.getpid())
    assert others[1] == 1
    assert background.change(label, 3, "after") == os.getpid()
    with ImageSearch.open(stores.folder) as search:
        assert search.verify() == []
        assert len(search) == made.n_images + N_MANY - 1
        assert [record.label for record in search.store.records([1, 3])] == ["during", "after"]
        path = next(path for _, path in search.store.paths(under=str(many)))
        (found,) = search.query(path, k=1)
        assert found[0].distance == 0


def test_a_job_that_is_cancelled_keeps_what_it_did(stores, made, many):
    def on_progress(progress):
        raise KeyboardInterrupt

    with pytest.raises(SyncInterrupted) as interrupted:
        Background(stores, DECODING).sync(SyncJob([str(many)]), on_progress)
    kept = interrupted.value.report.n_images
    assert made.n_images < kept < made.n_images + N_MANY
    with Store.open(stores.folder, writable=True) as store:
        assert len(store) == kept
        assert store.verify() == []


def test_a_process_that_is_killed_is_said_and_changes_are_made_all_the_same(stores, made, many):
    background, others = Background(stores, DECODING), []

    def on_progress(progress):
        if not others:
            os.kill(background._process._process.pid, signal.SIGSTOP)
            thread.start()
            while not background._process._answers:
                pass
            os.kill(background._process._process.pid, signal.SIGKILL)
            others.append(None)

    thread = threading.Thread(target=lambda: others.append(background.change(label, 1, "late")))
    with pytest.raises(CollectionError, match="was killed: free memory"):
        background.sync(SyncJob([str(many)]), on_progress)
    thread.join()
    assert others == [None, os.getpid()]
    with Store.open(stores.folder, writable=True) as store:
        assert store.verify() == []
        assert store.records([1])[0].label == "late"


def test_what_fails_there_is_said_here(stores, many, tmp_path):
    background = Background(stores, DECODING)
    with pytest.raises(FileNotFoundError, match="gone"):
        background.sync(SyncJob([str(tmp_path / "gone")]), print)
    (stores.folder / MODEL_FILE).write_bytes(b"damaged")
    with pytest.raises((ModelError, StoreDamaged), match=MODEL_FILE):
        background.sync(SyncJob([str(many)]), print)


def test_what_few_changes_are(stores, made, many, tmp_path):
    def n_found(job):
        found = job.found_if_few(stores.quick)
        return None if found is None else len(found[0])

    assert n_found(SyncJob([str(made.photos)])) == made.n_images
    assert n_found(SyncJob([str(made.photos), str(many)])) is None
    uploads = sorted(map(str, many.rglob("*.png")))
    assert n_found(SyncJob([str(many)], uploads=uploads[:64])) == 64
    assert n_found(SyncJob([str(many)], uploads=uploads[:65])) is None
    assert n_found(SyncJob([str(many)], uploads=[str(tmp_path / "gone.png")])) == 0
