"""Batches of small training images varied without interpolation: shifted by whole pixels, mirrored, with a hole."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from .augmentation import normalise
from .inputs import ImageInputs

__all__ = ["ShiftedInputs"]


@dataclass(frozen=True)
class ShiftedInputs(ImageInputs):
    """Images of ``spec.size`` pixels a side, ``(N, size, size, 3) uint8``, varied as the data sets of tiny images are.

    Each image is shifted by up to ``augmentation.shift`` pixels, its border filled by reflection; mirrored in every
    other epoch if ``augmentation.flip``, half of the images in the even ones (the parity of the generator's first seed,
    which ``train`` raises by one from epoch to epoch); and a square of ``augmentation.cutout`` of the side, all of it
    inside, becomes the mean colour. Without a generator they come as they are.

    Source: the alternating flip is that of Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024; the hole:
    DeVries, Taylor, "Improved regularization of convolutional neural networks with cutout", 2017.
    """

    def __post_init__(self) -> None:
        size = self.spec.size
        if self.pixels.shape[1:] != (size, size, 3):
            raise ValueError(
                f"images are {self.pixels.shape[1:3]} pixels and the network sees {size}: shifts by whole pixels need "
                "the same size (augmentation without shift scales)"
            )
        if not 0 <= self.augmentation.shift < size:
            raise ValueError(f"shift is {self.augmentation.shift}: use 0 to {size - 1} pixels")

    @cached_property
    def _padded(self) -> torch.Tensor:
        shift = self.augmentation.shift
        return torch.from_numpy(np.pad(self.pixels, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="reflect"))

    def __call__(self, positions: NDArray[np.int64], generator: torch.Generator | None) -> torch.Tensor:
        """Returns the batch at these positions; varied when a generator is given."""
        if generator is None:
            return super().__call__(positions, None)
        size, n = self.spec.size, len(positions)
        offsets = torch.randint(0, 2 * self.augmentation.shift + 1, (n, 2), generator=generator)
        rows, columns = offsets[:, :1] + torch.arange(size), offsets[:, 1:] + torch.arange(size)
        chosen = torch.from_numpy(np.asarray(positions))
        if self.augmentation.flip:
            # A bit of the position, mixed by Knuth's multiplicative hash, so that it says nothing of order or class.
            mirrored = ((chosen * 2_654_435_761 >> 16) + generator.initial_seed()) % 2 == 1
            columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        pixels = self._padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]].to(self.device)
        images = normalise(pixels.permute(0, 3, 1, 2).float().div_(255), self.spec)
        side = round(self.augmentation.cutout * size)
        if side:
            corners = torch.randint(0, size - side + 1, (n, 2), generator=generator)
            inside = torch.arange(size) - corners[:, :, None]
            inside = (inside >= 0) & (inside < side)
            hole = (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
            images.masked_fill_(hole.to(self.device), 0.0)
        return images
