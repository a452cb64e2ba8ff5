"""The model in a process of its own: the same codes, errors in a sentence, nothing left behind."""

import os
import signal

import numpy as np
import pytest

from deephash import ModelError
from deephash.server.background import BackgroundModel
from tests.deephash.photos import pixels_of


@pytest.fixture
def background(tiny_model, tiny_file):
    background = BackgroundModel(tiny_file, tiny_model.input_spec)
    yield background
    background.close()


def test_codes_are_those_of_the_model_and_the_process_yields_to_others(background, tiny_model):
    pixels = np.stack([pixels_of(number) for number in range(5)])
    for start, stop in ((0, 5), (3, 4)):
        expected = tiny_model.encode(pixels[start:stop])
        assert np.array_equal(background.encode(pixels[start:stop]), expected)
    pid = background._process.pid
    assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)
    background.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_is_killed_is_said(background):
    os.kill(background._process.pid, signal.SIGKILL)
    with pytest.raises(ModelError, match="was killed: free memory"):
        background.encode(np.stack([pixels_of(0)]))


def test_a_model_that_cannot_be_loaded_is_said(tiny_model, tmp_path):
    background = BackgroundModel(tmp_path / "gone.safetensors", tiny_model.input_spec)
    with pytest.raises(ModelError, match=r"gone\.safetensors"):
        background.encode(np.stack([pixels_of(0)]))
    background.close()
