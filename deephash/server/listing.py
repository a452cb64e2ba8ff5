"""Pages of all images, or of those that a filter lets through: scrolling costs one scan for each state of the index."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from index import Filter, UnknownId

from .errors import ApiError
from .models import image_dict
from .stores import Stores

__all__ = ["Lists"]

_REMEMBERED = 4


class Lists:
    """The ids that the last few filters let through, each at one state of the index."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._lists: LRUCache[tuple[str, int], NDArray[np.int64]] = LRUCache(_REMEMBERED)
        self._lock = threading.Lock()

    def page(self, where: Filter | None, offset: int, limit: int) -> dict[str, Any]:
        """Returns a page of images by id, as `ImageList` describes it."""
        store = self._stores.patient
        for _ in range(8):
            epoch = store.epoch
            ids = self._ids(where, epoch)
            shown = ids[offset : offset + limit].tolist()
            try:
                records = store.records(shown)
            except UnknownId:
                continue  # removed since: list again
            stop = offset + len(shown)
            return {
                "total": len(ids), "offset": offset, "next_offset": stop if shown and stop < len(ids) else None,
                "epoch": epoch, "images": [image_dict(record) for record in records],
            }  # fmt: skip
        raise ApiError(503, "timeout", "images are being removed faster than they are listed: try again", retry_after=1)

    def _ids(self, where: Filter | None, epoch: int) -> NDArray[np.int64]:
        key = (repr(where), epoch)
        with self._lock:
            found = self._lists.get(key)
            if found is None:
                found = self._lists[key] = self._stores.patient.ids(where)
        return found
