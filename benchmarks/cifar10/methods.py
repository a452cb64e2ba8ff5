"""The contestants: how each learns from the training set and gives bits to all images."""

import inspect
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.cifar10.frame import FeatureSet, train_head
from benchmarks.cifar10.options import chosen_options
from deephash.losses import LOSSES, UNSUPERVISED, HashingLoss, NestedLoss, create_loss
from deephash.shallow import SHALLOW

__all__ = ["FLOAT", "METHODS", "Contestant", "Entry", "Nested", "Supervised"]

Bits = NDArray[np.bool_]


class Contestant(Protocol):
    """A method; it has a head, trained within the common budget, or none."""

    @property
    def has_head(self) -> bool:
        """Whether it trains the common head."""

    @property
    def options(self) -> dict[str, Any]:
        """Its options, where they are not the defaults of its class."""

    def bits(self, data: FeatureSet, n_bits: int, seed: int) -> Bits:
        """Returns bits ``(N, n_bits)`` of all images, learned from the training set."""


@dataclass(frozen=True)
class Supervised:
    """The head under a loss with labels. Of an asymmetric one, the training images have the loss's own codes."""

    loss: str
    changes: dict[str, Any] = field(default_factory=dict)
    tuned: bool = True
    has_head = True

    @property
    def options(self) -> dict[str, Any]:
        """Those that validation chose, if ``tuned``, with the changes."""
        return (chosen_options(self.loss) if self.tuned else {}) | self.changes

    def bits(self, data: FeatureSet, n_bits: int, seed: int) -> Bits:
        """Returns the bits of all images."""
        loss = self.create(n_bits, len(data.training), seed)
        bits = train_head(data, loss, n_bits, seed) > 0
        if loss.asymmetric:
            bits[data.training] = loss.V.numpy() > 0
        return bits

    def create(self, n_bits: int, n_train: int, seed: int) -> HashingLoss:
        """Returns the loss."""
        seeded = {"seed": seed} if "seed" in inspect.signature(LOSSES[self.loss]).parameters else {}
        return create_loss(self.loss, n_bits=n_bits, n_classes=10, n_train=n_train, **seeded, **self.options)


@dataclass(frozen=True)
class Nested:
    """The head under one loss for several lengths: one training, of which each length is judged by its first bits."""

    inner: Supervised
    lengths: tuple[int, ...] = (12, 24, 32, 48)
    given: float = 0.5
    joint: bool = False
    has_head = True

    @property
    def options(self) -> dict[str, Any]:
        """Those of the loss of each length, and those of ``NestedLoss``."""
        return self.inner.options | {"lengths": list(self.lengths), "given": self.given, "joint": self.joint}

    def bits(self, data: FeatureSet, n_bits: int, seed: int) -> Bits:
        """Returns the bits of all images; ``n_bits`` is the longest of the lengths."""
        losses = [self.inner.create(length, len(data.training), seed) for length in self.lengths]
        return train_head(data, NestedLoss(losses, given=self.given, joint=self.joint), n_bits, seed) > 0


@dataclass(frozen=True)
class Unsupervised:
    """The head under a loss without labels."""

    loss: str
    options: dict[str, Any] = field(default_factory=dict)
    has_head = True

    def bits(self, data: FeatureSet, n_bits: int, seed: int) -> Bits:
        """Returns the bits of all images."""
        return train_head(data, UNSUPERVISED[self.loss](n_bits, data.features[data.training]), n_bits, seed) > 0


@dataclass(frozen=True)
class Shallow:
    """A method without a network, fitted to the training set."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    has_head = False

    def bits(self, data: FeatureSet, n_bits: int, seed: int) -> Bits:
        """Returns the bits of all images."""
        fitted = SHALLOW[self.name](n_bits, seed=seed)
        return fitted.fit(data.features[data.training], data.targets[data.training]).bits(data.features)


@dataclass(frozen=True)
class Trivial:
    """The head as a classifier; the code is the number of the predicted class, each of its four bits repeated."""

    options: dict[str, Any] = field(default_factory=dict)
    has_head = True

    def bits(self, data: FeatureSet, n_bits: int, seed: int) -> Bits:
        """Returns the bits of all images; ``n_bits`` is a multiple of 4."""
        predicted = train_head(data, _CrossEntropy(), 10, seed).argmax(axis=1)  # type: ignore[arg-type]
        return np.repeat(np.unpackbits(predicted.astype(np.uint8)[:, None], axis=1)[:, 4:] > 0, n_bits // 4, axis=1)


class _CrossEntropy(nn.Module):
    """Softmax cross-entropy with the losses' signature."""

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, targets)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Nothing happens between epochs."""


@dataclass(frozen=True)
class Entry:
    """A row of the tables. ``contestant`` is None for the ranking by the features themselves."""

    group: str
    label: str
    contestant: Contestant | None
    asymmetric: bool = False

    @property
    def is_ablation(self) -> bool:
        """Whether it is a part or a variant of another method."""
        return self.group == _PARTS


_SHALLOW_LABELS = {"lsh": "LSH", "itq": "ITQ", "sh": "SH", "flyhash": "FlyHash", "sdh": "SDH", "ksh": "KSH"}
_REFERENCES = "References"
_UNSUPERVISED = "Without labels"
_SHALLOW = "Shallow, with labels"
_DEEP = "Deep, with labels"
_PARTS = "DSDH, taken apart"
FLOAT = "float"


def _entries() -> dict[str, Entry]:
    entries = {
        FLOAT: Entry(_REFERENCES, "cosine of the float features", None),
        "trivial": Entry(_REFERENCES, "trivial: the predicted class as code", Trivial()),
    }
    for name in sorted(_SHALLOW_LABELS, key=lambda name: SHALLOW[name].supervised):
        group = _SHALLOW if SHALLOW[name].supervised else _UNSUPERVISED
        entries[name] = Entry(group, _SHALLOW_LABELS[name], Shallow(name))
    labels = {
        "bihalf": "BiHalf",
        "greedyhash-unsupervised": "GreedyHash, unsupervised",
        "similarity-distillation": "similarity distillation",
    }
    entries |= {name: Entry(_UNSUPERVISED, labels[name], Unsupervised(name)) for name in UNSUPERVISED}
    for name, loss in LOSSES.items():
        if not loss.asymmetric:
            entries[name] = Entry(_DEEP, loss.__name__, Supervised(name))
    entries |= {
        "dsdh-published": Entry(_PARTS, "published weights", Supervised("dsdh", tuned=False)),
        "dsdh-batch": Entry(_PARTS, "W and B for each batch on its own", Supervised("dsdh", {"update": "batch"})),
        "dsdh-mu0": Entry(_PARTS, "mu = 0, so B = sign(U)", Supervised("dsdh", {"mu": 0.0})),
        "dsdh-eta0": Entry(_PARTS, "eta = 0, so the network never sees B", Supervised("dsdh", {"eta": 0.0})),
        "dsdh-nested": Entry(_PARTS, "DSDH, one nested model", Nested(Supervised("dsdh"))),
        "adsh": Entry("Asymmetric", "ADSH", Supervised("adsh", tuned=False), asymmetric=True),
    }
    return entries


METHODS = _entries()
