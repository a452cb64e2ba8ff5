"""Pages of search results: ids and distances first, then the records of one page only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index import Filter, Record, Store, UnknownId

from .errors import ApiError
from .settings import MAX_K

__all__ = ["Page", "Question", "search_page"]


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
