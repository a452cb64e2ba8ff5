"""One loss for codes of several lengths at once: each shorter code is a prefix of the longest."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .base import HashingLoss

__all__ = ["NestedLoss"]


class NestedLoss(HashingLoss):
    """The mean of several losses, each on the first bits of the logits: every prefix becomes a code of its own.

    ``mean_l loss_l([given stop(u_1 ... u_m), u_m+1 ... u_n])``, n the length of l and m that of the one before it, 0
    for the first: a bit learns from the shortest length that has it, and longer ones take it as given. The layers below
    learn from all of them.

    What a loss learns or remembers (memory, codes, classifier) it has for its own length. Only the codes that it draws
    classes to from the start (``class_code_buffers``) are made the same bits for all: those of the whole, in an order
    in which the first few tell classes apart best.

    Args:
        losses: one for each length, shortest first; the last one has the n_bits of the hash layer. ``create_loss``
            makes them.
        given: how much the logits of the shorter length count in the next one. Where they count in full, they have
            told the training images apart already, and leave the new bits less to learn.
        joint: True lets every length move all its bits, and all count in full, as in the paper. The shorter codes are
            worse then; ``benchmarks.cifar10.nesting`` measures both on validation images.

    Raises:
        ValueError: ``given`` is not from 0 to 1; the lengths do not ascend; the losses differ in n_classes or n_train;
            or one is asymmetric.

    Source: Kusupati et al., "Matryoshka representation learning", NeurIPS 2022, eq. 1 with equal weights. Deviations:
    the mean, where the paper has the sum; that a bit learns from one length only; ``given``.
    """

    losses: Sequence[HashingLoss]

    def __init__(self, losses: Sequence[HashingLoss], *, given: float = 0.5, joint: bool = False) -> None:
        if not losses:
            raise ValueError("there is no loss to nest: give one for each length")
        whole = losses[-1]
        super().__init__(whole.n_bits, whole.n_classes, whole.n_train)
        self.lengths = tuple(loss.n_bits for loss in losses)
        self.given = given
        self.joint = joint
        if not 0 <= given <= 1:
            raise ValueError(f"given is {given}: use 0 (the new bits learn alone) to 1 (the others count in full)")
        if any(longer <= shorter for shorter, longer in pairwise(self.lengths)):
            shorter = ", ".join(map(str, self.lengths[:-1]))
            raise ValueError(f"the nested lengths are {shorter}: they must ascend, below {self.n_bits} bits")
        sizes = {(loss.n_classes, loss.n_train) for loss in losses}
        if len(sizes) > 1:
            raise ValueError(
                f"the losses differ in (n_classes, n_train): {sorted(sizes)}; create them for the same data"
            )
        asymmetric = next((loss for loss in losses if loss.asymmetric), None)
        if asymmetric is not None:
            raise ValueError(
                f"{type(asymmetric).__name__} codes the database by itself, anew for each length: no code is a prefix "
                "of another: nest a symmetric loss"
            )
        self.losses = nn.ModuleList(losses)  # type: ignore[assignment]
        _share_class_codes(losses)

    def _loss(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        values = []
        n_given = 0
        for loss in self.losses:
            given = logits[:, :n_given] if self.joint else self.given * logits[:, :n_given].detach()
            own = torch.cat([given, logits[:, n_given : loss.n_bits]], dim=1)
            values.append(loss._loss(own, targets, indices))
            n_given = loss.n_bits
        return torch.stack(values).mean()

    def _start_epoch(self, epoch: int, epochs: int) -> None:
        for loss in self.losses:
            loss._start_epoch(epoch, epochs)

    def _check(self, logits: Tensor, targets: Tensor, indices: Tensor) -> None:
        self.losses[-1]._check(logits, targets, indices)


def _share_class_codes(losses: Sequence[HashingLoss]) -> None:
    """Gives all losses the first bits of the class codes of the longest, in the order of ``_telling_order``."""
    whole = losses[-1]
    buffers = [name for name in whole.class_code_buffers if getattr(whole, name).numel()]
    if not buffers:
        return
    order = _telling_order(getattr(whole, buffers[0]))
    for name in buffers:
        codes = getattr(whole, name)[..., order]
        for loss in losses:
            setattr(loss, name, codes[..., : loss.n_bits].clone())


def _telling_order(codes: Tensor) -> Tensor:
    """Returns an order of the bits of codes (n_classes, n_bits): each next one keeps close pairs apart best.

    Greedily by the sum of exp(b_c'b_d) over pairs of classes, with the bits so far; of equal ones the first.
    """
    n_classes, n_bits = codes.shape
    first, second = torch.triu_indices(n_classes, n_classes, 1)
    agree = (codes[first] * codes[second]).double()
    products = torch.zeros(len(agree), 1, dtype=torch.float64)
    left = list(range(n_bits))
    order = []
    while left:
        best = int((products + agree[:, left]).logsumexp(0).argmin()) if len(agree) else 0
        order.append(left.pop(best))
        products += agree[:, order[-1:]]
    return torch.tensor(order)
