import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.codes import as_words, check_codes, check_n_bits, hamming_distances, n_code_bytes, pack_bits, unpack_bits


def random_bits(n, n_bits, seed=0):
    return np.random.default_rng(seed).random((n, n_bits)) > 0.5


@given(n=st.integers(0, 20), n_bits=st.integers(1, 1024), seed=st.integers(0, 99))
def test_unpacking_gives_back_what_was_packed(n, n_bits, seed):
    bits = random_bits(n, n_bits, seed)
    codes = pack_bits(bits)
    assert codes.shape == (n, n_code_bytes(n_bits))
    assert codes.dtype == np.uint8
    assert np.array_equal(unpack_bits(codes, n_bits), bits)


def test_the_first_bit_is_the_most_significant_and_pads_are_zero():
    bits = np.zeros((1, 12), dtype=bool)
    bits[0, [0, 11]] = True
    assert pack_bits(bits).tolist() == [[0b10000000, 0b00010000]]


@given(n_bits=st.integers(1, 300), seed=st.integers(0, 99))
def test_hamming_distances_count_differing_bits(n_bits, seed):
    a, b = random_bits(5, n_bits, seed), random_bits(7, n_bits, seed + 1)
    expected = [[sum(x != y for x, y in zip(left, right, strict=True)) for right in b] for left in a]
    distances = hamming_distances(pack_bits(a), pack_bits(b))
    assert distances.dtype == np.int32
    assert distances.tolist() == expected


def test_hamming_distances_of_nothing_are_an_empty_table():
    assert hamming_distances(np.zeros((0, 8), np.uint8), np.zeros((3, 8), np.uint8)).shape == (0, 3)
    assert hamming_distances(np.zeros((3, 8), np.uint8), np.zeros((0, 8), np.uint8)).shape == (3, 0)


@pytest.mark.parametrize("width", range(1, 20))
def test_words_hold_the_bytes_of_the_codes(width):
    codes = np.random.default_rng(width).integers(0, 256, (3, width), dtype=np.uint8)
    words = as_words(codes)
    assert [row.tobytes().rstrip(b"\0") for row in words] == [row.tobytes().rstrip(b"\0") for row in codes]


def test_a_single_code_becomes_a_row_and_slices_become_contiguous():
    assert check_codes(np.zeros(8, np.uint8), 64).shape == (1, 8)
    assert check_codes(np.zeros((4, 16), np.uint8)[:, ::2], 64).flags.c_contiguous


@pytest.mark.parametrize(
    ("codes", "n_bits", "text"),
    [
        (np.zeros((2, 8), np.float32), 64, "queries have dtype float32, not uint8: pack bits with pack_bits"),
        (np.zeros((2, 64), bool), 64, "pack_bits"),
        (np.zeros((2, 8), np.int64), 64, "not uint8"),
        (np.zeros((2, 4), np.uint8), 64, "queries have 4 bytes each, 64 bits take 8: encode them with the model"),
        (np.zeros((2, 2, 8), np.uint8), 64, "pass (N, 8)"),
        (np.array([[0, 1]], np.uint8), 12, "pad bits must be 0"),
    ],
)
def test_wrong_codes_are_refused_with_the_fix(codes, n_bits, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        check_codes(codes, n_bits, name="queries")


@pytest.mark.parametrize("bits", [np.zeros(8, bool), np.full((1, 8), 2), np.full((1, 8), 0.5), np.full((1, 8), -1)])
def test_wrong_bits_are_refused(bits):
    with pytest.raises(ValueError, match="bits"):
        pack_bits(bits)


@pytest.mark.parametrize("n_bits", [0, 7, 1025, 64.0, True, "64"])
def test_unsupported_n_bits_are_refused(n_bits):
    with pytest.raises(ValueError, match="from 8 to 1024"):
        check_n_bits(n_bits)


def test_codes_of_two_widths_cannot_be_compared():
    with pytest.raises(ValueError, match="one model for both"):
        hamming_distances(np.zeros((1, 8), np.uint8), np.zeros((1, 4), np.uint8))
