"""Runs the app until Ctrl-C or SIGTERM: the socket first, so that an address in use is told at once."""

from __future__ import annotations

import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from .app import create_app
from .settings import ServerSettings, SettingsError
from .wire import Protocol

if TYPE_CHECKING:
    from .service import Service

__all__ = ["serve"]

_GRACE_SECONDS = 20
# A search gives Python's lock away at every read from SQLite; a job at work in Python may keep it so long each time.
_SWITCH_SECONDS = 0.001
# Connections beyond these are answered 503 at once: each costs a little memory, and slow ones come in crowds.
_MAX_CONNECTIONS = 1_000


def serve(settings: ServerSettings, *, on_start: Callable[[str], None]) -> None:
    """Serves until the process is asked to stop; calls under way are answered, a running job stops at a commit.

    Args:
        settings: what to serve, and to whom.
        on_start: called with the URL when requests are accepted.

    Raises:
        index.StoreError: the index cannot be opened.
        SettingsError: the address cannot be listened on.
    """
    listener = _listen(settings)
    sys.setswitchinterval(_SWITCH_SECONDS)
    with listener:
        app = create_app(settings)
        config = uvicorn.Config(
            app, http=Protocol, log_level="warning", access_log=False, server_header=False, ws="none", lifespan="on",
            proxy_headers=False, limit_concurrency=_MAX_CONNECTIONS, timeout_graceful_shutdown=_GRACE_SECONDS,
        )  # fmt: skip
        host, port = listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        server = _Server(config, app.state.service, lambda: on_start(url))
        server.run([listener])
    gc.freeze()  # Python's last collection would look at all of torch, where that is loaded, for a second


class _Server(uvicorn.Server):
    """Tells the service when it is asked to stop, and ends quietly then: that is how a server ends."""

    def __init__(self, config: uvicorn.Config, service: Service, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._service = service
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        previous = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.stop_soon()
        super().handle_exit(sig, frame)


def _listen(settings: ServerSettings) -> socket.socket:
    host = settings.host.strip("[]")
    try:
        family = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, settings.port), family=family, backlog=1024)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise SettingsError(
            f"cannot listen on {settings.host}, port {settings.port} ({why}): choose another --port or --host"
        ) from error
