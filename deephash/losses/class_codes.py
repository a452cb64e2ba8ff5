"""Codes to begin with, one for each class, as good as the pairwise likelihood can tell."""

import torch.nn.functional as F
from torch import Tensor

from .hadamard import hash_centers

__all__ = ["likely_class_codes"]


def likely_class_codes(n_classes: int, n_bits: int, *, sweeps: int = 10) -> Tensor:
    """Returns codes (n_classes, n_bits) float32 of -1 and +1 of a small ``sum_{c != d} log(1 + e^(b_c'b_d / 2))``.

    From ``hash_centers``, whose products of two classes are 0 where there is a Hadamard matrix, by flipping single bits
    while that lowers the sum: the products become negative, about ``-n_bits / (n_classes - 1)``, which is the least
    that all pairs can have. At most so many `sweeps` over all bits.
    """
    codes = hash_centers(n_classes, n_bits)
    products = codes @ codes.T
    for _ in range(sweeps):
        changed = False
        for k in range(n_bits):
            for c in range(n_classes):
                flipped = products[c] - 2 * codes[c, k] * codes[:, k]
                gain = F.softplus(products[c] / 2) - F.softplus(flipped / 2)
                gain[c] = 0  # a code with itself
                if gain.sum() > 1e-6:
                    flipped[c] = n_bits
                    codes[c, k] *= -1
                    products[c], products[:, c] = flipped, flipped
                    changed = True
        if not changed:
            break
    return codes
