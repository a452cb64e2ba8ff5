"""DSDH's and ADSH's discrete steps: against brute force, against the formulas, and felt by the network."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deephash.losses import ADSH, DSDH
from deephash.losses.base import signs
from deephash.losses.class_codes import likely_class_codes
from deephash.losses.coordinate_descent import descend_codes, ridge_classifier

N_TRAIN, N_CLASSES = 30, 3


def problem(seed, n_bits=6):
    """Logits U, labels Y (some with two), indices of a training set, float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(N_TRAIN, n_bits, generator=generator, dtype=torch.float64)
    labels = torch.nn.functional.one_hot(torch.arange(N_TRAIN) % N_CLASSES, N_CLASSES)
    labels[::7, 0] = 1
    return logits, labels, torch.randperm(N_TRAIN, generator=generator)


def all_codes(n_bits):
    return torch.tensor(list(itertools.product([-1.0, 1.0], repeat=n_bits)), dtype=torch.float64)


def objectives(codes, linear, gram):
    """b'Gb - 2 b'p of each row."""
    return ((codes @ gram) * codes).sum(1) - 2 * (codes * linear).sum(1)


def descent(seed, n_bits, n_classes, weight):
    """A step 2 of DSDH as (start, linear, gram)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(20, n_bits, generator=generator, dtype=torch.float64)
    labels = torch.nn.functional.one_hot(torch.arange(20) % n_classes, n_classes).double()
    classifier = torch.randn(n_bits, n_classes, generator=generator, dtype=torch.float64)
    return signs(logits), labels @ classifier.T + weight * logits, classifier @ classifier.T


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**30), st.integers(1, 8), st.integers(2, 5), st.sampled_from([0.0, 0.1, 1.0, 10.0]))
def test_descent_ends_between_its_start_and_the_best_of_all_codes(seed, n_bits, n_classes, weight):
    start, linear, gram = descent(seed, n_bits, n_classes, weight)
    values = [objectives(descend_codes(start, linear, gram, sweeps=n), linear, gram) for n in range(5)]
    for before, after in itertools.pairwise(values):  # every sweep, for every row
        assert (after <= before + 1e-9).all()
    codes = descend_codes(start, linear, gram)
    best = torch.stack([objectives(code.expand_as(start), linear, gram) for code in all_codes(n_bits)]).amin(0)
    assert (objectives(codes, linear, gram) >= best - 1e-9).all()
    assert set(codes.unique().tolist()) <= {-1.0, 1.0}
    codes = descend_codes(start, linear, gram, sweeps=100)
    for k in range(n_bits):  # in the end no single bit could be better
        flipped = codes.clone()
        flipped[:, k] *= -1
        assert (objectives(flipped, linear, gram) >= objectives(codes, linear, gram) - 1e-9).all()


@pytest.mark.parametrize("kind", ["orthogonal rows of W", "far logits", "one bit"])
@pytest.mark.parametrize("seed", range(5))
def test_descent_finds_the_best_of_all_codes_where_theory_says_so(seed, kind):
    start, linear, gram = descent(seed, 1 if kind == "one bit" else 8, 4, 100.0 if kind == "far logits" else 0.1)
    if kind == "orthogonal rows of W":
        gram = torch.diag(gram.diagonal())
    if kind == "far logits":
        bound = gram.abs().sum(1) - gram.diagonal()
        start, linear = start[(linear.abs() > bound).all(1)], linear[(linear.abs() > bound).all(1)]
        assert len(start) > 5
    codes = descend_codes(-start, linear, gram)
    best = torch.stack([objectives(code.expand_as(start), linear, gram) for code in all_codes(start.shape[1])]).amin(0)
    torch.testing.assert_close(objectives(codes, linear, gram), best)
    assert torch.equal(codes, descend_codes(-start, linear, gram, sweeps=1))


def test_descent_leaves_its_start_alone_and_sets_ties_to_plus_one():
    start = -torch.ones(2, 3)
    assert (descend_codes(start, torch.zeros(2, 3), torch.eye(3)) == 1).all()
    assert (start == -1).all()
    assert torch.equal(descend_codes(start, torch.ones(2, 3), torch.eye(3), sweeps=0), start)


def test_classifier_is_the_ridge_solution():
    logits, labels, _ = problem(0)
    codes, labels = signs(logits), labels.double()
    w = ridge_classifier(codes, labels, 0.1).requires_grad_()
    ((labels - codes @ w).square().sum() + 0.1 * w.square().sum()).backward()
    torch.testing.assert_close(w.grad, torch.zeros_like(w), atol=1e-10, rtol=0)
    b, y = codes.T, labels.T  # DESIGN's and the paper's orientation: columns are images
    torch.testing.assert_close(w.detach(), torch.linalg.inv(b @ b.T + 0.1 * torch.eye(6)) @ b @ y.T)


def test_ridge_solution_is_exact_for_float32_codes_of_few_kinds():
    codes = signs(torch.randn(3, 48, generator=torch.Generator().manual_seed(0)))[torch.arange(6000) % 3]
    labels = torch.nn.functional.one_hot(torch.arange(6000) % 3, 3).float()
    want = ridge_classifier(codes.double(), labels.double(), 0.1)
    torch.testing.assert_close(ridge_classifier(codes, labels, 0.1).double(), want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("update", ["epoch", "batch"])
def test_gradient_is_the_papers_formula(update):
    logits, labels, indices = problem(1)
    loss = DSDH(6, N_CLASSES, N_TRAIN, mu=20.0, update=update).double()
    loss(logits, labels, indices)
    loss.start_epoch(1, 2)
    batch, rows, where = (0.5 * logits[:8] + 0.1).requires_grad_(), labels[:8], indices[:8]
    loss(batch, rows, where).backward()
    u, memory, codes = batch.detach(), loss.memory, loss.B[where]
    similar = (rows.double() @ memory.Y.double().T > 0).double()
    formula = (torch.sigmoid(u @ memory.U.T / 2) - similar) @ memory.U / 2 + 2 * 55.0 * (u - codes)
    torch.testing.assert_close(batch.grad, formula / (8 * N_TRAIN))
    assert torch.equal(memory.U[where], u)


def test_gradient_moves_when_the_codes_do():
    logits, labels, indices = problem(2)
    loss = DSDH(6, N_CLASSES, N_TRAIN).double()
    loss(logits, labels, indices)
    loss.eval()

    def gradient():
        batch = logits[:4].clone().requires_grad_()
        loss(batch, labels[:4], indices[:4]).backward()
        return batch.grad

    before = gradient()
    loss.B[indices[0], 2] *= -1
    change = gradient() - before
    # One bit of one image: 2 eta / (batch x N) times twice the new code.
    want = torch.zeros_like(change)
    want[0, 2] = -2 * 55.0 * 2 * loss.B[indices[0], 2] / (4 * N_TRAIN)
    torch.testing.assert_close(change, want)
    loss.eta = 0.0
    without = gradient()
    loss.B[indices[0], 2] *= -1
    assert torch.equal(gradient(), without)


def whole_objective(loss, logits, labels, codes, w):
    """What W and B change in J."""
    ridge = loss.mu * (labels - codes @ w).square().sum() + loss.nu * w.square().sum()
    return float(ridge + loss.eta * (codes - logits).square().sum())


@pytest.mark.parametrize("mu", [1.0, 50.0, 1000.0])
def test_epochs_start_with_codes_that_lower_the_whole_objective(mu):
    logits, labels, indices = problem(3)
    loss = DSDH(6, N_CLASSES, N_TRAIN, mu=mu, nu=0.1 * mu).double()
    loss.start_epoch(0, 3)
    loss(logits[:20], labels[:20], indices[:20])
    seen = indices[:20]
    start = signs(logits[:20])
    assert torch.equal(loss.B[seen], start)  # B starts from sign(U)
    assert (loss.B[indices[20:]] == 0).all()

    loss.start_epoch(1, 3)
    y, w = labels[:20].double(), loss.W
    torch.testing.assert_close(w, ridge_classifier(start, y, 0.1))
    codes = loss.B[seen]
    values = [whole_objective(loss, logits[:20], y, b, w) for b in (start, codes)]
    assert values[1] < values[0] if mu > 1 else values[1] == values[0]
    assert torch.equal(codes, descend_codes(start, y @ w.T + 55.0 / mu * logits[:20], w @ w.T))
    assert (loss.B[indices[20:]] == 0).all()
    # The codes stand for the whole epoch, though the logits change.
    loss(-logits[:20], labels[:20], seen)
    assert torch.equal(loss.B[seen], codes)


def test_published_weights_move_only_bits_whose_logits_are_almost_zero():
    logits, labels, indices = problem(4)
    logits[:, 0] *= 1e-4
    loss = DSDH(6, N_CLASSES, N_TRAIN).double()
    loss(logits, labels, indices)
    loss.start_epoch(1, 2)
    moved = loss.B[indices] != signs(logits)
    assert moved[:, 0].any()
    assert not moved[:, 1:].any()


def test_batch_update_solves_each_batch_by_itself():
    logits, labels, indices = problem(5)
    loss = DSDH(6, N_CLASSES, N_TRAIN, mu=500.0, nu=50.0, update="batch").double()
    for part in (slice(0, 16), slice(16, None)):
        loss(logits[part], labels[part], indices[part])
        y, start = labels[part].double(), signs(logits[part])
        w = ridge_classifier(start, y, 0.1)
        codes = descend_codes(start, y @ w.T + 55.0 / 500.0 * logits[part], w @ w.T)
        torch.testing.assert_close(loss.W, w)
        assert torch.equal(loss.B[indices[part]], codes)
        assert not torch.equal(codes, start)
    before = loss.B.clone()
    loss.start_epoch(1, 2)
    assert torch.equal(loss.B, before)


@pytest.mark.parametrize("options", [{"discrete": False}, {"mu": 0.0}])
def test_ablation_keeps_the_signs_of_the_moment(options):
    logits, labels, indices = problem(6)
    loss = DSDH(6, N_CLASSES, N_TRAIN, **options).double()
    for u in (logits, -logits):
        loss(u, labels, indices)
        loss.start_epoch(1, 2)
        assert torch.equal(loss.B[indices], signs(u))
    assert (loss.W == 0).all()


def test_without_eta_and_classifier_dsdh_is_dpsh_without_quantization():
    from deephash.losses import DPSH

    logits, labels, indices = problem(7)
    dsdh, dpsh = DSDH(6, N_CLASSES, N_TRAIN, eta=0.0, mu=0.0), DPSH(6, N_CLASSES, N_TRAIN, eta=0.0)
    assert torch.equal(dsdh(logits, labels, indices), dpsh(logits, labels, indices))


def adsh_objective(u, v, similarity, gamma):
    """The paper's sum over all pairs (i of u, j of v)."""
    n_bits = u.shape[1]
    return float((u @ v.T - n_bits * similarity).square().sum() + gamma * (v - u).square().sum())


@pytest.mark.parametrize("columns", [5, 12])
def test_columns_pair_a_batch_with_the_images_seen_last(columns):
    logits, labels, indices = problem(5)
    loss = DSDH(6, N_CLASSES, N_TRAIN, eta=0.0, columns=columns).double()
    order = [0, 1, 2, 3, 4, 5, 6, 7, 2, 3, 8, 9]  # images 2 and 3 come a second time
    for first in range(0, 12, 4):
        rows = order[first : first + 4]
        value = loss(logits[rows] + first, labels[rows], indices[rows])
    known = [2, 3, 8, 9, *([4, 5, 6, 7, 0, 1] if columns == 12 else [4])]
    when = torch.tensor([8, 8, 8, 8, 4, 4, 4, 4, 0, 0])[: len(known), None]
    theta = (logits[[2, 3, 8, 9]] + 8) @ (logits[known] + when).T / 2
    similar = labels[[2, 3, 8, 9]] @ labels[known].T > 0
    want = torch.nn.functional.softplus(torch.where(similar, -theta, theta)).mean()
    torch.testing.assert_close(value, want)
    loss.eval()
    before = loss.recent.clone()
    loss(logits[:3], labels[:3], indices[:3])
    assert torch.equal(loss.recent, before)


def test_as_many_columns_as_images_are_the_whole_training_set():
    logits, labels, indices = problem(6)
    whole, counted = DSDH(6, N_CLASSES, N_TRAIN), DSDH(6, N_CLASSES, N_TRAIN, columns=10 * N_TRAIN)
    for rows in indices.argsort().split(10):
        values = [loss(logits[rows].float(), labels[rows], indices[rows]) for loss in (whole, counted)]
    torch.testing.assert_close(*values)


def test_centers_are_the_codes_until_the_first_descent():
    logits, labels, indices = problem(7)
    loss = DSDH(6, N_CLASSES, N_TRAIN, mu=1e6, nu=1e5, centers=True).double()
    loss(logits, labels, indices)
    want = signs(labels.double() @ likely_class_codes(N_CLASSES, 6).double())
    assert torch.equal(loss.B[indices], want)
    assert not torch.equal(want, signs(logits))
    loss.start_epoch(1, 2)
    codes = loss.B[indices]
    # Steps 1 and 2 read the logits: mu is so large that they do not part images of the same labels.
    w = ridge_classifier(signs(logits), labels.double(), 0.1)
    torch.testing.assert_close(loss.W, w)
    for row in labels.unique(dim=0):
        assert len(codes[(labels == row).all(dim=1)].unique(dim=0)) == 1


@pytest.mark.parametrize("balanced", [True, False])
def test_adsh_improves_the_database_codes_one_bit_at_a_time(balanced):
    logits, labels, indices = problem(8)
    loss = ADSH(6, N_CLASSES, N_TRAIN, gamma=2.0, balanced=balanced).double()
    loss(logits, labels, indices)
    u, y = logits.tanh(), labels.double()
    similar = y @ y.T > 0
    ratio = similar.sum() / (~similar).sum() if balanced else 1.0
    similarity = torch.where(similar, 1.0, -ratio).double()
    v = signs(u)
    assert torch.equal(loss.V[indices], v)
    before = adsh_objective(u, v, similarity, 2.0)
    for k in range(6):  # the paper's update of column k, as it stands there
        others = [j for j in range(6) if j != k]
        q = -2 * 6 * similarity.T @ u - 2 * 2.0 * u
        v[:, k] = -signs(2 * v[:, others] @ u[:, others].T @ u[:, k] + q[:, k])
    loss.start_epoch(1, 2)
    assert torch.equal(loss.V[indices], v)
    assert adsh_objective(u, v, similarity, 2.0) < before
