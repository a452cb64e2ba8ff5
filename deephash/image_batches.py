"""Decodes many files in threads, ahead of the model that consumes them."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeAlias

from index import FileStat

from .image_files import Decoded, Failed, decode_file
from .image_limits import MAX_PIXELS
from .input_spec import InputSpec
from .machine import count_processors

__all__ = ["Decode", "ImageBatches"]

Decode: TypeAlias = Callable[[FileStat, InputSpec], Decoded | Failed]
"""Hashes, decodes and prepares one file; whatever is wrong with it comes back as `Failed`."""


class ImageBatches:
    """Decodes files in threads, ahead of the one who iterates; gives lists of `Decoded` and `Failed` in input order.

    A list ends when it holds ``batch_size`` decoded images (or four times as many items, where most of them failed),
    and at the end of the input. At most two batches are in memory: the one handed out and the one being decoded.
    Closing the iterator, or an error in it, drops what is not yet decoded and returns at once.

    Args:
        files: What to decode; taken one by one, from the iterating thread.
        spec: What the model wants.
        batch_size: Decoded images in a batch.
        workers: Threads; by default one for each processor that the process may use, 16 at most.
        max_pixels: As in `load_image`.
        decode: Decodes one file; called with the file and the spec, in the threads. By default `decode_file`.
    """

    def __init__(
        self,
        files: Iterable[FileStat],
        spec: InputSpec,
        *,
        batch_size: int = 32,
        workers: int | None = None,
        max_pixels: int = MAX_PIXELS,
        decode: Decode | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self._files = files
        self._spec = spec
        self._batch_size = batch_size
        self._workers = workers or min(count_processors(), 16)
        self._decode = decode or partial(decode_file, max_pixels=max_pixels)

    def __iter__(self) -> Generator[list[Decoded | Failed], None, None]:
        files = iter(self._files)
        n_ahead = max(self._batch_size, self._workers)
        pending: deque[Future[Decoded | Failed]] = deque()
        batch: list[Decoded | Failed] = []
        n_decoded = 0
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="deephash-decode")
        try:
            while True:
                for file in itertools.islice(files, n_ahead - len(pending)):
                    pending.append(pool.submit(self._decode, file, self._spec))
                if not pending:
                    break
                item = pending.popleft().result()
                batch.append(item)
                n_decoded += isinstance(item, Decoded)
                if n_decoded == self._batch_size or len(batch) == 4 * self._batch_size:
                    yield batch
                    batch, n_decoded = [], 0
            if batch:
                yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
