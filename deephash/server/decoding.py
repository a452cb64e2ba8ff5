"""A pool of processes that decode: one that hangs, crashes or eats memory is replaced, and the service goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from index import FileStat

from ..image_errors import ImageError
from ..image_files import Decoded, Failed
from ..input_spec import InputSpec
from ..machine import count_processors
from .decode_process import DecodeProcess
from .decode_tasks import Refused, decode_listed, wake
from .errors import busy

__all__ = ["DecodePool"]

_log = logging.getLogger("deephash.server")

_T = TypeVar("_T")
_STOPPING = "cannot be decoded now: the server is stopping"
_END_SECONDS = 5.0


class DecodePool:
    """Runs the tasks of `decode_tasks` in processes of their own, with limits on time, memory and queue.

    It lives in the event loop: a task is handed to a process that is free, and its answer to who waits, without a
    thread between. All but `decode` and `close` are called from there.

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
        self._tasks: deque[tuple[bytes, asyncio.Future[Any]]] = deque()
        self._processes: set[DecodeProcess] = set()
        self._free: list[DecodeProcess] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._closed = False
        self._has_own_loop = False

    def start(self) -> None:
        """Starts the processes, without waiting for them; where no event loop runs, in one of its own, in a thread."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = asyncio.new_event_loop()
            self._has_own_loop = True
            threading.Thread(target=self._loop.run_forever, name="deephash-decoding", daemon=True).start()
        self._loop.call_soon_threadsafe(self._add_processes)

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
            found = await self._ask(task, arguments)
        finally:
            self._waiting -= 1
        if isinstance(found, Refused):
            raise ImageError(found.reason)
        answer: _T = found
        return answer

    @property
    def waiting(self) -> int:
        """How many tasks of `run` wait or run."""
        return self._waiting

    def decode(self, file: FileStat, spec: InputSpec) -> Decoded | Failed:
        """Returns an image as indexing wants it; for ``ImageBatches``, in its threads."""
        if self._closed:  # and the event loop has ended, or soon will
            return Failed(file, _STOPPING)
        asked = self._ask(decode_listed, (file, spec, self.max_pixels))
        found = asyncio.run_coroutine_threadsafe(asked, self._loop).result()
        return Failed(file, found.reason) if isinstance(found, Refused) else found

    async def _ask(self, task: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if self._closed:
            return Refused(_STOPPING)
        answer = self._loop.create_future()
        self._tasks.append((pickle.dumps((task, arguments), 5), answer))
        self._hand_out()
        return await answer

    def _hand_out(self) -> None:
        while self._tasks and self._free:
            task, answer = self._tasks.popleft()
            if not answer.done():  # where somebody still waits
                self._free.pop().ask(task, answer)
        if self._tasks:
            self._add_processes()

    def _add_processes(self) -> None:
        while len(self._processes) < self._workers and not self._closed:
            try:
                process = DecodeProcess(seconds=self._seconds, on_free=self._freed, on_end=self._ended)
            except OSError as error:
                _log.error("no process can be started to decode images", exc_info=error)
                if not self._processes:
                    self._drop("cannot be decoded now: the server cannot start a process")
                return
            self._processes.add(process)
            # The first task of a process has it import its libraries.
            self._tasks.appendleft((pickle.dumps((wake, ())), self._loop.create_future()))
            starting = self._loop.create_task(process.connect())
            self._starting.add(starting)
            starting.add_done_callback(self._starting.discard)

    def _freed(self, process: DecodeProcess) -> None:
        self._free.append(process)
        self._hand_out()

    def _ended(self, process: DecodeProcess) -> None:
        self._processes.discard(process)
        with contextlib.suppress(ValueError):
            self._free.remove(process)
        if process.is_busy:  # else the next task has one started: what cannot start is not tried for ever
            self._add_processes()

    def close(self) -> None:
        """Ends the processes at once; what waits for them fails. Called from another thread than the event loop's."""
        self._closed = True
        processes = list(self._processes)
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(self._end, processes)
        for process in processes:
            process.join(_END_SECONDS)

    def _end(self, processes: Iterable[DecodeProcess]) -> None:
        self._drop(_STOPPING)
        for process in processes:
            process.end(_STOPPING)
        if self._has_own_loop:
            self._loop.call_later(_END_SECONDS, self._loop.stop)

    def _drop(self, why: str) -> None:
        for _, answer in self._tasks:
            if not answer.done():
                answer.set_result(Refused(why))
        self._tasks.clear()
