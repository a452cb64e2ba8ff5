"""The clients: one process of its own, asked by JSON on its standard input, answers with an array in a file.

A lean client over asyncio's protocols, with kept connections: it shares the cores with the server, and httpx would take
more of them than the server does (`measuring.client_cost` is in the results).
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

__all__ = ["ANSWER", "KINDS", "Connection", "main", "requests_of"]

KINDS = ("id", "upload", "thumbnail", "stats")
ANSWER = np.dtype([("kind", "u1"), ("status", "u2"), ("start", "f8"), ("seconds", "f8"), ("promised", "?")])
_BOUNDARY = b"boundary-of-the-benchmark"
_BROKEN = 0  # the status of a request that got no answer


class Connection(asyncio.Protocol):
    """One kept connection; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[tuple[int, bool]] | None = None
        self._data = b""
        self._end = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Reads on, until the answer is whole."""
        self._data += data
        if not self._end and (stop := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:stop].lower()
            at = head.find(b"\r\ncontent-length:")
            self._end = stop + 4 + (int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0)
        if self._end and len(self._data) >= self._end and self._answered is not None:
            head = self._data[: self._data.find(b"\r\n\r\n")]
            self._settle((int(head[9:12]), b"\r\nretry-after:" in head.lower()))

    def connection_lost(self, error: Exception | None) -> None:
        """Tells who waits."""
        self._transport = None
        if self._answered is not None:
            self._settle((_BROKEN, False))

    def _settle(self, answer: tuple[int, bool]) -> None:
        assert self._answered is not None
        if not self._answered.done():
            self._answered.set_result(answer)
        self._answered, self._data, self._end = None, b"", 0

    async def ask(self, request: bytes) -> tuple[int, bool]:
        """Sends a request; returns the status of its answer, and whether that says when to try again."""
        if self._transport is None:
            return _BROKEN, False
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answered


@dataclass(frozen=True)
class Load:
    """What to ask: ``shares`` by kind, for so many seconds. ``rate``: requests a second of all clients; 0: no pause."""

    url: str
    clients: int
    seconds: float
    shares: dict[str, float]
    n_images: int
    n_photos: int
    uploads: Sequence[str]
    rate: float = 0.0
    seed: int = 0


def requests_of(load: Load, seed: int, uploads: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yields (number of the kind, request) without end, the same ones for the same seed; uploads are whole requests."""
    rng = np.random.default_rng([load.seed, seed])
    host = urlsplit(load.url).netloc.encode()
    kinds = [KINDS.index(kind) for kind in load.shares]
    shares = np.array(list(load.shares.values())) / sum(load.shares.values())
    while True:
        for kind, id, photo in zip(
            rng.choice(kinds, 256, p=shares).tolist(),
            rng.integers(1, load.n_images + 1, 256).tolist(),
            rng.integers(1, load.n_photos + 1, 256).tolist(),
            strict=True,
        ):
            if KINDS[kind] == "upload":
                yield kind, uploads[id % len(uploads)]
            else:
                paths = {"id": f"search?id={id}", "thumbnail": f"images/{photo}/thumbnail", "stats": "stats"}
                yield kind, b"GET /v1/%b HTTP/1.1\r\nHost: %b\r\n\r\n" % (paths[KINDS[kind]].encode(), host)


def _upload(host: bytes, data: bytes) -> bytes:
    part = b'--%b\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n\r\n%b\r\n--%b--\r\n'
    body = part % (_BOUNDARY, data, _BOUNDARY)
    head = b"POST /v1/search HTTP/1.1\r\nHost: %b\r\nContent-Type: multipart/form-data; boundary=%b\r\n"
    return head % (host, _BOUNDARY) + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def ask(load: Load) -> NDArray[np.void]:
    """Returns what all clients saw, as an array of `ANSWER`; latencies count from when a request was due."""
    loop, found = asyncio.get_running_loop(), []
    address = urlsplit(load.url)
    host = address.netloc.encode()
    uploads = [_upload(host, Path(path).read_bytes()) for path in load.uploads]
    connect = partial(loop.create_connection, Connection, address.hostname, address.port)
    connections = [(await connect())[1] for _ in range(load.clients)]
    began = time.perf_counter()

    async def client(number: int) -> None:
        requests, connection = requests_of(load, number, uploads), connections[number]
        due = began + (number / load.rate if load.rate else 0.0)
        while True:
            kind, request = next(requests)
            if load.rate:
                await asyncio.sleep(due - time.perf_counter())
                start, due = due, due + load.clients / load.rate
            else:
                start = time.perf_counter()
            if start - began >= load.seconds:
                break
            status, promised = await connection.ask(request)
            found.append((kind, status, start - began, time.perf_counter() - start, promised))
            if status == 429 or status == _BROKEN:
                await asyncio.sleep(1)
            if status == _BROKEN:
                _, connection = await connect()

    await asyncio.gather(*(client(number) for number in range(load.clients)))
    return np.array(found, ANSWER)


def main() -> None:
    """Asks as told, and writes the answers, and the seconds of a processor that asking took."""
    given = json.load(sys.stdin)
    path = given.pop("output")
    try:
        from uvloop import run
    except ImportError:
        run = asyncio.run
    started = time.process_time()
    found = run(ask(Load(**given)))
    np.savez(path, answers=found, processor_seconds=time.process_time() - started)


if __name__ == "__main__":
    main()
