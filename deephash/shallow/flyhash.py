"""FlyHash: the sparse tags of the fruit fly's sense of smell."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from .base import Floats, ShallowHash, check_share, column_mean

__all__ = ["FlyHash"]


class FlyHash(ShallowHash):
    """Sparse random sums of the features, of which the largest win: theirs are the ones of the code.

    Each Kenyon cell adds up a random tenth of the D features, each with weight 1; a cell is on when it is among the
    ``winners`` most active of its image (winner-take-all). The sums are of centred features. On ties at the border
    none of the tied cells is on.

    ``n_bits`` is the number of Kenyon cells, so the code has as many bits as any other method's. That is not the
    paper's "hash length" k, the number of winners in a tag of far more cells (10 D in its comparison with LSH): what a
    tag of k winners is worth says nothing of a code of k bits. Of n_bits cells, half winning allows the most codes, and
    is the default; the fly's own tags have ``winners=0.05``.

    After `fit`, which takes one sample or more: `mean` (D,) float32 and `connections` (D, n_bits) float32 of zeros and
    ones; logits (N, n_bits) are the activity above that of the strongest loser.

    Args:
        n_bits: number of Kenyon cells.
        inputs: share of the features that a cell adds up.
        winners: share of the cells that are on.
        seed: of the connections.

    Source: Dasgupta, Stevens, Navlakha, "A neural algorithm for a fundamental computing problem", Science 358, 2017,
    figure 1; inputs from its experiments. Deviations: n_bits and winners, as above; the features are centred, where the
    authors' code lifts each to a least value of 0; their scaling of each image to one mean is left out, for it does not
    change who wins; sums count as 1, theirs keep the winners' activities.
    """

    min_samples: ClassVar[int] = 1
    mean: Floats
    connections: Floats

    def __init__(self, n_bits: int, *, inputs: float = 0.1, winners: float = 0.5, seed: int = 0) -> None:
        super().__init__(n_bits, seed=seed)
        self.inputs = check_share("inputs", inputs)
        self.winners = check_share("winners", winners)

    def _fit(self, x: Floats, labels: Floats) -> None:
        d = x.shape[1]
        order = np.random.default_rng(self.seed).random((d, self.n_bits)).argsort(axis=0)
        self.mean = column_mean(x)
        # A column of `order` is a permutation: exactly so many entries lie below any bound.
        self.connections = (order < max(1, round(self.inputs * d))).astype(np.float32)

    def _project(self, x: Floats) -> Floats:
        activity = (x - self.mean) @ self.connections
        n_losers = self.n_bits - min(max(1, round(self.winners * self.n_bits)), self.n_bits - 1)
        strongest_loser = np.partition(activity, n_losers - 1, axis=1)[:, n_losers - 1, None]
        return np.asarray(activity - strongest_loser, np.float32)
