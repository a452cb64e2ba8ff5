"""Losses that draw each image to a binary centre of its class: CSQ, DPN, OrthoHash.

The centres are a buffer ``centers (n_classes, n_bits)`` of -1 and +1, drawn once; ``hadamard.py`` makes them.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import HashingLoss
from .hadamard import bernoulli_centers, hash_centers
from .pairwise import log_cosh

__all__ = ["CSQ", "DPN", "OrthoHash"]

# A vector of logits shorter than this counts as this long in the cosine: its gradient stays finite at 0.
_EPS = 1e-3


class CSQ(HashingLoss):
    """Binary cross-entropy of every bit with the hash centre of the image's class.

    ``-mean_i mean_k [c_k log h_k + (1 - c_k) log(1 - h_k)] + weight mean_i mean_k log cosh(|2 h_k - 1| - 1)``, with h
    the code in [0, 1], ``2 h - 1 = tanh(u)``, and c the centre of i with -1 written as 0. Of several labels the centre
    is the majority of theirs in each bit, ties decided by one random code for all images.

    Args:
        weight: of the quantization term, the paper's lambda_1.
        seed: of the centres.

    Source: Yuan et al., "Central similarity quantization for efficient image and video retrieval", CVPR 2020, central
    similarity and quantization losses. Deviations: the centres for any n_bits (see ``hash_centers``); the mean over
    bits in both terms; tanh as in the authors' code, whose pairwise term the paper does not have.
    """

    class_code_buffers: ClassVar[tuple[str, ...]] = ("centers", "tie_breaker")
    centers: Tensor
    tie_breaker: Tensor

    def __init__(self, n_bits: int, n_classes: int, n_train: int, *, weight: float = 1e-4, seed: int = 0) -> None:
        super().__init__(n_bits, n_classes, n_train)
        self.weight = weight
        self.register_buffer("centers", hash_centers(n_classes, n_bits, seed=seed))
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("tie_breaker", torch.randint(0, 2, (n_bits,), generator=generator) * 2.0 - 1)

    def _loss(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        votes = self._multi_hot(targets, logits.dtype) @ self.centers.to(logits.dtype)
        center = torch.where(votes == 0, self.tie_breaker.to(logits.dtype), votes.sign())
        # h = sigmoid(2 u), so the cross-entropy of a bit is softplus(-2 u) or softplus(2 u): exact at any size.
        entropy = F.softplus(-2 * center * logits).mean()
        quantization = log_cosh(logits.tanh().abs() - 1).mean()
        return entropy + self.weight * quantization


class DPN(HashingLoss):
    """Polarization: a hinge that drives every bit beyond a margin, to the side of its class's random target.

    ``mean_i sum_k max(margin - u_ik t_ik, 0)``, t the target of the class of i, its bits fair coins. Of several labels
    the losses are added, as in the authors' code.

    Args:
        margin: m of the paper.
        seed: of the targets.

    Source: Fan, Ng, Ju, Zhang, Chan, "Deep polarized network for supervised learning of accurate binary hashing codes",
    IJCAI 2020, polarization loss. Deviations: the random assignment (DPN) only, not the adaptive one (DPN-A);
    targets keep away from each other (see ``bernoulli_centers``).
    """

    class_code_buffers: ClassVar[tuple[str, ...]] = ("centers",)
    centers: Tensor

    def __init__(self, n_bits: int, n_classes: int, n_train: int, *, margin: float = 1.0, seed: int = 0) -> None:
        super().__init__(n_bits, n_classes, n_train)
        if margin <= 0:
            raise ValueError(f"margin is {margin}: use a positive one, bits are polarized beyond it")
        self.margin = margin
        self.register_buffer("centers", bernoulli_centers(n_classes, n_bits, seed=seed))

    def _loss(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        multi_hot = self._multi_hot(targets, logits.dtype)
        # A bit is +1 in some of the labels' targets and -1 in the others: two hinges, each counted as often.
        n_positive = multi_hot @ (self.centers > 0).to(logits.dtype)
        n_negative = multi_hot.sum(1, keepdim=True) - n_positive
        hinges = n_positive * (self.margin - logits).relu() + n_negative * (self.margin + logits).relu()
        return hinges.sum(1).mean()


class OrthoHash(HashingLoss):
    """Cross-entropy of the scaled cosines between the logits and the binary orthogonal targets of the classes.

    ``-mean_i sum_c y_ic log softmax_c(scale (cos(u_i, o_c) - margin [c is a label of i]))``, ``y`` the labels divided
    by their number.

    Args:
        scale: of the cosines.
        margin: subtracted from the cosine with the image's own targets.
        seed: of the targets.

    Source: Hoe, Ng, Zhang, Chan, Song, Xiang, "One loss for all: deep hashing with a single cosine similarity based
    learning objective", NeurIPS 2021; scale and margin from the authors' code. Deviations: the paper's batch
    normalization belongs to the hash layer, for bits are the signs of what leaves it, and is not done here; targets are
    orthogonal exactly (see ``hash_centers``), where the code draws them.
    """

    class_code_buffers: ClassVar[tuple[str, ...]] = ("centers",)
    centers: Tensor

    def __init__(
        self,
        n_bits: int,
        n_classes: int,
        n_train: int,
        *,
        scale: float = 8.0,
        margin: float = 0.2,
        seed: int = 0,
    ) -> None:
        super().__init__(n_bits, n_classes, n_train)
        if scale <= 0:
            raise ValueError(f"scale is {scale}: use a positive number")
        self.scale = scale
        self.margin = margin
        self.register_buffer("centers", hash_centers(n_classes, n_bits, seed=seed))

    def _loss(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        labels = self._multi_hot(targets, logits.dtype)
        cosine = F.normalize(logits, dim=1, eps=_EPS) @ F.normalize(self.centers.to(logits.dtype), dim=1).T
        log_p = F.log_softmax(self.scale * (cosine - self.margin * labels), dim=1)
        return -(labels / labels.sum(1, keepdim=True) * log_p).sum(1).mean()
