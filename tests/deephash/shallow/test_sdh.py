"""SDH against the paper's steps in slow loops; its objective, its minima, and the anchors that it shares with KSH."""

import itertools

import numpy as np
import pytest
from clusters import clusters, hidden_clusters
from hypothesis import given, settings
from hypothesis import strategies as st

from deephash.shallow import SDH
from deephash.shallow.kernel import AnchorKernel


def slow_kernel(x, anchors, sigma):
    values = np.empty((len(x), len(anchors)))
    for i in range(len(x)):
        for j in range(len(anchors)):
            difference = x[i].astype(np.float64) - anchors[j]
            values[i, j] = np.exp(-(difference @ difference) / (2 * sigma**2))
    return values


def slow_objective(y, phi, b, w, p, *, lam, nu, ridge):
    """J, term by term."""
    total = 0.0
    for i in range(len(y)):
        total += sum((y[i, c] - sum(b[i, k] * w[k, c] for k in range(b.shape[1]))) ** 2 for c in range(y.shape[1]))
        total += nu * sum((b[i, k] - phi[i] @ p[:, k]) ** 2 for k in range(b.shape[1]))
    return total + lam * (w**2).sum() + nu * ridge * (p**2).sum()


def slow_sdh(y, phi, b, rounds, *, lam, nu, ridge):
    """Shen et al. 2015, algorithm 1, from the codes b (N, n_bits): yields B, W, P after each round."""
    n_bits = b.shape[1]
    w = np.linalg.inv(b.T @ b + lam * np.eye(n_bits)) @ b.T @ y
    p = np.linalg.inv(phi.T @ phi + ridge * np.eye(phi.shape[1])) @ phi.T @ b
    yield b, w, p
    for _ in range(rounds):
        b, target = b.copy(), y @ w.T + nu * phi @ p
        for i in range(len(b)):
            found = []
            for code in (b[i].copy(), np.zeros(n_bits)):
                for _ in range(10):
                    for k in range(n_bits):
                        others = [m for m in range(n_bits) if m != k]
                        code[k] = 1 if target[i, k] - sum(code[m] * (w[m] @ w[k]) for m in others) >= 0 else -1
                found.append(code)
            b[i] = min(found, key=lambda code: ((y[i] - code @ w) ** 2).sum() + nu * ((code - phi[i] @ p) ** 2).sum())
        w = np.linalg.inv(b.T @ b + lam * np.eye(n_bits)) @ b.T @ y
        p = np.linalg.inv(phi.T @ phi + ridge * np.eye(phi.shape[1])) @ phi.T @ b
        yield b, w, p


def targets(labels, kind):
    rows = np.eye(labels.max() + 1, dtype=np.int64)[labels]
    if kind == "multi":
        rows[::3, 0] = 1
    return rows


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_sdh_equals_the_steps_of_the_paper(kind):
    x, labels = clusters(n=24, dims=6, n_classes=4)
    y = targets(labels, kind)
    options = {"lam": 0.5, "nu": 0.02, "ridge": 0.1}
    start = SDH(8, n_anchors=12, iterations=0, seed=3, **options).fit(x, y)
    phi = np.c_[slow_kernel(x, start.kernel.anchors, start.kernel.sigma), np.ones(24)]
    assert set(np.unique(start.codes)) == {-1, 1}
    for rounds, (b, w, p) in enumerate(slow_sdh(y, phi, start.codes, 3, **options)):
        sdh = SDH(8, n_anchors=12, iterations=rounds, seed=3, **options).fit(x, y)
        np.testing.assert_array_equal(sdh.codes, b)
        np.testing.assert_allclose(sdh.classifier, w, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(sdh.projection, p, rtol=1e-3, atol=1e-3)
        assert sdh.objectives[rounds] == pytest.approx(slow_objective(y, phi, b, w, p, **options), rel=1e-5)
        np.testing.assert_allclose(sdh.logits(x), phi @ p, atol=1e-3)
    assert not np.array_equal(b, start.codes)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**30), n_bits=st.integers(8, 40), n_classes=st.integers(2, 8),
    nu=st.sampled_from([1e-5, 1e-2, 1.0]), lam=st.sampled_from([0.01, 1.0, 30.0]),
)  # fmt: skip
def test_the_objective_never_rises(seed, n_bits, n_classes, nu, lam):
    x, labels = clusters(n=60, dims=5, n_classes=n_classes, seed=seed)
    sdh = SDH(n_bits, n_anchors=15, iterations=6, nu=nu, lam=lam, seed=seed).fit(x, targets(labels, "multi"))
    assert len(sdh.objectives) == 7
    for before, after in itertools.pairwise(sdh.objectives):
        assert after <= before * (1 + 1e-9)
    assert sdh.objectives[-1] < sdh.objectives[0]


def test_no_single_bit_could_be_better():
    x, labels = clusters(n=60, n_classes=5)
    y = targets(labels, "single")
    last, w, p, mapped = None, None, None, None
    for rounds in (20, 21):  # the codes stand still, so W and P of the round before are those they were chosen with
        sdh = SDH(12, n_anchors=20, iterations=rounds, nu=0.05).fit(x, y)
        assert last is None or np.array_equal(sdh.codes, last)
        last, w, p = sdh.codes, sdh.classifier, sdh.projection
    mapped = np.c_[sdh.kernel(x), np.ones(60)] @ p

    def objective(b):
        return np.square(y - b @ w).sum(axis=1) + 0.05 * np.square(b - mapped).sum(axis=1)

    for k in range(12):
        flipped = last.copy()
        flipped[:, k] *= -1
        assert (objective(flipped) >= objective(last) - 1e-6).all()


def test_codes_tell_the_classes_apart_and_the_map_reaches_them():
    x, labels = hidden_clusters(n=300)
    sdh = SDH(24).fit(x, labels)
    distances = (24 - sdh.codes @ sdh.codes.T) / 2
    same = labels[:, None] == labels
    assert distances[same].mean() < 1
    assert distances[~same].min() > 5
    assert (sdh.bits(x) == (sdh.codes > 0)).mean() > 0.9


@pytest.mark.parametrize("far", [0, 1000])
def test_kernel_values_are_those_of_the_formula_near_and_far_from_the_origin(far):
    x = clusters(n=80, dims=6)[0] + np.float32(far)
    kernel = AnchorKernel(x, 20, np.random.default_rng(0))
    rows = {tuple(row) for row in x.tolist()}
    assert len({tuple(row) for row in kernel.anchors.tolist()} & rows) == 20
    distances = np.array([[np.square(a.astype(float) - b).sum() for b in kernel.anchors] for a in x])
    assert kernel.sigma**2 == pytest.approx(distances.mean(), rel=1e-4)
    np.testing.assert_allclose(kernel(x), slow_kernel(x, kernel.anchors, kernel.sigma), atol=1e-5)


def test_there_are_as_many_anchors_as_samples_at_most():
    x, labels = clusters(n=30)
    assert len(SDH(8).fit(x, labels).kernel.anchors) == 30


@pytest.mark.parametrize(
    "options",
    [{"n_anchors": 0}, {"n_anchors": 2.0}, {"iterations": -1}, {"lam": 0.0}, {"nu": -1.0}, {"ridge": float("nan")}],
)
def test_wrong_options_are_an_error(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        SDH(16, **options)
