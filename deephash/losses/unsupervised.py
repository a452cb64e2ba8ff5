"""Losses without labels: codes as similar to each other as the features of a pretrained network are.

They have the signature of every loss but do not look at the targets: what they imitate, the features of the training
set, is given to them when they are made, ``UNSUPERVISED["bihalf"](48, features)``. So they train a hash layer on frozen
features and, as well, a whole network, towards the features that it had at first.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from .base import HashingLoss, other_pairs, signs

__all__ = ["UNSUPERVISED", "BiHalf", "GreedyHashUnsupervised", "SimilarityDistillation", "UnsupervisedLoss"]

# In place of minus infinity, of which the gradient is no number.
_NEVER = -1e4


class UnsupervisedLoss(HashingLoss):
    """The front that all losses on features share. A batch of one image has no pairs.

    ``forward`` takes targets of any kind, None too, and never looks at them. Buffer: `features` (n_train, D) float32 of
    length 1 (rows of zeros stay, cos = 0), not in the state_dict: make the loss with the same features to go on.

    Args:
        n_bits: width of the logits.
        features: (n_train, D) float, an array or a tensor; row i belongs to index i.

    Raises:
        ValueError: features of wrong shape or type, or not finite.
    """

    features: Tensor

    def __init__(self, n_bits: int, features: ArrayLike | Tensor) -> None:
        x = features.detach() if isinstance(features, Tensor) else torch.from_numpy(np.array(features))
        if x.ndim != 2 or x.numel() == 0 or not x.is_floating_point():
            raise ValueError(f"features must be (n_train, D) float, not {tuple(x.shape)} {x.dtype}")
        if not bool(torch.isfinite(x).all()):
            raise ValueError("features contain NaN or infinite values: leave out the images they come from")
        super().__init__(n_bits, n_classes=1, n_train=len(x))
        self.register_buffer("features", F.normalize(x.float()), persistent=False)

    def _check(self, logits: Tensor, targets: Tensor, indices: Tensor) -> None:
        # In place of the targets: every image in the one class there is.
        super()._check(logits, torch.zeros(logits.shape[:1], dtype=torch.int64, device=logits.device), indices)


class CodeSimilarityLoss(UnsupervisedLoss):
    """Cosine similarities of the codes of a batch are to match those of its features.

    ``mean over i != j of (cos(b_i, b_j) - cos(x_i, x_j))^2``, plus a penalty on the logits; subclasses write the codes
    b_i and the penalty. The codes' gradient passes to the logits unchanged.
    """

    def _loss(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        codes = self._codes(logits)
        # The value is the code to the last bit; the gradient is that of the logits.
        unit = F.normalize(codes + (logits - logits.detach()))
        x = self.features[indices].to(unit)
        errors = (unit @ unit.T - x @ x.T).square() * other_pairs(len(x), x.device)
        return errors.sum() / max(1, len(x) * (len(x) - 1)) + self._penalty(logits, codes)

    def _codes(self, logits: Tensor) -> Tensor:
        """Codes (B, n_bits) of -1 and +1; no gradient."""
        raise NotImplementedError

    def _penalty(self, logits: Tensor, codes: Tensor) -> Tensor:
        raise NotImplementedError


class BiHalf(CodeSimilarityLoss):
    """Codes of which each bit is +1 for one half of the batch and -1 for the other.

    The half with the largest logits is +1, floor(B / 2) images: of all such codes the cheapest to reach by optimal
    transport. Ties go to the earlier image. With L the loss on the codes, the gradient is ``dL/dB + gamma (U - B) / (B
    n_bits)``; the second part is written as the penalty ``gamma / 2 mean (U - B)^2``, so it is in the value too. It
    brings the median of each logit to zero, so that bits = logits > 0 are nearly balanced when no batch is at hand.

    Args:
        n_bits: width of the logits.
        features: as in ``UnsupervisedLoss``.
        gamma: weight of the second part.

    Source: Li & van Gemert, "Deep unsupervised image hashing by maximizing bit entropy", AAAI 2021; the loss and
    gamma = 6 from the authors' code for CIFAR-10. Deviations: all pairs of the batch, where that code pairs its first
    half with its second; the penalty in the value.
    """

    def __init__(self, n_bits: int, features: ArrayLike | Tensor, *, gamma: float = 6.0) -> None:
        super().__init__(n_bits, features)
        self.gamma = gamma

    def _codes(self, logits: Tensor) -> Tensor:
        order = logits.detach().argsort(dim=0, descending=True, stable=True)
        halves = -torch.ones_like(order, dtype=logits.dtype)
        halves[: len(order) // 2] = 1
        return torch.empty_like(halves).scatter_(0, order, halves)

    def _penalty(self, logits: Tensor, codes: Tensor) -> Tensor:
        return self.gamma / 2 * (logits - codes).square().mean()


class GreedyHashUnsupervised(CodeSimilarityLoss):
    """Codes sign(u), sign(0) = +1, with the penalty ``weight mean | |u| - 1 |^3``.

    Args:
        n_bits: width of the logits.
        features: as in ``UnsupervisedLoss``.
        weight: of the penalty, the paper's alpha.

    Source: Su, Zhang, Han, Tian, "Greedy hash: towards fast optimization for accurate hash coding in CNN", NeurIPS
    2018; the loss and its weight from the authors' code for CIFAR-10 without labels. Deviation: all pairs of the batch,
    where that code pairs its first half with its second.
    """

    def __init__(self, n_bits: int, features: ArrayLike | Tensor, *, weight: float = 0.1) -> None:
        super().__init__(n_bits, features)
        self.weight = weight

    def _codes(self, logits: Tensor) -> Tensor:
        return signs(logits)

    def _penalty(self, logits: Tensor, codes: Tensor) -> Tensor:
        return self.weight * (logits.abs() - 1).abs().pow(3).mean()


class SimilarityDistillation(UnsupervisedLoss):
    """Codes in which an image has the neighbours that it has by its features, near ones before all.

    With relaxed codes h = tanh(u), an image's neighbours in the batch, as a distribution, are ``P_i = softmax over j !=
    i of cos(x_i, x_j) / t`` by the features and ``Q_i = softmax over j != i of h_i'h_j / (n_bits t)`` by the codes. The
    loss is ``mean_i KL(P_i || Q_i) + balance mean_k (mean_i h_ik)^2 + correlation ||H'H / B - I||^2 / n_bits``: bits
    are +1 for half of the images, and no two say the same.

    The logits may be those of changed copies of the images that the features belong to: the codes then become the same
    for both. Meant to improve a hash layer that finds neighbours already (ITQ), on features less their mean: from
    random weights and raw features it stays behind the other losses in ``benchmarks.cifar10``.

    Args:
        n_bits: width of the logits.
        features: as in ``UnsupervisedLoss``.
        temperature: t, how few neighbours count.
        balance: weight of the second term.
        correlation: weight of the third.

    Source: Fang et al., "SEED: self-supervised distillation for visual representation", ICLR 2021, within the
    batch in place of a queue and from features to their codes; balance and independence of bits from Weiss et al.,
    "Spectral hashing", NIPS 2008, as penalties. The weights and t are ours (``benchmarks.make_general_models``).
    """

    def __init__(
        self,
        n_bits: int,
        features: ArrayLike | Tensor,
        *,
        temperature: float = 0.06,
        balance: float = 4.0,
        correlation: float = 0.4,
    ) -> None:
        super().__init__(n_bits, features)
        self.temperature = temperature
        self.balance = balance
        self.correlation = correlation

    def _loss(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        codes = torch.tanh(logits)
        x = self.features[indices].to(codes)
        wanted = self._neighbours(x @ x.T)
        found = self._neighbours(codes @ codes.T / self.n_bits)
        divergence = F.kl_div(found, wanted, log_target=True, reduction="batchmean")
        balance = codes.mean(0).square().mean()
        gram = codes.T @ codes / len(codes) - torch.eye(self.n_bits, dtype=codes.dtype, device=codes.device)
        return divergence + self.balance * balance + self.correlation * gram.square().sum() / self.n_bits

    def _neighbours(self, similarities: Tensor) -> Tensor:
        """Logarithms (B, B) of each row's distribution; no image is its own neighbour, unless it is alone."""
        others = other_pairs(len(similarities), similarities.device)
        return torch.log_softmax((similarities / self.temperature).masked_fill(~others, _NEVER), dim=1)


UNSUPERVISED: dict[str, type[BiHalf] | type[GreedyHashUnsupervised] | type[SimilarityDistillation]] = {
    "bihalf": BiHalf,
    "greedyhash-unsupervised": GreedyHashUnsupervised,
    "similarity-distillation": SimilarityDistillation,
}
