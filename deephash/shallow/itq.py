"""ITQ: PCA and a learned rotation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .base import Floats, ShallowHash, check_integer, column_mean
from .components import principal_components

__all__ = ["ITQ"]


class ITQ(ShallowHash):
    """Iterative quantization: PCA, then the rotation that brings the projections closest to the corners of a cube.

    After `fit`: `mean` (D,) float32 and `projection` (D, n_bits) float32; logits = (x - mean) @ projection,
    bits = logits > 0. `losses` (n_blocks, iterations + 1) float64 holds ||B - V R||^2 / (N c) for the random rotation
    and after each iteration; it never increases.

    Up to `block_width` bits this is the paper's method. More bits than that, or than the rank of the centred features
    (at most min(D, N - 1)), come in blocks, each rotated by an ITQ of its own, from another random rotation:

    - `leading`: as few blocks of nearly equal width as the two allow, all of the leading components. They land in
      different local optima, so each adds information, less and less; at a rank of one or two they repeat themselves.
      For the collection that the features come from: to some dozen classes directions of little variance are noise.
    - `following`: each block is as wide as all before it and takes the components that follow (from the first again,
      when there are no more). For images of any other kind, whose classes nobody knows.

    Either way codes are nested: with a multiple of `block_width` bits (times a power of two, for `following`), a code's
    first bits are the code that a fit of that length gives. `benchmarks.general` measures both ways and one wide
    block, on EfficientNet-Lite0 features.

    The cost is that of iterations * N * n_bits * block_width: fit on a sample (10,000 to 50,000 rows) of a large
    collection. Signs and seeded draws are fixed, so a fit repeats on the same machine.

    Source: Gong & Lazebnik, "Iterative quantization: a procrustean approach to learning binary codes", CVPR 2011; Gong
    et al., TPAMI 35(12), 2013, section 3, equation 2. Deviations: sign(0) = -1, as everywhere here (bits = logits > 0);
    the blocks, where the paper has one and needs n_bits <= D.
    """

    mean: Floats
    projection: Floats
    losses: NDArray[np.float64]

    def __init__(
        self,
        n_bits: int,
        *,
        iterations: int = 50,
        block_width: int = 64,
        blocks: Literal["leading", "following"] = "leading",
        seed: int = 0,
    ) -> None:
        super().__init__(n_bits, seed=seed)
        if blocks not in ("leading", "following"):
            raise ValueError(f"blocks is {blocks!r}: use leading or following")
        self.blocks = blocks
        self.iterations = check_integer("iterations", iterations, 0, " (0 = a random rotation)")
        self.block_width = check_integer("block_width", block_width, 1)

    def _fit(self, x: Floats, labels: Floats) -> None:
        rng = np.random.default_rng(self.seed)
        mean = column_mean(x)
        n_wanted = self.n_bits if self.blocks == "following" else min(self.n_bits, self.block_width)
        components = principal_components(x, mean, n_wanted)
        projected = np.asarray((x - mean) @ components, np.float32)
        blocks: list[Floats] = []
        losses: list[list[float]] = []
        for chosen in self._chosen(components.shape[1]):
            rotation, history = _fit_rotation(projected[:, chosen], self.iterations, rng)
            blocks.append(components[:, chosen] @ rotation)
            losses.append(history)
        self.mean = mean
        self.projection = np.ascontiguousarray(np.concatenate(blocks, axis=1))
        self.losses = np.array(losses)

    def _chosen(self, rank: int) -> Iterator[slice]:
        """The components of each block."""
        if self.blocks == "leading":
            n_blocks = -(-self.n_bits // rank)
            yield from (slice(len(part)) for part in np.array_split(np.arange(self.n_bits), n_blocks))
            return
        at, left = 0, self.n_bits
        while left:
            width = min(max(at, self.block_width), rank - at, left)
            yield slice(at, at + width)
            at, left = (at + width) % rank, left - width

    def _project(self, x: Floats) -> Floats:
        return np.asarray((x - self.mean) @ self.projection, np.float32)


def _fit_rotation(v: Floats, iterations: int, rng: np.random.Generator) -> tuple[Floats, list[float]]:
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
