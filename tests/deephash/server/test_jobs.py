"""Jobs: progress, cancel, kill, two writers; what was committed is never lost, and reading goes on."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from deephash import ServerError, SyncReport
from deephash.progress import Progress
from deephash.server.errors import ApiError
from deephash.server.jobs import Jobs
from index import Entry, Store, StoreLocked
from tests.deephash.photos import pixels_of, write_photo, write_photos
from tests.deephash.server.servers import CHANGE, error_of, in_background, running, start

N_MANY = 320


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "photos"
    write_photos(folder, 100, 100 + N_MANY)
    return folder


def paths_of(index):
    with Store.open(index) as store:
        assert store.verify() == []
        return [path for _, path in store.paths()]


# --- What jobs do ---


def test_a_sync_tells_its_progress_and_what_it_did(own):
    write_photos(own.folder / "new", 40, 80)
    (own.folder / "new" / "bad.jpg").write_bytes(b"no image")
    seen = []
    report = own.client.sync([own.folder / "new"], folder_labels=True, on_progress=seen.append)
    assert (report.found, report.added, report.decoded) == (41, 40, 40)
    assert [skipped.reason for skipped in report.skipped] == [report.skipped[0].reason]
    assert report.skipped[0].path.endswith("bad.jpg")
    assert seen[-1] == Progress("encode", 41, 41)
    assert {record.label for record in own.client.images() if "/new/" in record.path} <= {
        path.name for path in (own.folder / "new").iterdir()
    }
    again = own.client.sync([own.folder / "new"])
    assert (again.added, again.decoded, again.unchanged) == (0, 0, 40)
    job = own.client.jobs()[0]
    assert (job.state, job.report) == ("done", again)
    assert own.client.job(job) == job


def test_without_folders_all_that_is_indexed_is_synced_and_pruned(own):
    folder = own.folder / "pruned"
    paths = write_photos(folder, 90, 93)
    assert own.client.sync([folder]).added == 3
    paths[0].unlink()
    assert own.client.sync().vanished == 1
    assert own.client.sync(prune=True).removed == 1
    assert sum("/pruned/" in record.path for record in own.client.images()) == 2


def test_uploaded_images_are_kept_indexed_and_annotated(own):
    images = [pixels_of(number) for number in range(200, 218)]
    report = own.client.add(images, label="uploaded", metadata={"by": "me"})
    assert (report.added, report.decoded) == (18, 18)
    (found,) = own.client.query(images[3], k=1)
    assert (found[0].distance, found[0].label, found[0].metadata) == (0, "uploaded", {"by": "me"})
    assert found[0].path.startswith(str(own.folder / "uploads"))
    assert own.client.thumbnail(found[0].id)
    assert own.client.add(images[3]).unchanged == 1
    assert own.client.records([found[0].id])[0].label == "uploaded"
    assert not list((own.folder / "uploads").glob("*.json"))


def test_events_are_the_job_as_it_is_called(own):
    job = own.client.start_sync()
    answer = own.http.get(f"/v1/jobs/{job.id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [block.splitlines() for block in answer.text.split("\n\n") if "data:" in block]
    assert {line.partition(":")[2].strip() for event in events for line in event if line.startswith("event:")} == {
        "job"
    }
    last = json.loads(next(line for line in events[-1] if line.startswith("data:"))[5:])
    assert last == own.http.get(f"/v1/jobs/{job.id}").json()
    assert last["state"] == "done"


@pytest.mark.parametrize("path", ["", "/events", "/cancel"])
def test_an_unknown_job_is_not_found(own, path):
    answer = own.http.request("POST" if path == "/cancel" else "GET", f"/v1/jobs/nothing{path}", headers=CHANGE)
    assert error_of(answer)[:2] == (404, "unknown_job")


# --- Cancel, kill, stop ---


def test_a_cancelled_job_keeps_what_it_did_and_goes_on_later(made, many, tmp_path):
    index = shutil.copytree(made.index, tmp_path / "photos.dhx")
    with running(index, tmp_path, roots=[many]) as server:
        job = server.client.start_sync([many])
        waiting = server.client.start_sync([many])
        assert server.client.cancel(waiting).state == "cancelled"
        until_some_are_done(server, job)
        server.client.cancel(job)
        with pytest.raises(ServerError, match="cancelled"):
            server.client.wait(job)
        n_kept = len(server.client)
        assert made.n_images < n_kept < made.n_images + N_MANY
        assert server.client.cancel(job).state == "cancelled"
        assert server.client.sync([many]).added == made.n_images + N_MANY - n_kept
    assert len(paths_of(index)) == made.n_images + N_MANY


def until_some_are_done(server, job):
    while (now := server.client.job(job)).done == 0:
        assert now.state in ("queued", "running")
        time.sleep(0.005)
    assert now.done < N_MANY
    return now


def descendants_of(server):
    found, parents = set(), {str(server.process.pid)}
    while parents:
        tasks = Path("/proc", parents.pop(), "task")
        children = {child for task in tasks.iterdir() for child in (task / "children").read_text().split()}
        found |= children
        parents |= children
    assert len(found) > 4
    return [f"/proc/{child}" for child in found]


def test_kill_9_during_a_job_loses_nothing_that_was_committed(made, many, tmp_path):
    index, uploads = shutil.copytree(made.index, tmp_path / "photos.dhx"), tmp_path / "uploads"
    uploads.mkdir()
    server = start(index, tmp_path, roots=[many], uploads=uploads)
    job = server.client.start_sync([many])
    picture = write_photo(tmp_path / "picture.png", 700)
    answer = server.http.post(
        "/v1/images", files=[("image", picture.read_bytes())], data={"label": "late"}, headers=CHANGE
    )
    assert answer.status_code == 202  # from here on the image is the server's to keep
    done = until_some_are_done(server, job).done
    children = descendants_of(server)
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    until = time.monotonic() + 20
    while any(os.path.exists(child) for child in children):
        assert time.monotonic() < until, "processes outlive their server"
        time.sleep(0.02)

    committed = paths_of(index)
    assert made.n_images + done <= len(committed) < made.n_images + N_MANY
    with running(index, tmp_path, roots=[many], uploads=uploads) as server:
        server.client.wait(server.client.jobs()[-1])
        (found,) = server.client.query(picture, k=1)
        assert (found[0].distance, found[0].label) == (0, "late")
        report = server.client.sync([many])
        assert report.added == made.n_images + N_MANY - len(committed)
        assert report.unchanged == len(committed) - made.n_images
    everything = paths_of(index)
    assert set(committed) <= set(everything)
    assert len(everything) == len(set(everything)) == made.n_images + N_MANY + 1


def test_a_server_that_is_asked_to_stop_ends_its_job_at_a_commit(made, many, tmp_path):
    index = shutil.copytree(made.index, tmp_path / "photos.dhx")
    server = start(index, tmp_path, roots=[many])
    job = server.client.start_sync([many])
    done = until_some_are_done(server, job).done
    with server.client._http.stream("GET", f"/v1/jobs/{job.id}/events") as events:
        lines = events.iter_lines()
        next(lines)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert list(lines)  # the stream ends, and with an event
    assert server.stop() == 0
    assert made.n_images + done <= len(paths_of(index)) < made.n_images + N_MANY
    assert server.errors.read_text() == ""


# --- Two writers ---


def test_while_another_process_writes_reading_goes_on_and_changes_are_refused(own):
    with Store.open(own.folder / "photos.dhx", writable=True) as store:
        changes = [
            ("PATCH", "/v1/images/1", {"json": {"label": "x"}}),
            ("DELETE", "/v1/images/1", {}),
            ("POST", "/v1/images/remove", {"json": {"ids": [1]}}),
            ("POST", "/v1/jobs", {"json": {}}),
            ("POST", "/v1/images", {"files": [("image", b"x")]}),
        ]
        for method, path, options in changes:
            status, code, sentence = error_of(own.http.request(method, path, headers=CHANGE, **options))
            assert (status, code) == (409, "locked")
            assert "another process" in sentence
        with pytest.raises(StoreLocked):
            own.client.annotate(1, label="x")
        assert len(own.client.query_ids([1], k=3)[0]) == 3

        # What the other process commits is seen by the next search.
        (code,) = ~store.codes([1])
        entry = Entry("/elsewhere/far.png", 1, 1, b"", 1, 1)
        (id,) = store.put([entry], code[None])
        assert [match.id for match in own.client.query_codes(code, k=1)[0]] == [id]
        assert own.client.records([id])[0].path == "/elsewhere/far.png"
        store.remove([int(id)])
        assert id not in [match.id for match in own.client.query_codes(code, k=3)[0]]
    assert own.client.annotate(1, label="x").label == "x"


def test_another_process_may_write_between_the_changes_of_the_server(own):
    for number in range(3):
        own.client.annotate(2, metadata={"round": number})
        with Store.open(own.folder / "photos.dhx", writable=True) as store:
            assert store.records([2])[0].metadata == {"round": number}


def test_searches_go_on_while_images_are_added_and_removed(own, many):
    write_photos(own.folder / "during", 500, 600)

    def search():
        time.sleep(0.005)  # a job runs when nobody else wants the processors
        (matches,) = own.client.query_ids([1], k=20)
        assert len(matches) == 20
        assert [(match.distance, match.id) for match in matches] == sorted((m.distance, m.id) for m in matches)
        return len(matches)

    with in_background(search) as found:
        assert own.client.sync([own.folder / "during"]).added == 100
        gone = [record.id for record in own.client.images() if "/during/" in record.path]
        assert own.client.remove(gone) == 100
    assert len(found) > 20
    assert [item for item in found if item != 20] == []


# --- The queue ---


@contextlib.contextmanager
def blocked_jobs(**options):
    """Jobs in an event loop of their own, and the work of one that lasts until it is told."""
    jobs, go = Jobs(**options), threading.Event()

    def work(on_progress):
        assert go.wait(20)
        on_progress(Progress("encode", 1, 1))
        return SyncReport(added=1)

    yield jobs, go, work
    go.set()
    jobs.close(20)


def until_ended(jobs, job):
    async def follow():
        return [now async for now in jobs.follow(job.id)][-1]

    return follow()


def test_more_jobs_than_may_wait_are_sent_away():
    with blocked_jobs(max_waiting=1) as (jobs, go, work):

        async def scenario():
            jobs.start()
            first = jobs.add("sync", [], work)
            while jobs.find(first.id).state == "queued":
                await asyncio.sleep(0.001)
            second = jobs.add("sync", [], work)
            with pytest.raises(ApiError, match="1 jobs wait") as refused:
                jobs.add("sync", [], work)
            assert (refused.value.status_code, refused.value.headers["Retry-After"]) == (429, "10")
            go.set()
            ended = [await until_ended(jobs, first), await until_ended(jobs, second)]
            assert [job.state for job in ended] == ["done", "done"]
            assert ended[0].to_dict()["report"]["added"] == 1

        asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(OSError(28, "No space left on device"), "no space"), (ValueError("why"), "failed"), (ZeroDivisionError(), "log")],
)
def test_a_job_that_fails_says_why_and_the_next_one_runs(error, sentence):
    def fail(on_progress):
        raise error

    with blocked_jobs(max_waiting=4) as (jobs, go, work):

        async def scenario():
            go.set()
            jobs.start()
            failed = await until_ended(jobs, jobs.add("sync", [], fail))
            assert failed.state == "failed"
            assert sentence in failed.error.lower()
            assert (await until_ended(jobs, jobs.add("sync", [], work))).state == "done"

        asyncio.run(scenario())


def test_a_hundred_jobs_are_remembered():
    with blocked_jobs(max_waiting=200) as (jobs, go, work):

        async def scenario():
            go.set()
            jobs.start()
            for _ in range(120):
                await until_ended(jobs, jobs.add("sync", [], work))

        asyncio.run(scenario())
        assert len(jobs.all()) == 100
        created = [job.created for job in jobs.all()]
        assert created == sorted(created, reverse=True)
