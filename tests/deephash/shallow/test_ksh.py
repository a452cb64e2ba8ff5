"""KSH against the paper's equations on whole matrices; its greedy bits, and its labels in pairs."""

import numpy as np
import pytest
from clusters import clusters, hidden_clusters

from deephash.shallow import KSH
from deephash.shallow.ksh import _descend, _PairLabels


def pair_labels(labels):
    """S, pair by pair; labels are multi-hot rows."""
    s = -np.ones((len(labels), len(labels)))
    for i in range(len(labels)):
        for j in range(len(labels)):
            if any(a and b for a, b in zip(labels[i], labels[j], strict=True)):
                s[i, j] = 1
    return s


def sigmoid(t):
    return 2 / (1 + np.exp(-t)) - 1


def slow_descent(k, r, start, steps=500):
    """Nesterov's method on -f(Ka)'R f(Ka), equation 13 of Liu et al. 2012: all products anew at each point."""

    def cost(a):
        return -sigmoid(k @ a) @ r @ sigmoid(k @ a)

    def gradient(a):
        b = sigmoid(k @ a)
        return -k.T @ ((r @ b) * (1 - b**2))

    before, a, deltas, curvature = start, start, [0.0, 1.0], 1.0
    costs = [cost(start)]
    for _ in range(steps):
        v = a + (deltas[-2] - 1) / deltas[-1] * (a - before)
        g = gradient(v)
        while cost(v - g / curvature) > cost(v) - g @ g / curvature / 2:
            curvature *= 2
        before, a = a, v - g / curvature
        costs.append(cost(a))
        deltas.append((1 + (1 + 4 * deltas[-1] ** 2) ** 0.5) / 2)
        if abs(costs[-1] - costs[-2]) / len(k) <= 1e-2:
            break
    return a


def slow_ksh(k, s, n_bits):
    """Algorithm 1: the residue written out, the generalised eigenproblem by inversion."""
    r = n_bits * s
    directions, codes = [], []
    for _ in range(n_bits):
        values, vectors = np.linalg.eig(np.linalg.inv(k.T @ k) @ k.T @ r @ k)
        a = np.real(vectors[:, np.argmax(np.real(values))])
        a *= np.sqrt(len(k) / (a @ k.T @ k @ a))
        other = slow_descent(k, r, a)
        b, better = (np.where(k @ x > 0, 1.0, -1.0) for x in (a, other))
        if better @ r @ better > b @ r @ b:
            a, b = other, better
        directions.append(a)
        codes.append(b)
        r = r - np.outer(b, b)
    return np.array(directions).T, np.array(codes).T


def fitted(kind="single", n_bits=8, **options):
    x, labels = clusters(n=60, dims=6, n_classes=4)
    rows = np.eye(4, dtype=np.int64)[labels]
    if kind == "multi":
        rows[::3, 0] = 1
    return KSH(n_bits, **{"n_anchors": 10, "n_labelled": 40} | options).fit(x, rows), x, rows


def kernel_of(ksh, x):
    return (ksh.kernel(x) - ksh.kernel(x).mean(axis=0)).astype(np.float64)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_ksh_equals_the_algorithm_of_the_paper(kind):
    ksh, x, rows = fitted(kind)
    assert len(set(ksh.labelled.tolist())) == 40
    k = kernel_of(ksh, x)
    directions, codes = slow_ksh(k[ksh.labelled], pair_labels(rows[ksh.labelled]), 8)
    # An eigenvector has no sign, nor does a bit: compare up to it.
    signs = np.sign((directions * ksh.projection).sum(axis=0))
    np.testing.assert_array_equal(ksh.codes, codes * signs)
    np.testing.assert_allclose(ksh.projection, directions * signs, rtol=1e-2, atol=1e-2 * np.abs(directions).max())
    np.testing.assert_allclose(ksh.logits(x), k @ directions * signs, atol=2e-2)


def test_the_codes_are_the_bits_of_the_labelled_images():
    ksh, x, _ = fitted()
    np.testing.assert_array_equal(ksh.codes > 0, ksh.bits(x[ksh.labelled]))


def test_each_bit_brings_the_inner_products_nearer_to_the_pairwise_labels():
    x, labels = hidden_clusters(n=300)
    ksh = KSH(16, n_labelled=200).fit(x, labels)
    s = pair_labels(np.eye(6)[labels[ksh.labelled]])
    errors = [np.square(16 * s - ksh.codes[:, :k] @ ksh.codes[:, :k].T).sum() for k in range(17)]
    assert (np.diff(errors) < 0).all()


def test_the_descent_never_ends_above_its_start():
    rng = np.random.default_rng(0)
    for _ in range(20):
        k, start = rng.standard_normal((50, 6)), rng.standard_normal(6)
        r = rng.standard_normal((50, 50))
        r = r + r.T
        end = _descend(k, lambda y, r=r: r @ y, start, tolerance=0.0)
        costs = [-sigmoid(k @ a) @ r @ sigmoid(k @ a) for a in (start, end)]
        assert costs[1] < costs[0]


@pytest.mark.parametrize("n_combinations", [2, 7, 30])
def test_products_with_pair_labels_are_those_of_the_matrix(n_combinations):
    rng = np.random.default_rng(n_combinations)
    labels = (rng.random((n_combinations, 5)) < 0.4).astype(np.float32)[rng.integers(0, n_combinations, 50)]
    s, pairs = pair_labels(labels), _PairLabels(labels, 12)
    y, z = rng.standard_normal(50), rng.standard_normal((50, 4))
    np.testing.assert_allclose(pairs.times(y), 12 * s @ y, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(pairs.between(z), 12 * z.T @ s @ z, rtol=1e-9, atol=1e-9)


def test_labels_of_the_others_are_not_looked_at():
    ksh, x, rows = fitted()
    others = np.setdiff1d(np.arange(60), ksh.labelled)
    changed = rows.copy()
    changed[others] = 1 - changed[others]
    again = KSH(8, n_anchors=10, n_labelled=40).fit(x, changed)
    np.testing.assert_array_equal(again.projection, ksh.projection)


def test_more_labels_than_samples_means_all_of_them():
    ksh, _, _ = fitted(n_labelled=2000, n_anchors=300)
    np.testing.assert_array_equal(ksh.labelled, np.arange(60))
    assert len(ksh.kernel.anchors) == 60


def test_labelled_images_that_are_all_alike_give_finite_logits():
    x = np.ones((200, 3), np.float32)
    x[0] = 5
    for classes in (np.arange(200) % 2, np.arange(200) > 0):  # of two labels, and all of one
        ksh = KSH(8, n_labelled=2).fit(x, classes.astype(int))
        assert 0 not in ksh.labelled
        assert np.isfinite(ksh.logits(x)).all()


@pytest.mark.parametrize("options", [{"n_anchors": 0}, {"n_labelled": 1}, {"n_labelled": 2.0}, {"n_anchors": True}])
def test_wrong_options_are_an_error(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        KSH(16, **options)
