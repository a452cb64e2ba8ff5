import pytest
import torch

from deephash.losses.hadamard import bernoulli_centers, hadamard_matrix, hash_centers


def distances(centers):
    n, n_bits = centers.shape
    return ((n_bits - centers @ centers.T) / 2)[~torch.eye(n, dtype=torch.bool)]


@pytest.mark.parametrize("order", [1, 2, *range(4, 132, 4)])
def test_rows_of_a_hadamard_matrix_are_orthogonal(order):
    matrix = hadamard_matrix(order)
    if order in (52, 92, 100, 116):
        assert matrix is None
    else:
        assert torch.equal(matrix.abs(), torch.ones(order, order))
        assert torch.equal(matrix @ matrix.T, order * torch.eye(order))


@pytest.mark.parametrize("order", [-4, 0, 3, 5, 6, 10])
def test_other_orders_have_no_hadamard_matrix(order):
    assert hadamard_matrix(order) is None


@pytest.mark.parametrize("n_bits", [12, 16, 24, 32, 36, 48, 64, 128])
def test_centers_of_ten_classes_are_half_the_bits_apart_and_no_bit_is_idle(n_bits):
    centers = hash_centers(10, n_bits)
    assert (distances(centers) == n_bits / 2).all()
    assert centers.sum(0).abs().max() < 10


@pytest.mark.parametrize(
    ("make", "n_classes", "n_bits", "least"),
    [
        (hash_centers, 24, 12, 6),  # all rows and their opposites
        (hash_centers, 10, 10, 4),  # cut from order 12
        (hash_centers, 100, 52, 24),  # cut from order 56
        (hash_centers, 100, 64, 32),
        (hash_centers, 100, 16, 3),  # more than 2 x 16: Bernoulli
        (hash_centers, 8, 3, 1),  # every code there is
        (bernoulli_centers, 256, 8, 1),
        (bernoulli_centers, 4, 2, 1),
        (bernoulli_centers, 10, 12, 4),
        (bernoulli_centers, 10, 48, 20),
        (bernoulli_centers, 1, 4, 0),
    ],
)
def test_centers_are_codes_that_differ_in_so_many_bits(make, n_classes, n_bits, least):
    for seed in range(3):
        centers = make(n_classes, n_bits, seed=seed)
        assert centers.shape == (n_classes, n_bits)
        assert set(centers.unique().tolist()) <= {-1.0, 1.0}
        if n_classes > 1:
            assert distances(centers).min() >= least


@pytest.mark.parametrize("make", [hash_centers, bernoulli_centers])
def test_centers_depend_on_the_seed_alone(make):
    torch.manual_seed(0)
    first = make(10, 24, seed=3)
    torch.manual_seed(1)
    assert torch.equal(make(10, 24, seed=3), first)
    assert not torch.equal(make(10, 24, seed=4), first)


@pytest.mark.parametrize("make", [hash_centers, bernoulli_centers])
def test_more_classes_than_codes_are_refused(make):
    with pytest.raises(
        ValueError, match="3 bits make 8 codes, too few for the centres of 9 classes: use 4 bits or more"
    ):
        make(9, 3)
