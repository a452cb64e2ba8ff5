"""Searches by the id of one image, past the framework: most calls are such, and it takes longer than they do."""

from __future__ import annotations

from typing import Any

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from .routes.parameters import json_answer
from .searching import Question, search_answer
from .service import Service
from .settings import MAX_LIMIT

__all__ = ["QuickSearch"]

_MOST = 100  # matches that are found as fast as a thread is reached
_LONGEST_QUERY = 200


class QuickSearch:
    """ASGI middleware behind the guard: answers ``GET /v1/search?id=ID``, with or without k, offset and limit.

    The answer is that of the route. It is found at once, in the event loop, unless the index has changed: taking the
    change in may last. Whatever else is asked, or is not acceptable, goes on to the app.
    """

    def __init__(self, app: ASGIApp, service: Service, *, route: BaseRoute) -> None:
        self._app = app
        self._service = service
        self._route = route
        self._epoch = -1
        self._n_following = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        asked = None
        if scope["type"] == "http" and scope["path"] == "/v1/search" and scope["method"] == "GET":
            asked = _parsed(scope["query_string"])
        if asked is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = self._route  # for those who count
        found = self._at_once(*asked) if not self._n_following else None
        if found is None:
            found = await self._followed(*asked)
        await json_answer(found)(scope, receive, send)

    def _at_once(self, id: int, question: Question) -> dict[str, Any] | None:
        store = self._service.stores.quick
        with store.reading():
            return self._search(id, question) if store.epoch == self._epoch else None

    async def _followed(self, id: int, question: Question) -> dict[str, Any]:
        self._n_following += 1
        try:
            found = await self._service.quickly(self._search, id, question)
        finally:
            self._n_following -= 1
        self._epoch = max(self._epoch, found["epoch"])
        return found

    def _search(self, id: int, question: Question) -> dict[str, Any]:
        store = self._service.stores.quick
        (code,) = store.codes([id])
        return search_answer(store, [("id", id, code)], question)


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
