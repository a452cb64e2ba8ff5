"""The nested loss: the mean of its losses, each bit moved by one of them; whatever the loss, every prefix learns."""

import copy

import pytest
import torch
from torch import nn

from deephash.losses import ADSH, DSDH, LOSSES, NestedLoss, create_loss
from deephash.losses.nested import _telling_order
from tests.deephash.losses.linear_training import train

N_BITS, N_CLASSES, N_TRAIN = 24, 4, 40
NESTED = (6, 12)
SYMMETRIC = [name for name, loss in LOSSES.items() if not loss.asymmetric]
# The losses that draw classes to codes of their own.
CENTERED = ("csq", "dpn", "orthohash")


def make(name, n_bits=N_BITS, nested=NESTED, **options):
    return create_loss(name, n_bits=n_bits, n_classes=N_CLASSES, n_train=N_TRAIN, nested=nested, **options)


def random_batch(n=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, N_CLASSES, (n,), generator=generator)
    return torch.randn(n, N_BITS, generator=generator), targets, torch.randperm(N_TRAIN, generator=generator)[:n]


def value_and_gradient(loss, logits, targets, indices):
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, targets, indices)
    value.backward()
    return value.detach(), leaf.grad


@pytest.mark.parametrize(("given", "joint"), [(0.5, False), (1.0, False), (0.5, True)])
@pytest.mark.parametrize("name", ["dsdh", "greedyhash", "hashnet", "mihash"])
def test_value_and_gradient_are_those_of_the_mean_of_single_losses(name, given, joint):
    lengths = (*NESTED, N_BITS)
    nested = NestedLoss([make(name, n, ()) for n in lengths], given=given, joint=joint)
    alone = [make(name, n, ()) for n in lengths]
    for epoch in range(2):
        for loss in (nested, *alone):
            loss.start_epoch(epoch, 2)
        for step in range(2):
            logits, targets, indices = random_batch(seed=10 * epoch + step)
            value, gradient = value_and_gradient(nested, logits, targets, indices)
            want_value, want = 0.0, torch.zeros_like(logits)
            start = 0
            for loss, n in zip(alone, lengths, strict=True):
                own = logits[:, :n].clone()
                own[:, :start] *= 1 if joint else given
                one, slope = value_and_gradient(loss, own, targets, indices)
                want_value += one / 3
                first = 0 if joint else start
                want[:, first:n] += slope[:, first:] / 3
                start = n
            torch.testing.assert_close(value, want_value)
            torch.testing.assert_close(gradient, want)
    own = nested.state_dict()
    for i, loss in enumerate(alone):
        for key, tensor in loss.state_dict().items():
            assert torch.equal(own[f"losses.{i}.{key}"], tensor), key


def separated(codes, classes):
    distances = torch.cdist((codes > 0).float(), (codes > 0).float(), p=0)
    same = classes.unsqueeze(1) == classes
    return bool(distances[same].max() < distances[~same].min())


@pytest.mark.parametrize("name", SYMMETRIC)
def test_every_prefix_tells_classes_apart_whatever_the_loss(name):
    untrained, classes, _ = train(make(name), epochs=0)
    logits, _, _ = train(make(name), epochs=40)
    for n_bits in (*NESTED, N_BITS):
        assert not separated(untrained[:, :n_bits], classes)
        assert separated(logits[:, :n_bits], classes)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_training_goes_on_from_its_state_exactly(name):
    want, _, final = train(make(name), epochs=4)
    _, _, state = train(make(name), epochs=4, stop=2)
    options = {"seed": 5} if name in (*CENTERED, "greedyhash") else {}
    got, _, resumed = train(make(name, **options), epochs=4, first=2, state=state)
    assert torch.equal(got, want)
    assert all(torch.equal(resumed[2][key], value) for key, value in final[2].items())


@pytest.mark.parametrize("name", CENTERED)
def test_centers_of_a_length_begin_those_of_the_next_and_are_those_of_the_whole_reordered(name):
    loss = make(name)
    shortest, middle, whole = (inner.centers for inner in loss.losses)
    assert torch.equal(whole[:, :12], middle)
    assert torch.equal(middle[:, :6], shortest)
    assert len(torch.unique(shortest, dim=0)) == N_CLASSES
    columns = sorted(map(tuple, make(name, nested=()).centers.T.tolist()))
    assert sorted(map(tuple, whole.T.tolist())) == columns


def test_first_codes_and_ties_are_shared_too():
    first = [inner.first_codes for inner in make("dsdh", centers=True).losses]
    assert torch.equal(first[2][:, :6], first[0])
    ties = [inner.tie_breaker for inner in make("csq").losses]
    assert torch.equal(ties[2][:12], ties[1])


@pytest.mark.parametrize("n_classes", [1, 2, 10])
def test_the_bits_that_tell_classes_apart_come_first(n_classes):
    codes = torch.randint(0, 2, (n_classes, 8), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    constant = torch.ones(n_classes, 3)
    order = _telling_order(torch.cat([constant, codes], dim=1))
    assert sorted(order.tolist()) == list(range(11))
    if n_classes > 1:
        told = codes.std(0).gt(0).sum()
        assert set(order[:told].tolist()).isdisjoint(range(3))


def test_evaluation_leaves_no_trace():
    loss = make("dsdh")
    loss(*random_batch())
    before = copy.deepcopy(loss.state_dict())
    loss.eval()
    first, second = (loss(*random_batch(seed=1)) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(before[key], value) for key, value in loss.state_dict().items())


def test_half_precision_is_computed_in_float32():
    logits, targets, indices = random_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = make("dsdh")(logits.bfloat16(), targets, indices)
    assert value.dtype == torch.float32
    assert torch.equal(value, make("dsdh")(logits.bfloat16().float(), targets, indices))


def test_bad_batches_are_refused_as_by_the_loss_itself_and_nothing_is_remembered():
    logits, targets, indices = random_batch()
    rows = nn.functional.one_hot(targets, N_CLASSES)
    loss = make("dsdh")
    for batch, message in (
        ((logits[:, 1:], targets, indices), r"logits are float32 of shape \(10, 23\): this DSDH takes .*\(B, 24\)"),
        ((logits, targets + N_CLASSES, indices), "targets hold"),
        ((logits, targets, indices + N_TRAIN), "indices hold"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(*batch)
    assert not any(inner.memory.seen.any() for inner in loss.losses)
    assert torch.equal(make("dsdh")(logits, rows, indices), make("dsdh")(logits, targets, indices))
    with pytest.raises(ValueError, match="GreedyHash is defined for one label"):
        make("greedyhash")(logits, rows, indices)
    with pytest.raises(ValueError, match="epoch is 2 of 2"):
        loss.start_epoch(2, 2)


@pytest.mark.parametrize(
    ("nested", "message"),
    [
        ((12, 6), "the nested lengths are 12, 6: they must ascend, below 24 bits"),
        ((6, 6), "must ascend"),
        ((6, 24), "must ascend, below 24 bits"),
        ((30,), "must ascend, below 24 bits"),
        ((0, 6), "n_bits is 0: use an integer of 1 or more"),
        ((-3,), "n_bits is -3"),
        ((6.0,), "n_bits is 6.0"),
    ],
)
def test_lengths_that_are_no_prefixes_are_refused(nested, message):
    with pytest.raises(ValueError, match=message):
        make("dsdh", nested=nested)


def test_what_cannot_be_nested_is_refused():
    with pytest.raises(ValueError, match=r"ADSH codes the database by itself, .*: nest a symmetric loss"):
        make("adsh")
    with pytest.raises(ValueError, match="no loss to nest"):
        NestedLoss([])
    with pytest.raises(ValueError, match=r"given is 1\.5"):
        NestedLoss([DSDH(6, N_CLASSES, N_TRAIN)], given=1.5)
    for other in (DSDH(N_BITS, N_CLASSES + 1, N_TRAIN), DSDH(N_BITS, N_CLASSES, N_TRAIN + 1)):
        with pytest.raises(ValueError, match="differ"):
            NestedLoss([DSDH(6, N_CLASSES, N_TRAIN), other])
    with pytest.raises(ValueError, match="ADSH"):
        NestedLoss([ADSH(6, N_CLASSES, N_TRAIN), DSDH(N_BITS, N_CLASSES, N_TRAIN)])
    with pytest.raises(ValueError, match="dsdh has no option 'alpha'"):
        make("dsdh", alpha=1)
