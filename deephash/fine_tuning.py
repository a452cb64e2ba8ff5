"""Makes a pretrained backbone quick to fine-tune on a CPU, and turns it back into what it was.

Three measures, each of which leaves what the network computes as it is: batch norms folded into the convolutions before
them (their statistics stay those of the pretraining), the first stages frozen (they hold the large activations), and
depthwise convolutions that are fast in bfloat16 (``depthwise``). ``benchmarks.fine_tuning`` measures each.
"""

from typing import Any, cast

from torch import nn

from .depthwise import use_fast_depthwise
from .errors import BackboneError
from .inference import inference_copy, unfold_batch_norms

__all__ = ["finish_fine_tuning", "freeze_stages", "prepare_fine_tuning"]


def prepare_fine_tuning(backbone: nn.Module, size: int, frozen_stages: int) -> nn.Module:
    """Returns a copy of a backbone, ready to be trained on images of ``size`` pixels a side.

    Raises:
        BackboneError: the backbone has batch norms that cannot be folded, or no such stages.
    """
    folded = inference_copy(backbone, size)
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in folded.modules()):
        raise BackboneError("this backbone has batch norms that cannot be folded: train it with frozen_stages=None")
    use_fast_depthwise(folded)
    for parameter in folded.parameters():
        parameter.requires_grad_(True)
    freeze_stages(folded, frozen_stages)
    return folded


def finish_fine_tuning(trained: nn.Module, backbone: nn.Module) -> None:
    """Writes the trained weights into the backbone that ``prepare_fine_tuning`` copied: it then computes the same."""
    unfold_batch_norms(trained, backbone)


def freeze_stages(backbone: nn.Module, n: int) -> None:
    """Stops the gradients of the stem and of the first n stages; 0 freezes nothing, the stem neither.

    Raises:
        BackboneError: the backbone does not say what its stages are (timm's do), or has fewer.
    """
    if n == 0:
        return
    if not hasattr(backbone, "group_matcher"):
        raise BackboneError("this backbone does not name its stages: use frozen_stages=0, or a backbone of timm")
    from timm.models import group_parameters

    matcher = cast(Any, backbone).group_matcher(coarse=True)
    stages = group_parameters(backbone, matcher)
    if n >= len(stages):
        raise BackboneError(f"frozen_stages is {n}, but the backbone has {len(stages) - 1} stages behind its stem")
    for stage in range(n + 1):
        for name in stages[stage]:
            backbone.get_parameter(name).requires_grad_(False)
