"""HashingLoss, the one signature that all losses share, and what several of them need: signs, similarity, memory.

The checks of every batch are here; the formulas are in the modules beside this one.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

__all__ = ["HashingLoss", "TrainingSetMemory", "other_pairs", "shared_labels", "signs"]


class HashingLoss(nn.Module):
    """A training loss on the logits of a batch; what it learns or remembers are its own Parameters and buffers.

    Subclasses write ``_loss``. All of them are means over the batch (or over its pairs or triplets), so their size does
    not grow with the batch. Half precision is computed in float32, under autocast too. In ``eval()`` mode nothing
    is remembered, so a validation loss leaves no trace. Whatever is random is drawn in ``__init__`` from the
    loss's own ``seed``.

    ``asymmetric``: the database is coded by the loss's own ``V``, not by the network, so results share no column with
    the others. ``multi_label``: the paper defines the loss for images with several labels. ``class_code_buffers``: the
    buffers ``(..., n_bits)`` with the codes that classes have from the start.

    Args:
        n_bits: width of the logits.
        n_classes: targets are 0 … n_classes - 1, or multi-hot rows of this width.
        n_train: number of training images; indices are 0 … n_train - 1.

    Raises:
        ValueError: one of the three is not a positive integer.
    """

    asymmetric: ClassVar[bool] = False
    multi_label: ClassVar[bool] = True
    class_code_buffers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, n_bits: int, n_classes: int, n_train: int) -> None:
        super().__init__()
        for name, value in (("n_bits", n_bits), ("n_classes", n_classes), ("n_train", n_train)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}: use an integer of 1 or more")
        self.n_bits = n_bits
        self.n_classes = n_classes
        self.n_train = n_train

    def forward(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        """Returns the loss of a batch: a scalar, float32 (float64 for float64 logits).

        Args:
            logits: ``(B, n_bits)`` float, straight from the hash layer: no tanh, no sign.
            targets: classes ``(B,)`` int64, or multi-hot ``(B, n_classes)`` of integers or bools, at least one 1 a row.
            indices: ``(B,)`` int64, each image's place in the training set.

        Raises:
            ValueError: a shape, type or value that does not fit; several labels where the paper has no loss for them.
        """
        self._check(logits, targets, indices)
        with torch.autocast(logits.device.type, enabled=False):
            return self._loss(logits if logits.dtype == torch.float64 else logits.float(), targets, indices)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Does what the method does between epochs; call it once before the first batch of each epoch, 0 … epochs - 1.

        Raises:
            ValueError: epoch is not in 0 … epochs - 1.
        """
        if not 0 <= epoch < epochs:
            raise ValueError(f"epoch is {epoch} of {epochs}: epochs count from 0 to {epochs - 1}")
        self._start_epoch(epoch, epochs)

    def _loss(self, logits: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        raise NotImplementedError

    def _start_epoch(self, epoch: int, epochs: int) -> None:
        """By default nothing happens between epochs."""

    def _multi_hot(self, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """Targets as (B, n_classes) of zeros and ones."""
        if targets.ndim == 2:
            return targets.to(dtype)
        return nn.functional.one_hot(targets.long(), self.n_classes).to(dtype)

    def _check(self, logits: Tensor, targets: Tensor, indices: Tensor) -> None:
        name = type(self).__name__
        if logits.ndim != 2 or logits.shape[1] != self.n_bits or len(logits) == 0 or not logits.is_floating_point():
            raise ValueError(
                f"logits are {_kind(logits)}: this {name} takes floats of shape (B, {self.n_bits}), B at least 1; "
                "create the loss with the n_bits of the hash layer"
            )
        n = len(logits)
        for what, values in (("targets", targets), ("indices", indices)):
            if values.is_floating_point() or values.is_complex():
                raise ValueError(f"{what} are {_kind(values)}: give integers ({what}.long())")
        if targets.ndim == 2 and not self.multi_label:
            raise ValueError(
                f"targets have shape {tuple(targets.shape)}, but {name} is defined for one label an image: give "
                f"classes of shape (B,), or use one of {', '.join(_multi_label_losses())}"
            )
        if targets.shape not in ((n,), (n, self.n_classes)):
            raise ValueError(
                f"targets have shape {tuple(targets.shape)}: give classes ({n},) or "
                f"multi-hot rows ({n}, {self.n_classes})"
            )
        if targets.ndim == 1:
            _check_range("targets", targets, self.n_classes, "create the loss with the n_classes of the data")
        else:
            _check_range("multi-hot targets", targets, 2, "mark each label by a 1")
            if not bool(targets.any(dim=1).all()):
                raise ValueError(
                    "an image of this batch has no label: leave such images out, nothing is similar to them"
                )
        if indices.shape != (n,):
            raise ValueError(f"indices have shape {tuple(indices.shape)}: give one for each of the {n} images")
        _check_range("indices", indices, self.n_train, "create the loss with the n_train of the data")


class TrainingSetMemory(nn.Module):
    """The last logits and the labels of every training image.

    Buffers: ``U (N, n_bits)``, ``Y (N, n_classes)`` bool, ``seen (N,)`` bool. Rows that were never written are 0 in U
    and Y and False in seen.
    """

    U: Tensor
    Y: Tensor
    seen: Tensor

    def __init__(self, n_bits: int, n_classes: int, n_train: int) -> None:
        super().__init__()
        self.register_buffer("U", torch.zeros(n_train, n_bits))
        self.register_buffer("Y", torch.zeros(n_train, n_classes, dtype=torch.bool))
        self.register_buffer("seen", torch.zeros(n_train, dtype=torch.bool))

    def write(self, indices: Tensor, logits: Tensor, multi_hot: Tensor) -> None:
        """Remember a batch; no gradient flows back through what is remembered."""
        self.U[indices] = logits.detach().to(self.U.dtype)
        self.Y[indices] = multi_hot > 0
        self.seen[indices] = True

    def similar(self, multi_hot: Tensor) -> Tensor:
        """(B, N) bool: which images of the training set share a label with those of a batch."""
        return shared_labels(multi_hot, self.Y.to(multi_hot.dtype)) > 0


def signs(values: Tensor) -> Tensor:
    """Returns -1 and +1, with sign(0) = +1; no gradient."""
    return torch.where(values.detach() >= 0, 1.0, -1.0).to(values.dtype)


def shared_labels(multi_hot: Tensor, others: Tensor) -> Tensor:
    """Returns (B, M): how many labels each row of (B, C) shares with each row of (M, C)."""
    return multi_hot @ others.T


def other_pairs(n: int, device: torch.device) -> Tensor:
    """Returns (n, n) bool, False on the diagonal: the pairs of two different images."""
    return ~torch.eye(n, dtype=torch.bool, device=device)


def _kind(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} of shape {tuple(values.shape)}"


def _check_range(what: str, values: Tensor, end: int, fix: str) -> None:
    # One comparison, so that a batch on a GPU costs one synchronisation.
    outside = (values < 0) | (values >= end)
    if bool(outside.any()):
        raise ValueError(f"{what} hold {int(values[outside][0])}, which is not in 0 … {end - 1}: {fix}")


def _multi_label_losses() -> list[str]:
    from . import LOSSES

    return [name for name, loss in LOSSES.items() if loss.multi_label]
