"""Deep hashing losses: one class for each published method, one signature, one registry.

``create_loss("dsdh", n_bits=48, n_classes=10, n_train=5000)`` returns a module to call as
``loss(logits, targets, indices)``, with ``loss.start_epoch(epoch, epochs)`` before each epoch. A new loss is one class,
one line in ``LOSSES``, one reference test. Those that learn without labels, from features, are in ``UNSUPERVISED``.
"""

import difflib
import inspect
from collections.abc import Sequence
from typing import Any

from .base import HashingLoss
from .centers import CSQ, DPN, OrthoHash
from .discrete import ADSH, DSDH, GreedyHash
from .histogram import MIHash
from .nested import NestedLoss
from .pairwise import DCH, DHN, DPSH, DSH, HashNet
from .triplet import DTSH
from .unsupervised import UNSUPERVISED, BiHalf, GreedyHashUnsupervised, SimilarityDistillation

__all__ = [
    "ADSH",
    "CSQ",
    "DCH",
    "DHN",
    "DPN",
    "DPSH",
    "DSDH",
    "DSH",
    "DTSH",
    "LOSSES",
    "UNSUPERVISED",
    "BiHalf",
    "GreedyHash",
    "GreedyHashUnsupervised",
    "HashNet",
    "HashingLoss",
    "MIHash",
    "NestedLoss",
    "OrthoHash",
    "SimilarityDistillation",
    "create_loss",
]

LOSSES: dict[str, type[HashingLoss]] = {
    loss.__name__.lower(): loss
    for loss in (DSDH, DPSH, DHN, DSH, DTSH, HashNet, DCH, MIHash, CSQ, DPN, GreedyHash, OrthoHash, ADSH)
}


def create_loss(
    name: str, *, n_bits: int, n_classes: int, n_train: int, nested: Sequence[int] = (), **options: Any
) -> HashingLoss:
    """Returns a new loss of that name, a key of ``LOSSES``; with ``nested``, also of prefixes of these lengths.

    Options are those of its class, with the defaults of the paper or of its authors' code.

    Raises:
        ValueError: the name, an option or a value is unknown; or the nested lengths do not ascend below n_bits.
    """
    if name not in LOSSES:
        near = difflib.get_close_matches(name.lower(), LOSSES, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"no loss is called {name!r}{hint}: use one of {', '.join(LOSSES)}")
    loss = LOSSES[name]
    known = [
        option for option, p in inspect.signature(loss).parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    if unknown := [option for option in options if option not in known]:
        raise ValueError(f"{name} has no option {unknown[0]!r}: it has {', '.join(known) or 'none'}")
    if nested:
        return NestedLoss([loss(length, n_classes, n_train, **options) for length in (*nested, n_bits)])
    return loss(n_bits, n_classes, n_train, **options)
