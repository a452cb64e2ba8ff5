"""Binary hash centres that lie far from each other, for any number of bits and classes."""

import math

import torch
from torch import Tensor

__all__ = ["bernoulli_centers", "hadamard_matrix", "hash_centers"]

# Codes drawn for each new Bernoulli centre: the one farthest from the centres before it is taken.
_CANDIDATES = 256
# Choices of rows and signs of a Hadamard matrix, of which the best balanced one is taken.
_DRAWS = 64


def hash_centers(n_classes: int, n_bits: int, *, seed: int = 0) -> Tensor:
    """Returns centres (n_classes, n_bits) float32 of -1 and +1, all different, as far apart as is easily had.

    Up to 2n classes the centres are rows of [H; -H], with H the Hadamard matrix of the smallest order n >= n_bits, cut
    to n_bits columns: where n = n_bits (so for 12, 16, 24, 32, 36, 48, 64, 128 …) any two are n_bits / 2 or n_bits
    apart. Of 64 random choices of rows and their signs it is the one with the best balanced bits: plain leading rows
    leave bits that are the same for every class. More classes get ``bernoulli_centers``.

    Source: Yuan et al., "Central similarity quantization", CVPR 2020, generation of hash centers. Deviations: Paley's
    matrices and the cut, where the paper has powers of two only; the choice of rows and signs, where its code takes the
    leading rows.

    Raises:
        ValueError: there are fewer than n_classes codes of n_bits bits.
    """
    _check_room(n_classes, n_bits)
    order = n_bits
    while (matrix := hadamard_matrix(order)) is None:
        order += 1
    if n_classes > 2 * order:
        return bernoulli_centers(n_classes, n_bits, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    draws = [_draw_rows(matrix, generator)[:n_classes, :n_bits] for _ in range(_DRAWS)]
    # The squares of the column sums add up to the same for all draws of orthogonal rows, the fourth powers do not.
    return min(draws, key=lambda rows: float(rows.sum(0).pow(4).sum())).clone()


def bernoulli_centers(n_classes: int, n_bits: int, *, seed: int = 0) -> Tensor:
    """Returns centres (n_classes, n_bits) float32 of -1 and +1, all different, whose bits are fair coins.

    Each centre is the one of 256 draws that lies farthest from its nearest neighbour among those before it: of ten
    plain draws at 12 bits, some two are within 2 bits of each other more often than not.

    Source: Fan et al., "Deep polarized network", IJCAI 2020, random assignment of target vectors. Deviation: the choice
    among draws, in the spirit of the search in its authors' code.

    Raises:
        ValueError: there are fewer than n_classes codes of n_bits bits.
    """
    _check_room(n_classes, n_bits)
    generator = torch.Generator().manual_seed(seed)
    everything = None
    if 2**n_bits <= _CANDIDATES:
        codes = torch.arange(2**n_bits).unsqueeze(1) >> torch.arange(n_bits) & 1
        everything = codes[torch.randperm(len(codes), generator=generator)] * 2.0 - 1
    centers = torch.empty(n_classes, n_bits)
    for i in range(n_classes):
        nearest = 0
        while i == 0 or nearest == 0:
            candidates = everything
            if candidates is None:
                candidates = torch.randint(0, 2, (_CANDIDATES, n_bits), generator=generator) * 2.0 - 1
            if i == 0:
                centers[0] = candidates[0]
                break
            distances = (n_bits - candidates @ centers[:i].T) / 2
            best = distances.min(dim=1).values.argmax()
            nearest = int(distances[best].min())
            centers[i] = candidates[best]
    return centers


def hadamard_matrix(order: int) -> Tensor | None:
    """Returns a Hadamard matrix (order, order) float32 of -1 and +1, rows orthogonal; None where none is built here.

    Built by Sylvester's doubling and Paley's two constructions over prime fields: every multiple of 4 up to 128 but 52,
    92, 100 and 116.

    Source: Paley, "On orthogonal matrices", J. Math. Phys. 12, 1933.
    """
    if order in (1, 2):
        return torch.tensor([[1.0]]) if order == 1 else torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    if order < 1 or order % 4:
        return None
    if (half := hadamard_matrix(order // 2)) is not None:
        return torch.cat([torch.cat([half, half], 1), torch.cat([half, -half], 1)])
    q = order - 1
    if q % 4 == 3 and _is_prime(q):
        skew = _bordered(q)
        skew[1:, 0] = -1
        return skew + torch.eye(order)
    q = order // 2 - 1
    if q % 4 == 1 and _is_prime(q):
        symmetric = _bordered(q)
        identity = torch.eye(order // 2)
        return torch.kron(symmetric, torch.tensor([[1.0, 1.0], [1.0, -1.0]])) + torch.kron(
            identity, torch.tensor([[1.0, -1.0], [-1.0, -1.0]])
        )
    return None


def _draw_rows(matrix: Tensor, generator: torch.Generator) -> Tensor:
    """The rows in random order and with random signs, then their negatives in the same order."""
    rows = matrix[torch.randperm(len(matrix), generator=generator)]
    rows *= torch.randint(0, 2, (len(matrix), 1), generator=generator) * 2 - 1
    return torch.cat([rows, -rows])


def _bordered(q: int) -> Tensor:
    """Paley's matrix of the prime q, (q + 1, q + 1): 0 on the diagonal, a border of ones, the Jacobsthal matrix."""
    squares = {x * x % q for x in range(1, q)}
    character = torch.tensor([0.0] + [1.0 if x in squares else -1.0 for x in range(1, q)])
    index = torch.arange(q)
    matrix = torch.ones(q + 1, q + 1)
    matrix[0, 0] = 0
    matrix[1:, 1:] = character[(index.unsqueeze(1) - index) % q]
    return matrix


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))


def _check_room(n_classes: int, n_bits: int) -> None:
    if n_classes > 2**n_bits:
        raise ValueError(
            f"{n_bits} bits make {2**n_bits} codes, too few for the centres of {n_classes} classes: "
            f"use {math.ceil(math.log2(n_classes))} bits or more"
        )
