"""The pairwise likelihood of a batch against a whole training set, value and gradient in one pass over small blocks."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import shared_labels

__all__ = ["mean_likelihood"]

# Pairs at a time: on a CPU few enough for its cache, on a GPU enough to fill it.
_CELLS = {"cpu": 1 << 16}
_CELLS_ELSEWHERE = 1 << 25


def mean_likelihood(logits: Tensor, multi_hot: Tensor, others: Tensor, other_labels: Tensor) -> Tensor:
    """Returns the mean over all pairs (i, j) of log(1 + e^T_ij) - s_ij T_ij, T_ij = u_i'v_j / 2; s_ij: a label shared.

    The gradient goes to u only and is computed with the value: no (B, N) matrix is ever written, and `others` may
    change afterwards.

    Args:
        logits: u, ``(B, n_bits)``.
        multi_hot: labels of the batch, ``(B, n_classes)`` of zeros and ones, of the type of the logits.
        others: v, ``(N, n_bits)`` of any floating type.
        other_labels: ``(N, n_classes)`` bool.
    """
    return _MeanLikelihood.apply(logits, multi_hot, others, other_labels)


class _MeanLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, multi_hot: Tensor, others: Tensor, other_labels: Tensor) -> Tensor:
        total = logits.new_zeros(())
        slopes = torch.zeros_like(logits)
        n_rows = max(1, _CELLS.get(logits.device.type, _CELLS_ELSEWHERE) // len(logits))
        for start in range(0, len(others), n_rows):
            rows = others[start : start + n_rows].to(logits.dtype)
            labels = other_labels[start : start + n_rows].to(logits.dtype)
            # +1 for unlike pairs, -1 for similar: the loss of a pair is softplus(sign T), without cancellation.
            sign = torch.where(shared_labels(multi_hot, labels) > 0, -1.0, 1.0).to(logits.dtype)
            theta = (logits @ rows.T).mul_(sign).mul_(0.5)
            total += F.softplus(theta).sum()
            slopes.addmm_(theta.sigmoid_().mul_(sign), rows)
        n_pairs = len(logits) * len(others)
        ctx.save_for_backward(slopes / (2 * n_pairs))
        return total / n_pairs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return gradients[0] * slopes, None, None, None
