"""Clusters of copies: worked out once for each state of the index, in a thread of their own, whoever asks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future

from index import DuplicateCluster, Filter

from .stores import Stores

__all__ = ["DuplicateLists"]

_REMEMBERED = 4

Clusters = list[DuplicateCluster]
_Key = tuple[int | None, str, bool, int]


class DuplicateLists:
    """The last few lists of clusters, by radius, filter and state of the index."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._lists: OrderedDict[_Key, Future[Clusters]] = OrderedDict()
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()

    def clusters(self, radius: int | None, where: Filter | None, mirrored: bool, epoch: int) -> Future[Clusters]:
        """Returns the clusters, as ``Store.duplicates`` does, of the index at an epoch; it may take minutes."""
        key = (radius, repr(where), mirrored, epoch)
        with self._lock:
            found = self._lists.get(key)
            if found is not None and not (found.done() and found.exception() is not None):
                self._lists.move_to_end(key)
                return found
            future = self._lists[key] = Future()
            while len(self._lists) > _REMEMBERED:
                self._lists.popitem(last=False)
        work = threading.Thread(
            target=self._work, args=(future, radius, where, mirrored), name="deephash-copies", daemon=True
        )
        work.start()
        return future

    def _work(self, future: Future[Clusters], radius: int | None, where: Filter | None, mirrored: bool) -> None:
        with self._one_at_a_time:
            try:
                future.set_result(self._stores.patient.duplicates(radius, where, mirrored=mirrored))
            except BaseException as error:
                future.set_exception(error)
