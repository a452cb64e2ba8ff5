import numpy as np
import pytest
import torch

from deephash.augmentation import Augmentation
from deephash.cifar_resnet import CIFAR_SPEC
from deephash.inputs import ImageInputs
from deephash.shifted_inputs import ShiftedInputs

N = 40
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def inputs(**how):
    return ShiftedInputs(PIXELS, CIFAR_SPEC, Augmentation(**how))


def plain(positions=None):
    return ImageInputs(PIXELS, CIFAR_SPEC, Augmentation())(np.arange(N) if positions is None else positions, None)


def test_every_image_is_a_shift_of_itself_reflected_at_its_border():
    images = inputs(shift=2, flip=False)(np.arange(N), seeded(0))
    padded = torch.nn.functional.pad(plain(), (2, 2, 2, 2), mode="reflect")
    found = set()
    for image, wide in zip(images, padded, strict=True):
        places = [(y, x) for y in range(5) for x in range(5) if torch.equal(image, wide[:, y : y + 32, x : x + 32])]
        assert len(places) == 1
        found |= set(places)
    assert len(found) > 10
    assert {y for y, _ in found} == {x for _, x in found} == set(range(5))


def test_each_image_is_mirrored_in_every_other_epoch_and_half_of_them_in_one():
    how = inputs(shift=0, flip=True)
    even, odd, later = (how(np.arange(N), seeded(seed)) for seed in (6, 7, 8))
    straight = (even == plain()).all(dim=3).all(dim=2).all(dim=1)
    assert N / 4 < straight.sum() < 3 * N / 4
    assert torch.equal(even[straight], odd[straight].flip(3))
    assert torch.equal(even[~straight].flip(3), odd[~straight])
    assert torch.equal(even, later)


def test_the_hole_is_a_whole_square_of_the_mean_colour():
    images = inputs(shift=1, flip=False, cutout=0.25)(np.arange(N), seeded(0))
    holes = (images == 0).all(dim=1)
    assert (holes.sum(dim=(1, 2)) == 64).all()
    assert (holes.any(dim=1).sum(dim=1) == 8).all()
    assert len({tuple(hole.nonzero()[0].tolist()) for hole in holes}) > N / 2


def test_without_a_generator_images_come_as_they_are():
    positions = np.array([3, 1, 7])
    assert torch.equal(inputs(shift=2)(positions, None), plain(positions))


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="the network sees 32"):
        ShiftedInputs(np.zeros((2, 40, 40, 3), np.uint8), CIFAR_SPEC, Augmentation(shift=2))
