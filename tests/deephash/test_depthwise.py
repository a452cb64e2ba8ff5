import pytest
import torch
from torch import nn

from deephash.backbones import create_backbone
from deephash.depthwise import depthwise_conv2d, use_fast_depthwise


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 0)])
@pytest.mark.parametrize("size", [(9, 8), (8, 11)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_torch(kernel, stride, padding, size, bias):
    torch.manual_seed(0)
    images = torch.randn(3, 4, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    offset = torch.randn(4, dtype=torch.float64, requires_grad=True) if bias else None
    inputs = [images, weight, *([offset] if bias else [])]
    expected = torch.conv2d(images, weight, offset, stride, padding, 1, 4)
    computed = depthwise_conv2d(images, weight, offset, stride, padding)
    torch.testing.assert_close(computed, expected)
    weights = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad((computed * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_network_computes_and_learns_as_exactly_as_before_under_autocast():
    torch.manual_seed(0)
    networks = [create_backbone("tf_efficientnet_lite0", pretrained=False).module for _ in range(3)]
    for network in networks[1:]:
        network.load_state_dict(networks[0].state_dict())
    use_fast_depthwise(networks[2])
    assert networks[0].state_dict().keys() == networks[2].state_dict().keys()
    images = torch.randn(4, 3, 64, 64)
    features, gradients = [], []
    for network, bf16 in zip(networks, (False, True, True), strict=True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            output = network(images)
        output.float().square().mean().backward()
        features.append(output.detach().float())
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    # Processors round differently on the way, so that the two are nearer to the exact values than to each other.
    for exact, theirs, ours in (features, gradients):
        error, usual = (float((found - exact).norm() / exact.norm()) for found in (ours, theirs))
        assert error < 1.25 * usual
        assert usual < 0.3


def test_only_what_it_is_made_for_takes_the_fast_way():
    network = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv2d(8, 8, 3),
        nn.Conv2d(8, 8, 7, groups=8),
        nn.Conv2d(8, 8, 3, groups=8, dilation=2),
        nn.Conv2d(8, 8, 3, groups=8, padding="same"),
    )
    use_fast_depthwise(network)
    assert [type(module).__name__ for module in network] == ["FastDepthwise"] + ["Conv2d"] * 5


def test_without_autocast_it_is_the_convolution_of_before():
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 4, 5, groups=4, stride=2, padding=2)
    images = torch.randn(2, 4, 9, 9)
    expected = convolution(images)
    use_fast_depthwise(convolution)
    assert torch.equal(convolution(images), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert convolution(images).dtype == torch.bfloat16
