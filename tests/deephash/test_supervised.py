from dataclasses import replace

import numpy as np
import pytest

from deephash.augmentation import Augmentation
from deephash.backbones import create_backbone
from deephash.code_quality import evaluate_model
from deephash.datasets import LabelledImages, RetrievalSplit
from deephash.evaluation import evaluate_codes
from deephash.inputs import ImageInputs, compute_logits
from deephash.model import load_model
from deephash.supervised import RunConfig, check_lengths, hold_out, train_model
from deephash.training import TrainConfig, TrainingError
from index import pack_bits


@pytest.fixture(scope="module")
def colours():
    """Noisy pictures of four colours: a task that the smallest network learns in seconds."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 4
    ground = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [180, 180, 40]])[labels]
    noise = rng.integers(-40, 41, (200, 16, 16, 3))
    pixels = np.clip(ground[:, None, None] + noise, 0, 255).astype(np.uint8)
    images = LabelledImages(pixels, labels, ["red", "green", "blue", "yellow"], [str(i) for i in range(200)])
    return images, RetrievalSplit("colours", np.arange(40), np.arange(40, 200), np.arange(40, 200))


def config(**changes):
    training = TrainConfig(epochs=4, batch_size=32, lr=5e-3, backbone_lr=5e-3, averaging=0.8)
    fields = {"loss": "orthohash", "n_bits": 16, "backbone": "test_efficientnet", "pretrained": False, "image_size": 32}
    return RunConfig(**(fields | {"augmentation": Augmentation(0.5, True, 0.0), "training": training} | changes))


def test_a_trained_model_finds_its_classes_and_its_file_gives_the_same_codes(colours, tmp_path):
    images, split = colours
    result = train_model(images, split, config())
    assert result.quality.map > 0.9
    assert result.quality.chance == pytest.approx(0.25)
    assert [report.epoch for report in result.epochs] == [1, 2, 3, 4]
    result.model.save(tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.card.method == "orthohash"
    assert loaded.card.training["protocol"] == "colours"
    assert loaded.card.training["training_images"] == 160
    assert evaluate_model(loaded, images, split).map == pytest.approx(result.quality.map, abs=0.005)


def test_mirrored_quality_is_that_of_the_mean_of_both_logits(colours):
    images, split = colours
    short = replace(config().training, epochs=1, lr=1e-4)
    result = train_model(images, split, config(training=short), mirrored=True)
    assert train_model(images, split, config(training=short)).mirrored is None
    logits = [
        compute_logits(
            result.model, ImageInputs(pixels, result.model.input_spec, Augmentation()), np.arange(len(pixels))
        )
        for pixels in (images.pixels, images.pixels[:, :, ::-1])
    ]
    codes = pack_bits(logits[0] + logits[1] > 0)
    expected = evaluate_codes(
        codes[split.query],
        codes[split.database],
        n_bits=16,
        query_labels=images.targets[split.query],
        database_labels=images.targets[split.database],
    )
    assert result.mirrored.map == pytest.approx(expected.map, abs=0.005)
    assert result.mirrored.health.entropy == pytest.approx(expected.health.entropy, abs=0.02)
    assert abs(result.mirrored.health.entropy - result.quality.health.entropy) > 0.05


def test_frozen_stages_and_a_head_trained_first(colours, tmp_path):
    images, split = colours
    changed = config(frozen_stages=1, head_epochs=5, loss="dsdh")
    result = train_model(images, split, changed)
    assert result.quality.map > 0.9
    untrained = create_backbone("test_efficientnet", pretrained=False).module.state_dict()
    trained = result.model.backbone.state_dict()
    assert trained.keys() == untrained.keys()
    result.model.save(tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors")
    assert evaluate_model(loaded, images, split).map == pytest.approx(result.quality.map, abs=0.005)


def test_validation_comes_out_of_the_training_set(colours):
    images, split = colours
    learned, held_out = hold_out(images, split.training, 0.25, seed=0)
    assert len(held_out) == 40
    assert np.array_equal(np.sort(np.concatenate([learned, held_out])), split.training)
    result = train_model(images, split, config(validation_share=0.25))
    assert result.model.training_facts["training_images"] == 120
    assert all(report.validation["map"] > 0.25 for report in result.epochs)


class Stop(Exception):
    pass


def test_a_run_goes_on_knows_all_its_epochs_and_refuses_what_was_not_asked_for(colours, tmp_path):
    images, split = colours
    asked = config(frozen_stages=1, head_epochs=2, loss="dsdh", loss_options={"mu": 1e3})

    def stop(report):
        if report.epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        train_model(images, split, asked, checkpoint=tmp_path / "run.pt", on_epoch=stop)
    relabelled = replace(images, targets=images.targets[::-1].copy())
    fewer = RetrievalSplit("fewer", split.query, split.training[1:], split.database)
    for other, message in (
        ((images, split, replace(asked, loss_options={})), r"loss_options was \{'mu': 1000\.0\}, is \{\}"),
        ((images, split, replace(asked, loss="dpsh", loss_options={})), "loss was dsdh, is dpsh"),
        ((images, split, replace(asked, image_size=48)), "image_size was 32, is 48"),
        ((images, split, replace(asked, frozen_stages=0)), "frozen_stages was 1, is 0"),
        ((relabelled, split, asked), "labels was"),
        ((images, fewer, asked), "training_images was 160, is 159"),
    ):
        with pytest.raises(TrainingError, match=message):
            train_model(*other, checkpoint=tmp_path / "run.pt")
    new = []
    result = train_model(images, split, asked, checkpoint=tmp_path / "run.pt", on_epoch=new.append)
    assert [report.epoch for report in new] == [3, 4]
    undisturbed = train_model(images, split, asked)
    assert [report.loss for report in result.epochs] == [report.loss for report in undisturbed.epochs]
    assert result.quality.map == undisturbed.quality.map
    again = train_model(images, split, asked, checkpoint=tmp_path / "run.pt")
    assert again.epochs == result.epochs


def test_one_class_alone_is_refused(colours):
    images, split = colours
    red = split.training[images.targets[split.training] == 0]
    with pytest.raises(TrainingError, match="the same labels"):
        train_model(images, RetrievalSplit("red", split.query, red, split.database), config())


def test_unknown_loss_names_the_known(colours):
    with pytest.raises(ValueError, match="orthohash"):
        train_model(*colours, config(loss="ortohash"))


def test_one_nested_run_gives_a_model_of_every_length(colours, tmp_path):
    images, split = colours
    result = train_model(images, split, config(loss="dsdh", n_bits=20, nested=(8, 13), frozen_stages=1, head_epochs=5))
    assert list(result.nested) == [8, 13]
    assert result.quality.n_bits == 20
    assert min(result.quality.map, *(report.map for report in result.nested.values())) > 0.9
    result.model.save(tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors")
    facts = loaded.card.training
    assert facts["config"]["nested"] == [8, 13]
    assert facts["map_of_first_bits"] == {str(n): round(report.map, 4) for n, report in result.nested.items()}
    for model in (result.model, loaded):
        shorter = model.prefix(13)
        assert evaluate_model(shorter, images, split).map == pytest.approx(result.nested[13].map, abs=0.005)
        assert shorter.card.training["map"] == facts["map_of_first_bits"]["13"]


def test_a_checkpoint_refuses_other_nested_lengths(colours, tmp_path):
    asked = config(loss="dsdh", nested=(8, 12))

    def stop(report):
        raise Stop

    with pytest.raises(Stop):
        train_model(*colours, asked, checkpoint=tmp_path / "run.pt", on_epoch=stop)
    for other, message in (((), r"is \(\)|is \[\]"), ((8,), r"is \[8\]")):
        with pytest.raises(TrainingError, match=rf"nested was \[8, 12\], {message}"):
            train_model(*colours, replace(asked, nested=other), checkpoint=tmp_path / "run.pt")
    result = train_model(*colours, asked, checkpoint=tmp_path / "run.pt")
    undisturbed = train_model(*colours, asked)
    assert [report.loss for report in result.epochs] == [report.loss for report in undisturbed.epochs]
    assert {n: r.map for n, r in result.nested.items()} == {n: r.map for n, r in undisturbed.nested.items()}


@pytest.mark.parametrize(
    ("nested", "message"),
    [
        ((12, 8), "the nested lengths are 12, 8: they must ascend, below 16 bits"),
        ((8, 8), "must ascend"),
        ((8, 16), "must ascend, below 16"),
        ((24,), "must ascend, below 16"),
        ((4, 8), "n_bits is 4: use an integer from 8"),
        ((-8,), "n_bits is -8"),
    ],
)
def test_lengths_that_are_no_prefixes_are_refused(colours, nested, message):
    with pytest.raises(ValueError, match=message):
        check_lengths(16, nested)
    with pytest.raises(ValueError, match=message):
        train_model(*colours, config(nested=nested))
