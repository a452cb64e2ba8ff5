"""A pool of processes that decode: one that hangs, crashes or eats memory is replaced, and the service goes on."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from index import FileStat

from ..image_errors import ImageError
from ..image_files import Decoded, Failed
from ..input_spec import InputSpec
from ..machine import count_processors
from .decode_tasks import Refused, decode_listed, limit_process, wake
from .errors import busy

__all__ = ["DecodePool"]

_T = TypeVar("_T")


class DecodePool:
    """Runs the tasks of `decode_tasks` in processes of their own, with limits on time, memory and queue.

    Args:
        workers: processes; None: one for each processor, four at most.
        seconds: one task may take; its process is killed then.
        max_waiting: tasks that may wait or run.
        max_pixels: of one image.
    """

    def __init__(self, *, workers: int | None, seconds: float, max_waiting: int, max_pixels: int) -> None:
        self.max_pixels = max_pixels
        self._workers = workers or min(4, count_processors())
        self._seconds = seconds
        self._max_waiting = max_waiting
        self._waiting = 0
        self._pending: set[Future[Any]] = set()
        self._closing = threading.Lock()
        self._closed = False
        self._pool = ProcessPool(
            max_workers=self._workers,
            initializer=limit_process,
            # Not fork: a copy of a process with threads, torch among them, can hang.
            context=multiprocessing.get_context("spawn"),
        )

    def start(self) -> None:
        """Starts the processes, without waiting for them."""
        for _ in range(self._workers):
            self._pool.schedule(wake)

    async def run(self, task: Callable[..., _T | Refused], *arguments: Any) -> _T:
        """Returns what a task of `decode_tasks` returns.

        Raises:
            ImageError: there is no image to be had; ``reason`` says why.
            ApiError: too many wait already.
        """
        if self._waiting >= self._max_waiting:
            raise busy(f"{self._waiting} images wait to be decoded")
        self._waiting += 1
        try:
            found = await asyncio.wrap_future(self._schedule(task, *arguments))
        except Exception as error:
            raise ImageError(self._reason(error)) from None
        finally:
            self._waiting -= 1
        if isinstance(found, Refused):
            raise ImageError(found.reason)
        return found

    @property
    def waiting(self) -> int:
        """How many tasks of `run` wait or run."""
        return self._waiting

    def decode(self, file: FileStat, spec: InputSpec) -> Decoded | Failed:
        """Returns an image as indexing wants it; for ``ImageBatches``, in its threads."""
        try:
            found: Decoded | Failed = self._schedule(decode_listed, file, spec, self.max_pixels).result()
        except (Exception, CancelledError) as error:
            return Failed(file, self._reason(error))
        return found

    def _schedule(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        with self._closing:
            if self._closed:
                raise RuntimeError("the pool is closed")
            future: Future[Any] = self._pool.schedule(task, args=arguments, timeout=self._seconds)
            self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, TimeoutError):
            return f"takes longer than {self._seconds:g} s to decode"
        if isinstance(error, ProcessExpired):
            return "makes the decoder crash"
        if isinstance(error, MemoryError):
            return "needs more memory than there is"
        return "cannot be decoded now: the server is stopping"

    def close(self) -> None:
        """Ends the processes at once; what waits for them fails."""
        with self._closing:
            self._closed = True
        self._pool.stop()
        self._pool.join(timeout=5)
        for future in list(self._pending):
            future.cancel()
