"""A structure can be taken apart into arrays and made again, whatever somebody wrote into them."""

import numpy as np
import pytest

import index.kernel
from index.groups import Groups, to_words
from index.structures import MultiIndex, Scan
from tests.index.brute import random_codes
from tests.index.compiled import needs_kernel

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


@needs_kernel
@pytest.mark.parametrize("n_bits", [64, 128])
def test_arrays_of_any_content_are_searched_within_bounds(n_bits):
    """Answers may be wrong then, and there are no more of them than there are ids; there is no crash."""
    rng = np.random.default_rng(n_bits)
    groups, queries = groups_of(2000, n_bits, "random")
    true = MultiIndex(groups.words, n_bits).arrays()
    for round in range(60):
        extremes = [np.zeros, np.ones, lambda n, dtype: np.full(n, np.iinfo(dtype).max, dtype)]
        contents = [lambda n, dtype: rng.integers(0, np.iinfo(dtype).max, n, dtype), *extremes]
        arrays, parts = dict(true), {"offsets": groups.offsets, "ids": groups.ids}
        for target in (arrays, parts):
            for name in [name for name in target if rng.random() < 0.5]:
                array = target[name].copy()
                some = rng.random(len(array)) < rng.choice([0.001, 0.1, 1.0])
                array[some] = contents[round % 4](len(array), array.dtype)[some]
                target[name] = array if rng.random() < 0.8 or target is arrays else -array
        hostile = Groups(groups.words, **parts)
        structure = MultiIndex.from_arrays(hostile, n_bits, arrays)
        for k, radius in ((10, n_bits), (3000, n_bits), (100, 3)):
            for searched in (structure, Scan(groups.words)):
                found = searched.find(hostile, queries, k, radius)
                assert len(found.ids) <= k * len(queries)


@needs_kernel
def test_ids_may_be_32_bits_wide_and_offsets_and_ids_may_be_missing():
    groups, queries = groups_of(500, 64, "random")
    expected = index.kernel.Searcher(groups).find(queries, 7, 64)
    assert len(groups.words) == len(groups.ids)
    for other in (
        Groups(groups.words, groups.offsets, groups.ids.astype(np.uint32)),
        Groups(groups.words, None, groups.ids),
        Groups(groups.words, None, groups.ids.astype(np.uint32)),
    ):
        for answer, true in zip(index.kernel.Searcher(other).find(queries, 7, 64), expected, strict=True):
            assert np.array_equal(answer, true)
    in_order = np.argsort(groups.ids)
    plain = Groups(groups.words[in_order], None, None)
    for answer, true in zip(index.kernel.Searcher(plain).find(queries, 7, 64), expected, strict=True):
        assert np.array_equal(answer, true)
    with pytest.raises(ValueError, match="ids"):
        index.kernel.Searcher(Groups(groups.words, None, groups.ids[:-1]))
    with pytest.raises(ValueError, match="neither int64 nor uint32"):
        index.kernel.Searcher(Groups(groups.words, groups.offsets, groups.ids.astype(np.uint8)))
