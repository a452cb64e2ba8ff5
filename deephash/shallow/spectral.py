"""Spectral hashing: the smoothest eigenfunctions of a box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .base import Floats, ShallowHash, column_mean
from .components import principal_components

__all__ = ["SpectralHashing"]


class SpectralHashing(ShallowHash):
    """Spectral hashing: signs of the smoothest eigenfunctions of the uniform distribution on the box of the data.

    The box has the principal components for axes and reaches from the least to the greatest projection, [a, b]. Its
    eigenfunctions of one axis are ``sin(pi/2 + k pi (v - a) / (b - a))``, k = 1, 2, …, with eigenvalue ``1 - exp(-eps^2
    / 2 (k pi / (b - a))^2)``; those n_bits of all axes with the least eigenvalue, that is the least k / (b - a), are
    the logits. Wide axes are cut several times, so any n_bits can be had from the min(n_bits, rank) components.

    After `fit`: `mean` (D,), `projection` (D, n_bits) and `offset` (n_bits,) float32, logits = cos((x - mean) @
    projection + offset); `axes` and `modes` (n_bits,) int64, the component (0 = that of most variance) and k of each
    bit, smoothest first. Nothing is drawn: the seed is not used.

    Source: Weiss, Torralba, Fergus, "Spectral hashing", NIPS 2008, equations 6 and 7 and the algorithm below them;
    the box and the number of components as in the authors' code. Deviation: sign(0) = -1.
    """

    mean: Floats
    projection: Floats
    offset: Floats
    axes: NDArray[np.int64]
    modes: NDArray[np.int64]

    def _fit(self, x: Floats, labels: Floats) -> None:
        mean = column_mean(x)
        components = principal_components(x, mean, self.n_bits)
        projected = (x - mean) @ components
        low = projected.min(axis=0).astype(np.float64)
        widths = projected.max(axis=0) - low
        frequencies = np.arange(1, self.n_bits + 1)[:, None] / widths
        # Stable: of equal frequencies the lower mode comes first, then the component of more variance.
        chosen = np.argsort(frequencies, axis=None, kind="stable")[: self.n_bits]
        modes, self.axes = np.unravel_index(chosen, frequencies.shape)
        self.modes = modes + 1
        self.mean = mean
        scale = np.pi * self.modes / widths[self.axes]
        self.projection = (components[:, self.axes] * scale).astype(np.float32)
        self.offset = (-low[self.axes] * scale).astype(np.float32)

    def _project(self, x: Floats) -> Floats:
        return np.cos((x - self.mean) @ self.projection + self.offset)
