import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from deephash.inference import has_fast_bf16
from deephash.inputs import FeatureInputs, compute_logits
from deephash.losses import create_loss
from deephash.training import TrainConfig, TrainingError, train

N, D, BITS, CLASSES = 120, 16, 12, 4


@pytest.fixture(scope="module")
def data():
    """Features of four classes, well apart, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), N // CLASSES)
    centres = rng.normal(size=(CLASSES, D)) * 2
    features = (centres[labels] + rng.normal(size=(N, D))).astype(np.float32)
    return FeatureInputs(features, noise=0.1), torch.from_numpy(labels)


def make(loss="dsdh", seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(D, 24), nn.ReLU(), nn.Linear(24, BITS))
    return network, create_loss(loss, n_bits=BITS, n_classes=CLASSES, n_train=N)


def run(data, config, loss="dsdh", **options):
    inputs, targets = data
    network, criterion = make(loss)
    return train(network, criterion, inputs, targets, np.arange(N), config, **options)


CONFIG = TrainConfig(epochs=6, batch_size=32, lr=5e-3, averaging=0.9)


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize("loss", ["dsdh", "hashnet", "greedyhash", "orthohash"])
def test_learned_codes_tell_classes_apart(data, loss):
    inputs, targets = data
    network = run(data, TrainConfig(epochs=25, batch_size=32, lr=1e-2, averaging=0.9), loss)
    bits = compute_logits(network, inputs, np.arange(N)) > 0
    distances = (bits[:, None] != bits[None]).sum(-1)
    same = targets[:, None] == targets[None]
    assert distances[same.numpy()].mean() + 1 < distances[~same.numpy()].mean()


class Stop(Exception):
    pass


def stop_after_two(report):
    if report.epoch == 2:
        raise Stop


@pytest.mark.parametrize("loss", ["dsdh", "hashnet", "greedyhash"])
def test_a_resumed_run_ends_where_an_undisturbed_one_does(data, loss, tmp_path):
    undisturbed = run(data, CONFIG, loss)
    with pytest.raises(Stop):
        run(data, CONFIG, loss, checkpoint=tmp_path / "run.pt", on_epoch=stop_after_two)
    seen = []
    resumed = run(data, CONFIG, loss, checkpoint=tmp_path / "run.pt", on_epoch=lambda report: seen.append(report.epoch))
    assert seen == [3, 4, 5, 6]
    assert torch.equal(weights(resumed), weights(undisturbed))


def test_the_seed_decides(data):
    other = TrainConfig(**{**vars(CONFIG), "seed": 1})
    assert torch.equal(weights(run(data, CONFIG)), weights(run(data, CONFIG)))
    assert not torch.equal(weights(run(data, CONFIG)), weights(run(data, other)))


def test_a_checkpoint_of_another_configuration_is_refused(data, tmp_path):
    run(data, CONFIG, checkpoint=tmp_path / "run.pt")
    other = TrainConfig(**{**vars(CONFIG), "lr": 1e-4})
    with pytest.raises(TrainingError, match=r"another configuration \(lr was 0\.005, is 0\.0001\): repeat that, or"):
        run(data, other, checkpoint=tmp_path / "run.pt")


def test_a_checkpoint_of_another_task_is_refused_and_says_which(data, tmp_path):
    first = {"loss": "dsdh", "size": 32, "options": {"mu": 1.0}}
    run(data, CONFIG, checkpoint=tmp_path / "run.pt", task=first)
    run(data, CONFIG, checkpoint=tmp_path / "run.pt", task=first | {"of_a_later_version": 1})
    for task, message in (
        (first | {"size": 64, "loss": "dpsh"}, r"\(loss was dsdh, is dpsh; size was 32, is 64\)"),
        (first | {"options": {}}, r"options was \{'mu': 1\.0\}, is \{\}"),
        (None, "loss was dsdh, is None"),
    ):
        with pytest.raises(TrainingError, match=message):
            run(data, CONFIG, checkpoint=tmp_path / "run.pt", task=task)


@pytest.mark.parametrize("stopped_after", [1, 5, 6])
def test_a_resumed_run_knows_the_epochs_before_it(data, tmp_path, stopped_after):
    def stop(report):
        if report.epoch == stopped_after:
            raise Stop

    def validate(network, epoch):
        return {"map": epoch / 10}

    undisturbed, before, new = [], [], []
    run(data, CONFIG, validate=validate, on_epoch=undisturbed.append)
    options = {"validate": validate, "checkpoint": tmp_path / "run.pt"}
    with pytest.raises(Stop):
        run(data, CONFIG, on_epoch=stop, **options)
    run(data, CONFIG, on_resume=before.extend, on_epoch=new.append, **options)
    assert len(before) == stopped_after
    every = [[replace(report, seconds=0) for report in reports] for reports in (before + new, undisturbed)]
    assert every[0] == every[1]
    seconds = [report.seconds for report in before + new]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_named(data, tmp_path, damage):
    path = tmp_path / "run.pt"
    run(data, CONFIG, checkpoint=path)
    path.write_bytes(path.read_bytes()[:500] if damage is None else damage)
    with pytest.raises(TrainingError, match=r"run\.pt is damaged"):
        run(data, CONFIG, checkpoint=path)


def test_a_loss_that_is_not_finite_stops_with_advice(data):
    inputs, targets = data
    features = inputs.features.copy()
    features[7] = np.inf
    network, criterion = make()
    with pytest.raises(TrainingError, match="lower the learning rate"):
        train(network, criterion, FeatureInputs(features), targets, np.arange(N), CONFIG)


def test_the_head_alone_moves_when_the_backbone_rate_is_zero(data):
    inputs, targets = data
    network, criterion = make()
    before = network[0].weight.detach().clone()
    config = TrainConfig(epochs=1, batch_size=32, backbone_lr=0.0, averaging=0.0)
    train(network, criterion, inputs, targets, np.arange(N), config, head=network[2])
    assert torch.equal(network[0].weight, before)
    assert not torch.equal(network[2].weight, make()[0][2].weight)


def test_averaged_weights_lie_behind_the_last_ones(data):
    inputs, targets = data
    results = []
    for averaging in (0.0, 0.9):
        network, criterion = make()
        config = TrainConfig(epochs=3, batch_size=32, averaging=averaging)
        averaged = train(network, criterion, inputs, targets, np.arange(N), config)
        results.append(torch.equal(weights(averaged), weights(network)))
    assert results == [True, False]


def test_every_item_is_seen_once_an_epoch_and_no_batch_is_a_single_one(data):
    inputs, targets = data
    seen, sizes = [], []

    def spy(positions, generator):
        seen.extend(positions.tolist())
        sizes.append(len(positions))
        return inputs(positions, generator)

    network, criterion = make("greedyhash")
    train(network, criterion, spy, targets, np.arange(N), TrainConfig(epochs=1, batch_size=17))
    assert sorted(seen) == list(range(N))
    assert min(sizes) > 1


def test_validation_is_reported_and_does_not_change_training(data):
    reports = []
    with_validation = run(
        data,
        CONFIG,
        validate=lambda network, epoch: {"map": epoch / 10},
        on_epoch=lambda report: reports.append(report),
    )
    assert [report.validation["map"] for report in reports] == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert torch.equal(weights(with_validation), weights(run(data, CONFIG)))


def test_dropout_is_resumed_exactly_too(data, tmp_path):
    inputs, targets = data

    def with_dropout(**options):
        network, criterion = make()
        network.insert(1, nn.Dropout(0.5))
        return train(network, criterion, inputs, targets, np.arange(N), CONFIG, **options)

    undisturbed = with_dropout()
    with pytest.raises(Stop):
        with_dropout(checkpoint=tmp_path / "run.pt", on_epoch=stop_after_two)
    torch.rand(17)
    assert torch.equal(weights(with_dropout(checkpoint=tmp_path / "run.pt")), weights(undisturbed))


def test_a_checkpoint_that_knows_fewer_settings_has_the_others_at_their_defaults(data, tmp_path):
    def forget_patience(value):
        values = torch.load(tmp_path / "run.pt", weights_only=True)
        config = json.loads(values["config"])
        del config["patience"], values["best"], values["task"], values["history"]
        torch.save(values | {"config": json.dumps(config | value)}, tmp_path / "run.pt")

    with pytest.raises(Stop):
        run(data, CONFIG, checkpoint=tmp_path / "run.pt", on_epoch=stop_after_two)
    forget_patience({})
    assert torch.equal(weights(run(data, CONFIG, checkpoint=tmp_path / "run.pt")), weights(run(data, CONFIG)))
    forget_patience({"of_a_later_version": 1})
    with pytest.raises(TrainingError, match="another configuration"):
        run(data, CONFIG, checkpoint=tmp_path / "run.pt")


PATIENT = TrainConfig(**{**vars(CONFIG), "patience": 2})
MAPS = [0.1, 0.5, 0.4, 0.5, 0.9, 0.9]


class Curve:
    """Validation by a given curve of mAP; keeps the averaged weights of each epoch."""

    def __init__(self, maps):
        self.maps, self.weights = maps, {}

    def __call__(self, network, epoch):
        self.weights[epoch] = weights(network)
        return {"map": self.maps[epoch]}


@pytest.mark.parametrize(
    ("maps", "n_epochs", "best"),
    [(MAPS, 4, 1), ([0.1, 0.5, 0.4, 0.6, 0.5, 0.5], 6, 3), ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 6, 5), ([0.0] * 6, 3, 0)],
)
def test_patience_stops_after_so_many_epochs_without_a_better_map_and_returns_the_best(data, maps, n_epochs, best):
    curve, reports = Curve(maps), []
    trained = run(data, PATIENT, validate=curve, on_epoch=reports.append)
    assert [report.epoch for report in reports] == list(range(1, n_epochs + 1))
    assert reports[-1].best_epoch == best + 1
    assert torch.equal(weights(trained), curve.weights[best])
    assert not trained.training


@pytest.mark.parametrize("stopped_after", [1, 2, 3, 4])
def test_patience_is_resumed_exactly(data, tmp_path, stopped_after):
    def stop(report):
        if report.epoch == stopped_after:
            raise Stop

    undisturbed = run(data, PATIENT, validate=Curve(MAPS))
    with pytest.raises(Stop):
        run(data, PATIENT, validate=Curve(MAPS), checkpoint=tmp_path / "run.pt", on_epoch=stop)
    seen = []
    resumed = run(
        data, PATIENT, validate=Curve(MAPS), checkpoint=tmp_path / "run.pt",
        on_epoch=lambda report: seen.append((report.epoch, report.best_epoch)),
    )  # fmt: skip
    assert seen == [(epoch, 2) for epoch in range(stopped_after + 1, 5)]
    assert torch.equal(weights(resumed), weights(undisturbed))


def test_patience_needs_something_to_wait_for(data):
    with pytest.raises(ValueError, match="patience is 2, but nothing is validated"):
        run(data, PATIENT)
    with pytest.raises(ValueError, match=r"validate returned no map: \{'loss': 1\}"):
        run(data, PATIENT, validate=lambda network, epoch: {"loss": 1})
    with pytest.raises(ValueError, match="patience is 0: use 1 epoch or more"):
        TrainConfig(patience=0)


def test_fast_bf16_is_what_the_processor_says(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")  # Linux is asked itself: test_machine
    for capabilities, fast in (
        ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True, "avx512_bf16": False}, False),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found, raising=False)
        assert has_fast_bf16(torch.device("cpu")) == fast


def test_bf16_is_off_on_a_cpu_unless_asked_for(data):
    if torch.cuda.is_available():
        pytest.skip("a GPU decides otherwise")
    on, off, default = (weights(run(data, TrainConfig(epochs=1, bf16=bf16))) for bf16 in (True, False, None))
    assert torch.equal(default, off)
    assert not torch.equal(on, off)
    assert torch.allclose(on, off, atol=0.02)
    assert on.dtype == torch.float32
