"""Codes to search and queries that are not among them: random, clustered, and of a network trained on CIFAR-10."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index import pack_bits

__all__ = ["DATA", "N_QUERIES", "make"]

N_QUERIES = 1000
_A_CENTRE = 1000
_BLOCK = 100_000
_SEED = 0
_NOISE = 0.5
_Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class Kind:
    """One kind of codes: what it is called in tables, how it is made, and the function that does it."""

    title: str
    how: str
    make: Callable[[int, int, Path | None], tuple[_Codes, _Codes]]


def make(kind: str, n: int, n_bits: int, cifar10: Path | None) -> tuple[_Codes, _Codes]:
    """Returns n codes and 1,000 queries, each (..., n_bits / 8) uint8; the same ones every time.

    Raises:
        ValueError: codes of CIFAR-10 without its folder.
    """
    return DATA[kind].make(n, n_bits, cifar10)


def _random(n: int, n_bits: int, cifar10: Path | None) -> tuple[_Codes, _Codes]:
    rng = np.random.default_rng(_SEED)
    codes = rng.integers(0, 256, (n + N_QUERIES, n_bits // 8), dtype=np.uint8)
    return codes[:n], codes[n:]


def _clustered(flips: float) -> Callable[[int, int, Path | None], tuple[_Codes, _Codes]]:
    def make(n: int, n_bits: int, cifar10: Path | None) -> tuple[_Codes, _Codes]:
        rng = np.random.default_rng(_SEED)
        centres = rng.random((max(1, n // _A_CENTRE), n_bits), dtype=np.float32) > 0.5
        codes = np.empty((n + N_QUERIES, n_bits // 8), np.uint8)
        for first in range(0, len(codes), _BLOCK):
            part = codes[first : first + _BLOCK]
            chosen = centres[rng.integers(0, len(centres), len(part))]
            part[:] = pack_bits(chosen ^ (rng.random(chosen.shape, dtype=np.float32) < flips))
        return codes[:n], codes[n:]

    return make


def _cifar10(n: int, n_bits: int, cifar10: Path | None) -> tuple[_Codes, _Codes]:
    # torch is imported here only.
    from benchmarks.cifar10.frame import FeatureSet, load_features, make_features, train_head
    from benchmarks.cifar10.options import chosen_options
    from deephash.datasets import load_cifar10, split_cifar10
    from deephash.losses import create_loss

    if cifar10 is None:
        raise ValueError("codes of CIFAR-10 need --cifar10 DIR, the folder that holds cifar-10-batches-py")
    images = load_cifar10(cifar10)
    make_features(images.pixels)
    split = split_cifar10(images, "cifar10-1", seed=_SEED)
    n_train = len(split.training)
    loss = create_loss("dsdh", n_bits=n_bits, n_classes=10, n_train=n_train, **chosen_options("dsdh"))
    logits = train_head(FeatureSet(load_features(), images.targets, split.training), loss, n_bits, _SEED)
    queries, known = pack_bits(logits[split.query] > 0), logits[split.database]
    parts = [pack_bits(known[:n] > 0)]
    rng, spread = np.random.default_rng(_SEED), _NOISE * known.std(axis=0)
    for first in range(len(known), n, _BLOCK):
        size = min(_BLOCK, n - first)
        noise = rng.standard_normal((size, n_bits), dtype=np.float32) * spread
        parts.append(pack_bits(known[rng.integers(0, len(known), size)] + noise > 0))
    return np.concatenate(parts), queries


DATA = {
    "random": Kind("random", "independent bits", _random),
    "clustered": Kind(
        "clustered, 5 % flips", "1,000 codes around each centre, 5 % of their bits flipped", _clustered(0.05)
    ),
    "clustered-10": Kind(
        "clustered, 10 % flips", "1,000 codes around each centre, 10 % of their bits flipped", _clustered(0.1)
    ),
    "cifar10": Kind(
        "CIFAR-10",
        "DSDH trained on the 5,000 training images of cifar10-1, its 1,000 queries against the other 59,000 images; "
        "beyond them, logits of those with noise of half the standard deviation of each bit",
        _cifar10,
    ),
}
