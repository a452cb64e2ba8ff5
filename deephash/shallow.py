"""Shallow hashing on features that somebody else computed: LSH and ITQ, both a mean and a linear projection.

NumPy only. The features come from a backbone, L2-normalised or not as its owner wishes; no pixels and no torch here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.codes import check_n_bits

__all__ = ["ITQ", "LSH"]

_Floats = NDArray[np.float32]

# Rows centred and multiplied at a time; the float32 products are summed in float64.
_ROWS = 8192
# Directions with less variance than this share of the largest are rounding of float32 features, not data.
_RANK_TOLERANCE = 1e-6


class LSH:
    """Random hyperplanes through the mean of the features: the baseline that learns nothing but the mean.

    After `fit`: `mean` (D,) float32 and `projection` (D, n_bits) float32, columns of length 1 and independent random
    direction; logits = (x - mean) @ projection, bits = logits > 0. Deterministic for a seed.

    Source: Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002, section 3. Deviation: the
    features are centred first, because the features of a network with ReLU fill a narrow cone that few hyperplanes
    through the origin cut.
    """

    mean: _Floats
    projection: _Floats

    def __init__(self, n_bits: int, *, seed: int = 0) -> None:
        self.n_bits = check_n_bits(n_bits)
        self.seed = seed

    def fit(self, features: ArrayLike) -> LSH:
        """Take the mean of `features` (N, D) float and draw the directions; N = 1 is enough.

        Raises:
            ValueError: features of wrong shape or type, empty, or with a NaN or an infinite value.
        """
        x = _check_features(features, min_samples=1)
        directions = np.random.default_rng(self.seed).standard_normal((x.shape[1], self.n_bits))
        directions /= np.linalg.norm(directions, axis=0)
        self.mean = _mean(x)
        self.projection = directions.astype(np.float32)
        return self

    def logits(self, features: ArrayLike) -> _Floats:
        """Logits (N, n_bits) float32 of `features` (N, D) float.

        Raises:
            ValueError: not fitted yet, or features unlike those of `fit`.
        """
        return _logits(self, features)


class ITQ:
    """Iterative quantization: PCA, then the rotation that brings the projections closest to the corners of a cube.

    After `fit`: `mean` (D,) float32 and `projection` (D, n_bits) float32; logits = (x - mean) @ projection,
    bits = logits > 0. `losses` (n_blocks, iterations + 1) float64 holds ||B - V R||^2 / (N c) for the random rotation
    and after each iteration; it never increases.

    Up to `block_width` bits this is the paper's method. More bits than that, or than the rank of the centred features
    (at most min(D, N - 1)), are split into as few blocks of nearly equal width as the two allow; each block rotates the
    leading components by an ITQ of its own, from another random rotation. The blocks land in different local optima, so
    each adds information, less and less; at a rank of one or two they repeat themselves.

    Why 64: directions of little variance are noise to a collection of some dozen classes. For codes that are used on
    images of any other kind, one wide block is better: give such a fit a larger `block_width`. `benchmarks.general`
    measures both on EfficientNet-Lite0 features.

    The cost is that of iterations * N * n_bits * block_width: fit on a sample (10,000 to 50,000 rows) of a large
    collection. Signs and seeded draws are fixed, so a fit repeats on the same machine.

    Source: Gong & Lazebnik, "Iterative quantization: a procrustean approach to learning binary codes", CVPR 2011; Gong
    et al., TPAMI 35(12), 2013, section 3, equation 2. Deviations: sign(0) = -1, as everywhere here (bits = logits > 0);
    the blocks, where the paper has one and needs n_bits <= D.
    """

    mean: _Floats
    projection: _Floats
    losses: NDArray[np.float64]

    def __init__(self, n_bits: int, *, iterations: int = 50, block_width: int = 64, seed: int = 0) -> None:
        self.n_bits = check_n_bits(n_bits)
        if isinstance(iterations, bool) or not isinstance(iterations, (int, np.integer)) or iterations < 0:
            raise ValueError(f"iterations is {iterations!r}: use an integer of 0 or more (0 = a random rotation)")
        if isinstance(block_width, bool) or not isinstance(block_width, (int, np.integer)) or block_width < 1:
            raise ValueError(f"block_width is {block_width!r}: use an integer of 1 or more")
        self.iterations = int(iterations)
        self.block_width = int(block_width)
        self.seed = seed

    def fit(self, features: ArrayLike) -> ITQ:
        """Learn from `features` (N, D) float, N at least 2.

        Raises:
            ValueError: features of wrong shape or type, fewer than 2 or all equal, or with a NaN or an infinite value.
        """
        x = _check_features(features, min_samples=2)
        rng = np.random.default_rng(self.seed)
        mean = _mean(x)
        components = _principal_components(x, mean, min(self.n_bits, self.block_width))
        if components.shape[1] == 0:
            raise ValueError(f"all {len(x)} features are equal: there is nothing to learn from")

        n_blocks = -(-self.n_bits // components.shape[1])
        widths = [len(part) for part in np.array_split(np.arange(self.n_bits), n_blocks)]
        projected = np.asarray((x - mean) @ components[:, : widths[0]], np.float32)
        blocks: list[_Floats] = []
        losses: list[list[float]] = []
        for width in widths:
            rotation, history = _fit_rotation(projected[:, :width], self.iterations, rng)
            blocks.append(components[:, :width] @ rotation)
            losses.append(history)
        self.mean = mean
        self.projection = np.ascontiguousarray(np.concatenate(blocks, axis=1))
        self.losses = np.array(losses)
        return self

    def logits(self, features: ArrayLike) -> _Floats:
        """Logits (N, n_bits) float32 of `features` (N, D) float.

        Raises:
            ValueError: not fitted yet, or features unlike those of `fit`.
        """
        return _logits(self, features)


def _fit_rotation(v: _Floats, iterations: int, rng: np.random.Generator) -> tuple[_Floats, list[float]]:
    """The rotation R (c, c) of ITQ for the projected data V (N, c), and the loss before and after each iteration."""
    n, c = v.shape
    # QR of a Gaussian matrix is uniform over rotations once the diagonal of R is positive.
    q, r = np.linalg.qr(rng.standard_normal((c, c)))
    rotation = (q * np.where(np.diag(r) < 0, -1, 1)).astype(np.float32)
    squares = float(np.square(v).sum(dtype=np.float64))
    losses = []
    for iteration in range(iterations + 1):
        rotated = v @ rotation
        # ||B - VR||^2 = ||B||^2 + ||V||^2 - 2 sum |VR|, for R is orthogonal and B its signs.
        losses.append(1 + (squares - 2 * float(np.abs(rotated).sum(dtype=np.float64))) / (n * c))
        if iteration == iterations:
            break
        signs = np.where(rotated > 0, np.float32(1), np.float32(-1))
        # Orthogonal Procrustes: R = U W^T maximises tr(B^T V R) for V^T B = U S W^T.
        left, _, right = np.linalg.svd((v.T @ signs).astype(np.float64))
        rotation = (left @ right).astype(np.float32)
    return rotation, losses


def _principal_components(x: _Floats, mean: _Floats, n_components: int) -> _Floats:
    """Orthonormal columns (D, c) of largest variance first, c = min(n_components, rank)."""
    n, d = x.shape
    if n < d:
        # The N x N matrix of inner products has the same eigenvalues and is the smaller one.
        centred = x - mean
        values, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    else:
        scatter = np.zeros((d, d))
        for start in range(0, n, _ROWS):
            rows = x[start : start + _ROWS] - mean
            scatter += rows.T @ rows
        values, vectors = np.linalg.eigh(scatter)
    values, vectors = values[::-1], vectors[:, ::-1]
    # N centred samples span N - 1 dimensions at most, and a mean rounded to float32 is no variance at all.
    rounding = n * float(np.square(np.finfo(np.float32).eps * mean.astype(np.float64)).sum())
    rank = min(int((values > max(_RANK_TOLERANCE * values[0], rounding)).sum()), n - 1)
    vectors = vectors[:, : min(rank, n_components)]
    if n < d:
        # X^T u has length sqrt(eigenvalue); QR also removes what float32 left of non-orthogonality.
        vectors, _ = np.linalg.qr(centred.T.astype(np.float64) @ vectors)
    # An eigenvector's sign is arbitrary: make the largest entry positive.
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])] if vectors.size else np.ones(0)
    return np.asarray(vectors * np.where(largest < 0, -1, 1), np.float32)


def _mean(x: _Floats) -> _Floats:
    return np.asarray(x.mean(axis=0, dtype=np.float64), np.float32)


def _logits(method: LSH | ITQ, features: ArrayLike) -> _Floats:
    name = type(method).__name__
    if not hasattr(method, "projection"):
        raise ValueError(f"this {name} has not seen any features: call fit first")
    x = _check_features(features, min_samples=0)
    if x.shape[1] != len(method.mean):
        raise ValueError(
            f"features have {x.shape[1]} dimensions, this {name} was fitted on {len(method.mean)}: "
            "take both from the same network"
        )
    return np.asarray((x - method.mean) @ method.projection, np.float32)


def _check_features(features: ArrayLike, *, min_samples: int) -> _Floats:
    x = np.asarray(features)
    if x.ndim != 2 or x.shape[1] == 0 or x.dtype.kind != "f":
        raise ValueError(f"features must be (N, D) float, not {x.shape} {x.dtype}")
    if len(x) < min_samples:
        raise ValueError(f"{len(x)} features are too few to fit: at least {min_samples} are needed")
    x = x.astype(np.float32, copy=False)
    if not np.isfinite(x).all():
        raise ValueError("features contain NaN or infinite values: leave out the images they come from")
    return x
