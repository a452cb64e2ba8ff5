"""Pages of search results: ids and distances first, then the records of one page only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index import Filter, Row, Store, UnknownId, n_code_bytes

from .errors import ApiError
from .models import match_dict
from .settings import MAX_K

__all__ = ["Page", "Query", "Question", "parsed_code", "search_answer", "search_pages"]

Query = tuple[str, int | None, NDArray[np.uint8]]
"""(kind, id of an indexed image or None, code)."""


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
    matches: Sequence[tuple[Row, int]]


def search_answer(store: Store, queries: Sequence[Query], question: Question) -> dict[str, Any]:
    """Returns what `SearchAnswer` describes."""
    codes = np.array([code for _, _, code in queries])
    pages = search_pages(store, codes, question, excluded=[id for _, id, _ in queries])
    results = []
    for (kind, id, code), page in zip(queries, pages, strict=True):
        stop = page.offset + len(page.matches)
        results.append(
            {
                "query": {"kind": kind, "id": id, "code": code.tobytes().hex()},
                "total": page.total,
                "offset": page.offset,
                "next_offset": stop if page.matches and stop < page.total else None,
                "matches": [match_dict(row, distance) for row, distance in page.matches],
            }
        )
    return {"n_bits": store.n_bits, "epoch": store.epoch, "results": results}


def search_pages(
    store: Store, codes: NDArray[np.uint8], question: Question, *, excluded: Sequence[int | None]
) -> list[Page]:
    """Returns for each code (N, n_bytes) a page of the images nearest to it, without the one that it excludes.

    Raises:
        ApiError: more are within the radius than one answer may hold.
    """
    start, stop = question.offset, question.offset + question.limit
    for _ in range(8):
        found = _find(store, codes, question, excluded)
        shown = [pairs[start:stop] for pairs in found]
        try:
            rows = {row.id: row for row in store.rows({id for pairs in shown for id, _ in pairs})}
        except UnknownId:
            continue  # removed between search and look-up: search again
        return [
            Page(len(pairs), start, [(rows[id], distance) for id, distance in part])
            for pairs, part in zip(found, shown, strict=True)
        ]
    raise ApiError(503, "timeout", "images are being removed faster than they can be found: try again", retry_after=1)


def _find(
    store: Store, codes: NDArray[np.uint8], question: Question, excluded: Sequence[int | None]
) -> list[list[tuple[int, int]]]:
    """Returns (id, distance) of what each code has found."""
    k, radius, where = question.k, question.radius, question.where
    if k is None:
        assert radius is not None
        return [_within(store, code, radius, where, own) for code, own in zip(codes, excluded, strict=True)]
    distances, ids = store.search_ids(codes, k + any(excluded), radius=radius, where=where)
    return [
        [(id, distance) for id, distance in zip(*row, strict=True) if id >= 0 and id != own][:k]
        for own, *row in zip(excluded, ids.tolist(), distances.tolist(), strict=True)
    ]


def _within(
    store: Store, code: NDArray[np.uint8], radius: int, where: Filter | None, own: int | None
) -> list[tuple[int, int]]:
    _, distances, ids = store.range_ids(code[None], radius, where=where)
    if len(ids) > MAX_K + 1:
        raise ApiError(
            422, "too_many_results",
            f"{len(ids):,} images are within distance {radius}, and an answer holds at most {MAX_K:,}: lower the "
            f"radius, or give k as well",
        )  # fmt: skip
    return [(id, distance) for id, distance in zip(ids.tolist(), distances.tolist(), strict=True) if id != own]


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
