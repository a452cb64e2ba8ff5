"""FlyHash against slow loops; who wins, how many, and what the connections look like."""

import numpy as np
import pytest
from clusters import clusters, expected_map
from hypothesis import given, settings
from hypothesis import strategies as st

from deephash.shallow import FlyHash

X, LABELS = clusters()


def slow_flyhash(x, mean, connections, n_winners):
    """Dasgupta et al. 2017: each cell sums its inputs, the most active cells win."""
    bits = np.zeros((len(x), connections.shape[1]), bool)
    for i in range(len(x)):
        activity = []
        for cell in range(connections.shape[1]):
            total = 0.0
            for d in range(x.shape[1]):
                if connections[d, cell]:
                    total += float(x[i, d]) - float(mean[d])
            activity.append(total)
        for cell in sorted(range(len(activity)), key=lambda cell: -activity[cell])[:n_winners]:
            bits[i, cell] = True
    return bits


@pytest.mark.parametrize(("winners", "n_winners"), [(0.5, 12), (0.05, 1), (0.25, 6)])
def test_flyhash_equals_the_slow_loops(winners, n_winners):
    fly = FlyHash(24, winners=winners).fit(X)
    np.testing.assert_array_equal(fly.bits(X[:40]), slow_flyhash(X[:40], fly.mean, fly.connections, n_winners))
    np.testing.assert_allclose(fly.mean, X.mean(axis=0), rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**30), st.integers(8, 80), st.integers(1, 40), st.sampled_from([0.001, 0.05, 0.5, 0.999]))
def test_every_image_has_so_many_winners(seed, n_bits, dims, winners):
    x = np.random.default_rng(seed).standard_normal((30, dims))
    fly = FlyHash(n_bits, winners=winners, inputs=0.3, seed=seed).fit(x)
    counts = fly.bits(x).sum(axis=1)
    n_winners = min(max(1, round(winners * n_bits)), n_bits - 1)
    assert (counts <= n_winners).all()
    # Cells with the same inputs tie; where no two are alike, all places are taken.
    if len(np.unique(fly.connections, axis=1).T) == n_bits:
        assert (counts == n_winners).all()


def test_each_cell_adds_up_a_tenth_of_the_features():
    fly = FlyHash(64).fit(clusters(dims=100)[0])
    assert set(np.unique(fly.connections)) == {0, 1}
    assert (fly.connections.sum(axis=0) == 10).all()
    assert len(np.unique(fly.connections, axis=1).T) == 64
    assert fly.connections.sum(axis=1).std() > 1  # drawn for each cell by itself
    assert (FlyHash(8).fit(clusters(dims=3)[0]).connections.sum(axis=0) == 1).all()


def test_who_wins_does_not_depend_on_the_strength_of_the_smell():
    fly = FlyHash(32).fit(X)
    stronger = fly.mean + 3 * (X - fly.mean)
    assert (fly.bits(stronger) == fly.bits(X)).mean() > 0.999


def test_tied_cells_do_not_win():
    fly = FlyHash(16).fit(X)
    assert not fly.bits(fly.mean[None]).any()


def test_flyhash_finds_clusters():
    value, chance = expected_map(FlyHash(64), X, LABELS)
    assert value > chance + 0.1


@pytest.mark.parametrize("name", ["inputs", "winners"])
@pytest.mark.parametrize("value", [0, 1, -0.5, float("nan")])
def test_shares_lie_between_0_and_1(name, value):
    with pytest.raises(ValueError, match=f"{name} is"):
        FlyHash(16, **{name: value})
