"""A structure can be taken apart into arrays and made again, whatever somebody wrote into them."""

import numpy as np
import pytest

import index.kernel
from index.groups import Groups, to_words
from index.structures import MultiIndex, Scan
from tests.index.brute import random_codes

needs_kernel = pytest.mark.skipif(not index.kernel.AVAILABLE, reason="needs the compiled kernel")
STRUCTURES = [Scan, pytest.param(MultiIndex, marks=needs_kernel)]


def groups_of(n, n_bits, kind="clustered"):
    codes = random_codes(np.random.default_rng(n), n, n_bits, kind)
    return Groups.of(to_words(codes), np.arange(n)), to_words(codes[:20])


def made(kind, groups, n_bits):
    return Scan(groups.words) if kind is Scan else MultiIndex(groups.words, n_bits)


@pytest.mark.parametrize("kind", STRUCTURES)
@pytest.mark.parametrize("n_bits", [20, 64, 200])
def test_a_structure_made_of_its_arrays_answers_the_same(kind, n_bits):
    groups, queries = groups_of(3000, n_bits)
    structure = made(kind, groups, n_bits)
    again = kind.from_arrays(groups, n_bits, structure.arrays())
    for k, radius in ((10, n_bits), (None, 3)):
        for answer, expected in zip(
            again.find(groups, queries, k, radius), structure.find(groups, queries, k, radius), strict=True
        ):
            assert np.array_equal(answer, expected)
    assert again.n_bytes == structure.n_bytes


@pytest.mark.parametrize("kind", STRUCTURES)
def test_arrays_that_do_not_belong_to_the_groups_are_refused(kind):
    groups, _ = groups_of(3000, 64)
    arrays = dict(made(kind, groups, 64).arrays())
    wrong = [arrays | {"other": np.zeros(3, np.uint32)}]
    for name, array in arrays.items():
        wrong += [
            {other: arrays[other] for other in arrays if other != name},
            arrays | {name: array[:-1]},
            arrays | {name: array.astype(np.int64)},
            arrays | {name: np.repeat(array, 2)[::2]},
        ]
    for given in wrong:
        with pytest.raises(ValueError, match=r"arrays|array of"):
            kind.from_arrays(groups, 64, given)
