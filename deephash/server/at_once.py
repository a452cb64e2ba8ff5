"""Searches by one id without an ASGI call, which takes as long as they do; those that come together, together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from starlette.types import Scope

from .guard import HEADERS, Guard
from .metrics import Metrics
from .quick import PATH, QuickSearch, parsed
from .routes.parameters import json_bytes
from .searching import Question

__all__ = ["AtOnce"]

_MOST = 32  # searches of one round of the event loop, some ten milliseconds: whatever else waits has its turn


class _Asked(NamedTuple):
    question: Question
    id: int
    started: float
    answer: Callable[[bytes | None], None]


class AtOnce:
    """Answers what the guard lets in and `QuickSearch` finds at once; all else, errors too, is left to them.

    ``head``: the lines that the head of each answer has, but for its length.
    """

    head = b"content-type: application/json\r\n" + b"".join(b"%b: %b\r\n" % header for header in HEADERS)

    def __init__(self, guard: Guard, quick: QuickSearch, metrics: Metrics) -> None:
        self._guard = guard
        self._quick = quick
        self._metrics = metrics
        self._waiting: list[_Asked] = []

    def takes(self, scope: Scope, answer: Callable[[bytes | None], None]) -> bool:
        """Takes a request, if it is such a search: ``answer`` is called when the event loop comes round.

        It is given the body of the answer, whose status is 200, and which is counted; or None, if there is none, and
        the request is to be handled as if it had not been taken.
        """
        if scope["path"] != PATH or scope["method"] != "GET":
            return False
        started = time.perf_counter()
        id, question = parsed(scope["query_string"]) or (None, None)
        if id is None or question is None or not self._guard.lets_in(scope):
            return False
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._answer_some)
        self._waiting.append(_Asked(question, id, started, answer))
        return True

    def _answer_some(self) -> None:
        some, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._answer_some)
        alike: dict[Question, list[_Asked]] = {}
        for asked in some:
            alike.setdefault(asked.question, []).append(asked)
        for question, group in alike.items():
            bodies = self._bodies(question, [asked.id for asked in group])
            for asked, body in zip(group, bodies, strict=True):
                asked.answer(body)
                if body is not None:
                    self._metrics.count_request("GET", PATH, 200, time.perf_counter() - asked.started)

    def _bodies(self, question: Question, ids: list[int]) -> list[bytes] | list[None]:
        try:
            found = self._quick.find(question, ids, [])
            if found is not None:
                return [json_bytes({**found, "results": [result]}) for result in found["results"]]
        except Exception:
            pass  # comes again, for the one that it belongs to, where it is answered
        return [None] * len(ids)
