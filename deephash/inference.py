"""Makes a trained network faster to run without changing what it computes; says what a device is fast at."""

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .machine import has_bf16_instructions

__all__ = ["has_fast_bf16", "inference_copy", "run_in_parts", "unfold_batch_norms"]

# So many pixels at a time keep what EfficientNet-Lite's layers hand on within a CPU's caches.
_PIXELS_AT_A_TIME = 400_000


def has_fast_bf16(device: torch.device) -> bool:
    """Returns whether a device computes in bfloat16: a GPU made for it, or a CPU with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and has_bf16_instructions()


def inference_copy(module: nn.Module, size: int) -> nn.Module:
    """Returns a copy of a network on the CPU in eval mode, its batch norms folded into the convolutions before them.

    Folding is checked on one random image of ``size`` pixels a side: a network whose batch norms do not follow the
    convolution registered before them would compute something else, and is then copied as it is. Features of
    EfficientNet-Lite0 differ by float rounding only (``benchmarks.first_use``).
    """
    module = copy.deepcopy(module).cpu().eval()
    folded = _fold_batch_norm(copy.deepcopy(module))
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected, computed = module(image), folded(image)
    return folded if torch.allclose(expected, computed, rtol=1e-3, atol=1e-4 * float(expected.abs().max())) else module


def run_in_parts(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Returns ``network(images)``; on a CPU of some images ``(B, C, H, W)`` at a time, which is faster.

    A network that looks at its batch, by a batch norm in training mode, gets it whole. ``benchmarks.fine_tuning``
    measures what the parts bring to training.
    """
    whole = images.device.type != "cpu" or images.ndim != 4
    if whole or any(module.training for module in network.modules() if isinstance(module, _BatchNorm)):
        return cast(torch.Tensor, network(images))
    parts = images.split(max(1, _PIXELS_AT_A_TIME // (images.shape[2] * images.shape[3])))
    return torch.cat([network(part) for part in parts])


@torch.no_grad()
def unfold_batch_norms(folded: nn.Module, module: nn.Module) -> None:
    """Writes the weights of an ``inference_copy`` into the network it was made of, which then computes the same.

    Each folded convolution's bias becomes the bias of its batch norm, which does nothing else: mean 0, variance 1.
    """
    sources, targets = folded.state_dict(), module.state_dict()
    for name in sources.keys() & targets.keys():
        targets[name].copy_(sources[name])
    for conv_name, conv, norm in list(_pairs(module)):
        if conv.bias is not None:
            conv.bias.zero_()
        norm.reset_running_stats()
        assert norm.running_var is not None
        norm.running_var.fill_(1 - norm.eps)
        norm.weight.fill_(1)
        norm.bias.copy_(sources[f"{conv_name}.bias"])


def _pairs(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Conv2d, nn.BatchNorm2d]]:
    """Yields each convolution, by its name, with the batch norm registered right behind it."""
    children = list(module.named_children())
    for (conv_name, conv), (_, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and _fits(conv, norm):
            yield prefix + conv_name, conv, norm
    for name, child in children:
        yield from _pairs(child, f"{prefix}{name}.")


def _fits(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    return conv.out_channels == norm.num_features and norm.affine and norm.track_running_stats


def _fold_batch_norm(module: nn.Module) -> nn.Module:
    children = list(module.named_children())
    for (conv_name, conv), (norm_name, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and _fits(conv, norm):
            plain = nn.BatchNorm2d(norm.num_features, eps=norm.eps).eval()
            plain.load_state_dict(norm.state_dict())
            setattr(module, conv_name, fuse_conv_bn_eval(conv, plain))
            setattr(module, norm_name, getattr(norm, "act", nn.Identity()))  # timm's BatchNormAct2d holds both
    for _, child in children:
        _fold_batch_norm(child)
    return module
