import pytest
import torch

from deephash.augmentation import Augmentation, _resize_matrix, augment, normalise
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


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 80), (5, 3, 32), (32, 32, 20), (40, 27, 33)])
def test_a_crop_is_the_one_that_grid_sample_takes(height, width, size):
    generator = seeded(2)
    scale = torch.rand(2, 6, generator=generator) * 0.7 + 0.3
    shift = (torch.rand(2, 6, generator=generator) * 2 - 1) * (1 - scale)
    scale[0, :3] *= -1
    images = torch.rand(6, 3, height, width, generator=generator)
    transform = torch.zeros(6, 2, 3)
    transform[:, 0, 0], transform[:, 1, 1], transform[:, :, 2] = scale[0], scale[1], shift.T
    grid = torch.nn.functional.affine_grid(transform, [6, 3, size, size], align_corners=False)
    for cubic in (False, True):
        expected = torch.nn.functional.grid_sample(
            images, grid, "bicubic" if cubic else "bilinear", "reflection", align_corners=False
        )
        across = _resize_matrix(scale[0], shift[0], width, size, cubic)
        down = _resize_matrix(scale[1], shift[1], height, size, cubic)
        assert torch.allclose(down[:, None] @ images @ across.mT[:, None], expected, atol=1e-4)


def test_colours_are_changed_as_those_of_the_finished_crop():
    pixels = batch(16, 8) // 2 + 64  # none reaches an end of the range
    how = Augmentation(min_area=0.4, flip=False, colour=0.2)
    varied = augment(pixels, 24, how, seeded())
    plain = augment(pixels, 24, Augmentation(min_area=0.4, flip=False, colour=0.0), seeded())
    generator = seeded()
    torch.rand(4 * 16, generator=generator)  # of the crop
    brightness, contrast, saturation = torch.rand(3, 16, 1, 1, 1, generator=generator) * 0.4 + 0.8
    expected = plain * brightness
    mean = expected.mean(dim=(1, 2, 3), keepdim=True)
    expected = (expected - mean) * contrast + mean
    grey = expected.mean(dim=1, keepdim=True)
    assert torch.allclose(varied, ((expected - grey) * saturation + grey).clamp(0, 1), atol=1e-4)
