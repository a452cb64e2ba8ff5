"""Long jobs in a process of their own, which yields the processors to whoever asks; and changes meanwhile."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from index import Store
from index.errors import DeepHashError

from ..engine import ImageSearch
from ..errors import CollectionError
from ..machine import count_cores, count_processors
from ..progress import OnProgress, Progress
from ..sync import SyncInterrupted, SyncReport
from .decode_tasks import attach_process
from .decoding import DecodePool
from .stores import Stores
from .sync_jobs import SyncJob

__all__ = ["Background", "Decoding"]

_log = logging.getLogger("deephash.server")

_P = ParamSpec("_P")
_T = TypeVar("_T")
_OPEN_SECONDS = 10.0
_LOWEST = 19


@dataclass(frozen=True)
class Decoding:
    """How files are decoded, as in `DecodePool`."""

    workers: int | None
    seconds: float
    max_pixels: int

    def pool(self, *, max_waiting: int) -> DecodePool:
        """Returns processes that decode so."""
        return DecodePool(
            workers=self.workers, seconds=self.seconds, max_waiting=max_waiting, max_pixels=self.max_pixels
        )


class Background:
    """Runs a job at a time in a process that has the index open for writing; what else changes it, goes there.

    In the server's own process a job would hold Python's lock again and again, and everybody would wait. The process
    runs when nobody else wants a processor; where others keep all of them busy, the job all but waits, and what
    changes the index does not.
    """

    def __init__(self, stores: Stores, decoding: Decoding) -> None:
        self._stores = stores
        self._decoding = decoding
        self._process: _Process | None = None
        self._lock = threading.Lock()

    def sync(self, job: SyncJob, on_progress: OnProgress) -> SyncReport:
        """Runs a job; one at a time.

        Raises:
            SyncInterrupted: ``on_progress`` raised KeyboardInterrupt, and the job ended at its next commit.
            CollectionError: the process was killed.
        """
        with self._lock:  # nothing is being changed here
            process = self._process = _Process(self._stores.folder, self._decoding, job)
        try:
            return process.follow(on_progress)
        finally:
            with self._lock:
                self._process = None
            process.close()

    def change(self, work: Callable[Concatenate[Store, _P], _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
        """Returns what a function of a module returns of the store that writes, wherever that is open.

        Raises:
            StoreLocked: another process is writing, not the server.
        """
        while True:
            with self._lock:
                if self._process is None:
                    with self._stores.writing() as store:
                        return work(store, *arguments, **named)
                answer = self._process.ask(work, arguments, named)
            try:
                found: _T = answer.result()
            except _EndedError:
                continue
            return found


class _EndedError(Exception):
    """The process has ended without an answer. Nearly always the change was not made: it is made again, elsewhere."""


class _Process:
    def __init__(self, index: Path, decoding: Decoding, job: SyncJob) -> None:
        # Not fork: a copy of a process with threads, torch among them, can hang.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_run, args=(theirs, index, decoding, job), name="deephash-background", daemon=False
        )
        self._process.start()
        theirs.close()
        self._answers: dict[int, Future[Any]] = {}
        self._numbers = itertools.count()
        self._asking = threading.Lock()

    def follow(self, on_progress: OnProgress) -> SyncReport:
        cancelled = False
        while True:
            try:
                kind, found = self._connection.recv()
            except (EOFError, OSError):
                raise CollectionError(
                    "the process that indexes was killed: free memory and start the job again"
                ) from None
            if kind == "progress" and not cancelled:
                try:
                    on_progress(found)
                except KeyboardInterrupt:
                    cancelled = True
                    self._send(None)
            elif kind == "answer":
                number, answer = found
                _settle(self._answers.pop(number), answer)
            elif kind == "report":
                report: SyncReport = found
                return report
            elif kind == "interrupted":
                raise SyncInterrupted(found)
            elif kind == "failed":
                raise found

    def ask(self, work: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Future[Any]:
        answer: Future[Any] = Future()
        with self._asking:
            number = next(self._numbers)
            self._answers[number] = answer
            self._send((number, work, arguments, named))
        return answer

    def close(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.join()
        with self._asking:
            for answer in self._answers.values():
                answer.set_exception(_EndedError())

    def _send(self, message: object) -> None:
        try:
            self._connection.send(message)
        except OSError:
            _log.debug("the process of a job has ended")  # whoever follows it sees it


def _settle(future: Future[Any], answer: object) -> None:
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


# What follows runs in the process.


class _Cancelled(KeyboardInterrupt):
    """Ends a sync after the batch that was just committed."""


def _run(connection: Connection, index: Path, decoding: Decoding, job: SyncJob) -> None:
    attach_process()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    worker = _Worker(connection)
    try:
        message = worker.run(index, decoding, job)
    except SyncInterrupted as interrupted:
        message = ("interrupted", interrupted.report)
    except KeyboardInterrupt:
        message = ("interrupted", SyncReport())
    except (DeepHashError, OSError, ValueError) as error:
        message = ("failed", error)
    except Exception as error:
        _log.error("a job failed", exc_info=error)
        message = ("failed", RuntimeError(str(error)))
    worker.send(message)


def _be_idle() -> None:
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    elif hasattr(os, "nice"):
        os.nice(_LOWEST)


class _Worker:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._cancelled = False
        self._changing = threading.Lock()

    def run(self, index: Path, decoding: Decoding, job: SyncJob) -> tuple[str, object]:
        with ImageSearch.open(index, writable=True, timeout=_OPEN_SECONDS) as search:
            threading.Thread(target=self._listen, args=[search.store], daemon=True).start()
            _be_idle()  # this thread and those that it starts, and no other
            # One processor less: the caches and clock of all that work on others are felt by those who are asked.
            n_processors = max(1, count_processors() - 1)
            pool = replace(decoding, workers=min(decoding.workers or n_processors, n_processors)).pool(max_waiting=0)
            pool.start()
            # Read when the model is loaded, by whichever computes its features: OpenVINO as we start it, or torch.
            os.environ["OMP_NUM_THREADS"] = str(min(count_cores(), n_processors))
            try:
                report = job.run(search.store, lambda: search.model, decode=pool.decode, on_progress=self._on_progress)
            finally:
                pool.close()
                self._changing.acquire()  # for ever: what is asked from now on finds the store closed
        return "report", report

    def send(self, message: tuple[str, object]) -> None:
        with self._sending:
            self._connection.send(message)

    def _on_progress(self, progress: Progress) -> None:
        if self._cancelled:
            raise _Cancelled
        self.send(("progress", progress))

    def _listen(self, store: Store) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):  # the server has gone
                self._cancelled = True
                return
            if message is None:
                self._cancelled = True
                continue
            number, work, arguments, named = message
            found: object
            with self._changing:
                try:
                    found = work(store, *arguments, **named)
                except Exception as error:
                    found = error
                self.send(("answer", (number, found)))
