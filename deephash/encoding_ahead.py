"""Encodes batches one ahead of whoever stores them, so that neither waits for the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from .image_files import Decoded, Failed

__all__ = ["encode_ahead"]

_T = TypeVar("_T")


def encode_ahead(
    batches: Iterable[list[Decoded | Failed]], encode: Callable[[list[Decoded]], _T], prepare: Callable[[], object]
) -> Generator[tuple[list[Decoded], _T | None, list[Failed]], None, None]:
    """Yields, for each batch in order, its images, what ``encode`` gave for them (None without images) and the failed.

    ``prepare``, which makes what ``encode`` needs, runs in a thread while the first batches are decoded; an error in it
    is raised where there is something to encode. Then ``encode`` runs in threads, on the next batch while the consumer
    has one; two batches are in it where one ends and the other begins. An error in it is raised at the turn of its
    batch. At most three batches are in memory here: the one handed out, and two being encoded.
    """
    pending: deque[tuple[list[Decoded], Future[_T] | None, list[Failed]]] = deque()
    threads = ThreadPoolExecutor(2, thread_name_prefix="deephash-batch")

    def take() -> tuple[list[Decoded], _T | None, list[Failed]]:
        images, encoded, failed = pending.popleft()
        return images, None if encoded is None else encoded.result(), failed

    try:
        prepared = threads.submit(prepare)
        for batch in batches:
            images = [item for item in batch if isinstance(item, Decoded)]
            failed = [item for item in batch if isinstance(item, Failed)]
            if images:
                prepared.result()
            encoded = threads.submit(encode, images) if images else None
            pending.append((images, encoded, failed))
            if len(pending) > 1:
                yield take()
        while pending:
            yield take()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
