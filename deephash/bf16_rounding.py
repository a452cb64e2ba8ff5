"""Rounds the filters of depthwise convolutions to bfloat16 so that what they give changes least.

The weights of such a filter are few and differ much in size, most of all where a batch norm is folded into them.
Rounded to the nearest each for itself, they no longer cancel out as they did on the smooth parts of pictures: of all
rounding in EfficientNet-Lite0, that of its first depthwise convolution changes the codes most. Which of its two
neighbours a weight becomes is therefore chosen for a filter as a whole, by what it sees of some pictures;
``benchmarks.rounding`` shows what that brings.

Source: the layer-wise objective of Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020;
here by descent, one weight or two at a time.
"""

import torch
from torch import Tensor, nn

__all__ = ["round_depthwise"]

_IMAGES_AT_A_TIME = 4
_PLACES = 8  # of a map, on a side, that are looked at
_RIDGE = 1e-3  # of the mean square of a weight's input: what the pictures do not show is not free
_MOST_CHANGES = 100


@torch.no_grad()
def round_depthwise(network: nn.Module, inputs: Tensor) -> None:
    """Rounds, in place, the weights of all depthwise convolutions of a network in eval mode.

    Args:
        network: on the CPU.
        inputs: what the network takes, ``(B, ...)``; some dozen pictures.
    """
    moments: dict[nn.Conv2d, Tensor] = {}

    def look(conv: nn.Conv2d, arguments: tuple[Tensor]) -> None:
        moments[conv] = moments.get(conv, torch.zeros(())) + _second_moments(conv, arguments[0])

    hooks = [module.register_forward_pre_hook(look) for module in network.modules() if _is_depthwise(module)]
    for part in inputs.split(_IMAGES_AT_A_TIME):
        network(part)
    for hook in hooks:
        hook.remove()
    for conv, seen in moments.items():
        weights = conv.weight.double().flatten(1)
        seen = seen.repeat_interleave(conv.out_channels // conv.in_channels, 0)
        conv.weight.copy_(_rounded(weights, seen).view_as(conv.weight))


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and 1 < module.in_channels == module.groups


def _second_moments(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    """Returns the sums of products ``(C, K, K)`` of each two of the K numbers a filter sees in maps (B, C, H, W)."""
    windows = nn.functional.unfold(
        maps,
        conv.kernel_size,
        dilation=conv.dilation,
        padding=tuple(step * (size // 2) for step, size in zip(conv.dilation, conv.kernel_size, strict=True)),
        stride=-(-min(maps.shape[2:]) // _PLACES),
    )
    windows = windows.unflatten(1, (maps.shape[1], -1)).permute(1, 2, 0, 3).flatten(2)
    return (windows @ windows.mT).double()


def _rounded(weights: Tensor, moments: Tensor) -> Tensor:
    """Returns weights ``(C, K)`` in bfloat16 whose errors e make e' moments e small, for each of the C filters."""
    diagonal = moments.diagonal(dim1=1, dim2=2)
    moments = moments + torch.diag_embed(_RIDGE * diagonal.mean(1, keepdim=True).expand_as(diagonal))
    nearest, other = _neighbours(weights)
    errors, others = nearest - weights, other - weights
    filters = torch.arange(len(weights))
    for _ in range(_MOST_CHANGES):
        # What changing each two weights at once would bring, or one, on the diagonal.
        steps = others - errors
        products = steps[:, :, None] * moments * steps[:, None]
        alone = 2 * steps * torch.einsum("ckj,cj->ck", moments, errors) + products.diagonal(dim1=1, dim2=2)
        changes = alone[:, :, None] + alone[:, None] + 2 * products
        changes.diagonal(dim1=1, dim2=2).copy_(alone)
        best, places = changes.flatten(1).min(1)
        if not (best < 0).any():
            break
        chosen = torch.zeros_like(steps, dtype=torch.bool)
        chosen[filters, places // steps.shape[1]] = True
        chosen[filters, places % steps.shape[1]] = True
        chosen &= (best < 0)[:, None]
        errors, others = torch.where(chosen, others, errors), torch.where(chosen, errors, others)
    return weights + errors


def _neighbours(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the nearest numbers of bfloat16, and the next ones on the other side (the same, where it is exact)."""
    nearest = weights.bfloat16()
    away = torch.where(weights > nearest, torch.inf, -torch.inf).bfloat16()
    other = torch.where(weights == nearest, nearest, torch.nextafter(nearest, away))
    return nearest.to(weights.dtype), other.to(weights.dtype)
