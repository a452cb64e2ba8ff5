"""HTTP/1.1 as uvicorn speaks it, with the head and the body of an answer in one packet, and some answers at once."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from .at_once import AtOnce

__all__ = ["Protocol"]

_AT_ONCE = 64 << 10


class Protocol(HttpToolsProtocol):
    """uvicorn's, on a transport that sends together what is written together: each packet costs both ends a wake-up.

    What the app's ``state.at_once`` takes is answered without a task: `_start_asgi_task` is uvicorn's, from 0.45 on.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._at_once: AtOnce = config.loaded_app.state.at_once

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes the connection."""
        super().connection_made(cast(asyncio.Transport, _Gathering(transport, self.loop)))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # app is another one where there are too many connections.
        plain = app is self.app and not cycle.waiting_for_100_continue
        scope = cast(Scope, cycle.scope)
        if not plain or self.flow.write_paused or not self._at_once.takes(scope, partial(self._answer, cycle)):
            super()._start_asgi_task(cycle, app)

    def _answer(self, cycle: RequestResponseCycle, body: bytes | None) -> None:
        """Sends a whole answer; the connection is then as after any other."""
        if cycle.disconnected:
            return
        if body is None:
            super()._start_asgi_task(cycle, self.app)
            return
        headers = cycle.default_headers if cycle.keep_alive else [*cycle.default_headers, (b"connection", b"close")]
        lines = [b"%b: %b\r\n" % header for header in headers]
        length = b"content-length: %d\r\n\r\n" % len(body)
        self.transport.write(b"".join((b"HTTP/1.1 200 OK\r\n", *lines, self._at_once.head, length, body)))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        cycle.on_response = lambda: None  # as uvicorn does: a circle of references would outlive the connection


class _Gathering:
    """A transport that keeps small writes until the event loop comes round; all else is the transport's own."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if len(data) > _AT_ONCE:  # counts for flow control now
            self._flush()
            self._transport.write(data)
            return
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            if not self._transport.is_closing():
                self._transport.write(b"".join(parts))
