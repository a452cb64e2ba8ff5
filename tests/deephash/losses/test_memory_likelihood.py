"""The pairwise likelihood against a training set: value and gradient are those of the whole (B, N) matrix."""

import pytest
import torch

from deephash.losses import memory_likelihood
from deephash.losses.memory_likelihood import mean_likelihood
from deephash.losses.pairwise import pair_likelihood


@pytest.mark.parametrize("cells", [1, 35, 1 << 16], ids=["row by row", "5 of 23 rows", "all rows"])
@pytest.mark.parametrize("scale", [1.0, 1e3], ids=["moderate", "saturated"])
def test_blocks_add_up_to_the_whole_matrix(monkeypatch, cells, scale):
    monkeypatch.setattr(memory_likelihood, "_CELLS", {"cpu": cells})
    generator = torch.Generator().manual_seed(0)
    logits = (scale * torch.randn(7, 12, generator=generator, dtype=torch.float64)).requires_grad_()
    others = torch.randn(23, 12, generator=generator, dtype=torch.float64)
    multi_hot = (torch.rand(7, 4, generator=generator) < 0.4).double()
    other_labels = torch.rand(23, 4, generator=generator) < 0.4
    similar = multi_hot @ other_labels.double().T > 0
    assert 0 < similar.float().mean() < 1

    value = mean_likelihood(logits, multi_hot, others, other_labels)
    (gradient,) = torch.autograd.grad(3 * value, logits)
    want = pair_likelihood(logits @ others.T / 2, similar).mean()
    torch.testing.assert_close(value, want)
    torch.testing.assert_close(gradient, torch.autograd.grad(3 * want, logits)[0])


def test_what_is_remembered_may_change_before_the_gradient_is_taken():
    logits, others = torch.ones(2, 3, requires_grad=True), torch.ones(4, 3)
    value = mean_likelihood(logits, torch.ones(2, 1), others, torch.ones(4, 1, dtype=torch.bool))
    others.zero_()
    value.backward()
    # T = 3 / 2 for every pair: the slope is (sigmoid(T) - 1) v / 2, over the batch of two.
    slope = (torch.sigmoid(torch.tensor(1.5)) - 1) / 2 / 2
    torch.testing.assert_close(logits.grad, slope.expand(2, 3))
