"""What holds for every loss: it is finite, can be resumed, refuses bad input, and pulls classes apart."""

import copy
import math

import pytest
import torch
from torch import nn

import deephash.losses
from deephash.losses import LOSSES, UNSUPERVISED, HashingLoss, NestedLoss, create_loss
from tests.deephash.losses.linear_training import train

N_BITS, N_CLASSES, N_TRAIN = 12, 4, 40


def make(name, **options):
    return create_loss(name, n_bits=N_BITS, n_classes=N_CLASSES, n_train=N_TRAIN, **options)


def random_batch(n=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, N_CLASSES, (n,), generator=generator)
    return torch.randn(n, N_BITS, generator=generator), targets, torch.randperm(N_TRAIN, generator=generator)[:n]


def hamming(codes, others):
    return torch.cdist((codes > 0).float(), (others > 0).float(), p=0)


def separated(codes, classes):
    """True when any two images of one class are closer than any two of different classes."""
    distances, same = hamming(codes, codes), classes.unsqueeze(1) == classes
    return bool(distances[same].max() < distances[~same].min())


def learned(loss, codes, classes):
    """True when the classes are separated; with centres, when the nearest one to each image is its class's own.

    Codes opposite to the centres are as far apart as the centres, so for these losses separation says too little.
    """
    if hasattr(loss, "centers"):
        return torch.equal(hamming(codes, loss.centers).argmin(1), classes)
    return separated(codes, classes)


@pytest.mark.parametrize(
    "options", [{}, {"update": "batch"}, {"discrete": False}, {"mu": 0.0}, {"mu": 2e3}, {"columns": 8}]
)
def test_dsdh_separates_classes_with_every_switch(options):
    logits, classes, _ = train(make("dsdh", **options))
    assert separated(logits, classes)


@pytest.mark.parametrize("name", LOSSES)
def test_200_steps_pull_classes_apart_and_the_opposite_sign_does_not(name):
    loss = make(name)
    assert not learned(loss, *train(loss, epochs=0)[:2])
    logits, classes, state = train(loss)
    assert learned(loss, logits, classes)
    if loss.asymmetric:
        assert separated(state[2]["V"], classes)
    assert not learned(loss, *train(make(name), sign=-1.0)[:2])


@pytest.mark.parametrize("name", LOSSES)
def test_training_goes_on_from_its_state_exactly(name):
    want, _, _ = train(make(name), epochs=4)
    _, _, state = train(make(name), epochs=4, stop=2)
    options = {"seed": 5} if name in ("csq", "dpn", "orthohash", "greedyhash") else {}
    got, _, _ = train(make(name, **options), epochs=4, first=2, state=state)
    assert torch.equal(got, want)


ROWS = {
    "saturated": torch.tensor([1e4, -1e4]).repeat(6, N_BITS)[:, :N_BITS],
    "saturated apart": 1e4 * torch.where(torch.arange(6 * N_BITS).reshape(6, N_BITS) * 7 % 5 < 2, -1.0, 1.0),
    "zero": torch.zeros(6, N_BITS),
    "one of them zero": torch.cat([torch.zeros(1, N_BITS), torch.ones(5, N_BITS)]),
    "tiny": torch.full((6, N_BITS), 1e-30),
    "equal": torch.full((6, N_BITS), 0.5),
}


@pytest.mark.parametrize("values", ROWS)
@pytest.mark.parametrize("batch", ["all the same class", "all different", "one image"])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_finite(name, batch, values):
    n = 1 if batch == "one image" else 6
    loss = create_loss(name, n_bits=N_BITS, n_classes=6, n_train=N_TRAIN)
    targets = torch.zeros(6, dtype=torch.int64) if batch == "all the same class" else torch.arange(6)
    for epoch in range(2):  # the second epoch is the first that has codes, and the highest beta
        loss.start_epoch(epoch, 2)
        logits = ROWS[values][:n].clone().requires_grad_()
        value = loss(logits, targets[:n], torch.arange(n))
        value.backward()
        assert value.shape == ()
        assert torch.isfinite(value)
        assert torch.isfinite(logits.grad).all()
        assert all(torch.isfinite(p.grad).all() for p in loss.parameters())


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_counts_as_much_as_a_smaller_one(name):
    # Eight times the images of the same kind: a sum over the batch would be 8 or 64 times as large.
    small, large = (random_batch(n, seed=3) for n in (5, 40))
    # Sharp histograms of five random codes find information in noise.
    loss = make(name, **({"sharpness": 1.0} if name == "mihash" else {}))
    ratio = loss.eval()(*large).item() / loss.eval()(*small).item()
    assert 1 / 3 < ratio < 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(name, dtype):
    logits, targets, indices = random_batch()
    logits = logits.to(dtype)
    rounded = logits.float().requires_grad_()
    want = make(name)(rounded, targets, indices)
    want.backward()
    half = logits.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = make(name)(half, targets, indices)
    got.backward()
    assert got.dtype == torch.float32
    assert torch.equal(got, want)
    assert half.grad.dtype == dtype
    torch.testing.assert_close(half.grad, rounded.grad.to(dtype))


@pytest.mark.parametrize("name", LOSSES)
def test_evaluation_leaves_no_trace(name):
    loss = make(name)
    loss(*random_batch())
    before = copy.deepcopy(loss.state_dict())
    loss.eval()
    first, second = (loss(*random_batch(seed=1)) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(before[key], value) for key, value in loss.state_dict().items())


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_depends_on_the_global_generator_or_moves_it(name):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = make(name)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(1)
    second = make(name)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    second(*random_batch())
    assert torch.equal(torch.random.get_rng_state(), torch.manual_seed(1).get_state())


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.multi_label])
def test_one_hot_rows_mean_the_same_as_classes(name):
    logits, targets, indices = random_batch()
    rows = nn.functional.one_hot(targets, N_CLASSES)
    want = make(name)(logits, targets, indices)
    assert torch.equal(make(name)(logits, rows, indices), want)
    assert torch.equal(make(name)(logits, rows.bool(), indices), want)
    assert torch.equal(make(name)(logits, targets.to(torch.int32), indices.to(torch.int32)), want)


def test_a_loss_for_one_label_names_those_for_several():
    logits, targets, indices = random_batch()
    rows = nn.functional.one_hot(targets, N_CLASSES)
    with pytest.raises(ValueError, match=r"GreedyHash is defined for one label.*one of dsdh, dpsh, .*orthohash, adsh$"):
        make("greedyhash")(logits, rows, indices)


LOGITS, TARGETS, INDICES = random_batch()
MULTI_HOT = nn.functional.one_hot(TARGETS, N_CLASSES)
BAD_BATCHES = {
    r"logits are float32 of shape \(8, 11\): this DSDH takes floats of shape \(B, 12\)": (
        LOGITS[:, 1:],
        TARGETS,
        INDICES,
    ),
    r"logits are int64 of shape": (LOGITS.long(), TARGETS, INDICES),
    r"logits are float32 of shape \(0, 12\)": (LOGITS[:0], TARGETS[:0], INDICES[:0]),
    r"targets are float32 of shape \(8,\): give integers": (LOGITS, TARGETS.float(), INDICES),
    r"targets are float32 of shape \(8, 4\): give integers": (LOGITS, MULTI_HOT.float(), INDICES),
    r"targets have shape \(8, 3\)": (LOGITS, MULTI_HOT[:, 1:], INDICES),
    r"targets have shape \(7,\)": (LOGITS, TARGETS[1:], INDICES),
    r"targets hold 4, which is not in 0 … 3: create the loss with the n_classes": (
        LOGITS,
        TARGETS + 4 - TARGETS,
        INDICES,
    ),
    r"targets hold -1, which": (LOGITS, TARGETS - 1 - TARGETS, INDICES),
    r"multi-hot targets hold 2, which is not in 0 … 1": (LOGITS, MULTI_HOT * 2, INDICES),
    r"an image of this batch has no label": (LOGITS, MULTI_HOT * 0, INDICES),
    r"indices are float32": (LOGITS, TARGETS, INDICES.float()),
    r"indices have shape \(7,\)": (LOGITS, TARGETS, INDICES[1:]),
    r"indices hold 40, which is not in 0 … 39: create the loss with the n_train": (LOGITS, TARGETS, INDICES * 0 + 40),
    r"indices hold -1, which": (LOGITS, TARGETS, INDICES * 0 - 1),
}


@pytest.mark.parametrize("message", BAD_BATCHES)
def test_bad_batch_is_refused_with_what_is_wrong_and_nothing_is_remembered(message):
    loss = make("dsdh")
    with pytest.raises(ValueError, match=message):
        loss(*BAD_BATCHES[message])
    assert not loss.memory.seen.any()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("DSDH", {}, r"no loss is called 'DSDH' \(did you mean 'dsdh'\?\): use one of dsdh, dpsh,"),
        ("softmax", {}, "no loss is called 'softmax'.*: use one of"),
        ("dsdh", {"alpha": 1}, "dsdh has no option 'alpha': it has mu, nu, eta, update, discrete, sweeps"),
        ("dsdh", {"update": "step"}, "update is 'step'"),
        ("dsdh", {"nu": 0.0}, "nu is 0.0"),
        ("dsdh", {"mu": -1.0}, "mu is -1.0"),
        ("hashnet", {"beta_max": 0.5}, "beta_max is 0.5"),
        ("dch", {"gamma": 0.0}, "gamma is 0.0"),
        ("dpn", {"margin": 0.0}, "margin is 0.0"),
        ("orthohash", {"scale": 0.0}, "scale is 0.0"),
        ("mihash", {"n_bins": 0}, "n_bins is 0"),
    ],
)
def test_unknown_names_options_and_values_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make(name, **options)


@pytest.mark.parametrize("sizes", [{"n_bits": 0}, {"n_classes": -1}, {"n_train": 2.0}, {"n_bits": True}])
def test_sizes_are_positive_integers(sizes):
    with pytest.raises(ValueError, match=f"{next(iter(sizes))} is "):
        create_loss("dsdh", **{"n_bits": 8, "n_classes": 2, "n_train": 4} | sizes)


@pytest.mark.parametrize("epoch", [-1, 3])
def test_epochs_count_from_zero(epoch):
    with pytest.raises(ValueError, match=f"epoch is {epoch} of 3"):
        make("dsdh").start_epoch(epoch, 3)


@pytest.mark.parametrize("n_bits", [1, 2, 5, 12, 24, 48, 63])
@pytest.mark.parametrize("name", LOSSES)
def test_any_number_of_bits_works(name, n_bits):
    loss = create_loss(name, n_bits=n_bits, n_classes=2, n_train=4)
    logits = torch.linspace(-1, 1, 4 * n_bits).reshape(4, n_bits)
    assert torch.isfinite(loss(logits, torch.tensor([0, 1, 1, 0]), torch.arange(4)))


def test_hashnet_sharpens_its_codes_from_epoch_to_epoch():
    loss = make("hashnet")
    betas = []
    for epoch in range(5):
        loss.start_epoch(epoch, 5)
        betas.append(float(loss.beta))
    assert betas == sorted(betas)
    assert betas[0] == 1
    assert betas[-1] == pytest.approx(math.sqrt(51))
    loss.start_epoch(0, 1)
    assert float(loss.beta) == 1


def test_registry_holds_every_loss_under_its_name_in_lower_case():
    classes = {
        value for value in vars(deephash.losses).values() if isinstance(value, type) and issubclass(value, HashingLoss)
    } - {HashingLoss, NestedLoss}
    assert set(LOSSES.values()) == classes - set(UNSUPERVISED.values())
    assert set(UNSUPERVISED.values()) < classes
    assert all(name == loss.__name__.lower() for name, loss in LOSSES.items())
    assert [name for name, loss in LOSSES.items() if loss.asymmetric] == ["adsh"]
    assert set(deephash.losses.__all__) == {loss.__name__ for loss in classes} | {
        "LOSSES",
        "UNSUPERVISED",
        "HashingLoss",
        "NestedLoss",
        "create_loss",
    }


@pytest.mark.parametrize("name", LOSSES)
def test_every_docstring_names_its_source(name):
    assert "Source: " in LOSSES[name].__doc__
