"""ShallowHash, the front that all shallow methods share: the checks, and logits in bounded memory."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.codes import check_n_bits

__all__ = ["ROWS", "Floats", "ShallowHash", "check_integer", "check_share", "column_mean"]

Floats = NDArray[np.float32]

# Rows turned to float32 and multiplied at a time.
ROWS = 8192


class ShallowHash:
    """A map from features to logits that is fitted without gradients through a network; bits = logits > 0.

    Subclasses write `_fit` and `_project`. Signs and seeded draws are fixed, so a fit repeats on the same machine.

    ``supervised``: `fit` learns from the targets. ``n_features``: D, known after `fit`.

    Args:
        n_bits: length of the code, 8 to 1024.
        seed: of whatever the method draws at random.
    """

    supervised: ClassVar[bool] = False
    min_samples: ClassVar[int] = 2
    n_features: int

    def __init__(self, n_bits: int, *, seed: int = 0) -> None:
        self.n_bits = check_n_bits(n_bits)
        self.seed = seed

    def fit(self, features: ArrayLike, targets: ArrayLike | None = None) -> Self:
        """Learn from a training set, and return itself.

        Args:
            features: (N, D) float, N at least `min_samples`.
            targets: classes (N,) of integers from 0, or multi-hot (N, n_classes) of integers or bools, at least one 1 a
                row. Not looked at by a method that is not `supervised`.

        Raises:
            ValueError: features of wrong shape or type, too few, with a NaN or an infinite value, or, but for LSH and
                FlyHash, all equal; targets that are missing, do not fit, or are all the same.
        """
        x = np.asarray(features)
        _check_kind(x)
        if len(x) < self.min_samples:
            raise ValueError(f"{len(x)} features are too few to fit: at least {self.min_samples} are needed")
        x = _finite(x)
        labels = self._check_targets(targets, len(x)) if self.supervised else np.empty((len(x), 0), np.float32)
        self._fit(x, labels)
        self.n_features = x.shape[1]
        return self

    def logits(self, features: ArrayLike) -> Floats:
        """Logits (N, n_bits) float32 of `features` (N, D) float.

        Raises:
            ValueError: not fitted yet, or features unlike those of `fit`.
        """
        name = type(self).__name__
        if not hasattr(self, "n_features"):
            raise ValueError(f"this {name} has not seen any features: call fit first")
        x = np.asarray(features)
        _check_kind(x)
        if x.shape[1] != self.n_features:
            raise ValueError(
                f"features have {x.shape[1]} dimensions, this {name} was fitted on {self.n_features}: "
                "take both from the same network"
            )
        logits = np.empty((len(x), self.n_bits), np.float32)
        for start in range(0, len(x), ROWS):
            logits[start : start + ROWS] = self._project(_finite(x[start : start + ROWS]))
        return logits

    def bits(self, features: ArrayLike) -> NDArray[np.bool_]:
        """Bits (N, n_bits) of `features` (N, D) float: logits > 0.

        Raises:
            ValueError: as `logits`.
        """
        return self.logits(features) > 0

    def _fit(self, x: Floats, labels: Floats) -> None:
        """Learn from finite x (N, D); labels (N, n_classes) of zeros and ones, without columns if not supervised."""
        raise NotImplementedError

    def _project(self, x: Floats) -> Floats:
        """Logits of finite x (at most ROWS, D)."""
        raise NotImplementedError

    def _check_targets(self, targets: ArrayLike | None, n: int) -> Floats:
        if targets is None:
            raise ValueError(f"{type(self).__name__} learns from labels: call fit(features, targets)")
        y = np.asarray(targets)
        if y.dtype.kind not in "iub" or y.shape[:1] != (n,) or y.ndim not in (1, 2):
            raise ValueError(
                f"targets are {y.shape} {y.dtype}: give integers, classes ({n},) or multi-hot rows ({n}, n_classes)"
            )
        if y.ndim == 1:
            if y.min() < 0:
                raise ValueError(f"targets hold {y.min()}: classes count from 0; leave out images without a label")
            y = np.unique(y, return_inverse=True)[1][:, None] == np.arange(len(np.unique(y)))
        elif y.size and (y.min() < 0 or y.max() > 1):
            raise ValueError("multi-hot targets hold other values than 0 and 1: mark each label by a 1")
        if not y.any(axis=1).all():
            raise ValueError("an image has no label: leave such images out, nothing is similar to them")
        if (y == y[0]).all():
            raise ValueError(f"all {n} targets are the same: {type(self).__name__} needs two classes or more")
        return y.astype(np.float32)


def column_mean(x: Floats) -> Floats:
    """The mean (D,) of rows (N, D), summed in float64."""
    return np.asarray(x.mean(axis=0, dtype=np.float64), np.float32)


def check_integer(name: str, value: int, minimum: int, note: str = "") -> int:
    """Return an option as an int.

    Raises:
        ValueError: not an integer, or less than the minimum.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
        raise ValueError(f"{name} is {value!r}: use an integer of {minimum} or more{note}")
    return int(value)


def check_share(name: str, value: float) -> float:
    """Return an option that is a share, as a float.

    Raises:
        ValueError: not between 0 and 1, or one of the two.
    """
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value!r}: use a share between 0 and 1")
    return float(value)


def _check_kind(x: NDArray[np.generic]) -> None:
    if x.ndim != 2 or x.shape[1] == 0 or x.dtype.kind != "f":
        raise ValueError(f"features must be (N, D) float, not {x.shape} {x.dtype}")


def _finite(x: NDArray[np.generic]) -> Floats:
    rows = x.astype(np.float32, copy=False)
    if not np.isfinite(rows).all():
        raise ValueError("features contain NaN or infinite values: leave out the images they come from")
    return rows
