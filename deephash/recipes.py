"""Settings that train well, by the kind of backbone: ``deephash train`` begins with them, benchmarks measure them."""

from dataclasses import replace
from typing import Any

from .augmentation import Augmentation
from .backbones import create_backbone
from .errors import BackboneError
from .fine_tuning import prepare_fine_tuning
from .supervised import RunConfig
from .training import TrainConfig

__all__ = ["CIFAR_RESNET", "FINE_TUNING", "WHOLE_NETWORK", "choose_recipe", "loss_options", "without_frozen_stages"]

FINE_TUNING = RunConfig(
    image_size=160,
    frozen_stages=2,
    head_epochs=30,
    augmentation=Augmentation(min_area=0.5, colour=0.2, cutout=0.25),
    training=TrainConfig(
        epochs=10, batch_size=64, lr=2e-3, backbone_lr=1.5e-4, weight_decay=1e-2, warmup_epochs=0.5, averaging=0.99,
        bf16=True,
    ),
)  # fmt: skip
"""A pretrained backbone with stages; ``benchmarks.cifar10_end_to_end`` measures it with EfficientNet-Lite."""

CIFAR_RESNET = RunConfig(
    backbone="cifar_resnet",
    pretrained=False,
    image_size=32,
    hash_layer_scale=0.05,
    augmentation=Augmentation(min_area=1.0, colour=0.0, shift=2),
    # The steps of Muon and AdamW do not depend on the size of the gradient: nothing is clipped.
    training=TrainConfig(
        epochs=26, batch_size=1_000, lr=0.05, backbone_lr=0.2, weight_decay=0.0, warmup_epochs=0.0, averaging=0.0,
        clip_norm=1e6, bf16=True, optimizer="muon",
    ),
)  # fmt: skip
"""``cifar_resnet`` from random weights; ``benchmarks.cifar10_from_scratch`` measures it."""

WHOLE_NETWORK = RunConfig(
    pretrained=False,
    training=TrainConfig(epochs=20, batch_size=64, lr=2e-3, backbone_lr=5e-4, weight_decay=1e-2, averaging=0.995),
)
"""Any other backbone from random weights. No benchmark measures it."""


def choose_recipe(backbone: str, *, pretrained: bool) -> RunConfig:
    """Returns the recipe for a backbone, with its name in it; the loss and its options are still to be chosen."""
    from_scratch = CIFAR_RESNET if backbone == CIFAR_RESNET.backbone else WHOLE_NETWORK
    recipe = FINE_TUNING if pretrained else from_scratch
    return replace(recipe, backbone=backbone)


def loss_options(recipe: RunConfig, loss: str, n_train: int) -> dict[str, Any]:
    """Returns the options of a loss that go with a recipe: none but for DSDH, whose step for the codes they wake up.

    Args:
        recipe: one that ``choose_recipe`` returned, or a change of it.
        loss: a key of ``losses.LOSSES``.
        n_train: the number of training images.
    """
    if loss != "dsdh":
        return {}
    if recipe.pretrained:
        return {"mu": 1e3, "nu": 1e2}
    if recipe.backbone != CIFAR_RESNET.backbone:
        return {}
    # eta / n_train is the weight of the distance from the codes; mu / eta is so large that the classifier, not the
    # logit, decides a bit: images of a class share a code. nu / mu as published.
    return {"eta": 0.03 * n_train, "mu": 1e7, "nu": 1e6, "columns": 4_000, "centers": True}


def without_frozen_stages(config: RunConfig) -> tuple[RunConfig, str]:
    """Returns the config and an empty text, or one that trains everything and why its backbone cannot be frozen.

    Raises:
        BackboneError: there is no such backbone.
    """
    if config.frozen_stages is None:
        return config, ""
    backbone = create_backbone(config.backbone, pretrained=False).module
    try:
        prepare_fine_tuning(backbone, config.image_size, config.frozen_stages)
    except BackboneError as error:
        # Depthwise convolutions are slower in bfloat16 on a CPU, and nothing keeps them in float32 then.
        training = replace(config.training, bf16=None)
        return replace(config, frozen_stages=None, training=training), str(error)
    return config, ""
