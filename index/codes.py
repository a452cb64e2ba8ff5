"""Codes: bits packed into bytes, most significant bit first, pad bits 0. The bit order is defined here, once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]
"""(N, n_code_bytes(n_bits)) uint8, C-contiguous."""

_UINT8 = np.dtype(np.uint8)

MIN_BITS = 8
MAX_BITS = 1024

# Cells of the distance table computed at once: 2^22 uint64 words are 32 MiB.
_BLOCK_WORDS = 1 << 22


def check_n_bits(n_bits: int) -> int:
    """Return n_bits as an int.

    Raises:
        ValueError: n_bits is not an integer between 8 and 1024.
    """
    if isinstance(n_bits, bool) or not isinstance(n_bits, (int, np.integer)) or not MIN_BITS <= n_bits <= MAX_BITS:
        raise ValueError(f"n_bits is {n_bits!r}: use an integer from {MIN_BITS} to {MAX_BITS}")
    return int(n_bits)


def n_code_bytes(n_bits: int) -> int:
    """Return the number of bytes of one code: n_bits / 8, rounded up."""
    return (int(n_bits) + 7) // 8


def pack_bits(bits: npt.ArrayLike) -> Codes:
    """Pack bits (N, n_bits), bool or 0/1 integers, into codes (N, ceil(n_bits / 8)) uint8.

    Raises:
        ValueError: not two-dimensional, or values other than 0 and 1 (for logits, pass `logits > 0`).
    """
    array = np.asarray(bits)
    if array.ndim != 2:
        raise ValueError(f"bits have shape {array.shape}: pass (N, n_bits)")
    if array.dtype != np.bool_:
        if array.dtype.kind not in "iu" or (array.size and (array.min() < 0 or array.max() > 1)):
            raise ValueError(f"bits of dtype {array.dtype} hold other values than 0 and 1: pass `logits > 0`")
        array = array.astype(np.bool_)
    return np.ascontiguousarray(np.packbits(array, axis=1))


def unpack_bits(codes: npt.ArrayLike, n_bits: int) -> npt.NDArray[np.bool_]:
    """Unpack codes (N, ceil(n_bits / 8)) uint8 into bits (N, n_bits) bool.

    Raises:
        ValueError: as `check_codes`.
    """
    return np.unpackbits(check_codes(codes, n_bits), axis=1, count=int(n_bits)).astype(np.bool_)


def check_codes(codes: npt.ArrayLike, n_bits: int, *, name: str = "codes") -> Codes:
    """Return codes as a C-contiguous (N, ceil(n_bits / 8)) uint8 array; a single code (n_bytes,) becomes (1, n_bytes).

    Raises:
        ValueError: another dtype, shape or width, or pad bits that are not 0. The text begins with `name`.
    """
    array: npt.NDArray[Any] = np.asarray(codes)
    width = n_code_bytes(n_bits)
    if array.dtype != _UINT8:
        hint = "pack bits with pack_bits(logits > 0)" if array.dtype.kind in "bf" else "codes are uint8 arrays"
        raise ValueError(f"{name} have dtype {array.dtype}, not uint8: {hint}")
    if array.ndim == 1:
        array = array.reshape(1, -1)
    if array.ndim != 2:
        raise ValueError(f"{name} have shape {array.shape}: pass (N, {width})")
    if array.shape[1] != width:
        raise ValueError(
            f"{name} have {array.shape[1]} bytes each, {n_bits} bits take {width}: "
            f"encode them with the model that the index was built with"
        )
    n_pad = 8 * width - int(n_bits)
    if n_pad and np.any(array[:, -1] & ((1 << n_pad) - 1)):
        raise ValueError(f"{name} have bits set behind bit {n_bits}: pad bits must be 0, pack with pack_bits(bits)")
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def hamming_distances(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """Return the Hamming distance of every code of a (N, n_bytes) to every code of b (M, n_bytes): (N, M) int32.

    Raises:
        ValueError: not uint8, not two-dimensional, or widths that differ.
    """
    left, right = np.asarray(a), np.asarray(b)
    if left.dtype != np.uint8 or right.dtype != np.uint8 or left.ndim != 2 or right.ndim != 2:
        shapes = f"{left.shape} {left.dtype} and {right.shape} {right.dtype}"
        raise ValueError(f"codes are (N, n_bytes) uint8, these are {shapes}: pack bits with pack_bits(logits > 0)")
    if left.shape[1] != right.shape[1]:
        widths = f"{left.shape[1]} and of {right.shape[1]} bytes"
        raise ValueError(f"codes of {widths} cannot be compared: use one model for both")
    left_words, right_words = as_words(left), as_words(right)
    distances = np.zeros((len(left), len(right)), dtype=np.int32)
    step = max(1, _BLOCK_WORDS // max(1, len(right)))
    for start in range(0, len(left), step):
        block = distances[start : start + step]
        for word in range(left_words.shape[1]):
            block += np.bitwise_count(left_words[start : start + step, word, None] ^ right_words[None, :, word])
    return distances


def as_words(codes: Codes) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Return codes (N, n_bytes) as a few wide unsigned words each, for XOR and bit counts: a view, or a padded copy."""
    width = codes.shape[1]
    for dtype in (np.uint64, np.uint32, np.uint16, np.uint8):
        size = np.dtype(dtype).itemsize
        if width % size == 0 and (size == 8 or width < 8):
            return np.ascontiguousarray(codes).view(dtype)
    padded = np.zeros((len(codes), -(-width // 8) * 8), dtype=np.uint8)
    padded[:, :width] = codes
    return padded.view(np.uint64)
