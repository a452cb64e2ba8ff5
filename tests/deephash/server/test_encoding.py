"""Micro-batches: what waits is encoded together, each caller gets its own; a full queue sends callers away."""

import asyncio
import threading

import numpy as np
import pytest

from deephash import ModelError
from deephash.server.encoding import Encoder
from deephash.server.errors import ApiError
from tests.deephash.photos import pixels_of


@pytest.fixture
def gate():
    return threading.Event()


@pytest.fixture
def sizes():
    return []


@pytest.fixture
def encoder(tiny_model, gate, sizes):
    """An encoder of batches up to 4, for 12 images that wait; it starts to work when the gate opens."""

    def load():
        assert gate.wait(20)
        return tiny_model

    encoder = Encoder(load, max_batch=4, max_waiting=12, on_batch=sizes.append)
    encoder.start()
    yield encoder
    gate.set()
    encoder.close()


def pixels(start, stop):
    return [pixels_of(number) for number in range(start, stop)]


def test_what_waits_is_encoded_together_and_each_gets_its_own(encoder, gate, sizes, tiny_model):
    requests = [pixels(0, 1), pixels(1, 3), pixels(3, 4), pixels(4, 7), pixels(7, 12)]

    async def work():
        waiting = [asyncio.ensure_future(encoder.features(request)) for request in requests]
        while encoder.waiting < 12:
            await asyncio.sleep(0.001)
        gate.set()
        return await asyncio.gather(*waiting)

    for request, found in zip(requests, asyncio.run(work()), strict=True):
        assert np.allclose(found, tiny_model.features(np.stack(request)), atol=1e-5)
    assert sizes == [4, 3, 5]  # 1 + 2 + 1; 3, because 5 more are too many; 5, more than a batch, on its own
    assert encoder.waiting == 0
    assert encoder.is_ready


def test_more_than_may_wait_are_sent_away_with_a_time(encoder, gate):
    async def work():
        waiting = asyncio.ensure_future(encoder.features(pixels(0, 12)))
        while encoder.waiting < 12:
            await asyncio.sleep(0.001)
        with pytest.raises(ApiError, match="12 images wait to be encoded") as refused:
            await encoder.features(pixels(0, 1))
        assert (refused.value.status_code, refused.value.code) == (429, "busy")
        assert refused.value.headers["Retry-After"] == "1"
        gate.set()
        assert (await waiting).shape[0] == 12
        assert (await encoder.features(pixels(0, 1))).shape[0] == 1

    asyncio.run(work())


def test_callers_that_gave_up_cost_no_work(encoder, gate, sizes):
    async def work():
        gone = asyncio.ensure_future(encoder.features(pixels(0, 3)))
        stays = asyncio.ensure_future(encoder.features(pixels(3, 4)))
        while encoder.waiting < 4:
            await asyncio.sleep(0.001)
        gone.cancel()
        await asyncio.sleep(0.01)
        gate.set()
        return await stays

    assert asyncio.run(work()).shape[0] == 1
    assert sizes == [1]


def test_a_model_that_cannot_be_loaded_is_told_to_everybody():
    def load():
        raise ModelError("the index has lost its model")

    encoder = Encoder(load, max_batch=4, max_waiting=12)
    encoder.start()

    async def work():
        for _ in range(2):
            with pytest.raises(ModelError, match="lost its model"):
                await encoder.features(pixels(0, 1))
        with pytest.raises(ModelError, match="lost its model"):
            await encoder.loaded()

    asyncio.run(work())
    assert (encoder.is_ready, encoder.trouble) == (False, "the index has lost its model")
    encoder.close()
