"""Each loss against the scalar loops of the papers' equations, for one label an image and for several."""

import loss_references as reference
import pytest
import torch
from torch.autograd import gradcheck

from deephash.losses import LOSSES, create_loss

N_BITS, N_CLASSES, N_TRAIN, BATCH = 6, 4, 11, 7
SINGLE = torch.tensor([0, 1, 2, 0, 1, 0, 3])
# Rows 0 and 2 share one of three labels; row 6 is alone.
MULTI = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
INDICES = torch.tensor([3, 0, 10, 7, 1, 5, 8])


def draw_logits(seed=0):
    return torch.randn(BATCH, N_BITS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(name, **options):
    return create_loss(name, n_bits=N_BITS, n_classes=N_CLASSES, n_train=N_TRAIN, **options).double()


def remember(*batches):
    """What the training set looks like after these (logits, multi-hot rows, indices)."""
    memory = [None] * N_TRAIN
    for logits, labels, indices in batches:
        for u, y, i in zip(logits.tolist(), labels.tolist(), indices.tolist(), strict=True):
            memory[i] = (u, y)
    return memory


def expected(name, loss, u, y, labels, indices):
    simple = {
        "dhn": {"weight": 0.3},
        "dsh": {"margin": 2.0 * N_BITS, "alpha": 0.01},
        "hashnet": {"alpha": 10 / N_BITS, "beta": float(loss.beta) if name == "hashnet" else None},
        "dch": {"gamma": 20.0, "weight": 0.1},
        "mihash": {"n_bins": N_BITS // 2, "sharpness": 10.0},
        "dtsh": {"margin": N_BITS / 2, "eta": 100 / 22_500},
    }
    if name in simple:
        return getattr(reference, name)(u, y, **simple[name])
    if name in ("csq", "dpn", "orthohash"):
        centers = loss.centers.tolist()
        if name == "csq":
            return reference.csq(u, y, centers, loss.tie_breaker.tolist(), weight=1e-4)
        if name == "dpn":
            return reference.dpn(u, y, centers, margin=1.0)
        return reference.orthohash(u, y, centers, scale=8.0, margin=0.2)
    return reference.greedyhash(u, y, loss.classifier.tolist(), weight=0.1)


STATELESS = [name for name in LOSSES if name not in ("dpsh", "dsdh", "adsh")]
CASES = [(name, "single") for name in STATELESS] + [(name, "multi") for name in STATELESS if LOSSES[name].multi_label]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_loss_equals_the_scalar_loops_of_its_paper(name, kind):
    loss = make(name, **({"weight": 0.3} if name == "dhn" else {}))
    loss.start_epoch(1, 3)
    targets = SINGLE if kind == "single" else MULTI
    labels = torch.nn.functional.one_hot(SINGLE, N_CLASSES) if kind == "single" else MULTI
    logits = draw_logits()
    want = expected(name, loss, logits.tolist(), labels.tolist(), labels, INDICES)
    # DCH keeps distances 1e-3 bits from zero.
    assert loss(logits, targets, INDICES).item() == pytest.approx(want, rel=2e-3 if name == "dch" else 1e-12)


@pytest.mark.parametrize("targets", [SINGLE, MULTI], ids=["single", "multi"])
def test_dpsh_pairs_the_batch_with_the_last_logits_of_the_training_set(targets):
    labels = torch.nn.functional.one_hot(SINGLE, N_CLASSES) if targets is SINGLE else MULTI
    loss = make("dpsh", eta=3.0)
    first, second, later = draw_logits(1)[:4], draw_logits(2), torch.tensor([9, 3, 4, 0])
    loss(first, targets[:4], later)
    memory = remember((first, labels[:4], later), (second, labels, INDICES))
    want = reference.dpsh(second.tolist(), labels.tolist(), memory, eta=3.0)
    assert memory.count(None) == 2
    assert loss(second, targets, INDICES).item() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("update", ["epoch", "batch"])
@pytest.mark.parametrize("targets", [SINGLE, MULTI], ids=["single", "multi"])
def test_dsdh_is_likelihood_and_distance_from_the_codes(targets, update):
    labels = torch.nn.functional.one_hot(SINGLE, N_CLASSES) if targets is SINGLE else MULTI
    loss = make("dsdh", update=update, mu=30.0)
    first, second = draw_logits(1), draw_logits(2)
    loss(first, targets, INDICES)
    loss.start_epoch(1, 2)
    value = loss(second, targets, INDICES).item()
    memory = remember((second, labels, INDICES))
    want = reference.dsdh(second.tolist(), labels.tolist(), memory, loss.B[INDICES].tolist(), eta=55.0)
    assert value == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("targets", [SINGLE, MULTI], ids=["single", "multi"])
def test_adsh_is_the_asymmetric_square_loss(targets, balanced):
    labels = torch.nn.functional.one_hot(SINGLE, N_CLASSES) if targets is SINGLE else MULTI
    loss = make("adsh", balanced=balanced)
    first, second, later = draw_logits(1)[:4], draw_logits(2), torch.tensor([9, 3, 4, 0])
    loss(first, targets[:4], later)
    value = loss(second, targets, INDICES).item()
    memory = remember((first, labels[:4], later), (second, labels, INDICES))
    codes = loss.V.tolist()
    own = [codes[i] for i in INDICES.tolist()]
    want = reference.adsh(second.tolist(), labels.tolist(), memory, codes, own, gamma=200.0, balanced=balanced)
    assert value == pytest.approx(want, rel=1e-12)
    assert (loss.V[later] == (first >= 0) * 2 - 1).all()


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "greedyhash"])
def test_gradient_is_that_of_the_value(name):
    loss = make(name)
    targets = SINGLE
    loss(draw_logits(1), targets, INDICES)
    loss.start_epoch(1, 3)
    loss.eval()  # U, B and V stand still
    logits = draw_logits(2).requires_grad_()
    assert gradcheck(lambda u: loss(u, targets, INDICES), (logits,), eps=1e-7, atol=1e-6)


def test_greedyhash_passes_the_gradient_of_the_signs_to_the_logits():
    loss = make("greedyhash", weight=0.0)
    logits = draw_logits().requires_grad_()
    loss(logits, SINGLE, INDICES).backward()
    codes = ((logits >= 0) * 2.0 - 1).double().detach()
    probabilities = torch.softmax(codes @ loss.classifier.detach().T, dim=1)
    slope = (probabilities - torch.nn.functional.one_hot(SINGLE, N_CLASSES)) / BATCH
    torch.testing.assert_close(logits.grad, slope @ loss.classifier.detach())
    torch.testing.assert_close(loss.classifier.grad, slope.T @ codes)
