"""Losses without labels against scalar loops; halves to the letter; labels that nobody looks at."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from deephash.inputs import FeatureInputs
from deephash.losses import UNSUPERVISED, BiHalf, GreedyHashUnsupervised, SimilarityDistillation
from deephash.training import TrainConfig, train

N_BITS, N_TRAIN = 6, 11
INDICES = torch.tensor([3, 0, 10, 7, 1, 5, 8])


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cosine(a, b):
    length = math.sqrt(sum(x * x for x in a) * sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0


def mean_square_of_similarities(codes, features):
    pairs = [(i, j) for i in range(len(codes)) for j in range(len(codes)) if i != j]
    return sum((cosine(codes[i], codes[j]) - cosine(features[i], features[j])) ** 2 for i, j in pairs) / len(pairs)


def halves(u):
    """Column by column: the floor(B / 2) largest are +1."""
    codes = [[-1.0] * len(u[0]) for _ in u]
    for k in range(len(u[0])):
        for i in sorted(range(len(u)), key=lambda i: -u[i][k])[: len(u) // 2]:
            codes[i][k] = 1.0
    return codes


def signs(u):
    return [[1.0 if x >= 0 else -1.0 for x in row] for row in u]


def bihalf(u, features):
    codes = halves(u)
    moved = [(x - b) ** 2 for row, code in zip(u, codes, strict=True) for x, b in zip(row, code, strict=True)]
    return mean_square_of_similarities(codes, features) + 6 / 2 * sum(moved) / len(moved)


def greedyhash(u, features):
    cubes = [abs(abs(x) - 1) ** 3 for row in u for x in row]
    return mean_square_of_similarities(signs(u), features) + 0.1 * sum(cubes) / len(cubes)


def distribution(scores):
    total = sum(math.exp(score / 0.06) for score in scores)
    return [math.exp(score / 0.06) / total for score in scores]


def distillation(u, features):
    n, codes = len(u), [[math.tanh(x) for x in row] for row in u]
    divergence = 0.0
    for i in range(n):
        others = [j for j in range(n) if j != i]
        p = distribution([cosine(features[i], features[j]) for j in others])
        q = distribution([sum(x * y for x, y in zip(codes[i], codes[j], strict=True)) / N_BITS for j in others])
        divergence += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / n
    columns = list(zip(*codes, strict=True))
    balance = sum((sum(column) / n) ** 2 for column in columns) / N_BITS
    squares = 0.0
    for k, first in enumerate(columns):
        for m, second in enumerate(columns):
            squares += (sum(x * y for x, y in zip(first, second, strict=True)) / n - (k == m)) ** 2
    return divergence + 4 * balance + 0.4 * squares / N_BITS


CODES = {"bihalf": halves, "greedyhash-unsupervised": signs}
REFERENCES = {"bihalf": bihalf, "greedyhash-unsupervised": greedyhash, "similarity-distillation": distillation}


@pytest.mark.parametrize("batch", [2, 6, 7])
@pytest.mark.parametrize("name", UNSUPERVISED)
def test_loss_equals_the_scalar_loops_of_its_paper(name, batch):
    features, logits, indices = draw(N_TRAIN, 9), draw(batch, N_BITS, seed=1), INDICES[:batch]
    loss = UNSUPERVISED[name](N_BITS, features).double()
    want = REFERENCES[name](logits.tolist(), features[indices].tolist())
    assert loss(logits, None, indices).item() == pytest.approx(want, rel=1e-6)  # features are kept in float32


@pytest.mark.parametrize("name", UNSUPERVISED)
def test_an_image_whose_features_are_all_zero_is_unlike_every_other(name):
    features, logits = draw(N_TRAIN, 9), draw(7, N_BITS, seed=1)
    features[INDICES[2]] = 0
    loss = UNSUPERVISED[name](N_BITS, features).double()
    want = REFERENCES[name](logits.tolist(), features[INDICES].tolist())
    assert loss(logits, None, INDICES).item() == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("name", CODES)
def test_gradient_of_the_codes_passes_to_the_logits_unchanged(name):
    features, logits = draw(N_TRAIN, 9), draw(7, N_BITS, seed=1).requires_grad_()
    loss = UNSUPERVISED[name](N_BITS, features).double()
    loss(logits, None, INDICES).backward()
    u = logits.detach()
    codes = torch.tensor(CODES[name](u.tolist()), dtype=torch.float64, requires_grad=True)
    x = features[INDICES]
    pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
    similarity = nn.functional.cosine_similarity
    sum((similarity(codes[i], codes[j], 0) - similarity(x[i], x[j], 0)) ** 2 for i, j in pairs).div(42).backward()
    if name == "bihalf":  # the authors' backward: g + gamma (U - B) / numel
        penalty = 6 * (u - codes.detach()) / u.numel()
    else:
        penalty = 0.1 * 3 * (u.abs() - 1).square() * (u.abs() - 1).sign() * u.sign() / u.numel()
    torch.testing.assert_close(logits.grad, codes.grad + penalty, rtol=1e-5, atol=1e-8)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**30), st.integers(1, 40), st.integers(1, 20), st.integers(0, 3))
def test_bihalf_codes_are_half_and_half_to_the_letter(seed, batch, n_bits, decimals):
    # Rounded logits are full of ties.
    logits = draw(batch, n_bits, seed=seed).round(decimals=decimals)
    codes = BiHalf(n_bits, torch.ones(batch, 1))._codes(logits)
    assert set(codes.unique().tolist()) <= {-1.0, 1.0}
    assert ((codes == 1).sum(0) == batch // 2).all()
    assert codes.tolist() == halves(logits.tolist())  # sorted() is stable: ties go to the earlier image


@pytest.mark.parametrize("batch", [1, 2, 5, 6])
def test_bihalf_codes_are_the_nearest_of_all_halves(batch):
    logits = draw(batch, 4, seed=2)
    codes = BiHalf(4, torch.ones(batch, 1))._codes(logits)
    columns = []
    for chosen in itertools.combinations(range(batch), batch // 2):
        column = -torch.ones(batch, dtype=torch.float64)
        column[list(chosen)] = 1
        columns.append(column)
    distances = (logits.unsqueeze(0) - torch.stack(columns).unsqueeze(2)).square().sum(1)
    torch.testing.assert_close((logits - codes).square().sum(0), distances.amin(0))


@pytest.mark.parametrize("name", UNSUPERVISED)
def test_targets_are_never_looked_at(name):
    loss = UNSUPERVISED[name](N_BITS, draw(N_TRAIN, 9))
    logits = draw(7, N_BITS, seed=1).float()
    want = loss(logits, None, INDICES)
    for targets in (torch.arange(7), torch.full((7,), -5), torch.rand(3, 2), torch.ones(7, 80, dtype=torch.bool)):
        assert torch.equal(loss(logits, targets, INDICES), want)


@pytest.mark.parametrize("name", UNSUPERVISED)
def test_features_count_by_their_direction_only_and_of_any_float_type(name):
    features, logits = draw(N_TRAIN, 9), draw(7, N_BITS, seed=1).float()
    want = UNSUPERVISED[name](N_BITS, features)(logits, None, INDICES)
    longer = features * torch.linspace(0.1, 50, N_TRAIN).unsqueeze(1)
    for same in (longer, longer.numpy(), features.float().numpy(), features.numpy().astype(np.float16)):
        torch.testing.assert_close(UNSUPERVISED[name](N_BITS, same)(logits, None, INDICES), want, rtol=1e-3, atol=0)


def test_the_loss_keeps_no_hold_on_the_callers_features():
    features = np.random.default_rng(0).standard_normal((N_TRAIN, 9)).astype(np.float32)
    loss = BiHalf(N_BITS, features)
    logits = draw(7, N_BITS).float()
    want = loss(logits, None, INDICES)
    features[:] = 1
    assert torch.equal(loss(logits, None, INDICES), want)


@pytest.mark.parametrize("name", UNSUPERVISED)
def test_value_and_gradient_are_finite_at_the_edges(name):
    features = draw(N_TRAIN, 9)
    features[3] = 0
    loss = UNSUPERVISED[name](N_BITS, features)
    for logits in (torch.zeros(7, N_BITS), torch.full((7, N_BITS), 1e4), torch.full((7, N_BITS), 1e-30)):
        for n in (1, 7):
            batch = logits[:n].clone().requires_grad_()
            value = loss(batch, None, INDICES[:n])
            value.backward()
            assert torch.isfinite(value)
            assert torch.isfinite(batch.grad).all()


@pytest.mark.parametrize("name", UNSUPERVISED)
def test_half_precision_is_computed_in_float32(name):
    loss = UNSUPERVISED[name](N_BITS, draw(N_TRAIN, 9))
    logits = draw(7, N_BITS, seed=1).bfloat16()
    want = loss(logits.float(), None, INDICES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = loss(logits, None, INDICES)
    assert got.dtype == torch.float32
    assert torch.equal(got, want)


def test_checkpoints_stay_small():
    assert list(BiHalf(N_BITS, draw(N_TRAIN, 9)).state_dict()) == []


def test_neighbours_of_changed_copies_are_those_of_the_images():
    # Logits of a copy beside features of the image: no other target exists, so the copy's code moves to the image's.
    features, _ = clusters(60)
    torch.manual_seed(0)
    layer = nn.Linear(features.shape[1], 16)
    loss = SimilarityDistillation(16, features - features.mean(0))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    shift = 2 * torch.nn.functional.normalize(torch.randn(features.shape[1]), dim=0)  # what the copies have changed

    def apart():
        with torch.inference_mode():
            bits = [layer(x) > 0 for x in (features, features + shift)]
        return (bits[0] != bits[1]).sum(1).float().mean()

    before = apart()
    for step in range(200):
        value = loss(layer(features + shift * (step % 2)), None, torch.arange(60))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert apart() < before / 2


def clusters(n=240, dims=24, n_classes=4):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % n_classes
    centres = torch.randn(n_classes, dims, generator=generator)
    return centres[labels] + 0.4 * torch.randn(n, dims, generator=generator), labels


@pytest.mark.parametrize("name", UNSUPERVISED)
def test_a_layer_trained_without_labels_tells_the_clusters_apart(name):
    features, labels = clusters()
    torch.manual_seed(0)
    layer = nn.Linear(features.shape[1], 16)
    loss = UNSUPERVISED[name](16, features.numpy())
    n = len(features)
    config = TrainConfig(epochs=20, batch_size=32, lr=0.02, averaging=0.0)
    before = loss(layer(features), None, torch.arange(n)).item()
    wrong = torch.zeros(n, dtype=torch.int64)  # what train() passes on as targets
    trained = train(layer, loss, FeatureInputs(features.numpy()), wrong, np.arange(n), config)
    with torch.inference_mode():
        logits = trained(features)
        # Four clusters cannot fill 16 bits that are uncorrelated: some of that penalty stays.
        left = 0.7 if name == "similarity-distillation" else 0.5
        assert loss(logits, None, torch.arange(n)).item() < before * left
    bits = (logits > 0).float()
    distances, same = torch.cdist(bits, bits, p=0), labels.unsqueeze(1) == labels
    assert distances[~same].mean() > distances[same].mean() + 4
    if name == "bihalf":
        assert ((bits.mean(0) - 0.5).abs() < 0.1).all()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.ones(4), r"\(n_train, D\) float, not \(4,\)"),
        (np.ones((4, 3), np.int64), r"not \(4, 3\) torch.int64"),
        (torch.ones(0, 3), "not"),
        (torch.tensor([[1.0, float("nan")]]), "NaN or infinite"),
        (np.array([[1.0, np.inf]]), "NaN or infinite"),
    ],
)
@pytest.mark.parametrize("name", UNSUPERVISED)
def test_wrong_features_are_an_error(name, features, message):
    with pytest.raises(ValueError, match=message):
        UNSUPERVISED[name](N_BITS, features)


@pytest.mark.parametrize(
    ("logits", "indices", "message"),
    [
        (torch.ones(7, 5), INDICES, r"logits are float32 of shape \(7, 5\): this BiHalf takes"),
        (torch.tensor(1.0), INDICES, r"logits are float32 of shape \(\)"),
        (torch.ones(7, 6), INDICES[1:], r"indices have shape \(6,\)"),
        (torch.ones(7, 6), INDICES.float(), "indices are float32"),
        (torch.ones(7, 6), INDICES + 1, "indices hold 11, which is not in 0 … 10"),
    ],
)
def test_a_wrong_batch_is_an_error(logits, indices, message):
    with pytest.raises(ValueError, match=message):
        BiHalf(6, draw(N_TRAIN, 9))(logits, None, indices)


@pytest.mark.parametrize("loss", UNSUPERVISED.values())
def test_every_docstring_names_its_source(loss):
    assert "Source: " in loss.__doc__


def test_registry_holds_all():
    assert {
        "bihalf": BiHalf,
        "greedyhash-unsupervised": GreedyHashUnsupervised,
        "similarity-distillation": SimilarityDistillation,
    } == UNSUPERVISED
