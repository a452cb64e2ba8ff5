"""Searches by the id of one image, past the framework: most calls are such, and it takes longer than they do."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from .routes.parameters import json_answer
from .searching import Question, search_answer
from .service import Service
from .settings import MAX_LIMIT

__all__ = ["QuickSearch"]

_FEW = 200  # images that are taken in as fast as a thread is reached
_MOST = 100  # matches that are found as fast as a thread is reached
_LONGEST_QUERY = 200


class QuickSearch:
    """ASGI middleware behind the guard: answers ``GET /v1/search?id=ID``, with or without k, offset and limit.

    The answer is that of the route. It is found at once, in the event loop. When many images have changed, a thread
    takes them in, and all wait for it: in threads of their own they would be slower than they arrive.
    Whatever else is asked, or is not acceptable, goes on to the app.
    """

    def __init__(self, app: ASGIApp, service: Service, *, route: BaseRoute) -> None:
        self._app = app
        self._service = service
        self._route = route
        self._epoch = -1
        self._following: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        asked = None
        if scope["type"] == "http" and scope["path"] == "/v1/search" and scope["method"] == "GET":
            asked = _parsed(scope["query_string"])
        if asked is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = self._route  # for those who count
        while (found := self._at_once(*asked)) is None:
            await self._follow()
        await json_answer(found)(scope, receive, send)

    def _at_once(self, id: int, question: Question) -> dict[str, Any] | None:
        if self._following is not None:
            return None
        store = self._service.stores.quick
        with store.reading():
            if store.epoch != self._epoch:
                n_behind = store.n_behind()
                if n_behind is None or n_behind > _FEW:
                    return None
            (code,) = store.codes([id])
            found = search_answer(store, [("id", id, code)], question)
            self._epoch = store.epoch
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


def _parsed(query: bytes) -> tuple[int, Question] | None:
    """Returns what is asked, or None where it is anything but whole numbers within their bounds."""
    if len(query) > _LONGEST_QUERY:
        return None
    pairs = [pair.partition(b"=") for pair in query.split(b"&")]
    given = {name: int(value) for name, _, value in pairs if value.isdigit() and len(value) < 19}
    if len(given) != len(pairs):
        return None
    id, k, offset, limit = (given.pop(name, default) for name, default in _DEFAULTS)
    if given or id < 1 or not 1 <= k <= _MOST or not 1 <= limit <= MAX_LIMIT:
        return None
    return id, Question(k, None, None, offset, limit)


_DEFAULTS = ((b"id", 0), (b"k", 10), (b"offset", 0), (b"limit", 100))
