"""SDH: codes that a linear classifier can read, and a kernel map to them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import Floats, ShallowHash, check_integer
from .kernel import AnchorKernel

__all__ = ["SDH"]

_Doubles = NDArray[np.float64]


class SDH(ShallowHash):
    """Supervised discrete hashing: binary codes from which a linear classifier tells the labels, and a map to them.

    ``J = ||Y - B W||^2 + lam ||W||^2 + nu (||B - Phi P||^2 + ridge ||P||^2)`` over W, P and B in {-1, +1}; Phi holds
    the kernel values of each image at the anchors, and a one. Three steps in turn, none of which raises J:

    1. B by discrete cyclic coordinate descent towards ``Y W' + nu Phi P``, as in DSDH;
    2. W in closed form, ``(B'B + lam I)^-1 B'Y``;
    3. P in closed form, ``(Phi'Phi + ridge I)^-1 Phi'B``.

    After `fit`: `kernel`, `projection` (m + 1, n_bits) float32 = P; logits = (kernel(x), 1) @ P. `classifier`
    (n_bits, n_classes) float64 = W; `codes` (N, n_bits) float64 of -1 and +1 = B; `objectives` (iterations + 1,)
    float64, J after the first steps 2 and 3 and after each round. Targets may be multi-hot.

    Args:
        n_bits: length of the code.
        n_anchors: m, at most N.
        iterations: rounds of the three steps.
        lam: weight decay of the classifier.
        nu: weight of the map.
        ridge: weight decay of the map.
        seed: of the anchors and the first B.

    Source: Shen, Shen, Liu, Shen, "Supervised discrete hashing", CVPR 2015, equation 4 with the L2 loss and algorithm
    1; 1,000 anchors, 5 iterations, lam = 1, nu = 1e-5 and ridge = 0.01 from the authors' code for CIFAR-10.
    Deviations: sigma as in ``AnchorKernel`` (theirs, 0.4, is for one kind of feature); the descent starts from zeros,
    as in that code, and also from the B of the moment, so that J never rises, and each image keeps the better of the
    two; the rounds never stop early.
    """

    supervised: ClassVar[bool] = True
    kernel: AnchorKernel
    projection: Floats
    classifier: _Doubles
    codes: _Doubles
    objectives: _Doubles

    def __init__(
        self,
        n_bits: int,
        *,
        n_anchors: int = 1000,
        iterations: int = 5,
        lam: float = 1.0,
        nu: float = 1e-5,
        ridge: float = 1e-2,
        seed: int = 0,
    ) -> None:
        super().__init__(n_bits, seed=seed)
        self.n_anchors = check_integer("n_anchors", n_anchors, 1)
        self.iterations = check_integer("iterations", iterations, 0)
        for name, value in (("lam", lam), ("nu", nu), ("ridge", ridge)):
            if not value > 0:
                raise ValueError(f"{name} is {value!r}: use a number above 0")
        self.lam, self.nu, self.ridge = lam, nu, ridge

    def _fit(self, x: Floats, labels: Floats) -> None:
        rng = np.random.default_rng(self.seed)
        self.kernel = AnchorKernel(x, self.n_anchors, rng)
        y, phi = labels.astype(np.float64), self._features(x).astype(np.float64)
        gram = phi.T @ phi

        def solve(codes: _Doubles) -> tuple[_Doubles, _Doubles, _Doubles, float]:
            """Steps 2 and 3: W, P, Phi P and J."""
            w = _ridge(codes.T @ codes, codes.T @ y, self.lam)
            p = _ridge(gram, phi.T @ codes, self.ridge)
            mapped = phi @ p
            classifying = np.square(y - codes @ w).sum() + self.lam * np.square(w).sum()
            mapping = np.square(codes - mapped).sum() + self.ridge * np.square(p).sum()
            return w, p, mapped, float(classifying + self.nu * mapping)

        codes = np.where(rng.random((len(x), self.n_bits)) < 0.5, 1.0, -1.0)
        w, p, mapped, objective = solve(codes)
        objectives = [objective]
        for _ in range(self.iterations):
            codes = _descend(codes, y @ w.T + self.nu * mapped, w @ w.T)
            w, p, mapped, objective = solve(codes)
            objectives.append(objective)
        self.projection = p.astype(np.float32)
        self.classifier, self.codes, self.objectives = w, codes, np.array(objectives)

    def _project(self, x: Floats) -> Floats:
        return self._features(x) @ self.projection

    def _features(self, x: Floats) -> Floats:
        return np.concatenate([self.kernel(x), np.ones((len(x), 1), np.float32)], axis=1)


def _ridge(gram: _Doubles, right: _Doubles, weight_decay: float) -> _Doubles:
    """The minimum of ||A S - T||^2 + weight_decay ||S||^2 over S, from A'A and A'T."""
    return np.asarray(np.linalg.solve(gram + weight_decay * np.eye(len(gram)), right), np.float64)


def _descend(codes: _Doubles, linear: _Doubles, gram: _Doubles) -> _Doubles:
    """Step 1: row by row the better of the descents from `codes` and from zeros."""
    # Imported here: torch is heavy, and the other methods go without.
    import torch

    from ..losses.coordinate_descent import descend_codes

    p, g = torch.from_numpy(linear), torch.from_numpy(gram)
    near, fresh = (descend_codes(torch.from_numpy(start), p, g).numpy() for start in (codes, np.zeros_like(codes)))
    heights = [((b @ gram - 2 * linear) * b).sum(axis=1, keepdims=True) for b in (near, fresh)]
    return np.where(heights[1] < heights[0], fresh, near)
