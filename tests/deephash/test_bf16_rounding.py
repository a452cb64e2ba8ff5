"""Depthwise filters are rounded to bfloat16 as a whole: they give nearly what they gave."""

import itertools

import pytest
import torch
from torch import nn

from deephash.bf16_rounding import round_depthwise
from tests.deephash.photos import sample


@pytest.fixture(scope="module")
def pictures():
    return torch.from_numpy(sample().database_images[:32]).permute(0, 3, 1, 2).float() / 255


def cancelling(n_out=3, size=3, **options):
    """A depthwise convolution whose weights nearly cancel out, as those of edge detectors do."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, n_out, size, groups=3, padding=size // 2, bias=False, **options)
    weights = torch.randn(n_out, size * size) * torch.logspace(-2, 1, size * size)
    conv.weight.data = (weights - weights.mean(1, keepdim=True) * (size > 1)).view_as(conv.weight)
    return conv.requires_grad_(False)


def error(conv, weight, pictures):
    exact = conv(pictures)
    inner = nn.functional.conv2d(
        pictures, weight, stride=conv.stride, padding=conv.padding, dilation=conv.dilation, groups=conv.groups
    )
    return float((inner - exact).square().mean())


@pytest.mark.parametrize(
    "options", [{}, {"size": 5}, {"stride": 2}, {"dilation": 2, "size": 3}, {"n_out": 6}, {"size": 1}]
)
def test_what_a_filter_gives_changes_less_than_by_rounding_to_the_nearest(pictures, options):
    conv = cancelling(**options)
    nearest = conv.weight.bfloat16().float()
    rounded = nn.Sequential(cancelling(**options))
    round_depthwise(rounded, pictures)
    weight = rounded[0].weight
    assert torch.equal(weight, weight.bfloat16().float())
    # Each weight is one of its two neighbours: off by less than a step, 2^-7 of its power of two.
    assert torch.all((weight - conv.weight).abs() < 2.0 ** (torch.floor(torch.log2(conv.weight.abs())) - 7))
    if options == {"size": 1}:
        assert torch.equal(weight, nearest)  # of one weight alone the nearest is the best
    else:
        assert error(conv, weight, pictures) < 0.3 * error(conv, nearest, pictures)


def test_no_other_choice_of_neighbours_is_much_better(pictures):
    conv = cancelling()
    rounded = nn.Sequential(cancelling())
    round_depthwise(rounded, pictures)
    weights, nearest = conv.weight.double(), conv.weight.bfloat16()
    away = torch.where(conv.weight > nearest.float(), torch.inf, -torch.inf).bfloat16()
    both = torch.stack([nearest, torch.nextafter(nearest, away)]).double()
    choices = torch.tensor(list(itertools.product((0, 1), repeat=9))).view(-1, 1, 3, 3)
    windows = nn.functional.unfold(pictures, 3, padding=1).unflatten(1, (3, 9)).double()
    for c in range(3):
        moments = torch.einsum("bip,bjp->ij", windows[:, c], windows[:, c])
        errors = torch.where(choices == 0, both[0, c], both[1, c]).flatten(1) - weights[c].flatten()
        best = torch.einsum("ni,ij,nj->n", errors, moments, errors).min()
        mine = (rounded[0].weight[c].double() - weights[c]).flatten()
        assert mine @ moments @ mine < 2 * best


def test_other_layers_and_exact_weights_stay(pictures):
    torch.manual_seed(0)
    depthwise = nn.Conv2d(8, 8, 3, groups=8)
    depthwise.weight.data = torch.randint(-2, 3, depthwise.weight.shape).float()
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), depthwise, nn.Conv2d(8, 8, 1, groups=4), nn.Flatten())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    round_depthwise(network.eval(), pictures)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_what_no_picture_shows_is_rounded_to_the_nearest():
    conv = cancelling()
    nearest = conv.weight.bfloat16().float()
    network = nn.Sequential(conv)
    round_depthwise(network, torch.zeros(4, 3, 16, 16))
    assert torch.equal(conv.weight, nearest)
