"""What differs on a GPU; everything here is skipped where torch sees none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deephash import index_images
from deephash.augmentation import Augmentation
from deephash.code_quality import encode_split
from deephash.datasets import LabelledImages, RetrievalSplit
from deephash.encoders import VARIABLE
from deephash.input_spec import InputSpec
from deephash.inputs import ImageInputs, compute_logits
from deephash.losses import LOSSES, create_loss
from deephash.model import load_model
from deephash.recipes import CIFAR_RESNET, FINE_TUNING
from deephash.samples import load_cifar10_sample
from deephash.shifted_inputs import ShiftedInputs
from deephash.supervised import train_model
from deephash.torch_encoders import choose_encoder
from deephash.training import TrainConfig, train
from tests.deephash.small_training import BITS, CLASSES, CONFIG, N, SmallNetwork, images_and_labels

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3)).astype(np.uint8)
SPEC = InputSpec(size=32, resize=32)


def varied(kind, how, size, device):
    inputs = kind(PIXELS, replace(SPEC, size=size, resize=size), how, device)
    batch = inputs(np.arange(len(PIXELS)), torch.Generator().manual_seed(3))
    assert batch.device.type == device
    return batch.cpu()


@pytest.mark.parametrize(
    ("kind", "how", "size"),
    [
        (ImageInputs, Augmentation(min_area=0.4, colour=0.3, cutout=0.25), 48),
        (ImageInputs, Augmentation(min_area=0.4, colour=0.3), 24),
        (ShiftedInputs, Augmentation(min_area=1.0, colour=0.0, cutout=0.25, shift=2), 32),
    ],
)
def test_images_are_varied_as_on_the_cpu(kind, how, size):
    torch.testing.assert_close(varied(kind, how, size, "cuda"), varied(kind, how, size, "cpu"), atol=1e-3, rtol=1e-3)


def trained(loss, device, **changes):
    inputs, targets = images_and_labels()
    torch.manual_seed(0)
    network = SmallNetwork().to(device)
    criterion = create_loss(loss, n_bits=BITS, n_classes=CLASSES, n_train=N)
    losses = []
    result = train(
        network, criterion, replace(inputs, device=device), targets, np.arange(N), replace(CONFIG, **changes),
        on_epoch=lambda report: losses.append(report.loss),
    )  # fmt: skip
    return losses, result


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"adsh"}))
def test_every_loss_trains_as_on_the_cpu(loss):
    on_gpu, _ = trained(loss, "cuda", bf16=False)
    on_cpu, _ = trained(loss, "cpu", bf16=False)
    # The first epoch; sums in another order may turn the sign of a code later.
    assert on_gpu[0] == pytest.approx(on_cpu[0], rel=1e-3)
    assert np.isfinite(on_gpu).all()


def test_mixed_precision_is_the_default_and_keeps_weights_in_float32():
    config = TrainConfig(epochs=1, batch_size=16)
    pixels, _ = images_and_labels()
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3 * 16 * 16, BITS)

        def forward(self, images):
            logits = self.layer(images.flatten(1))
            seen.append(logits.dtype)
            return logits

    for bf16, dtype in ((None, torch.bfloat16), (False, torch.float32)):
        network = Spy().cuda()
        criterion = create_loss("dsdh", n_bits=BITS, n_classes=CLASSES, n_train=N)
        targets = torch.arange(N) % CLASSES
        train(
            network, criterion, replace(pixels, device="cuda"), targets, np.arange(N), replace(config, bf16=bf16)
        )  # fmt: skip
        assert seen.pop() == dtype
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


@pytest.mark.parametrize(("recipe", "least"), [(FINE_TUNING, 0.2), (CIFAR_RESNET, 0.12)])
def test_a_whole_run_learns_and_its_model_encodes_alike_on_the_cpu(recipe, least):
    sample = load_cifar10_sample()
    pixels = np.concatenate([sample.database_images, sample.query_images])
    labels = np.concatenate([sample.database_labels, sample.query_labels])
    images = LabelledImages(pixels, labels, list(sample.class_names), [""] * len(pixels))
    database, query = np.arange(1_200), np.arange(1_200, 1_400)
    split = RetrievalSplit("sample", query, database, database)
    size = 32 if recipe is CIFAR_RESNET else 64
    config = replace(recipe, image_size=size, training=replace(recipe.training, epochs=3, batch_size=64, bf16=None))
    result = train_model(images, split, config)
    assert result.quality.map > least
    inputs = ImageInputs(images.pixels, result.model.input_spec, Augmentation())
    on_gpu = encode_split(result.model, inputs, split.query, split.query, bf16=False)[: len(split.query)]
    on_cpu = compute_logits(result.model.cpu(), inputs, split.query)
    assert ((on_gpu > 0) == (on_cpu > 0)).mean() > 0.995


@pytest.mark.parametrize(("name", "least"), [("cuda", 0.999), ("cuda-fp16", 0.99)])
def test_encoders_on_the_gpu_keep_the_codes_of_the_cpu(monkeypatch, name, least):
    model = load_model("general-128")
    pixels = np.repeat(np.repeat(load_cifar10_sample().query_images[:48], 7, 1), 7, 2)
    monkeypatch.setenv(VARIABLE, "torch")
    expected = model.logits_of_features(choose_encoder(model)(pixels)) > 0
    monkeypatch.setenv(VARIABLE, name)
    encoder = choose_encoder(model)
    assert encoder.name == name
    assert ((model.logits_of_features(encoder(pixels)) > 0) == expected).mean() >= least


def test_the_gpu_is_picked_for_indexing(photos, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert choose_encoder(load_model("general-64")).name.startswith("cuda")
    report = index_images(photos, tmp_path / "g.dhx", model="general-64")
    assert report.n_images == 40
    assert not report.skipped
