"""LSH: random hyperplanes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .base import Floats, ShallowHash, column_mean

__all__ = ["LSH"]


class LSH(ShallowHash):
    """Random hyperplanes through the mean of the features: the baseline that learns nothing but the mean.

    After `fit`, which takes one sample or more: `mean` (D,) float32 and `projection` (D, n_bits) float32, columns of
    length 1 and independent random direction; logits = (x - mean) @ projection.

    Source: Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002, section 3. Deviation: the
    features are centred first, because the features of a network with ReLU fill a narrow cone that few hyperplanes
    through the origin cut.
    """

    min_samples: ClassVar[int] = 1
    mean: Floats
    projection: Floats

    def _fit(self, x: Floats, labels: Floats) -> None:
        directions = np.random.default_rng(self.seed).standard_normal((x.shape[1], self.n_bits))
        directions /= np.linalg.norm(directions, axis=0)
        self.mean = column_mean(x)
        self.projection = directions.astype(np.float32)

    def _project(self, x: Floats) -> Floats:
        return np.asarray((x - self.mean) @ self.projection, np.float32)
