"""What all methods of the benchmark share: frozen features, head, budget."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.cifar10 import CACHE
from deephash.augmentation import normalise
from deephash.backbones import create_backbone
from deephash.inference import has_fast_bf16, inference_copy
from deephash.inputs import FeatureInputs
from deephash.losses import HashingLoss
from deephash.model import best_device
from deephash.training import TrainConfig, train
from deephash.writing import replacing

__all__ = ["BACKBONE", "FeatureSet", "Features", "budget", "load_features", "make_features", "train_head"]

Features = NDArray[np.float32]

BACKBONE = "efficientnet_lite0, ImageNet, 224 pixels, frozen"
_FILE = CACHE / "cifar10-efficientnet_lite0-224.npy"
_UNIT_FILE = CACHE / "cifar10-efficientnet_lite0-224-unit.npy"
_ROWS = 4096
_HIDDEN = 512
# A budget of images, not of epochs. DSDH's discrete step comes between epochs: two are the least.
_IMAGES_SEEN = 50_000
_MIN_EPOCHS = 2
_CONFIG = {"batch_size": 128, "lr": 1e-3, "weight_decay": 5e-4, "averaging": 0.99}


@dataclass(frozen=True)
class FeatureSet:
    """Features ``(N, D)`` and targets ``(N,)`` of all images, and the positions of those to learn from."""

    features: Features
    targets: NDArray[np.int64]
    training: NDArray[np.int64]


def make_features(pixels: NDArray[np.uint8]) -> None:
    """Writes the unit-length features ``(60,000, 1,280) float32`` of all images to the cache, if they are not there."""
    CACHE.mkdir(exist_ok=True)
    if not _FILE.exists():
        computed = _compute_features(pixels)
        with replacing(_FILE) as file:
            np.save(file, computed)
    if not _UNIT_FILE.exists():
        features = np.load(_FILE, allow_pickle=False).astype(np.float32)
        with replacing(_UNIT_FILE) as file:
            np.save(file, features / np.linalg.norm(features, axis=1, keepdims=True))


@functools.cache
def load_features() -> Features:
    """Returns the cached features, one copy in memory for all processes."""
    return np.load(_UNIT_FILE, mmap_mode="r", allow_pickle=False)


def budget(n_train: int) -> dict[str, Any]:
    """Returns how a head is trained on so many images, as far as it is the same for all methods."""
    epochs = max(_MIN_EPOCHS, round(_IMAGES_SEEN / n_train))
    return {"hidden": _HIDDEN, "epochs": epochs, "warmup_epochs": epochs / 10, **_CONFIG}


def train_head(data: FeatureSet, loss: HashingLoss, n_outputs: int, seed: int) -> Features:
    """Trains the head, features -> 512 -> n_outputs, and returns the outputs ``(N, n_outputs)`` of all images."""
    settings = budget(len(data.training))
    hidden = settings.pop("hidden")
    torch.manual_seed(seed)
    head = nn.Sequential(
        # Components of unit-length features are about 1/36: to the size that the layers expect.
        nn.BatchNorm1d(data.features.shape[1], affine=False),
        nn.Linear(data.features.shape[1], hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, n_outputs),
    )
    trained = train(
        head,
        loss,
        FeatureInputs(data.features),
        torch.from_numpy(data.targets[data.training]),
        data.training,
        TrainConfig(**settings, seed=seed),
    )
    outputs = np.empty((len(data.features), n_outputs), np.float32)
    with torch.inference_mode():
        for start in range(0, len(outputs), _ROWS):
            part = np.array(data.features[start : start + _ROWS])
            outputs[start : start + _ROWS] = trained(torch.from_numpy(part)).numpy()
    return outputs


def _compute_features(pixels: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Features of the default backbone, images scaled to 224; in bfloat16 where that is fast."""
    plain, device = create_backbone(), best_device()
    backbone = inference_copy(plain.module, 224).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = np.empty((len(pixels), plain.n_features), np.float16)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, has_fast_bf16(device)):
        for start in range(0, len(pixels), 64):
            images = torch.from_numpy(pixels[start : start + 64]).to(device).permute(0, 3, 1, 2).float() / 255
            images = nn.functional.interpolate(images, size=224, mode="bicubic").clamp_(0, 1)
            features[start : start + 64] = backbone(normalise(images, plain.input_spec)).float().cpu().numpy()
            if start % 6_400 == 0:
                print(f"features: {start:,} of {len(pixels):,}", flush=True)
    return features
