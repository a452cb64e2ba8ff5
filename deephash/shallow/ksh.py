"""KSH: codes whose inner products are the pairwise labels, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import Floats, ShallowHash, check_integer, column_mean
from .kernel import AnchorKernel

__all__ = ["KSH"]

_Doubles = NDArray[np.float64]

# Directions with a smaller eigenvalue of K'K than this share of the largest are rounding of the kernel values.
_RANK_TOLERANCE = 1e-6


class KSH(ShallowHash):
    """Kernel-based supervised hashing: bit by bit, codes whose inner products are those of the pairwise labels.

    ``min || n_bits S - B B' ||^2``, S_ij = +1 when labelled images i and j share a label, else -1, B = sign(K A), K the
    centred kernel values of these images at the anchors. Greedy: bit k maximises ``b' R b`` for the residue
    ``R = n_bits S - sum_{l < k} b_l b_l'``, from two candidates of which the better is taken:

    1. spectral relaxation: a is the leading eigenvector of ``K' R K a = lambda K'K a``, scaled to ``||K a||^2 = n``;
    2. from there accelerated gradient descent on ``-f(K a)' R f(K a)``, f(t) = 2 / (1 + e^-t) - 1 smooth for sign.

    After `fit`: `kernel`, `kernel_mean` (m,) float32, `projection` (m, n_bits) float32 = A; logits = (kernel(x) -
    kernel_mean) @ A. `labelled` (n,) int64, the places of the images whose labels were used; `codes` (n, n_bits)
    float64 of -1 and +1, their bits. Targets may be multi-hot.

    Args:
        n_bits: length of the code.
        n_anchors: m, at most N.
        n_labelled: n, at most N; the cost is that of n * n_anchors and n_anchors^3 for each bit.
        seed: of the anchors and the labelled images.

    Source: Liu, Wang, Ji, Jiang, Chang, "Supervised hashing with kernels", CVPR 2012, equations 8, 11 and 13 and
    algorithm 1; 300 anchors, sigma, and the descent's steps and stop from the authors' code, which takes 2,000 labelled
    images. Deviations: sign(0) = -1; directions that K hardly has are left out of the spectral relaxation.
    """

    supervised: ClassVar[bool] = True
    kernel: AnchorKernel
    kernel_mean: Floats
    projection: Floats
    labelled: NDArray[np.int64]
    codes: _Doubles

    def __init__(self, n_bits: int, *, n_anchors: int = 300, n_labelled: int = 2000, seed: int = 0) -> None:
        super().__init__(n_bits, seed=seed)
        self.n_anchors = check_integer("n_anchors", n_anchors, 1)
        self.n_labelled = check_integer("n_labelled", n_labelled, 2)

    def _fit(self, x: Floats, labels: Floats) -> None:
        rng = np.random.default_rng(self.seed)
        kernel = AnchorKernel(x, self.n_anchors, rng)
        values = kernel(x)
        mean = column_mean(values)
        labelled = np.sort(rng.choice(len(x), min(self.n_labelled, len(x)), replace=False))
        k = (values[labelled] - mean).astype(np.float64)
        directions, codes = _greedy_bits(k, _PairLabels(labels[labelled], self.n_bits), self.n_bits)
        self.kernel, self.kernel_mean, self.labelled, self.codes = kernel, mean, labelled, codes
        self.projection = directions.astype(np.float32)

    def _project(self, x: Floats) -> Floats:
        return np.asarray((self.kernel(x) - self.kernel_mean) @ self.projection, np.float32)


class _PairLabels:
    """n_bits S, the pairwise labels (n, n), never written out: it is constant on pairs of label combinations."""

    def __init__(self, labels: Floats, scale: float) -> None:
        combinations, which = np.unique(labels, axis=0, return_inverse=True)
        self.which = which.reshape(-1)
        self.table = np.where(combinations @ combinations.T > 0, scale, -scale)

    def times(self, y: _Doubles) -> _Doubles:
        """n_bits S y for y (n,)."""
        sums = np.bincount(self.which, y, len(self.table))
        return np.asarray((self.table @ sums)[self.which], np.float64)

    def between(self, z: _Doubles) -> _Doubles:
        """n_bits z' S z for z (n, r)."""
        sums = np.zeros((len(self.table), z.shape[1]))
        np.add.at(sums, self.which, z)
        return sums.T @ self.table @ sums


def _whitening(k: _Doubles) -> _Doubles:
    """V (m, r) such that the columns of K V are orthonormal and span those of K (n, m), but for rounding."""
    values, vectors = np.linalg.eigh(k.T @ k)
    kept = values > _RANK_TOLERANCE * values[-1]
    return np.asarray(vectors[:, kept] / np.sqrt(values[kept]))


def _greedy_bits(kernel: _Doubles, pairs: _PairLabels, n_bits: int) -> tuple[_Doubles, _Doubles]:
    """A (m, n_bits) and the codes (n, n_bits) = sign(K A), for K (n, m)."""
    n, m = kernel.shape
    directions, codes = np.empty((m, n_bits)), np.empty((n, n_bits))
    whitening = _whitening(kernel)
    white = kernel @ whitening
    # The relaxation in white coordinates: the constraint is ||a||^2 = n, and a bit takes one outer product away.
    relaxed = pairs.between(white)
    for k in range(n_bits):
        previous = codes[:, :k]

        def residue(y: _Doubles, previous: _Doubles = previous) -> _Doubles:
            return pairs.times(y) - previous @ (previous.T @ y)

        leading = np.linalg.eigh(relaxed)[1][:, -1]
        # An eigenvector's sign is arbitrary, and so is a bit's: make the largest entry positive.
        spectral = whitening @ leading * (np.sign(leading[np.abs(leading).argmax()]) * n**0.5)
        candidates = [spectral, _descend(kernel, residue, spectral)]
        bits = [np.where(kernel @ direction > 0, 1.0, -1.0) for direction in candidates]
        better = int(bits[1] @ residue(bits[1]) > bits[0] @ residue(bits[0]))
        directions[:, k], codes[:, k] = candidates[better], bits[better]
        seen = white.T @ bits[better]
        relaxed -= np.outer(seen, seen)
    return directions, codes


def _descend(
    kernel: _Doubles,
    residue: Callable[[_Doubles], _Doubles],
    start: _Doubles,
    *,
    steps: int = 500,
    tolerance: float = 1e-2,
) -> _Doubles:
    """A lower point of ``-f(K a)' R f(K a)`` than `start`, by Nesterov's method with doubling of the curvature.

    It stops when a step gains less than `tolerance` for each image, or no step gains what its curvature promises.
    """

    def cost(t: _Doubles) -> tuple[float, _Doubles, _Doubles]:
        smooth = np.tanh(t / 2)  # 2 / (1 + e^-t) - 1
        through = residue(smooth)
        return -float(smooth @ through), smooth, through

    # Beside each point a t = K a: a step needs two products with K, however often its length is halved.
    before, a = start, start
    t_before = t = kernel @ start
    value = cost(t)[0]
    momentum, next_momentum, curvature = 0.0, 1.0, 1.0
    for _ in range(steps):
        ahead = (momentum - 1) / next_momentum
        probe, t_probe = a + ahead * (a - before), t + ahead * (t - t_before)
        at_probe, smooth, through = cost(t_probe)
        gradient = (through * (smooth**2 - 1)) @ kernel
        t_gradient, squares = kernel @ gradient, float(gradient @ gradient)
        for _ in range(50):
            reached = cost(t_probe - t_gradient / curvature)[0]
            if reached <= at_probe - squares / curvature / 2:
                break
            curvature *= 2
        else:
            break
        before, a = a, probe - gradient / curvature
        t_before, t = t, t_probe - t_gradient / curvature
        gain, value = value - reached, reached
        momentum, next_momentum = next_momentum, (1 + (1 + 4 * next_momentum**2) ** 0.5) / 2
        if abs(gain) <= tolerance * len(kernel):
            break
    return a
