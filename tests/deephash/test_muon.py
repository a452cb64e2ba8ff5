import copy

import pytest
import torch
from torch import nn

from deephash.muon import Muon, orthogonalise


def test_orthogonalised_matrices_keep_their_singular_vectors_and_lose_their_scale():
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(20, 20, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(60, 20, generator=generator))
    matrix = 1e-4 * left @ torch.diag(torch.linspace(0.5, 2, 20)) @ right.T
    for given, exact in ((matrix, left @ right.T), (matrix.T, right @ left.T)):
        found = orthogonalise(given).float()
        cosine = (found * exact).sum() / found.norm() / exact.norm()
        assert cosine > 0.97
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.6
        assert values.max() < 1.3


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_matrices_are_orthogonalised_in_bfloat16_only_where_that_is_fast(monkeypatch, fast, dtype):
    monkeypatch.setattr("deephash.muon.has_fast_bf16", lambda device: fast)
    assert orthogonalise(torch.eye(3)).dtype == dtype


def test_steps_of_matrices_do_not_depend_on_the_scale_of_the_loss():
    def trained(scale):
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 8, 3, bias=False)
        optimizer = Muon([{"params": [conv.weight], "lr": 0.1, "orthogonal": True}])
        for _ in range(3):
            optimizer.zero_grad()
            (scale * conv(torch.ones(1, 3, 8, 8)).square().sum()).backward()
            optimizer.step()
        return conv.weight.detach()

    assert torch.allclose(trained(1.0), trained(1024.0), atol=1e-3)


def test_other_parameters_follow_adamw():
    torch.manual_seed(0)
    mine, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(mine.state_dict())
    ours = Muon([{"params": list(mine.parameters()), "lr": 0.01, "weight_decay": 0.1}])
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for seed in range(10):
        inputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))
        for module, optimizer in ((mine, ours), (theirs, reference)):
            optimizer.zero_grad()
            module(inputs).square().sum().backward()
            optimizer.step()
    assert torch.allclose(mine.weight, theirs.weight, atol=1e-6)
    assert torch.allclose(mine.bias, theirs.bias, atol=1e-6)


@pytest.mark.parametrize("orthogonal", [True, False])
def test_state_is_restored(orthogonal):
    def make():
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(6, 4))
        return weight, Muon([{"params": [weight], "lr": 0.05, "orthogonal": orthogonal}])

    def move(weight, optimizer):
        optimizer.zero_grad()
        (weight @ torch.arange(4.0) - 1).square().sum().backward()
        optimizer.step()

    weight, optimizer = make()
    for _ in range(3):
        move(weight, optimizer)
    again, restored = make()
    again.data.copy_(weight.data)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # as from a file
    move(weight, optimizer)
    move(again, restored)
    assert torch.equal(weight, again)
