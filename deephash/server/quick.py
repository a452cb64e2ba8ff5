"""Searches by one image, past the framework: most calls are such, and it takes longer than they do."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from python_multipart.multipart import parse_options_header
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .image_queries import image_codes
from .routes.parameters import json_answer
from .searching import Query, Question, search_answer
from .service import Service
from .settings import MAX_LIMIT

__all__ = ["PATH", "QuickSearch", "parsed"]

PATH = "/v1/search"
_FEW = 200  # images that are taken in as fast as a thread is reached
_MOST = 100  # matches that are found as fast as a thread is reached
_LONGEST_QUERY = 200
_LARGEST_BODY = 1 << 20  # as much as the framework holds in memory; to decode more takes longer than it does


class QuickSearch:
    """ASGI middleware behind the guard: answers searches by one image, with or without k, offset and limit.

    These are ``GET /v1/search?id=ID`` and ``POST /v1/search`` with one file of a few MB and nothing else in its form.
    The answer is that of the route. It is found at once, in the event loop. When many images have changed, a thread
    takes them in, and all wait for it: in threads of their own they would be slower than they arrive.
    Whatever else is asked, or is not acceptable, goes on to the app.

    Args:
        app: what all else goes to.
        service: what is searched.
        routes: those of the two calls, by method; for those who count.
    """

    def __init__(self, app: ASGIApp, service: Service, *, routes: Mapping[str, BaseRoute]) -> None:
        self._app = app
        self._service = service
        self._routes = routes
        self._epoch = -1
        self._following: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        found = None
        if scope["type"] == "http" and scope["path"] == PATH:
            asked = parsed(scope["query_string"])
            if asked is not None and scope["method"] == "GET":
                found = await self._by_id(scope, *asked)
            elif asked is not None and scope["method"] == "POST":
                body = _SmallBody(scope, receive)
                found, receive = await self._by_file(scope, body, *asked), body.receive
        if found is None:
            await self._app(scope, receive, send)
        else:
            await json_answer(found)(scope, receive, send)

    async def _by_id(self, scope: Scope, id: int | None, question: Question) -> dict[str, Any] | None:
        if id is None:
            return None
        scope["route"] = self._routes["GET"]
        return await self._found(question, [id], [])

    async def _by_file(
        self, scope: Scope, body: _SmallBody, id: int | None, question: Question
    ) -> dict[str, Any] | None:
        if id is not None or (image := await body.only_image()) is None:
            return None
        scope["route"] = self._routes["POST"]
        (code,) = await image_codes(self._service, [image])
        return await self._found(question, [], [code])

    async def _found(
        self, question: Question, ids: Sequence[int], codes: Sequence[NDArray[np.uint8]]
    ) -> dict[str, Any]:
        while (found := self.find(question, ids, codes)) is None:
            await self._follow()
        return found

    def find(self, question: Question, ids: Sequence[int], codes: Sequence[NDArray[np.uint8]]) -> dict[str, Any] | None:
        """Returns the answer to indexed images and codes of others; None while much must be taken in first.

        Raises:
            UnknownId: an image is not here.
        """
        if self._following is not None:
            return None
        store = self._service.stores.quick
        with store.reading():
            if store.epoch != self._epoch:
                n_behind = store.n_behind()
                if n_behind is None or n_behind > _FEW:
                    return None
            queries: list[Query] = [("id", id, code) for id, code in zip(ids, store.codes(ids), strict=True)]
            queries += [("image", None, code) for code in codes]
            found = search_answer(store, queries, question)
            self._epoch = found["epoch"]
            return found

    async def _follow(self) -> None:
        if self._following is None:
            self._following = asyncio.create_task(self._take_in())
        # Who gives up waiting does not end it for the others.
        await asyncio.shield(self._following)

    async def _take_in(self) -> None:
        try:
            self._epoch = await self._service.quickly(self._refresh)
        finally:
            # Here, not in a callback: those who wait for a task that has ended do not wait for its callbacks.
            self._following = None

    def _refresh(self) -> int:
        store = self._service.stores.quick
        with store.reading():
            store.refresh()
            return store.epoch


class _SmallBody:
    """The body of a request, looked at before it is handed on, if it says that it is small and a form."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = dict(scope["headers"])
        n_bytes = headers.get(b"content-length", b"")
        self._kind, options = parse_options_header(headers.get(b"content-type"))
        self._boundary = options.get(b"boundary", b"")
        self._is_small = n_bytes.isdigit() and int(n_bytes) <= _LARGEST_BODY
        self._receive = receive
        self._messages: deque[Message] = deque()

    async def only_image(self) -> bytes | None:
        """Returns the file of a form that has one file, named image, and nothing else."""
        if self._kind != b"multipart/form-data" or not self._boundary or not self._is_small:
            return None
        self._messages.append(await self._receive())
        while self._messages[-1].get("more_body", False):
            self._messages.append(await self._receive())
        body = b"".join(message.get("body", b"") for message in self._messages)
        before, *parts = (b"\r\n" + body).split(b"\r\n--" + self._boundary)
        if before or len(parts) != 2 or not parts[0].startswith(b"\r\n") or parts[1] not in (b"--", b"--\r\n"):
            return None
        head, _, image = parts[0].partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-disposition:")]
        if len(lines) != 1:
            return None
        disposition, options = parse_options_header(lines[0].partition(b":")[2])
        is_image = disposition == b"form-data" and options.get(b"name") == b"image" and b"filename" in options
        return image if is_image else None

    async def receive(self) -> Message:
        """Returns the messages once more, then those that follow."""
        return self._messages.popleft() if self._messages else await self._receive()


def parsed(query: bytes) -> tuple[int | None, Question] | None:
    """Returns what is asked, or None where it is anything but whole numbers within their bounds."""
    if len(query) > _LONGEST_QUERY:
        return None
    pairs = [pair.partition(b"=") for pair in query.split(b"&")] if query else []
    given = {name: int(value) for name, _, value in pairs if value.isdigit() and len(value) < 19}
    if len(given) != len(pairs):
        return None
    id = given.pop(b"id", None)
    k, offset, limit = given.pop(b"k", 10), given.pop(b"offset", 0), given.pop(b"limit", 100)
    if given or id == 0 or not 1 <= k <= _MOST or not 1 <= limit <= MAX_LIMIT:
        return None
    return id, _question(k, offset, limit)


@lru_cache(maxsize=64)
def _question(k: int, offset: int, limit: int) -> Question:
    return Question(k, None, None, offset, limit)
