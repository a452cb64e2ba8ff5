import numpy as np
import pytest
import torch

from deephash.augmentation import Augmentation
from deephash.backbones import create_backbone
from deephash.cifar_resnet import CIFAR_SPEC, CifarResNet
from deephash.datasets import LabelledImages, RetrievalSplit
from deephash.errors import BackboneError
from deephash.inference import inference_copy
from deephash.model import load_model
from deephash.supervised import RunConfig, train_model
from deephash.training import TrainConfig


def pictures(n, seed=0):
    """Noisy textures of three classes: stripes across, stripes down, and a chequered ground."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    at = np.arange(32) // 4 % 2
    grounds = np.stack([np.broadcast_to(at[:, None], (32, 32)), np.broadcast_to(at, (32, 32)), at[:, None] ^ at])
    pixels = 90 + 60 * grounds[labels][..., None] + rng.normal(0, 40, (n, 32, 32, 3))
    return LabelledImages(
        np.clip(pixels, 0, 255).astype(np.uint8), labels, ["across", "down", "chequered"], [str(i) for i in range(n)]
    )


@pytest.fixture(scope="module")
def trained():
    images = pictures(160)
    split = RetrievalSplit("textures", np.arange(40), np.arange(40, 160), np.arange(40, 160))
    training = TrainConfig(
        epochs=3, batch_size=10, lr=0.02, backbone_lr=0.1, averaging=0.0, bf16=True, clip_norm=1e6, optimizer="muon"
    )
    config = RunConfig(
        loss="dsdh",
        n_bits=16,
        backbone="cifar_resnet",
        pretrained=False,
        image_size=32,
        loss_options={"mu": 1e6, "nu": 1e5, "eta": 12.0, "columns": 60, "centers": True},
        augmentation=Augmentation(shift=2),
        training=training,
    )
    return train_model(images, split, config)


def test_backbone_by_name_gives_one_centred_feature_vector_an_image():
    backbone = create_backbone("cifar_resnet", pretrained=False)
    assert (backbone.n_features, backbone.weights, backbone.input_spec) == (256, "random", CIFAR_SPEC)
    backbone.module.train()
    features = backbone.module(torch.randn(64, 3, 32, 32))
    assert features.shape == (64, 256)
    assert features.mean(dim=0).abs().max() < 1e-5
    assert sum(p.numel() for p in backbone.module.parameters()) < 6e6


def test_asking_for_pretrained_weights_says_that_there_are_none():
    with pytest.raises(BackboneError, match="from scratch"):
        create_backbone("cifar_resnet")


def test_whitening_gives_uncorrelated_patches_of_unit_variance_and_their_negatives():
    network = CifarResNet((8, 8))
    pixels = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    pixels[:, :, 1:] = (pixels[:, :, 1:] // 2 + pixels[:, :, :-1] // 2).astype(np.uint8)  # neighbours alike
    network.whiten(pixels)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CIFAR_SPEC.mean, CIFAR_SPEC.std))
    outputs = network.whitening((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std)
    values = outputs.permute(0, 2, 3, 1).reshape(-1, 24)
    assert torch.equal(values[:, :12], -values[:, 12:])
    moments = values[:, :12].T @ values[:, :12] / len(values)
    assert torch.allclose(moments, torch.eye(12), atol=0.02)
    assert not network.whitening.weight.requires_grad


def test_a_short_training_lowers_the_loss_and_finds_the_classes(trained):
    losses = [report.loss for report in trained.epochs]
    assert losses[-1] < 0.7 * losses[0]
    assert trained.quality.map > 0.8


def test_a_saved_model_is_the_same_when_loaded(trained, tmp_path):
    path = tmp_path / "m.safetensors"
    trained.model.save(path, half=True)
    assert path.stat().st_size < 12e6
    loaded = load_model(path)
    assert loaded.card.backbone == "cifar_resnet"
    assert loaded.card.backbone_weights == "file"
    pixels = pictures(20, seed=1).pixels
    assert np.allclose(loaded.features(pixels), trained.model.features(pixels), atol=0.02)
    same = np.unpackbits(loaded.encode(pixels) ^ trained.model.encode(pixels)).mean()
    assert same < 0.01


def test_batch_norms_fold_into_the_convolutions_where_they_follow_them(trained):
    backbone = trained.model.backbone
    folded = inference_copy(backbone, 32)
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(folded(images), backbone.cpu().eval()(images), rtol=1e-3, atol=1e-3)
