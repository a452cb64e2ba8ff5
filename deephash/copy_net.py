"""A small network that tells whether two pictures are one, whatever was done to them; see ``copies``."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from .input_spec import InputSpec

__all__ = ["COPY_SPEC", "CopyNet"]

COPY_SPEC = InputSpec(
    size=64, resize=64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), interpolation="bilinear", squash=True
)

_LEAST_CONTRAST = 0.05


class CopyNet(nn.Module):
    """Maps images ``(B, 3, 64, 64)`` to features ``(B, num_features)``, whose signs are the bits of a copy code.

    Brightness and contrast are evened out, then four convolutions of stride 2 and a linear layer, which sees the layout
    of the picture, give half of the features; the same on the mirrored picture gives the other half. So the features of
    the mirrored picture are those of the picture with their halves traded, and its code needs not be stored.

    Args:
        num_features: even.
        widths: channels of the convolutions.
    """

    def __init__(self, num_features: int = 256, widths: tuple[int, ...] = (16, 32, 64, 128)) -> None:
        super().__init__()
        self.stages = nn.Sequential(*(_stage(a, b) for a, b in pairwise((3, *widths))))
        self.linear = nn.Linear(16 * widths[-1], num_features // 2)
        self.norm = nn.BatchNorm1d(num_features // 2, affine=False)
        self.num_features = num_features

    def forward(self, images: Tensor) -> Tensor:
        """Returns features of images in 0 ... 1."""
        mean = images.mean((1, 2, 3), keepdim=True)
        even = (images - mean) / (images.std((1, 2, 3), keepdim=True) + _LEAST_CONTRAST)
        # Not flip(3): OpenVINO takes a tenth of the network's time for that, and has a fast way for this.
        mirrored = even.index_select(3, torch.arange(even.shape[3] - 1, -1, -1, device=even.device))
        maps = self.stages(torch.cat([even, mirrored]))
        return torch.cat(self.norm(self.linear(maps.flatten(1))).chunk(2), 1)


def _stage(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)
    )
