"""Batches of training images: crop, flip, colour and cutout on whole uint8 batches, then scaled and normalised.

All randomness comes from the generator given, so a run can be repeated and resumed exactly.
"""

from dataclasses import dataclass

import torch

from .input_spec import InputSpec

__all__ = ["Augmentation", "augment", "normalise"]


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied.

    ``min_area``: the smallest share of the image that a random crop keeps (its aspect ratio between 3:4 and 4:3); 1
    switches cropping off. ``flip``: mirror half of the images. ``colour``: strength of changes of brightness, contrast
    and saturation, 0 to 1. ``cutout``: side of the square that is greyed out, as a share of the image; 0 for none.
    ``shift``: 1 or more for images as small as the network sees: they are moved by up to so many pixels, neither
    cropped nor coloured (``ShiftedInputs``).
    """

    min_area: float = 0.35
    flip: bool = True
    colour: float = 0.3
    cutout: float = 0.0
    shift: int = 0


def augment(pixels: torch.Tensor, size: int, how: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """Returns varied images ``(B, 3, size, size) float32`` in 0 ... 1 of ``(B, H, W, 3) uint8`` pixels."""
    n, height, width, _ = pixels.shape

    def uniform(low: float, high: float) -> torch.Tensor:
        return (torch.rand(n, generator=generator) * (high - low) + low).to(pixels.device)

    images = pixels.permute(0, 3, 1, 2).float().div_(255)
    area, ratio = uniform(how.min_area, 1.0), torch.exp(uniform(-0.2877, 0.2877) * (how.min_area < 1))
    scale_x, scale_y = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    shift_x, shift_y = uniform(-1, 1) * (1 - scale_x), uniform(-1, 1) * (1 - scale_y)
    if how.flip:
        scale_x = scale_x * torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    cubic = size > min(height, width)
    across = _resize_matrix(scale_x, shift_x, width, size, cubic)
    down = _resize_matrix(scale_y, shift_y, height, size, cubic)
    if how.colour:
        # Of the small images: colours are changed by sums and products alike for all pixels, as a resize is.
        weights = down.mean(dim=1)[:, None, :, None] * across.mean(dim=1)[:, None, None, :]
        factors = [uniform(1 - how.colour, 1 + how.colour)[:, None, None, None] for _ in range(3)]
        images = _vary_colour(images, weights, factors)
    rows = images.flatten(1, 2) @ across.mT
    images = down[:, None] @ rows.view(n, 3, height, size)
    if how.cutout:
        _cut_out(images, how.cutout, uniform(0, 1), uniform(0, 1))
    return images.clamp_(0, 1)


def normalise(images: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Returns images ``(B, 3, H, W)`` in 0 ... 1 with the model's mean taken off, over its deviation; channels last."""
    mean = torch.tensor(spec.mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, device=images.device).view(1, 3, 1, 1)
    return images.sub(mean).div_(std).contiguous(memory_format=torch.channels_last)


def _resize_matrix(scale: torch.Tensor, shift: torch.Tensor, n: int, size: int, cubic: bool) -> torch.Tensor:
    """Returns ``(B, size, n)``: what each of n pixels counts in each of ``size`` that cover a stretch of them.

    The stretch is ``scale * [-1, 1] + shift`` of an image that is [-1, 1]; a negative scale mirrors it. Pixels beyond
    the edge are those mirrored at it. The same as ``grid_sample``, which cannot know that a crop has no rotation.
    """
    centers = (torch.arange(size, device=scale.device) * 2 + 1) / size - 1
    at = ((scale[:, None] * centers + shift[:, None] + 1) * n - 1) / 2
    first = at.floor()
    part = at - first
    shares = _cubic(part) if cubic else [1 - part, part]
    matrix = torch.zeros(len(scale), size, n, device=scale.device)
    for tap, share in enumerate(shares):
        pixel = first.long() + tap - (len(shares) // 2 - 1)
        pixel = torch.where(pixel < 0, -1 - pixel, pixel)
        pixel = torch.where(pixel >= n, 2 * n - 1 - pixel, pixel).clamp_(0, n - 1)
        matrix.scatter_add_(2, pixel[:, :, None], share[:, :, None])
    return matrix


def _cubic(part: torch.Tensor, a: float = -0.75) -> list[torch.Tensor]:
    """Returns the weights of the pixels at -1, 0, 1 and 2 for a point ``part`` behind 0 (Keys 1981, torch's ``a``)."""

    def near(x: torch.Tensor) -> torch.Tensor:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: torch.Tensor) -> torch.Tensor:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return [far(part + 1), near(part), near(1 - part), far(2 - part)]


def _vary_colour(images: torch.Tensor, weights: torch.Tensor, factors: list[torch.Tensor]) -> torch.Tensor:
    brightness, contrast, saturation = factors
    images = images * brightness
    mean = (images * weights).sum(dim=(2, 3), keepdim=True).mean(dim=1, keepdim=True)
    images = (images - mean) * contrast + mean
    grey = images.mean(dim=1, keepdim=True)
    return (images - grey) * saturation + grey


def _cut_out(images: torch.Tensor, share: float, x: torch.Tensor, y: torch.Tensor) -> None:
    size = images.shape[-1]
    at = (torch.arange(size, device=images.device) + 0.5) / size
    inside_x = (at[None] - x[:, None]).abs() < share / 2
    inside_y = (at[None] - y[:, None]).abs() < share / 2
    images.masked_fill_((inside_y[:, :, None] & inside_x[:, None, :])[:, None], 0.5)
