"""MIHash: the mutual information between Hamming distance and being similar, by soft histograms."""

import torch
from torch import Tensor

from .base import HashingLoss, other_pairs, shared_labels

__all__ = ["MIHash"]

# Below this a probability counts as this in the logarithm: its term is nothing, its gradient stays finite.
_TINY = 1e-10


class MIHash(HashingLoss):
    """Minus the mutual information, in bits, between the distance to an image and being similar to it.

    ``-mean_i [H(D_i) - P(similar) H(D_i | similar) - P(unlike) H(D_i | unlike)]``. D_i is the distance ``(n_bits -
    h_i'h_j) / 2`` of image i to the others of the batch, ``h = 2 sigmoid(sharpness u) - 1``; its distributions are
    histograms of n_bins + 1 triangular bins, centred at 0, n_bits / n_bins, …, n_bits. An image with only similar or
    only unlike ones beside it tells nothing and counts 0.

    Args:
        n_bins: None for the authors' n_bits / 2 (at least 1).
        sharpness: of the sigmoid. The authors take 1 (a network fine-tuned on 5,000 images of CIFAR-10), 10 (ImageNet),
            30 (50,000 images of CIFAR-10) and 40 (one layer on frozen features). At 1 the histograms tell classes that
            look alike from each other by the size of their logits, and the bits, their signs, may not: mAP at 48 bits
            falls far behind (``benchmarks/results/cifar10-tuning.json``).

    Source: Cakir, He, Bargal, Sclaroff, "MIHash: online hashing with mutual information", ICCV 2017;
    "Hashing with mutual information", TPAMI 2019; n_bins from its code. Deviation: the mean over the batch,
    where the authors' code sums.
    """

    def __init__(
        self, n_bits: int, n_classes: int, n_train: int, *, n_bins: int | None = None, sharpness: float = 10.0
    ) -> None:
        super().__init__(n_bits, n_classes, n_train)
        self.n_bins = max(n_bits // 2, 1) if n_bins is None else n_bins
        if self.n_bins < 1:
            raise ValueError(f"n_bins is {n_bins}: use 1 or more")
        self.sharpness = sharpness

    def _loss(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        multi_hot = self._multi_hot(targets, logits.dtype)
        others = other_pairs(len(logits), logits.device)
        similar = (shared_labels(multi_hot, multi_hot) > 0) & others
        h = 2 * (self.sharpness * logits).sigmoid() - 1
        distance = (self.n_bits - h @ h.T) / 2
        width = self.n_bits / self.n_bins
        centers = torch.arange(self.n_bins + 1, device=h.device, dtype=h.dtype) * width
        pulses = (1 - (distance.unsqueeze(2) - centers).abs() / width).relu()

        counts = (pulses * similar.unsqueeze(2)).sum(1)
        counts_unlike = (pulses * (others & ~similar).unsqueeze(2)).sum(1)
        n_similar = similar.to(h.dtype).sum(1)
        share = n_similar / max(len(h) - 1, 1)
        entropy = _entropy((counts + counts_unlike) / max(len(h) - 1, 1))
        conditional = share * _entropy(counts / n_similar.clamp(min=1).unsqueeze(1)) + (1 - share) * _entropy(
            counts_unlike / (len(h) - 1 - n_similar).clamp(min=1).unsqueeze(1)
        )
        return -(entropy - conditional).mean()


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp(min=_TINY).log2()).sum(1)
