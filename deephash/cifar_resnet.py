"""A residual network for images of 32 x 32 pixels, small enough to train from scratch on a CPU."""

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .input_spec import InputSpec

__all__ = ["CIFAR_SPEC", "CifarResNet"]

# Mean and deviation of the 50,000 training images of CIFAR-10.
CIFAR_SPEC = InputSpec(size=32, resize=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))


class CifarResNet(nn.Module):
    """Maps images ``(B, 3, H, W)`` to features ``(B, widths[-1])``; made for 32 x 32 pixels, H and W at least 32.

    A fixed 2 x 2 convolution to 24 channels, which ``whiten`` fits to the data; three stages, each of a convolution, a
    pooling by 2 and a residual block of two convolutions; a maximum over the last grid; a batch norm without scale, so
    that the features are centred. The 3 x 3 convolutions begin as the identity as far as their shape allows.

    Args:
        widths: channels of the stages.

    Source: Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, and its ``airbench96``; the whitening is
    Page's, "How to train your ResNet", 2018. Deviations: SiLU for GELU, a CPU computes it as fast as ReLU; no
    bias on the whitening; the batch norm on the features.
    """

    def __init__(self, widths: tuple[int, ...] = (64, 256, 256)) -> None:
        super().__init__()
        self.whitening = nn.Conv2d(3, 24, 2, bias=False)
        self.whitening.weight.requires_grad = False
        self.activation = nn.SiLU()
        channels = (24, *widths)
        self.stages = nn.Sequential(*(_Stage(a, b) for a, b in pairwise(channels)))
        self.norm = nn.BatchNorm1d(widths[-1], affine=False)
        self.num_features = widths[-1]

    @torch.no_grad()
    def whiten(self, pixels: NDArray[np.uint8], spec: InputSpec = CIFAR_SPEC) -> None:
        """Fits the first convolution: its 24 outputs are whitened 2 x 2 patches of these images, and their negatives.

        Args:
            pixels: some thousand training images, ``(N, H, W, 3) uint8``.
            spec: how they will be normalised.
        """
        device = self.whitening.weight.device
        mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
        images = (torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).double() / 255 - mean) / std
        patches = nn.functional.unfold(images, 2).transpose(1, 2).reshape(-1, 12)
        eigenvalues, eigenvectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        # The smallest of them are noise of the camera and of JPEG.
        filters = (eigenvectors / (eigenvalues + _NOISE).sqrt()).T.reshape(12, 3, 2, 2)
        self.whitening.weight.copy_(torch.cat([filters, -filters]).float().to(device))

    def forward(self, images: Tensor) -> Tensor:
        """Returns features ``(B, widths[-1])`` of normalised images."""
        maps = self.stages(self.activation(self.whitening(images)))
        return self.norm(maps.amax(dim=(2, 3)))


# Of a whitened patch's variance; as in the source.
_NOISE = 5e-4


class _Stage(nn.Module):
    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1, self.pool, self.norm1 = _conv(n_in, n_out), nn.MaxPool2d(2), _norm(n_out)
        self.conv2, self.norm2 = _conv(n_out, n_out), _norm(n_out)
        self.conv3, self.norm3 = _conv(n_out, n_out), _norm(n_out)
        self.activation = nn.SiLU()

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.activation(self.norm1(self.pool(self.conv1(maps))))
        inner = self.activation(self.norm2(self.conv2(maps)))
        return self.activation(self.norm3(self.conv3(inner)) + maps)


def _conv(n_in: int, n_out: int) -> nn.Conv2d:
    conv = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.data[:n_in])
    return conv


def _norm(n: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(n)
    norm.weight.requires_grad = False
    return norm
