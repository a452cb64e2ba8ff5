"""Work that takes longer than a call: syncs with folders, one after another, with progress and cancel.

A job is a sync, and every batch of a sync commits by itself: one that was cancelled or killed loses at most a batch,
and the same job again goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from index.errors import DeepHashError

from ..json_lines import path_fields
from ..progress import OnProgress, Progress
from ..sync import SyncInterrupted, SyncReport
from .errors import busy, to_api_error

__all__ = ["ENDED", "Job", "JobState", "Jobs", "Work"]

_log = logging.getLogger("deephash.server")

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: frozenset[JobState] = frozenset(["done", "failed", "cancelled"])
Work = Callable[[OnProgress], SyncReport]

_REMEMBERED = 100
_SKIPPED_SHOWN = 100


class _Cancelled(KeyboardInterrupt):
    """Ends a sync after the batch that was just committed."""


@dataclass(frozen=True)
class Job:
    """One job as it is now; replaced at every change."""

    id: str
    kind: Literal["sync", "add"]
    folders: Sequence[str]
    created: str
    state: JobState = "queued"
    started: str | None = None
    finished: str | None = None
    done: int = 0
    total: int = 0
    report: SyncReport | None = None
    error: str | None = None
    version: int = field(default=0, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns the job for JSON; of many skipped files the first hundred."""
        report = None
        if self.report is not None:
            skipped = self.report.skipped
            shown = [path_fields(item.path) | {"reason": item.reason} for item in skipped[:_SKIPPED_SHOWN]]
            report = asdict(replace(self.report, skipped=[])) | {"n_skipped": len(skipped), "skipped": shown}
        return {
            "id": self.id, "kind": self.kind, "state": self.state,
            "folders": [path_fields(folder)["path"] for folder in self.folders],
            "created": self.created, "started": self.started, "finished": self.finished,
            "progress": {"done": self.done, "total": self.total}, "report": report, "error": self.error,
        }  # fmt: skip


class Jobs:
    """Runs jobs in one thread, in the order of their arrival, and remembers the last hundred.

    Args:
        max_waiting: jobs that may wait.
    """

    def __init__(self, *, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._jobs: dict[str, Job] = {}
        self._queue: deque[tuple[str, Work]] = deque()
        self._cancelled: set[str] = set()
        self._changed = threading.Condition()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="deephash-jobs", daemon=True)

    def start(self) -> None:
        """Starts to work; called from the event loop that will follow the jobs."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def add(self, kind: Literal["sync", "add"], folders: Sequence[str], work: Work) -> Job:
        """Queues work, which is called with a callback for its progress, and returns its job.

        Raises:
            ApiError: too many jobs wait already.
        """
        with self._changed:
            if len(self._queue) >= self._max_waiting:
                raise busy(f"{len(self._queue)} jobs wait", 10)
            job = Job(secrets.token_hex(8), kind, tuple(folders), _now())
            self._jobs[job.id] = job
            self._queue.append((job.id, work))
            ended = [id for id, known in self._jobs.items() if known.state in ENDED]
            for id in ended[: max(0, len(self._jobs) - _REMEMBERED)]:
                del self._jobs[id]
            self._changed.notify_all()
        return job

    def all(self) -> list[Job]:
        """Returns the jobs, newest first."""
        with self._changed:
            return list(self._jobs.values())[::-1]

    def find(self, id: str) -> Job | None:
        """Returns a job, or None."""
        with self._changed:
            return self._jobs.get(id)

    def cancel(self, id: str) -> Job | None:
        """Has a job end at its next commit; one that waits never starts, one that has ended stays as it is."""
        with self._changed:
            job = self._jobs.get(id)
            if job is None or job.state in ENDED:
                return job
            self._cancelled.add(id)
            if job.state == "queued":
                self._queue = deque(item for item in self._queue if item[0] != id)
        return self._set(id, state="cancelled", finished=_now()) if job.state == "queued" else self.find(id)

    async def follow(self, id: str) -> AsyncIterator[Job]:
        """Yields a job now and whenever it changes, until it has ended or the server stops."""
        seen = -1
        while True:
            news = self._news
            job = self.find(id)
            if job is None:
                return
            if job.version != seen:
                seen = job.version
                yield job
            if job.state in ENDED or self._stopping:
                return
            await news.wait()

    def stop(self) -> None:
        """Has the running job end at its next commit, and no other start; does not wait."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._tell()

    def close(self, timeout: float) -> None:
        """Stops, and waits for the running job."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping)
                if self._stopping:
                    return
                id, work = self._queue.popleft()
            self._work(id, work)

    def _work(self, id: str, work: Work) -> None:
        def on_progress(progress: Progress) -> None:
            if self._stopping or id in self._cancelled:
                raise _Cancelled
            self._set(id, done=progress.done, total=progress.total)

        self._set(id, state="running", started=_now())
        try:
            report = work(on_progress)
        except SyncInterrupted as interrupted:
            self._set(id, state="cancelled", finished=_now(), report=interrupted.report)
        except KeyboardInterrupt:
            self._set(id, state="cancelled", finished=_now())
        except (DeepHashError, OSError, ValueError) as error:
            self._set(id, state="failed", finished=_now(), error=str(to_api_error(error).detail))
        except Exception as error:
            _log.error("a job failed", exc_info=error)
            self._set(id, state="failed", finished=_now(), error="the server failed; its log has the reason")
        else:
            self._set(id, state="done", finished=_now(), report=report)
        self._cancelled.discard(id)

    def _set(self, id: str, **changes: Any) -> Job:
        with self._changed:
            job = self._jobs[id]
            job = self._jobs[id] = replace(job, version=job.version + 1, **changes)
        self._tell()
        return job

    def _tell(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
