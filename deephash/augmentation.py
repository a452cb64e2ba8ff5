"""Batches of training images: crop, flip, colour and cutout on whole uint8 batches, then scaled and normalised.

All randomness comes from the generator given, so a run can be repeated and resumed exactly.
"""

from dataclasses import dataclass

import torch
from torch import nn

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
    transform = torch.zeros(n, 2, 3, device=pixels.device)
    transform[:, 0, 0], transform[:, 0, 2] = scale_x, shift_x
    transform[:, 1, 1], transform[:, 1, 2] = scale_y, shift_y
    grid = nn.functional.affine_grid(transform, [n, 3, size, size], align_corners=False)
    mode = "bicubic" if size > min(height, width) else "bilinear"
    images = nn.functional.grid_sample(images, grid, mode=mode, padding_mode="reflection", align_corners=False)
    if how.colour:
        images = _vary_colour(images, [uniform(1 - how.colour, 1 + how.colour)[:, None, None, None] for _ in range(3)])
    if how.cutout:
        images = _cut_out(images, how.cutout, uniform(0, 1), uniform(0, 1))
    return images.clamp_(0, 1)


def normalise(images: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Returns images ``(B, 3, H, W)`` in 0 ... 1 with the model's mean taken off, over its deviation; channels last."""
    mean = torch.tensor(spec.mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, device=images.device).view(1, 3, 1, 1)
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def _vary_colour(images: torch.Tensor, factors: list[torch.Tensor]) -> torch.Tensor:
    brightness, contrast, saturation = factors
    images = images * brightness
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * contrast + mean
    grey = images.mean(dim=1, keepdim=True)
    return (images - grey) * saturation + grey


def _cut_out(images: torch.Tensor, share: float, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    size = images.shape[-1]
    at = (torch.arange(size, device=images.device) + 0.5) / size
    inside_x = (at[None] - x[:, None]).abs() < share / 2
    inside_y = (at[None] - y[:, None]).abs() < share / 2
    hole = (inside_y[:, :, None] & inside_x[:, None, :])[:, None]
    return torch.where(hole, torch.full_like(images, 0.5), images)
