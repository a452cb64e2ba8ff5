from dataclasses import replace

import pytest

from deephash.losses import LOSSES, create_loss
from deephash.recipes import (
    CIFAR_RESNET,
    FINE_TUNING,
    WHOLE_NETWORK,
    choose_recipe,
    loss_options,
    without_frozen_stages,
)
from deephash.supervised import RunConfig


def test_the_recipe_is_chosen_by_the_backbone():
    assert choose_recipe("efficientnet_lite1", pretrained=True) == replace(FINE_TUNING, backbone="efficientnet_lite1")
    assert choose_recipe("cifar_resnet", pretrained=False) == CIFAR_RESNET
    assert choose_recipe("resnet18", pretrained=False) == replace(WHOLE_NETWORK, backbone="resnet18")


@pytest.mark.parametrize("recipe", [FINE_TUNING, CIFAR_RESNET, WHOLE_NETWORK])
def test_every_loss_takes_the_options_of_a_recipe(recipe):
    for loss in LOSSES:
        create_loss(loss, n_bits=16, n_classes=4, n_train=100, **loss_options(recipe, loss, 100))


def test_the_weight_of_the_codes_does_not_depend_on_the_number_of_images():
    for n in (100, 50_000):
        assert loss_options(CIFAR_RESNET, "dsdh", n)["eta"] / n == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("backbone", "stages", "reason"),
    [
        ("test_efficientnet", 2, ""),
        ("test_efficientnet", 90, "frozen_stages is 90, but the backbone has"),
        ("torchvision/mnasnet0_5", 2, "does not name its stages"),
        ("cifar_resnet", 2, "batch norms that cannot be folded"),
    ],
)
def test_what_cannot_be_frozen_is_trained_whole_and_the_reason_told(backbone, stages, reason):
    config = replace(FINE_TUNING, backbone=backbone, frozen_stages=stages, image_size=64)
    suited, said = without_frozen_stages(config)
    assert reason in said
    assert bool(said) == bool(reason)
    whole = replace(config, frozen_stages=None, training=replace(config.training, bf16=None))
    assert suited == (whole if reason else config)


def test_what_is_trained_whole_stays_as_it_is():
    assert without_frozen_stages(RunConfig(backbone="no backbone")) == (RunConfig(backbone="no backbone"), "")
