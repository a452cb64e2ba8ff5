"""Turns pixels into features, one batch for all requests that wait: one thread owns the model."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import busy

if TYPE_CHECKING:
    from ..encoding_model import EncodingModel

__all__ = ["Encoder"]


class Encoder:
    """One thread that loads the model and then encodes what waits, up to ``max_batch`` images at a time.

    Nothing waits for a batch to fill: while one is encoded, the next gathers.

    Args:
        load_model: called once, in the thread.
        max_batch: images in a batch.
        max_waiting: images that may wait.
        on_batch: called with the size of each batch.
    """

    def __init__(
        self,
        load_model: Callable[[], EncodingModel],
        *,
        max_batch: int,
        max_waiting: int,
        on_batch: Callable[[int], None] = lambda n: None,
    ) -> None:
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._on_batch = on_batch
        self._model: Future[EncodingModel] = Future()
        self._items: deque[tuple[Sequence[NDArray[np.uint8]], Future[NDArray[np.float32]]]] = deque()
        self._n_waiting = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, args=(load_model,), name="deephash-encoder", daemon=True)

    def start(self) -> None:
        """Starts to load the model, without waiting for it."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Images that wait to be encoded."""
        return self._n_waiting

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded."""
        return self._model.done() and self._model.exception() is None

    @property
    def trouble(self) -> str | None:
        """Why there is no model, or None."""
        error = self._model.exception() if self._model.done() else None
        return None if error is None else str(error)

    def model(self) -> EncodingModel:
        """Returns the model; waits until it is loaded. Raises what loading it raised."""
        return self._model.result()

    async def loaded(self) -> EncodingModel:
        """Returns the model as `model` does, without holding up others."""
        return await asyncio.wrap_future(self._model) if not self._model.done() else self._model.result()

    async def features(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Returns features (N, n_features) float32 of N images as the model wants them.

        Raises:
            ApiError: too many wait already.
            ModelError: the model cannot be loaded.
        """
        future: Future[NDArray[np.float32]] = Future()
        with self._changed:
            if self._n_waiting + len(pixels) > max(self._max_waiting, len(pixels)):
                raise busy(f"{self._n_waiting} images wait to be encoded")
            self._n_waiting += len(pixels)
            self._items.append((pixels, future))
            self._changed.notify()
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Lets the batch at hand finish, drops the rest."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout=10)

    def _run(self, load_model: Callable[[], Any]) -> None:
        try:
            model = load_model()
            size = model.input_spec.size
            model.features(np.zeros((1, size, size, 3), np.uint8))  # folds the network, before anybody waits for it
            # What came with the model stays: collections, which hold up all threads, need not look at it again.
            gc.freeze()
        except BaseException as error:
            self._model.set_exception(error)
            model = None
        else:
            self._model.set_result(model)
        while batch := self._next_batch():
            self._encode(model, batch)

    def _next_batch(self) -> list[tuple[Sequence[NDArray[np.uint8]], Future[NDArray[np.float32]]]]:
        batch: list[tuple[Sequence[NDArray[np.uint8]], Future[NDArray[np.float32]]]] = []
        with self._changed:
            while not batch:
                self._changed.wait_for(lambda: self._items or self._closed)
                if self._closed:
                    for _, future in self._items:
                        future.cancel()
                    return []
                n_taken = 0
                while self._items and (not batch or n_taken + len(self._items[0][0]) <= self._max_batch):
                    pixels, future = self._items.popleft()
                    self._n_waiting -= len(pixels)
                    if future.set_running_or_notify_cancel():  # not where the caller has gone
                        batch.append((pixels, future))
                        n_taken += len(pixels)
        return batch

    def _encode(
        self,
        model: EncodingModel | None,
        batch: Sequence[tuple[Sequence[NDArray[np.uint8]], Future[NDArray[np.float32]]]],
    ) -> None:
        try:
            if model is None:
                raise self._model.exception() or RuntimeError("no model")
            pixels = np.stack([image for images, _ in batch for image in images])
            self._on_batch(len(pixels))
            features = model.features(pixels)
        except BaseException as error:
            for _, future in batch:
                future.set_exception(error)
            return
        start = 0
        for images, future in batch:
            future.set_result(features[start : start + len(images)])
            start += len(images)
