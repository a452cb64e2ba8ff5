"""Losses that keep the binary constraint while they train: DSDH, ADSH, GreedyHash."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import HashingLoss, TrainingSetMemory, shared_labels, signs
from .class_codes import likely_class_codes
from .coordinate_descent import descend_codes, ridge_classifier
from .memory_likelihood import mean_likelihood

__all__ = ["ADSH", "DSDH", "GreedyHash"]


class DSDH(HashingLoss):
    """Pairwise likelihood of the logits, drawn to discrete codes that a linear classifier can read.

    ``J = sum_ij (log(1 + e^T_ij) - s_ij T_ij) + mu sum_i ||y_i - W'b_i||^2 + nu ||W||^2 + eta sum_i ||b_i - u_i||^2``,
    ``T_ij = u_i'u_j / 2``, over the training set. Three steps in turn:

    1. W in closed form, ``(B B' + (nu / mu) I)^-1 B Y'``, on the codes B = sign(U);
    2. B from sign(U) by discrete cyclic coordinate descent, which never raises J;
    3. the network by gradients: ``dJ/du_i = sum_j (sigmoid(T_ij) - s_ij) u_j / 2 + 2 eta (u_i - b_i)``.

    ``forward`` returns the two terms of J that the network moves, divided by (batch x N) as the authors divide their
    gradient: the mean likelihood over pairs of the batch and the whole training set (the u_j are the last ones seen,
    constant; those not seen yet are 0 and give no gradient), plus ``eta / N mean_i ||b_i - u_i||^2``. sign(0) = +1.

    With the published numbers (mu = 1, nu = 0.1, eta = 55) step 2 does next to nothing: P = W Y + (eta / mu) U, and W
    has entries of about 1 / n_bits, so a bit leaves the sign of its logit only where that lies within some 1e-3 of
    zero. On 5,000 random logits of ten classes, of size about 1, 1 bit in 10,000 moved at 48 bits, 2 at 12; with mu =
    1000 and nu = 100 it was 2 to 4 % and 7 to 10 %. The network feels mu through B only.

    Args:
        mu: weight of the classifier; 0 leaves B = sign(U).
        nu: weight decay of the classifier, more than 0 unless mu is 0.
        eta: weight of the distance from the codes, in the scale of J.
        update: ``"epoch"``: W and B for the whole training set before every epoch, from the second on (the paper);
            ``"batch"``: for each batch on its own, from its own logits (the authors' code).
        discrete: False leaves B = sign(U), taken from the logits of the moment: the ablation of steps 1 and 2.
        sweeps: at most so many passes over the bits in step 2.
        columns: the u_j are of the batch and of the images seen last before it, so many in all (at least the batch),
            instead of the whole training set: cheaper, and fresher while a network without pretraining changes fast.
            0 for all.
        centers: an image that step 2 has not reached yet has as its code not sign(u_i), but the signs of the sum of its
            classes' ``likely_class_codes``: a direction from the first batch on for a network without pretraining.
            Step 2 then goes on from the logits as ever. A large mu / eta keeps the codes of a class together.

    Buffers: ``memory.U``, ``memory.Y``, ``memory.seen``; ``B (n_train, n_bits)`` of -1 and +1, rows not seen yet 0;
    ``W (n_bits, n_classes)``, the last one solved; ``recent (columns,)``, the indices seen last, -1 for none yet.

    Source: Li, Sun, He, Tan, "Deep supervised discrete hashing", NIPS 2017; nu / mu = 0.1 and eta = 55 from the
    authors' code. Deviations: that code starts the descent from zeros, here it starts from sign(U); its pairwise
    gradient is twice the one above, as if both images of a pair moved. `columns` and `centers` are ours.
    """

    class_code_buffers: ClassVar[tuple[str, ...]] = ("first_codes",)
    B: Tensor
    W: Tensor
    recent: Tensor
    first_codes: Tensor

    def __init__(
        self,
        n_bits: int,
        n_classes: int,
        n_train: int,
        *,
        mu: float = 1.0,
        nu: float = 0.1,
        eta: float = 55.0,
        update: str = "epoch",
        discrete: bool = True,
        sweeps: int = 10,
        columns: int = 0,
        centers: bool = False,
    ) -> None:
        super().__init__(n_bits, n_classes, n_train)
        if columns < 0:
            raise ValueError(f"columns is {columns}: use 0 for the whole training set, or how many images to pair with")
        if update not in ("epoch", "batch"):
            raise ValueError(f'update is {update!r}: use "epoch" or "batch"')
        if mu < 0 or eta < 0 or sweeps < 0:
            raise ValueError(f"mu is {mu}, eta is {eta}, sweeps is {sweeps}: none of them may be negative")
        if nu <= 0 < mu:
            raise ValueError(f"nu is {nu}: the classifier needs a positive weight decay (or mu=0 for none)")
        self.mu, self.nu, self.eta = mu, nu, eta
        self.update = update
        self.solves_codes = discrete and mu > 0
        self.sweeps = sweeps
        self.memory = TrainingSetMemory(n_bits, n_classes, n_train)
        self.register_buffer("B", torch.zeros(n_train, n_bits))
        self.register_buffer("W", torch.zeros(n_bits, n_classes))
        self.register_buffer("recent", torch.full((min(columns, n_train),), -1))
        first = likely_class_codes(n_classes, n_bits) if centers else torch.zeros(0, n_bits)
        self.register_buffer("first_codes", first, persistent=False)

    def _start_epoch(self, epoch: int, epochs: int) -> None:
        seen = self.memory.seen
        if self.solves_codes and self.update == "epoch" and bool(seen.any()):
            self.B[seen] = self._solve(self.memory.U[seen], self.memory.Y[seen].to(self.B.dtype))

    def _loss(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        multi_hot = self._multi_hot(targets, logits.dtype)
        if self.training:
            self.memory.write(indices, logits, multi_hot)
        codes = self._codes(logits, multi_hot, indices)
        likelihood = mean_likelihood(logits, multi_hot, *self._others(indices))
        return likelihood + self.eta / self.n_train * (logits - codes).square().sum(1).mean()

    def _others(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and labels of the images of the memory that the batch is compared with."""
        if not len(self.recent):
            return self.memory.U, self.memory.Y
        recent = torch.cat([indices, self.recent[~torch.isin(self.recent, indices)]])
        recent = recent[: max(len(self.recent), len(indices))]
        if self.training:
            self.recent[: len(recent)] = recent[: len(self.recent)]
        known = recent[recent >= 0]
        return self.memory.U[known], self.memory.Y[known]

    def _codes(self, logits: Tensor, multi_hot: Tensor, indices: Tensor) -> Tensor:
        if not self.solves_codes:
            codes = signs(logits)
        elif self.update == "batch" and self.training:
            codes = self._solve(logits.detach().to(self.B.dtype), multi_hot.to(self.B.dtype)).to(logits.dtype)
        else:
            known = self.B[indices].to(logits.dtype)
            first = signs(multi_hot @ self.first_codes.to(logits.dtype)) if len(self.first_codes) else signs(logits)
            codes = torch.where(known == 0, first, known)
        if self.training:
            self.B[indices] = codes.to(self.B.dtype)
        return codes

    def _solve(self, logits: Tensor, labels: Tensor) -> Tensor:
        codes = signs(logits)
        self.W.copy_(ridge_classifier(codes, labels, self.nu / self.mu))
        linear = labels @ self.W.T + self.eta / self.mu * logits
        return descend_codes(codes, linear, self.W @ self.W.T, sweeps=self.sweeps)


class ADSH(HashingLoss):
    """Asymmetric: the network learns codes of queries against free binary codes V of the database.

    ``1/(B N) [sum_ij (u_i'v_j - n_bits S_ij)^2 + gamma sum_i ||v_i - u_i||^2]``, ``u = tanh(logits)``, j over the
    training set, which is the database. ``S_ij`` is 1 for similar images; for others minus the ratio of the number of
    similar to that of other pairs (counted between the batch and what has been seen), or -1 if not `balanced`. Before
    every epoch from the second on, V is improved bit by bit, with the last u of each image.

    The images of the training set are to be found by their rows of the buffer ``V (n_train, n_bits)``, only queries by
    the network: hence ``asymmetric``. Rows not seen yet are 0 and left out.

    Args:
        gamma: weight of the distance between the two codes of an image.
        balanced: False for S = -1, as the paper writes it.

    Source: Jiang, Li, "Asymmetric deep supervised hashing", AAAI 2018; gamma and `balanced`
    from the authors' code. Deviations: V starts from sign(u), where the code starts from zeros; u comes from the
    whole training set, where the paper samples 2,000 images of a larger database for each round.
    """

    asymmetric: ClassVar[bool] = True
    V: Tensor

    def __init__(
        self, n_bits: int, n_classes: int, n_train: int, *, gamma: float = 200.0, balanced: bool = True
    ) -> None:
        super().__init__(n_bits, n_classes, n_train)
        self.gamma = gamma
        self.balanced = balanced
        self.memory = TrainingSetMemory(n_bits, n_classes, n_train)
        self.register_buffer("V", torch.zeros(n_train, n_bits))

    def _start_epoch(self, epoch: int, epochs: int) -> None:
        seen = self.memory.seen
        if not bool(seen.any()):
            return
        u = self.memory.U[seen]
        # S depends on the labels only, so it is written once for each combination of labels that occurs.
        labels, which = torch.unique(self.memory.Y[seen].to(u.dtype), dim=0, return_inverse=True)
        counts = torch.bincount(which, minlength=len(labels)).to(u.dtype)
        targets = self._similarity(shared_labels(labels, labels) > 0, counts.unsqueeze(1) * counts)
        sums = torch.zeros(len(labels), self.n_bits, dtype=u.dtype, device=u.device).index_add(0, which, u)
        linear = self.n_bits * (targets @ sums)[which] + self.gamma * u
        self.V[seen] = descend_codes(self.V[seen], linear, u.T @ u, sweeps=1)

    def _loss(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        u = logits.tanh()
        multi_hot = self._multi_hot(targets, logits.dtype)
        own = self.V[indices].to(u.dtype)
        own = torch.where(own == 0, signs(u), own)
        if self.training:
            self.memory.write(indices, u, multi_hot)
            self.V[indices] = own.to(self.V.dtype)
        # S depends on the labels only: one row for each combination of labels in the batch. The squares are multiplied
        # out, so that u meets V'V and S V in place of all N codes; rows of V not seen yet are 0.
        labels, which = torch.unique(multi_hot, dim=0, return_inverse=True)
        counts = torch.bincount(which, minlength=len(labels)).to(u.dtype)
        seen = self.memory.seen.to(u.dtype)
        similarity = self._similarity(self.memory.similar(labels), counts.unsqueeze(1) * seen) * seen
        codes = self.V.to(u.dtype)
        products = ((u @ (codes.T @ codes)) * u).sum() - 2 * self.n_bits * (u * (similarity @ codes)[which]).sum()
        constant = self.n_bits**2 * (counts @ similarity.square()).sum()
        errors = (products + constant) / (len(u) * self.n_train)
        return errors + self.gamma / self.n_train * (own - u).square().sum(1).mean()

    def _similarity(self, similar: Tensor, counts: Tensor) -> Tensor:
        """S of the pairs, each of which counts as often as `counts` says."""
        weights = counts.expand(similar.shape)
        dissimilar = weights.new_ones(())
        if self.balanced:
            dissimilar = (weights * similar).sum() / (weights * ~similar).sum().clamp(min=1)
        return torch.where(similar, 1.0, -dissimilar)


class GreedyHash(HashingLoss):
    """Cross-entropy of a linear classifier on the signs of the logits, whose gradient passes the sign unchanged.

    ``mean_i CE(classifier . sign(u_i), y_i) + weight mean_i mean_k | |u_ik| - 1 |^3``. The classifier
    ``(n_classes, n_bits)``, without bias, is a Parameter: give it to the optimizer. sign(0) = +1.

    Args:
        weight: of the penalty, the paper's alpha.
        seed: of the classifier's initial values, uniform within 1 / sqrt(n_bits) as in ``nn.Linear``.

    Source: Su, Zhang, Han, Tian, "Greedy hash: towards fast optimization for accurate hash coding in CNN", NeurIPS
    2018; weight and the means from the authors' code for CIFAR-10. One label an image, as in the paper.
    """

    multi_label: ClassVar[bool] = False

    def __init__(self, n_bits: int, n_classes: int, n_train: int, *, weight: float = 0.1, seed: int = 0) -> None:
        super().__init__(n_bits, n_classes, n_train)
        self.weight = weight
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(n_classes, n_bits, generator=generator) * 2 - 1
        self.classifier = nn.Parameter(uniform / math.sqrt(n_bits))

    def _loss(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        # The value is the sign to the last bit; the gradient is that of the logits.
        codes = signs(logits) + (logits - logits.detach())
        entropy = F.cross_entropy(codes @ self.classifier.to(logits.dtype).T, targets.long())
        return entropy + self.weight * (logits.abs() - 1).abs().pow(3).mean()
