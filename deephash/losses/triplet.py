"""Losses over triplets of images: DTSH."""

import torch.nn.functional as F
from torch import Tensor

from .base import HashingLoss, other_pairs, shared_labels, signs

__all__ = ["DTSH"]


class DTSH(HashingLoss):
    """Likelihood that each image is closer to a similar one than to an unlike one, by a margin.

    ``mean over triplets (q, p, n) of log(1 + e^-(T_qp - T_qn - margin)) + eta mean_i ||u_i - sign(u_i)||^2``, ``T_ij =
    u_i'u_j / 2``, over all triplets of the batch where q shares a label with p and none with n. A batch without a
    triplet has only the second term.

    Args:
        margin: None for the authors' n_bits / 2.
        eta: weight of the quantization term: the authors have 100 beside a sum over 22,500 triplets an image.

    Source: Wang, Shi, Kitani, "Deep supervised hashing with triplet labels", ACCV 2016, triplet label likelihood;
    margin and eta from the authors' code. Deviations: means, where the paper sums; triplets of the batch, where the
    code pairs the batch with samples of the training set.
    """

    def __init__(
        self,
        n_bits: int,
        n_classes: int,
        n_train: int,
        *,
        margin: float | None = None,
        eta: float = 100 / 22_500,
    ) -> None:
        super().__init__(n_bits, n_classes, n_train)
        self.margin = n_bits / 2 if margin is None else margin
        self.eta = eta

    def _loss(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        multi_hot = self._multi_hot(targets, logits.dtype)
        similar = shared_labels(multi_hot, multi_hot) > 0
        positive = similar & other_pairs(len(logits), logits.device)
        theta = logits @ logits.T / 2
        quantization = self.eta * (logits - signs(logits)).square().sum(1).mean()
        # Only the triplets that exist are computed: with ten classes they are a tenth of all B^3.
        q, p, n = (positive.unsqueeze(2) & ~similar.unsqueeze(1)).nonzero(as_tuple=True)
        if len(q) == 0:
            return quantization
        return F.softplus(self.margin - theta[q, p] + theta[q, n]).mean() + quantization
