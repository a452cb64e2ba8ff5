"""Principal components, for the methods that begin with them."""

from __future__ import annotations

import numpy as np

from .base import ROWS, Floats

__all__ = ["principal_components"]

# Directions with less variance than this share of the largest are rounding of float32 features, not data.
_RANK_TOLERANCE = 1e-6


def principal_components(x: Floats, mean: Floats, n_components: int) -> Floats:
    """Orthonormal columns (D, c) float32 of largest variance first, c = min(n_components, rank), c at least 1.

    The rank is that of the centred rows x (N, D), at most min(D, N - 1). Of each column the largest entry is positive.

    Raises:
        ValueError: all rows are equal.
    """
    n, d = x.shape
    if n < d:
        # The N x N matrix of inner products has the same eigenvalues and is the smaller one.
        centred = x - mean
        values, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    else:
        scatter = np.zeros((d, d))
        for start in range(0, n, ROWS):
            rows = x[start : start + ROWS] - mean
            scatter += rows.T @ rows
        values, vectors = np.linalg.eigh(scatter)
    values, vectors = values[::-1], vectors[:, ::-1]
    # N centred samples span N - 1 dimensions at most, and a mean rounded to float32 is no variance at all.
    rounding = n * float(np.square(np.finfo(np.float32).eps * mean.astype(np.float64)).sum())
    rank = min(int((values > max(_RANK_TOLERANCE * values[0], rounding)).sum()), n - 1)
    if rank == 0:
        raise ValueError(f"all {n} features are equal: there is nothing to learn from")
    vectors = vectors[:, : min(rank, n_components)]
    if n < d:
        # X^T u has length sqrt(eigenvalue); QR also removes what float32 left of non-orthogonality.
        vectors, _ = np.linalg.qr(centred.T.astype(np.float64) @ vectors)
    # An eigenvector's sign is arbitrary: make the largest entry positive.
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return np.asarray(vectors * np.where(largest < 0, -1, 1), np.float32)
