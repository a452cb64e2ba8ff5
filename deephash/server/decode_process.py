"""One decoding process as an event loop sees it: a task goes in, its answer comes out, or why there is none."""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import pickle
import socket
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from index import FileStat

from ..image_files import Decoded, Failed
from .decode_tasks import HEAD, Refused, work

__all__ = ["DecodeProcess"]

_OF_ARRAYS: tuple[Any, ...] = (np.dtype, np.empty(0, np.uint8).__reduce_ex__(5)[0])
_KNOWN = {(kind.__module__, kind.__qualname__): kind for kind in (Decoded, Failed, FileStat, Refused, *_OF_ARRAYS)}
_MOST_BYTES = 64 << 20  # of an answer: pixels for a model, or a thumbnail
_REAP_SECONDS = 1.0


class DecodeProcess(asyncio.Protocol):
    """A process and the socket to it; one task at a time.

    Args:
        seconds: that a task may take; the process is killed then.
        on_free: called with this when it can take a task; also once it is there.
        on_end: called with this when the process has ended, whoever ended it.
    """

    def __init__(
        self,
        *,
        seconds: float,
        on_free: Callable[[DecodeProcess], None],
        on_end: Callable[[DecodeProcess], None],
    ) -> None:
        self._seconds = seconds
        self._on_free = on_free
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        # Not fork: a copy of a process with threads, torch among them, can hang.
        context = multiprocessing.get_context("spawn")
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = context.Process(target=work, args=(theirs,), name="deephash-decode", daemon=True)
            self._process.start()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._why_ended: str | None = None
        self._parts: list[bytes] = []
        self._n_missing = 0

    async def connect(self) -> None:
        """Makes it ready to take tasks, whether or not the process has started up."""
        is_unix = self._socket.family == getattr(socket, "AF_UNIX", None)
        connect: Any = self._loop.create_unix_connection if is_unix else self._loop.create_connection
        await connect(lambda: self, sock=self._socket)

    def ask(self, task: bytes, answer: asyncio.Future[Any]) -> None:
        """Sends a task, pickled, whose answer will be set: what it returns, or `Refused`."""
        assert self._transport is not None
        self._answer = answer
        self._timer = self._loop.call_later(self._seconds, self.end, f"takes longer than {self._seconds:g} s to decode")
        self._transport.write(task)

    def end(self, why: str | None = None) -> None:
        """Kills the process; ``why`` is what is said of the image that it works on."""
        self._why_ended = why
        self._process.kill()
        if self._transport is not None:
            self._transport.abort()

    def join(self, seconds: float) -> None:
        """Waits until a process that was killed has ended."""
        self._process.join(seconds)

    @property
    def is_busy(self) -> bool:
        """Whether it works on a task."""
        return self._answer is not None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says that there is a process to take tasks."""
        self._transport = cast(asyncio.Transport, transport)
        self._on_free(self)

    def data_received(self, data: bytes) -> None:
        """Gathers an answer, which is large: pieces are put together once. What makes none ends the process."""
        if not self._parts and len(data) >= HEAD.size:  # sent in one piece with what follows
            self._n_missing = HEAD.size + HEAD.unpack_from(data)[0]
        self._parts.append(data)
        self._n_missing -= len(data)
        if self._answer is None or not 0 <= self._n_missing <= _MOST_BYTES:
            self.end()
        elif not self._n_missing:
            whole, self._parts = b"".join(self._parts), []
            try:
                found = _Answer(io.BytesIO(memoryview(whole)[HEAD.size :])).load()
            except Exception:  # whatever can be made of a stranger's bytes
                self.end()
            else:
                self._settle(found)
                self._on_free(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Says why there is no answer: the process has ended."""
        self._on_end(self)
        self._settle(Refused(self._why_ended or "makes the decoder crash"))
        self._process.kill()
        self._loop.call_later(_REAP_SECONDS, self._process.join, 0)

    def _settle(self, found: object) -> None:
        answer, self._answer = self._answer, None
        if self._timer is not None:
            self._timer.cancel()
        if answer is not None and not answer.done():  # where somebody still waits
            answer.set_result(found)


class _Answer(pickle.Unpickler):
    """Takes arrays and values of ours only: whoever has got hold of a decoding process gets no further."""

    def find_class(self, module: str, name: str) -> Any:
        return _KNOWN[module, name]
