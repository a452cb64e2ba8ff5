"""What a network is trained on and evaluated with: images in memory, or features computed before."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .augmentation import Augmentation, augment, normalise
from .inference import run_in_parts
from .input_spec import InputSpec

__all__ = ["FeatureInputs", "ImageInputs", "compute_logits"]


@dataclass(frozen=True)
class ImageInputs:
    """Images ``(N, H, W, 3) uint8``, given as normalised batches ``(B, 3, size, size) float32``, channels last.

    Varied by ``augmentation`` for training; otherwise scaled to ``spec.size`` whole. All but the choice of chances is
    done on ``device``, where the batches then are.
    """

    pixels: NDArray[np.uint8]
    spec: InputSpec
    augmentation: Augmentation
    device: torch.device | str = "cpu"

    def __call__(self, positions: NDArray[np.int64], generator: torch.Generator | None) -> torch.Tensor:
        """Returns the batch at these positions; varied when a generator is given."""
        pixels = torch.from_numpy(self.pixels[positions]).to(self.device)
        size = self.spec.size
        if generator is not None:
            return normalise(augment(pixels, size, self.augmentation, generator), self.spec)
        images = pixels.permute(0, 3, 1, 2).float().div_(255)
        if images.shape[-1] != size:
            # Pillow's bicubic, which encodes files later, is this one with antialiasing.
            images = nn.functional.interpolate(images, size=(size, size), mode="bicubic", antialias=True).clamp_(0, 1)
        return normalise(images, self.spec)


@dataclass(frozen=True)
class FeatureInputs:
    """Features ``(N, D)``, given as they are, with a little noise for training: ``noise`` times their mean length."""

    features: NDArray[np.float32]
    noise: float = 0.0

    def __call__(self, positions: NDArray[np.int64], generator: torch.Generator | None) -> torch.Tensor:
        """Returns the batch at these positions; varied when a generator is given."""
        batch = torch.from_numpy(np.asarray(self.features[positions], np.float32))
        if generator is None or not self.noise:
            return batch
        scale = self.noise * batch.norm(dim=1).mean() / batch.shape[1] ** 0.5
        return batch + scale * torch.randn(batch.shape, generator=generator)


@torch.inference_mode()
def compute_logits(
    network: nn.Module,
    inputs: ImageInputs | FeatureInputs,
    positions: NDArray[np.int64],
    *,
    batch_size: int = 256,
    bf16: bool | None = False,
) -> NDArray[np.float32]:
    """Returns logits ``(len(positions), n_bits) float32`` of a network in eval mode, in the order of the positions."""
    device = next(network.parameters()).device
    parts = []
    for start in range(0, len(positions), batch_size):
        batch = inputs(positions[start : start + batch_size], None).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bool(bf16)):
            parts.append(run_in_parts(network, batch).float().cpu().numpy())
    return np.concatenate(parts)
