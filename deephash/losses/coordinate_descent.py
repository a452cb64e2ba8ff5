"""The two steps of discrete hashing that have nothing to do with a network: ridge regression and coordinate descent."""

import torch
from torch import Tensor

from .base import signs

__all__ = ["descend_codes", "ridge_classifier"]


def ridge_classifier(codes: Tensor, labels: Tensor, weight_decay: float) -> Tensor:
    """Returns W (n_bits, n_classes), the minimum of ||Y - B W||^2 + weight_decay ||W||^2, solved in float64.

    Args:
        codes: B, ``(N, n_bits)`` of -1 and +1.
        labels: Y, ``(N, n_classes)`` of zeros and ones, of the type of the codes.
        weight_decay: more than 0.
    """
    gram = (codes.T @ codes).double().cpu()
    gram += weight_decay * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram, (codes.T @ labels).double().cpu()).to(codes)


def descend_codes(codes: Tensor, linear: Tensor, gram: Tensor, *, sweeps: int = 10) -> Tensor:
    """Returns codes (N, n_bits) of -1 and +1 at least as good as those given, by discrete cyclic coordinate descent.

    Row by row the objective is ``b' G b - 2 b' p``: each step sets one bit of all rows to its minimum given the other
    bits, ``b_k = sign(p_k - sum_{l != k} G_kl b_l)``, sign(0) = +1, so the objective never rises. It stops after
    `sweeps` passes over the bits, or when a pass changes nothing. Where every ``|p_k|`` is more than ``sum_{l != k}
    |G_kl|``, as for a diagonal G, the result is the minimum over all 2^n_bits codes; else, if the passes sufficed, one
    that no change of a single bit improves.

    Args:
        codes: where to start, ``(N, n_bits)`` of -1 and +1.
        linear: p of each row, ``(N, n_bits)``.
        gram: G, ``(n_bits, n_bits)``, symmetric.
        sweeps: 0 returns the start.

    Source: Shen et al., "Supervised discrete hashing", CVPR 2015, discrete cyclic coordinate descent.
    """
    codes = codes.clone()
    off_diagonal = gram - torch.diag(gram.diagonal())
    for _ in range(sweeps):
        before = codes.clone()
        for k in range(codes.shape[1]):
            codes[:, k] = signs(linear[:, k] - codes @ off_diagonal[:, k])
        if torch.equal(codes, before):
            break
    return codes
