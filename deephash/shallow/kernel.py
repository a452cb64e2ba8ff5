"""Features by their nearness to anchors, for the methods that hash with kernels."""

from __future__ import annotations

import numpy as np

from .base import ROWS, Floats, column_mean

__all__ = ["AnchorKernel"]


class AnchorKernel:
    """``k_j(x) = exp(-||x - a_j||^2 / (2 sigma^2))`` for anchors a_j drawn from the training set.

    `anchors` (m, D) float32, m = min(n_anchors, N), without replacement; sigma^2 is the mean squared distance between
    the training set x (N, D) and the anchors.

    Raises:
        ValueError: all rows of x are equal.
    """

    def __init__(self, x: Floats, n_anchors: int, rng: np.random.Generator) -> None:
        self.anchors = x[np.sort(rng.choice(len(x), min(n_anchors, len(x)), replace=False))]
        # Centred, so that ||x||^2 + ||a||^2 - 2 x'a does not cancel.
        self._mean = column_mean(self.anchors)
        self._centred = self.anchors - self._mean
        self._squares = np.square(self._centred).sum(axis=1)
        lengths = np.concatenate([np.square(rows - self._mean).sum(axis=1) for rows in _blocks(x)])
        # The mean over all pairs: the products of centred anchors with anything cancel.
        variance = float(lengths.mean(dtype=np.float64) + self._squares.mean(dtype=np.float64))
        # A mean rounded to float32 is no distance at all.
        rounding = float(np.square(np.finfo(np.float32).eps * self._mean.astype(np.float64)).sum())
        if variance <= 8 * rounding:
            raise ValueError(f"all {len(x)} features are equal: there is nothing to learn from")
        self.sigma = variance**0.5

    def __call__(self, x: Floats) -> Floats:
        """Kernel values (N, m) float32 of x (N, D)."""
        values = np.empty((len(x), len(self.anchors)), np.float32)
        for rows, out in zip(_blocks(x), _blocks(values), strict=True):
            centred = rows - self._mean
            np.matmul(centred, -2 * self._centred.T, out=out)
            out += np.square(centred).sum(axis=1)[:, None]
            out += self._squares
            np.maximum(out, 0, out=out)
            out *= np.float32(-0.5 / self.sigma**2)
            np.exp(out, out=out)
        return values


def _blocks(x: Floats) -> list[Floats]:
    return [x[start : start + ROWS] for start in range(0, len(x), ROWS)]
