"""Pages of search results: ids and distances first, then the records of one page only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index import Filter, Record, Store, UnknownId, n_code_bytes

from .errors import ApiError
from .models import match_dict
from .settings import MAX_K

__all__ = ["Page", "Question", "parsed_code", "search_answer", "search_page"]

_Query = tuple[str, int | None, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Question:
    """How to search, for all queries of one call: at least one of k and radius is given."""

    k: int | None
    radius: int | None
    where: Filter | None
    offset: int
    limit: int


@dataclass(frozen=True, slots=True)
class Page:
    """``total`` results were found; these are those from ``offset`` on, by (distance, id)."""

    total: int
    offset: int
    matches: Sequence[tuple[Record, int]]


def search_answer(store: Store, queries: Sequence[_Query], question: Question) -> dict[str, Any]:
    """Returns what `SearchAnswer` describes; queries are (kind, id of an indexed image or None, code)."""
    results = []
    for kind, id, code in queries:
        page = search_page(store, code, question, exclude=id)
        stop = page.offset + len(page.matches)
        results.append(
            {
                "query": {"kind": kind, "id": id, "code": code.tobytes().hex()},
                "total": page.total,
                "offset": page.offset,
                "next_offset": stop if page.matches and stop < page.total else None,
                "matches": [match_dict(record, distance) for record, distance in page.matches],
            }
        )
    return {"n_bits": store.n_bits, "epoch": store.epoch, "results": results}


def search_page(store: Store, code: NDArray[np.uint8], question: Question, *, exclude: int | None = None) -> Page:
    """Returns a page of the images nearest to a code, without the excluded one.

    Raises:
        ApiError: more are within the radius than one answer may hold.
    """
    start, stop = question.offset, question.offset + question.limit
    for _ in range(8):
        found = _find(store, code, question, exclude)
        rows = found[start:stop]
        try:
            records = store.records([id for id, _ in rows])
        except UnknownId:
            continue  # removed between search and look-up: search again
        return Page(len(found), start, [(record, row[1]) for record, row in zip(records, rows, strict=True)])
    raise ApiError(503, "timeout", "images are being removed faster than they can be found: try again", retry_after=1)


def _find(store: Store, code: NDArray[np.uint8], question: Question, exclude: int | None) -> list[tuple[int, int]]:
    k, radius, where = question.k, question.radius, question.where
    ids: NDArray[Any]
    distances: NDArray[Any]
    if k is None:
        assert radius is not None
        _, distances, ids = store.range_ids(code[None], radius, where=where)
        if len(ids) > MAX_K + 1:
            raise ApiError(
                422, "too_many_results",
                f"{len(ids):,} images are within distance {radius}, and an answer holds at most {MAX_K:,}: lower the "
                f"radius, or give k as well",
            )  # fmt: skip
    else:
        table = store.search_ids(code[None], k + (exclude is not None), radius=radius, where=where)
        distances, ids = table[0][0], table[1][0]
    pairs = zip(ids.tolist(), distances.tolist(), strict=True)
    return [(id, distance) for id, distance in pairs if id >= 0 and id != exclude][:k]


def parsed_code(text: str, n_bits: int) -> NDArray[np.uint8]:
    """Returns the code that hexadecimal digits say. Raises ApiError where they are none of this length."""
    n_bytes = n_code_bytes(n_bits)
    try:
        code = np.frombuffer(bytes.fromhex(text), np.uint8)
    except ValueError:
        code = np.empty(0, np.uint8)
    if len(code) != n_bytes:
        raise ApiError(422, "invalid", f"code: codes of this index are {2 * n_bytes} hexadecimal digits")
    if n_bits % 8 and code[-1] & ((1 << (8 - n_bits % 8)) - 1):
        raise ApiError(422, "invalid", f"code: the bits behind the {n_bits} of this index must be 0")
    return code
