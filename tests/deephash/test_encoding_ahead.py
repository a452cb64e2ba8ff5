"""Batches are encoded one ahead: in order, with what failed, and errors at their turn."""

import threading

import numpy as np
import pytest

from deephash.encoding_ahead import encode_ahead
from deephash.image_files import Decoded, Failed
from index import FileStat


def image(name):
    nothing = np.empty((0, 0, 3), np.uint8)
    return Decoded(FileStat(name, 1, 1), b"", 1, 1, nothing, nothing)


def failure(name):
    return Failed(FileStat(name, 1, 1), "is empty")


def names(items):
    return [item.file.path for item in items]


def test_every_batch_comes_in_order_with_what_was_encoded_and_what_failed():
    batches = [[image("a"), failure("b"), image("c")], [failure("d")], [image("e")], [failure("f"), image("g")]]
    found = [(names(good), encoded, names(bad)) for good, encoded, bad in encode_ahead(batches, names)]
    assert found == [
        (["a", "c"], ["a", "c"], ["b"]), ([], None, ["d"]), (["e"], ["e"], []), (["g"], ["g"], ["f"]),
    ]  # fmt: skip
    assert list(encode_ahead([], names)) == []


def test_the_next_batch_is_encoded_while_the_consumer_has_one():
    is_encoded = {name: threading.Event() for name in "abc"}

    def encode(images):
        is_encoded[names(images)[0]].set()

    batches = encode_ahead([[image(name)] for name in "abc"], encode)
    assert names(next(batches)[0]) == ["a"]
    assert is_encoded["b"].wait(10)
    assert names(next(batches)[0]) == ["b"]
    assert is_encoded["c"].wait(10)
    batches.close()


def test_the_first_batch_is_encoded_alone():
    running, most, is_first_done = 0, [], threading.Event()
    lock = threading.Lock()

    def encode(images):
        nonlocal running
        with lock:
            running += 1
            most.append((names(images)[0], running, is_first_done.is_set()))
        if names(images) == ["b"]:
            is_first_done.set()
        with lock:
            running -= 1

    list(encode_ahead([[failure("a")], [image("b")], [image("c")], [image("d")]], encode))
    assert most[0] == ("b", 1, False)
    assert all(after_first for _, _, after_first in most[1:])


def test_an_error_is_raised_at_the_turn_of_its_batch():
    def encode(images):
        if names(images) == ["b"]:
            raise RuntimeError("no memory")
        return names(images)

    batches = encode_ahead([[image(name)] for name in "abc"], encode)
    assert next(batches)[1] == ["a"]
    with pytest.raises(RuntimeError, match="no memory"):
        next(batches)


def test_no_more_than_one_batch_is_taken_ahead():
    taken = []

    def source():
        for name in "abcdef":
            taken.append(name)
            yield [image(name)]

    batches = encode_ahead(source(), names)
    for n, _ in enumerate(batches, 1):
        assert len(taken) == min(n + 1, 6)
