"""One supervised run, whole: a data set and its split, a backbone, a loss; then the model and how good it is."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from index import check_n_bits

from .augmentation import Augmentation
from .backbones import DEFAULT_BACKBONE, create_backbone
from .cifar_resnet import CifarResNet
from .code_quality import encode_split, evaluate_logits, evaluate_network
from .datasets import LabelledImages, RetrievalSplit, check_split
from .distributed import present_processes
from .evaluation import RetrievalReport
from .fine_tuning import finish_fine_tuning, prepare_fine_tuning
from .input_spec import InputSpec
from .inputs import FeatureInputs, ImageInputs, compute_logits
from .losses import HashingLoss, create_loss
from .model import HashModel, best_device
from .progress import OnProgress, ignore_progress
from .shifted_inputs import ShiftedInputs
from .training import EpochReport, TrainConfig, TrainingError, train

__all__ = ["RunConfig", "RunResult", "check_lengths", "hold_out", "train_model"]

# At most so many images are what the first convolution of a CifarResNet is fitted to.
_WHITENED = 2_000

# Features have unit length: their components, and so the layer's gradients, are small.
_HEAD_LR = 5e-2

# What so many have not taught it, more will not.
_HEAD_IMAGES = 150_000


@dataclass(frozen=True)
class RunConfig:
    """What to train.

    ``nested``: shorter lengths, ascending; the first bits of a code, so many, become a good code of that length
    (``losses.NestedLoss``). ``image_size``: pixels a side that the network sees. ``validation_share`` of the training
    set is held out to report mAP after each epoch (0: none); queries are never looked at. ``loss_options`` go to the
    loss. ``frozen_stages``: the stem and so many stages of the backbone, and the statistics of all its batch norms,
    stay as they are, which trains faster (``fine_tuning``); None trains everything. ``head_epochs``: the hash layer
    learns on the features of the untouched backbone first, so that the backbone is not led astray by a random one (but
    sees no more than 150,000). ``hash_layer_scale``: deviation of the hash layer's first weights; a small one lets a
    backbone without pretraining learn faster.
    """

    loss: str = "dsdh"
    n_bits: int = 48
    nested: tuple[int, ...] = ()
    backbone: str = DEFAULT_BACKBONE
    pretrained: bool = True
    image_size: int = 96
    frozen_stages: int | None = None
    head_epochs: int = 0
    hash_layer_scale: float = 1.0
    validation_share: float = 0.0
    loss_options: dict[str, Any] = field(default_factory=dict)
    augmentation: Augmentation = field(default_factory=Augmentation)
    training: TrainConfig = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class RunResult:
    """The trained model, its quality on the split's queries, and all its epochs, those before a stop too.

    ``nested``: the quality of its prefixes, by their lengths. ``mirrored``: that of codes from the mean of the logits
    of each image and of its mirror image, where it was asked for; it takes twice the time to encode so.
    """

    model: HashModel
    quality: RetrievalReport
    epochs: list[EpochReport]
    nested: dict[int, RetrievalReport] = field(default_factory=dict)
    mirrored: RetrievalReport | None = None


def train_model(
    images: LabelledImages,
    split: RetrievalSplit,
    config: RunConfig,
    *,
    name: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    mirrored: bool = False,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
    on_progress: OnProgress = ignore_progress,
) -> RunResult:
    """Trains a model on the split's training set and evaluates it on its queries against its database.

    With ``mirrored`` it is judged by codes from mirror images, too.

    Raises:
        TrainingError: the training set has one class only, the loss is not finite, or the checkpoint is of another
            config or other labels.
        DatasetError: a class has no training image, or no query a relevant one, in the split or after holding out.
        BackboneError, ValueError: the backbone, the loss, n_bits or the nested lengths are not to be had.
    """
    check_lengths(config.n_bits, config.nested)
    learned, held_out = hold_out(images, split.training, config.validation_share, seed=config.training.seed)
    targets = images.targets[learned]
    if len(np.unique(targets, axis=0)) < 2:
        raise TrainingError("all training images have the same labels: there is nothing to tell apart")
    check_split(images, split)
    if config.validation_share:
        mend = f"the validation share is {config.validation_share}: hold out another"
        check_split(images, RetrievalSplit("validation", held_out, learned, learned, split.unseen), mend=mend)
    network, spec = _network(config)
    if isinstance(network.backbone, CifarResNet) and not config.pretrained:
        network.backbone.whiten(images.pixels[learned[:: -(-len(learned) // _WHITENED)]], spec)
    kind = ShiftedInputs if config.augmentation.shift else ImageInputs
    inputs = kind(images.pixels, spec, config.augmentation, best_device())
    backbone = network.backbone
    if config.frozen_stages is not None:
        network.backbone = prepare_fine_tuning(backbone, config.image_size, config.frozen_stages)
        network.to(best_device()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    labels = torch.from_numpy(np.asarray(targets, np.int64))
    loss = _loss(config, images, learned)
    resumes = present_processes().of_first(checkpoint is not None and os.path.exists(checkpoint))
    if config.head_epochs and not resumes:
        _train_head(network, _loss(config, images, learned), inputs, labels, learned, config)
    epochs: list[EpochReport] = []

    def keep(report: EpochReport) -> None:
        epochs.append(report)
        on_epoch(report)

    def validate(averaged: nn.Module, epoch: int) -> dict[str, float]:
        report = evaluate_network(averaged, inputs, images, held_out, learned, bf16=config.training.bf16)
        return {"map": report.map}

    trained = train(
        network,
        loss,
        inputs,
        labels,
        learned,
        config.training,
        head=network.hash_layer,
        validate=validate if len(held_out) else None,
        checkpoint=checkpoint,
        task=_task(images, learned, config),
        on_resume=epochs.extend,
        on_epoch=keep,
        on_progress=on_progress,
    )
    assert isinstance(trained, HashModel)
    if config.frozen_stages is not None:
        finish_fine_tuning(trained.backbone, backbone)
        trained.backbone = backbone.eval()
    parts = (split.query, split.database)
    logits = encode_split(trained, inputs, *parts, bf16=config.training.bf16)
    lengths = *config.nested, config.n_bits
    *shorter, quality = (evaluate_logits(logits[:, :n_bits], images, *parts) for n_bits in lengths)
    quality_mirrored = None
    if mirrored:
        turned = replace(inputs, pixels=images.pixels[:, :, ::-1])
        logits += encode_split(trained, turned, *parts, bf16=config.training.bf16)
        quality_mirrored = evaluate_logits(logits, images, *parts)
    nested = dict(zip(config.nested, shorter, strict=True))
    facts = {
        "loss": config.loss,
        "protocol": split.protocol,
        "fitted_to": f"{len(learned)} labelled images, {split.protocol}",
        "training_images": len(learned),
        "seconds": round(epochs[-1].seconds) if epochs else 0,
        "device": _device_name(),
        "best_epoch": epochs[-1].best_epoch if epochs else None,
        "map": round(quality.map, 4),
        "config": asdict(replace(config, loss_options=dict(config.loss_options))),
    }
    if nested:
        facts["map_of_first_bits"] = {str(n_bits): round(report.map, 4) for n_bits, report in nested.items()}
    trained.name = name or f"{split.protocol}-{config.loss}-{config.n_bits}"
    trained.method = config.loss
    trained.training_facts = facts
    return RunResult(trained, quality, epochs, nested, quality_mirrored)


def check_lengths(n_bits: int, nested: Sequence[int]) -> None:
    """Checks the length of codes and those of their prefixes.

    Raises:
        ValueError: one is not from 8 to 1,024, or the prefixes do not ascend, or are as long as the whole.
    """
    for length in (*nested, n_bits):
        check_n_bits(length)
    if any(longer <= shorter for shorter, longer in pairwise((*nested, n_bits))):
        raise ValueError(f"the nested lengths are {', '.join(map(str, nested))}: they must ascend, below {n_bits} bits")


def hold_out(
    images: LabelledImages, training: NDArray[np.int64], share: float, *, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the training positions to learn from, and those held out for validation: a share drawn at random."""
    if not 0 <= share < 1:
        raise ValueError(f"validation_share is {share}: use 0 (none) to less than 1")
    order = np.random.default_rng(seed + 7_919).permutation(training)
    n_held = round(share * len(training))
    return np.sort(order[n_held:]), np.sort(order[:n_held])


def _device_name() -> str:
    device = best_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def _task(images: LabelledImages, learned: NDArray[np.int64], config: RunConfig) -> dict[str, Any]:
    """Returns what a checkpoint must agree on besides the TrainConfig, whose seed decides what is drawn."""
    digest = hashlib.sha256(learned.tobytes())
    digest.update(np.asarray(images.targets[learned], np.int64).tobytes())
    task = asdict(config) | {
        "training_images": len(learned),
        "classes": len(images.class_names),
        "labels": digest.hexdigest()[:16],
    }
    del task["training"]
    return task


def _network(config: RunConfig) -> tuple[HashModel, InputSpec]:
    torch.manual_seed(config.training.seed)
    backbone = create_backbone(config.backbone, pretrained=config.pretrained)
    spec = replace(backbone.input_spec, size=config.image_size, resize=config.image_size)
    # Features have unit length; weights of unit size give logits of about unit size at the start.
    weight = (config.hash_layer_scale * torch.randn(config.n_bits, backbone.n_features)).numpy()
    bias = np.zeros(config.n_bits, np.float32)
    backbone = replace(backbone, weights="trained")
    network = HashModel(backbone, weight, bias, name="untrained", method=config.loss, input_spec=spec)
    return network.to(best_device()).to(memory_format=torch.channels_last), spec  # type: ignore[call-overload]


def _loss(config: RunConfig, images: LabelledImages, learned: NDArray[np.int64]) -> HashingLoss:
    return create_loss(
        config.loss,
        n_bits=config.n_bits,
        n_classes=len(images.class_names),
        n_train=len(learned),
        nested=config.nested,
        **config.loss_options,
    )


def _train_head(
    network: HashModel,
    loss: HashingLoss,
    inputs: ImageInputs,
    labels: torch.Tensor,
    learned: NDArray[np.int64],
    config: RunConfig,
) -> None:
    """Trains the hash layer on the features that the backbone has at the start, of the images as they are."""
    normalised = nn.Sequential(network.backbone, _UnitLength()).eval()
    features = FeatureInputs(compute_logits(normalised, inputs, learned, bf16=config.training.bf16))
    head = TrainConfig(
        epochs=max(1, min(config.head_epochs, _HEAD_IMAGES // len(learned))), batch_size=128, lr=_HEAD_LR,
        weight_decay=0, averaging=0.98, seed=config.training.seed,
    )  # fmt: skip
    layer = train(network.hash_layer, loss, features, labels, np.arange(len(learned)), head)
    network.hash_layer.load_state_dict(layer.state_dict())


class _UnitLength(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(features)
