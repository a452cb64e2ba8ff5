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


def nothing():
    """What needs no preparation."""


def names(items):
    return [item.file.path for item in items]


def test_every_batch_comes_in_order_with_what_was_encoded_and_what_failed():
    batches = [[image("a"), failure("b"), image("c")], [failure("d")], [image("e")], [failure("f"), image("g")]]
    found = [(names(good), encoded, names(bad)) for good, encoded, bad in encode_ahead(batches, names, nothing)]
    assert found == [
        (["a", "c"], ["a", "c"], ["b"]), ([], None, ["d"]), (["e"], ["e"], []), (["g"], ["g"], ["f"]),
    ]  # fmt: skip
    assert list(encode_ahead([], names, nothing)) == []


def test_the_next_batch_is_encoded_while_the_consumer_has_one():
    is_encoded = {name: threading.Event() for name in "abc"}

    def encode(images):
        is_encoded[names(images)[0]].set()

    batches = encode_ahead([[image(name)] for name in "abc"], encode, nothing)
    assert names(next(batches)[0]) == ["a"]
    assert is_encoded["b"].wait(10)
    assert names(next(batches)[0]) == ["b"]
    assert is_encoded["c"].wait(10)
    batches.close()


def test_nothing_is_encoded_before_all_is_prepared_and_the_first_batch_is_made_meanwhile():
    is_decoded, is_prepared = threading.Event(), threading.Event()

    def batches():
        is_decoded.set()
        yield [failure("a")]
        yield [image("b")]
        yield [image("c")]

    def prepare():
        assert is_decoded.wait(10)
        is_prepared.set()

    encoded = [done for _, done, _ in encode_ahead(batches(), lambda images: is_prepared.is_set(), prepare)]
    assert encoded == [None, True, True]


def test_what_cannot_be_prepared_is_an_error_only_where_there_is_an_image():
    def prepare():
        raise RuntimeError("no such encoder")

    assert [names(failed) for _, _, failed in encode_ahead([[failure("a")]], names, prepare)] == [["a"]]
    with pytest.raises(RuntimeError, match="no such encoder"):
        list(encode_ahead([[failure("a")], [image("b")]], names, prepare))


def test_an_error_is_raised_at_the_turn_of_its_batch():
    def encode(images):
        if names(images) == ["b"]:
            raise RuntimeError("no memory")
        return names(images)

    batches = encode_ahead([[image(name)] for name in "abc"], encode, nothing)
    assert next(batches)[1] == ["a"]
    with pytest.raises(RuntimeError, match="no memory"):
        next(batches)


def test_no_more_than_one_batch_is_taken_ahead():
    taken = []

    def source():
        for name in "abcdef":
            taken.append(name)
            yield [image(name)]

    batches = encode_ahead(source(), names, nothing)
    for n, _ in enumerate(batches, 1):
        assert len(taken) == min(n + 1, 6)
