import pytest
import torch

from deephash.losses.class_codes import likely_class_codes
from deephash.losses.hadamard import hash_centers


def pair_terms(codes):
    """log(1 + e^(b_c'b_d / 2)) of all pairs of two classes."""
    values = [
        torch.log1p(torch.exp(codes[c].double() @ codes[d].double() / 2))
        for c in range(len(codes))
        for d in range(c + 1, len(codes))
    ]
    return torch.stack(values)


@pytest.mark.parametrize(("n_classes", "n_bits"), [(10, 48), (7, 16), (10, 12), (3, 8)])
def test_class_codes_beat_hadamard_centres_and_no_single_bit_betters_them(n_classes, n_bits):
    codes = likely_class_codes(n_classes, n_bits, sweeps=100)
    assert set(codes.unique().tolist()) == {-1.0, 1.0}
    best = pair_terms(codes).sum()
    assert best < 0.9 * pair_terms(hash_centers(n_classes, n_bits)).sum()
    for c in range(n_classes):
        for k in range(n_bits):
            flipped = codes.clone()
            flipped[c, k] *= -1
            assert pair_terms(flipped).sum() > best - 1e-5


def test_two_classes_get_opposite_codes():
    codes = likely_class_codes(2, 16)
    assert torch.equal(codes[0], -codes[1])


def test_products_lie_near_the_least_that_all_pairs_can_have():
    codes = likely_class_codes(10, 48)
    products = (codes @ codes.T)[~torch.eye(10, dtype=torch.bool)]
    assert products.max() < 0
    assert products.mean() == pytest.approx(-48 / 9, abs=1.0)
