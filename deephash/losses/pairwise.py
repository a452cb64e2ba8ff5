"""Losses over pairs of images, by the likelihood or the distance of the pair: DPSH, DHN, DSH, HashNet, DCH.

Two images are similar (s_ij = 1) when they share a label. Pairs are those of two different images of the batch; DPSH
pairs the batch with the whole training set.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import HashingLoss, TrainingSetMemory, other_pairs, shared_labels, signs
from .memory_likelihood import mean_likelihood

__all__ = ["DCH", "DHN", "DPSH", "DSH", "HashNet", "pair_likelihood"]

# Keeps the distance of two codes that point the same way, in bits, and the length of a code off zero in DCH.
_DCH_EPS = 1e-3


def pair_likelihood(theta: Tensor, similar: Tensor) -> Tensor:
    """Returns log(1 + e^theta) - s theta elementwise, without cancellation; ``similar`` is s as bool."""
    return F.softplus(torch.where(similar, -theta, theta))


def log_cosh(x: Tensor) -> Tensor:
    """Returns log cosh x elementwise, without overflow."""
    return x.abs() + F.softplus(-2 * x.abs()) - math.log(2)


class DPSH(HashingLoss):
    """Pairwise likelihood of the logits, plus their distance from their signs.

    ``1/(B N) [sum_ij (log(1 + e^T_ij) - s_ij T_ij) + eta sum_i ||u_i - sign(u_i)||^2]``, ``T_ij = u_i'u_j / 2``; i runs
    over the batch, j over the whole training set, whose u_j are the last ones seen and constant. Images not
    seen yet have u_j = 0, which gives no gradient.

    Args:
        eta: weight of the quantization term, as in the paper: there a sum over pairs stands beside it, so in this mean
            form it acts as eta / n_train.

    Source: Li, Wang, Kang, "Feature learning based deep supervised hashing with pairwise labels", IJCAI 2016,
    the relaxed problem; the mean over (batch, N) and eta = 10 for CIFAR-10 as in the authors' code.
    """

    def __init__(self, n_bits: int, n_classes: int, n_train: int, *, eta: float = 10.0) -> None:
        super().__init__(n_bits, n_classes, n_train)
        self.eta = eta
        self.memory = TrainingSetMemory(n_bits, n_classes, n_train)

    def _loss(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        multi_hot = self._multi_hot(targets, logits.dtype)
        if self.training:
            self.memory.write(indices, logits, multi_hot)
        likelihood = mean_likelihood(logits, multi_hot, self.memory.U, self.memory.Y)
        quantization = (logits - signs(logits)).square().sum(1).mean()
        return likelihood + self.eta / self.n_train * quantization


class DHN(HashingLoss):
    """Pairwise likelihood of tanh codes, plus a smooth L1 distance of their magnitudes from 1.

    ``mean_ij (log(1 + e^<z_i, z_j>) - s_ij <z_i, z_j>) + weight mean_i sum_k log cosh(|z_ik| - 1)``, ``z = tanh(u)``.

    Args:
        weight: of the quantization term, the paper's lambda, which it chooses by validation; 0.1 is ours.

    Source: Zhu, Long, Wang, Cao, "Deep hashing network for efficient similarity retrieval", AAAI 2016, pairwise
    cross-entropy and quantization loss. Deviation: means, where the paper sums.
    """

    def __init__(self, n_bits: int, n_classes: int, n_train: int, *, weight: float = 0.1) -> None:
        super().__init__(n_bits, n_classes, n_train)
        self.weight = weight

    def _loss(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        z = logits.tanh()
        multi_hot = self._multi_hot(targets, logits.dtype)
        pairs = other_pairs(len(z), z.device)
        likelihood = pair_likelihood(z @ z.T, shared_labels(multi_hot, multi_hot) > 0)
        quantization = log_cosh(z.abs() - 1).sum(1).mean()
        return _mean_over(likelihood, pairs) + self.weight * quantization


class DSH(HashingLoss):
    """Contrastive loss on squared distances of the logits, with their magnitudes drawn to 1.

    ``mean_ij [s_ij d_ij / 2 + (1 - s_ij) max(m - d_ij, 0) / 2 + alpha (r_i + r_j)]``, ``d_ij = ||u_i - u_j||^2``,
    ``r_i = || |u_i| - 1 ||_1``. Every image stands in as many pairs, so the last term is ``2 alpha mean_i r_i``.

    Args:
        margin: m, None for the paper's 2 n_bits.
        alpha: weight of the regularizer.

    Source: Liu, Wang, Shan, Chen, "Deep supervised hashing for fast image retrieval", CVPR 2016, the relaxed
    loss; m and alpha as there. Deviation: the mean over pairs, where the paper sums.
    """

    def __init__(
        self, n_bits: int, n_classes: int, n_train: int, *, margin: float | None = None, alpha: float = 0.01
    ) -> None:
        super().__init__(n_bits, n_classes, n_train)
        self.margin = 2.0 * n_bits if margin is None else margin
        self.alpha = alpha

    def _loss(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        multi_hot = self._multi_hot(targets, logits.dtype)
        similar = shared_labels(multi_hot, multi_hot) > 0
        # Not by way of the inner products, which cancel at large logits.
        distance = (logits.unsqueeze(1) - logits).square().sum(2)
        contrast = torch.where(similar, distance, (self.margin - distance).relu()) / 2
        regularizer = (logits.abs() - 1).abs().sum(1).mean()
        return _mean_over(contrast, other_pairs(len(logits), logits.device)) + 2 * self.alpha * regularizer


class HashNet(HashingLoss):
    """Weighted pairwise likelihood of codes tanh(beta u), with beta growing from epoch to epoch.

    ``mean_ij w_ij (log(1 + e^(alpha <h_i, h_j>)) - alpha s_ij <h_i, h_j>)``, ``h = tanh(beta u)``;
    ``w_ij = c_ij S / S1`` for similar pairs and ``S / S0`` for others, S1, S0 and S counted in the batch; c_ij =
    |labels shared| / |labels of either| (1 for one label an image). A batch without one kind of pairs has no such term.

    beta is ``sqrt(1 + (beta_max^2 - 1) epoch / (epochs - 1))``: from 1 to beta_max with the square root of time.

    Args:
        alpha: of the adaptive sigmoid, None for the authors' 10 / n_bits.
        beta_max: beta of the last epoch.

    Source: Cao, Long, Wang, Yu, "HashNet: deep learning to hash by continuation", ICCV 2017, weighted maximum
    likelihood and learning by continuation; alpha, the law of beta and its end (7.14 after 10,000 iterations) from the
    authors' code. Deviations: beta follows epochs, not iterations; pairs are all of one batch, not those between two.
    """

    beta: Tensor

    def __init__(
        self,
        n_bits: int,
        n_classes: int,
        n_train: int,
        *,
        alpha: float | None = None,
        beta_max: float = math.sqrt(51),
    ) -> None:
        super().__init__(n_bits, n_classes, n_train)
        if beta_max < 1:
            raise ValueError(f"beta_max is {beta_max}: beta starts at 1 and does not fall")
        self.alpha = 10.0 / n_bits if alpha is None else alpha
        self.beta_max = beta_max
        self.register_buffer("beta", torch.ones(()))

    def _start_epoch(self, epoch: int, epochs: int) -> None:
        self.beta.fill_(math.sqrt(1 + (self.beta_max**2 - 1) * epoch / max(epochs - 1, 1)))

    def _loss(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        h = (self.beta.to(logits.dtype) * logits).tanh()
        multi_hot = self._multi_hot(targets, logits.dtype)
        shared = shared_labels(multi_hot, multi_hot)
        n_labels = multi_hot.sum(1)
        overlap = shared / (n_labels.unsqueeze(1) + n_labels - shared)
        likelihood = pair_likelihood(self.alpha * (h @ h.T), shared > 0)
        return _balanced(torch.where(shared > 0, overlap * likelihood, likelihood), shared > 0)


class DCH(HashingLoss):
    """Cauchy cross-entropy of pairs and Cauchy quantization of tanh codes: similar images into a small Hamming ball.

    ``mean_ij w_ij (s_ij log(d_ij / gamma) + log(1 + gamma / d_ij)) + weight mean_i log(1 + d(|h_i|, 1) / gamma)``,
    ``h = tanh(u)``, ``d(a, b) = n_bits / 2 (1 - cos(a, b))``, a relaxed Hamming distance; w_ij is S / S1 for similar
    pairs and S / S0 for others, counted in the batch. A batch without one kind of pairs has no such term.

    Args:
        gamma: scale of the Cauchy distribution, in bits.
        weight: of the quantization term, the paper's lambda, which it chooses by validation; 0.1 is ours (the authors'
            script has 0).

    Source: Cao, Long, Liu, Wang, "Deep Cauchy hashing for Hamming space retrieval", CVPR 2018, Cauchy cross-entropy and
    quantization losses; gamma from the authors' code. Deviations: means, where the paper sums; d is at least 1e-3 bits,
    where two unlike images with the same code would cost infinitely much; a code shorter than 1e-3 counts as that long.
    """

    def __init__(self, n_bits: int, n_classes: int, n_train: int, *, gamma: float = 20.0, weight: float = 0.1) -> None:
        super().__init__(n_bits, n_classes, n_train)
        if gamma <= 0:
            raise ValueError(f"gamma is {gamma}: use a positive number of bits")
        self.gamma = gamma
        self.weight = weight

    def _loss(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        direction = F.normalize(logits.tanh(), dim=1, eps=_DCH_EPS)
        multi_hot = self._multi_hot(targets, logits.dtype)
        similar = shared_labels(multi_hot, multi_hot) > 0
        distance = self._distance(direction @ direction.T)
        entropy = torch.where(similar, torch.log1p(distance / self.gamma), torch.log1p(self.gamma / distance))
        from_ones = self._distance(direction.abs().sum(1) / math.sqrt(self.n_bits))
        return _balanced(entropy, similar) + self.weight * torch.log1p(from_ones / self.gamma).mean()

    def _distance(self, cosine: Tensor) -> Tensor:
        return self.n_bits / 2 * (1 - cosine).relu() + _DCH_EPS


def _mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the masked values; 0, still part of the graph, where there are none."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def _balanced(pair_losses: Tensor, similar: Tensor) -> Tensor:
    """(1/S) sum of w_ij times the loss of the pair, w_ij = S / S1 or S / S0: the two means over the kinds of pairs."""
    pairs = other_pairs(len(similar), similar.device)
    return _mean_over(pair_losses, similar & pairs) + _mean_over(pair_losses, ~similar & pairs)
