"""ITQ against the paper's equations in slow loops, and against LSH, the baseline it must beat."""

import numpy as np
import pytest
from clusters import clusters, expected_map
from hypothesis import given, settings
from hypothesis import strategies as st

from deephash.shallow import ITQ, LSH, components


def slow_itq(x, n_bits, iterations, rotation):
    """Gong & Lazebnik 2011 in float64, step by step: PCA by SVD, B = sgn(VR), then the Procrustes problem."""
    x = x.astype(np.float64)
    v = x - x.mean(axis=0)
    components = np.linalg.svd(v, full_matrices=False)[2][:n_bits].T
    components *= np.sign(components[np.abs(components).argmax(axis=0), np.arange(n_bits)])
    v = v @ components
    losses = []
    for iteration in range(iterations + 1):
        b = np.empty_like(v)
        for i in range(len(v)):
            for k in range(n_bits):
                b[i, k] = 1 if v[i] @ rotation[:, k] > 0 else -1
        losses.append(np.square(b - v @ rotation).mean())
        if iteration < iterations:
            s, _, s_hat = np.linalg.svd(b.T @ v)  # B^T V = S Omega S_hat^T, R = S_hat S^T
            rotation = s_hat.T @ s.T
    return components @ rotation, losses


@pytest.mark.parametrize("n", [12, 60])  # fewer samples than dimensions: the other way to the components
def test_itq_equals_the_equations_of_the_paper(n):
    x = clusters(n=n, dims=16)[0]
    start = ITQ(8, iterations=0, seed=3).fit(x)
    fast = ITQ(8, iterations=6, seed=3).fit(x)
    components = slow_itq(x, 8, 0, np.eye(8))[0]
    projection, losses = slow_itq(x, 8, 6, components.T @ start.projection.astype(np.float64))
    np.testing.assert_allclose(fast.projection, projection, atol=2e-4)
    np.testing.assert_allclose(fast.losses[0], losses, rtol=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_bits=st.integers(8, 80), n=st.integers(2, 100), dims=st.integers(1, 40))
def test_the_loss_never_increases_at_any_shape(seed, n_bits, n, dims):
    x = np.random.default_rng(seed).standard_normal((n, dims)).astype(np.float32)
    itq = ITQ(n_bits, iterations=10, seed=seed).fit(x)
    assert itq.projection.shape == (dims, n_bits)
    assert itq.projection.dtype == itq.mean.dtype == np.float32
    assert np.isfinite(itq.projection).all()
    assert (np.diff(itq.losses, axis=1) <= 1e-5 * (1 + np.abs(itq.losses[:, :1]))).all()


def test_the_losses_are_the_quantization_error_of_the_projection():
    x, _ = clusters()
    itq = ITQ(24, iterations=5).fit(x)
    logits = itq.logits(x).astype(np.float64)
    assert itq.losses.shape == (1, 6)
    assert itq.losses[0, -1] == pytest.approx(np.square(np.where(logits > 0, 1, -1) - logits).mean(), rel=1e-5)
    assert itq.losses[0, -1] < itq.losses[0, 0]


@pytest.mark.parametrize("n", [40, 600])
def test_the_projection_is_orthonormal(n):
    projection = ITQ(24).fit(clusters(n=n)[0]).projection
    np.testing.assert_allclose(projection.T @ projection, np.eye(24), atol=1e-5)


def test_the_projection_spans_the_leading_principal_components(monkeypatch):
    monkeypatch.setattr(components, "ROWS", 100)
    x, _ = clusters()
    projection = ITQ(16).fit(x).projection.astype(np.float64)
    centred = (x - x.mean(axis=0)).astype(np.float64)
    leading = np.linalg.svd(centred, full_matrices=False)[2][:16].T
    np.testing.assert_allclose(projection @ projection.T, leading @ leading.T, atol=1e-4)


@pytest.mark.parametrize("n_bits", [12, 32, 64])
def test_itq_beats_lsh_and_lsh_beats_chance_on_clusters(n_bits):
    itq, chance = expected_map(ITQ(n_bits), *clusters())
    lsh, _ = expected_map(LSH(n_bits), *clusters())
    assert itq > lsh + 0.05
    assert lsh > chance + 0.05


def test_more_bits_than_dimensions_add_blocks_that_help():
    x, _ = clusters(dims=20)
    itq = ITQ(70, iterations=20).fit(x)
    assert itq.projection.shape == (20, 70)
    # Four blocks of nearly equal width, each orthonormal, no two alike.
    assert itq.losses.shape == (4, 21)
    for block in np.split(itq.projection, [18, 36, 53], axis=1):
        np.testing.assert_allclose(block.T @ block, np.eye(block.shape[1]), atol=1e-5)
    bits = itq.logits(x) > 0
    assert len(np.unique(bits, axis=1).T) > 60
    assert expected_map(ITQ(192), *clusters())[0] > expected_map(ITQ(48), *clusters())[0]


def test_block_width_bounds_the_components_used():
    x, _ = clusters()
    itq = ITQ(30, block_width=10).fit(x)
    assert itq.losses.shape[0] == 3
    assert np.linalg.matrix_rank(itq.projection, tol=1e-3) == 10


def test_blocks_of_following_components_share_none():
    x, _ = clusters(dims=60)
    itq = ITQ(56, block_width=8, blocks="following", iterations=20).fit(x)
    assert itq.losses.shape == (4, 21)  # 8, 8, 16, 24
    np.testing.assert_allclose(itq.projection.T @ itq.projection, np.eye(56), atol=1e-4)
    # More bits than there are components: from the first one again.
    again = ITQ(100, block_width=8, blocks="following", iterations=3).fit(x)
    assert again.projection.shape == (60, 100)
    np.testing.assert_allclose(again.projection[:, :60].T @ again.projection[:, :60], np.eye(60), atol=1e-4)


@pytest.mark.parametrize("blocks", ["leading", "following"])
def test_codes_are_nested(blocks):
    x, _ = clusters(dims=60)
    whole = ITQ(32, block_width=8, blocks=blocks, iterations=5).fit(x)
    for n_bits in (8, 16):
        short = ITQ(n_bits, block_width=8, blocks=blocks, iterations=5).fit(x)
        np.testing.assert_allclose(whole.projection[:, :n_bits], short.projection, atol=1e-4)


@pytest.mark.parametrize("n_bits", [8, 1024])
@pytest.mark.parametrize("n", [2, 3])
def test_two_samples_are_enough(n, n_bits):
    x = clusters(n=n)[0]
    itq = ITQ(n_bits, iterations=3).fit(x)
    bits = itq.logits(x) > 0
    assert bits.shape == (n, n_bits)
    assert len(np.unique(bits, axis=0)) == n


@pytest.mark.parametrize(
    "options",
    [{"n_bits": 7}, {"n_bits": 1025}, {"n_bits": 8.0}, {"iterations": -1}, {"block_width": 0}, {"blocks": "any"}],
)
def test_wrong_options_are_an_error(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        ITQ(**({"n_bits": 16} | options))
