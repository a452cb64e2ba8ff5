"""Spectral hashing against the equations of the paper in slow loops, and on boxes whose eigenfunctions are known."""

import math

import numpy as np
import pytest
from clusters import clusters

from deephash.shallow import SpectralHashing


def slow_spectral(x, n_bits):
    """Weiss et al. 2008 in float64: all (eigenvalue, axis, k) by equation 7, sorted; equation 6 for each image."""
    x = x.astype(np.float64)
    centred = x - x.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[: min(n_bits, int((singular > 1e-3 * singular[0]).sum()))]
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    v = centred @ axes.T
    low, high = v.min(axis=0), v.max(axis=0)
    eps = (high - low).max() / n_bits / math.pi
    found = []
    for axis in range(len(axes)):
        for k in range(1, n_bits + 1):
            found.append((1 - math.exp(-(eps**2) / 2 * (k * math.pi / (high[axis] - low[axis])) ** 2), k, axis))
    chosen = sorted(found)[:n_bits]
    logits = np.empty((len(x), n_bits))
    for i in range(len(x)):
        for j, (_, k, axis) in enumerate(chosen):
            logits[i, j] = math.sin(math.pi / 2 + k * math.pi / (high[axis] - low[axis]) * (v[i, axis] - low[axis]))
    return logits, [axis for _, _, axis in chosen], [k for _, k, _ in chosen]


@pytest.mark.parametrize(("n", "n_bits"), [(60, 8), (60, 40), (12, 24)])
def test_spectral_hashing_equals_the_equations_of_the_paper(n, n_bits):
    x = clusters(n=n, dims=16)[0]
    method = SpectralHashing(n_bits).fit(x)
    logits, axes, modes = slow_spectral(x, n_bits)
    assert method.axes.tolist() == axes
    assert method.modes.tolist() == modes
    np.testing.assert_allclose(method.logits(x), logits, atol=1e-3)


def test_a_box_is_cut_along_its_longest_side_first():
    rng = np.random.default_rng(0)
    x = rng.uniform(-0.5, 0.5, (20_000, 3)) * [10, 4.5, 1]  # k / width: .1 .2 .3 | .22 .44 | 1
    method = SpectralHashing(8).fit(x.astype(np.float32))
    assert list(zip(method.axes, method.modes, strict=True)) == [
        (0, 1), (0, 2), (1, 1), (0, 3), (0, 4), (1, 2), (0, 5), (0, 6)
    ]  # fmt: skip
    # On a uniform box the eigenfunctions are balanced, orthogonal, and of one size.
    logits = method.logits(x.astype(np.float32)).astype(np.float64)
    np.testing.assert_allclose((logits > 0).mean(axis=0), 0.5, atol=0.02)
    np.testing.assert_allclose(logits.T @ logits / len(x), np.eye(8) / 2, atol=0.02)


def test_more_bits_than_dimensions_are_different_eigenfunctions():
    x = clusters(dims=5)[0]
    method = SpectralHashing(200).fit(x)
    assert len(set(zip(method.axes, method.modes, strict=True))) == 200
    assert len(np.unique(method.bits(x), axis=1).T) == 200


def test_the_seed_and_the_scale_of_the_features_change_nothing():
    x = clusters()[0]
    bits = SpectralHashing(24).fit(x).bits(x)
    np.testing.assert_array_equal(SpectralHashing(24, seed=5).fit(x).bits(x), bits)
    assert (SpectralHashing(24).fit(4 * x).bits(4 * x) == bits).mean() > 0.999
