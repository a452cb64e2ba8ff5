import pytest
import torch

from deephash.augmentation import Augmentation, augment, normalise
from deephash.input_spec import InputSpec

PLAIN = Augmentation(min_area=1.0, flip=False, colour=0.0)


def batch(n: int = 8, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (n, size, size, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_variation_the_pixels_come_back():
    pixels = batch()
    images = augment(pixels, 16, PLAIN, seeded())
    assert torch.allclose(images, pixels.permute(0, 3, 1, 2).float() / 255, atol=1e-5)


def test_flip_mirrors_some_images_and_changes_nothing_else():
    pixels = batch(64)
    plain = pixels.permute(0, 3, 1, 2).float() / 255
    images = augment(pixels, 16, Augmentation(min_area=1.0, flip=True, colour=0.0), seeded())
    same = (images - plain).abs().amax(dim=(1, 2, 3)) < 1e-4
    mirrored = (images - plain.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert (same ^ mirrored).all()
    assert 15 < mirrored.sum() < 49


def test_a_crop_keeps_at_least_its_share_of_a_gradient():
    ramp = torch.linspace(0, 255, 64).to(torch.uint8)
    pixels = ramp[None, None, :, None].expand(128, 64, 64, 3).contiguous()
    images = augment(pixels, 32, Augmentation(min_area=0.5, flip=False, colour=0.0), seeded())
    width = images[:, 0, 16, -1] - images[:, 0, 16, 0]
    # At area 0.5 and a ratio of 3:4 the width is .61 of the image; its outermost pixels' centres lie a little inside.
    assert width.min() > 0.55
    assert width.max() > 0.9
    assert width.std() > 0.05


def test_the_generator_alone_decides():
    how = Augmentation(cutout=0.25)
    first, same, other = (augment(batch(), 16, how, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_cutout_greys_its_share():
    pixels = torch.full((200, 32, 32, 3), 255, dtype=torch.uint8)
    how = Augmentation(min_area=1.0, flip=False, colour=0.0, cutout=0.25)
    grey = (augment(pixels, 32, how, seeded()) == 0.5).float().mean(dim=(1, 2, 3))
    assert grey.max() == pytest.approx(0.0625, abs=0.02)
    assert grey.mean() > 0.04


@pytest.mark.parametrize("size", [16, 24, 40])
def test_any_size_stays_in_range(size):
    images = augment(batch(), size, Augmentation(cutout=0.2), seeded())
    assert images.shape == (8, 3, size, size)
    assert images.min() >= 0
    assert images.max() <= 1


def test_normalise_is_the_models_preprocessing():
    spec = InputSpec(16, 16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear")
    images = torch.rand(2, 3, 16, 16)
    expected = torch.stack([(images[:, c] - spec.mean[c]) / spec.std[c] for c in range(3)], dim=1)
    assert torch.allclose(normalise(images, spec), expected)
