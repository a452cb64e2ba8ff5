"""Code health against loops over bits and codes."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deephash.evaluation import code_health
from index.codes import pack_bits


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_bits=st.sampled_from([8, 12, 65, 130]), n=st.integers(1, 60))
def test_health_equals_slow_loops(seed, n_bits, n):
    rng = np.random.default_rng(seed)
    bits = rng.random((n, n_bits)) < rng.random(n_bits) ** 3
    bits = bits[rng.integers(0, n, n)]
    health = code_health(pack_bits(bits), n_bits=n_bits)

    means = [sum(int(row[b]) for row in bits) / n for b in range(n_bits)]
    assert health.bit_means == pytest.approx(means)
    assert health.worst_imbalance == pytest.approx(max(abs(mean - 0.5) for mean in means))
    assert health.mean_imbalance == pytest.approx(np.mean([abs(mean - 0.5) for mean in means]))
    varying = [b for b in range(n_bits) if 0 < means[b] < 1]
    assert health.constant_bits == n_bits - len(varying)
    correlations = [abs(np.corrcoef(bits[:, a], bits[:, b])[0, 1]) for a, b in itertools.combinations(varying, 2)]
    assert health.mean_correlation == pytest.approx(np.mean(correlations) if correlations else 0, abs=1e-9)
    assert health.max_correlation == pytest.approx(max(correlations, default=0), abs=1e-9)
    groups = Counter(row.tobytes() for row in bits)
    assert health.distinct_codes == len(groups)
    assert health.largest_group == max(groups.values()) / n
    assert health.entropy == pytest.approx(-sum(c / n * math.log2(c / n) for c in groups.values()), abs=1e-12)
    assert (health.n_codes, health.n_bits) == (n, n_bits)


def test_all_codes_of_8_bits_are_perfectly_healthy():
    health = code_health(np.arange(256, dtype=np.uint8)[:, None], n_bits=8)
    assert health.worst_imbalance == health.max_correlation == 0
    assert (health.distinct_codes, health.entropy, health.largest_group) == (256, 8, 1 / 256)


def test_one_single_code_is_as_ill_as_can_be():
    health = code_health(np.full((100, 2), 255, np.uint8), n_bits=16)
    assert (health.worst_imbalance, health.constant_bits, health.max_correlation) == (0.5, 16, 0)
    assert (health.distinct_codes, health.entropy, health.largest_group) == (1, 0, 1)
    assert math.copysign(1, health.entropy) == 1


def test_many_blocks_are_one_set():
    codes = np.random.default_rng(0).integers(0, 256, (40_000, 2), dtype=np.uint8)
    health = code_health(codes, n_bits=16)
    bits = np.unpackbits(codes, axis=1)
    assert health.bit_means == pytest.approx(bits.mean(axis=0).tolist())
    r = np.abs(np.corrcoef(bits.T))
    assert health.mean_correlation == pytest.approx(r[np.triu_indices(16, 1)].mean())
    assert health.distinct_codes == len(np.unique(codes, axis=0))


@pytest.mark.parametrize(
    ("codes", "text"),
    [(np.zeros((0, 2), np.uint8), "no codes"), (np.zeros((3, 4), np.uint8), "have 4 bytes"), ([[1, 2]], "not uint8")],
)
def test_wrong_codes_are_an_error(codes, text):
    with pytest.raises(ValueError, match=text):
        code_health(codes, n_bits=16)
