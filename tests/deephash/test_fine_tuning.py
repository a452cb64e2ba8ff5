import pytest
import torch
from torch import nn

from deephash import inference
from deephash.backbones import create_backbone
from deephash.errors import BackboneError
from deephash.fine_tuning import finish_fine_tuning, freeze_stages, prepare_fine_tuning


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    made = create_backbone("test_efficientnet", pretrained=False).module
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return made.eval()


def output(network, images):
    with torch.inference_mode():
        return network(images)


def test_it_computes_what_the_backbone_does_and_has_no_batch_norm(backbone):
    images = torch.randn(2, 3, 64, 64)
    prepared = prepare_fine_tuning(backbone, 64, 0)
    torch.testing.assert_close(output(prepared, images), output(backbone, images), rtol=1e-3, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in prepared.modules())
    assert all(parameter.requires_grad for parameter in prepared.parameters())


def test_finishing_gives_the_backbone_what_was_learned(backbone):
    images = torch.randn(2, 3, 64, 64)
    prepared = prepare_fine_tuning(backbone, 64, 0)
    before = output(prepared, images)
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.01)
    prepared(images).square().mean().backward()
    optimizer.step()
    finish_fine_tuning(prepared, backbone)
    after = output(prepared, images)
    assert not torch.allclose(before, after, rtol=1e-3)
    torch.testing.assert_close(output(backbone, images), after, rtol=1e-3, atol=1e-4)


def test_frozen_stages_stay_and_the_others_learn(backbone):
    prepared = prepare_fine_tuning(backbone, 64, 1)
    frozen = {name for name, parameter in prepared.named_parameters() if not parameter.requires_grad}
    assert frozen == {n for n, _ in prepared.named_parameters() if n.startswith(("conv_stem", "bn1", "blocks.0"))}
    prepared(torch.randn(2, 3, 64, 64)).square().mean().backward()
    learned = {name for name, parameter in prepared.named_parameters() if parameter.grad is not None}
    assert learned == {name for name, _ in prepared.named_parameters()} - frozen


def test_everything_runs_in_bfloat16_under_autocast(backbone):
    prepared = prepare_fine_tuning(backbone, 64, 0)
    dtypes = set()
    for module in prepared.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, i, output: dtypes.add(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prepared(torch.randn(2, 3, 64, 64))
    assert dtypes == {torch.bfloat16}


def test_more_stages_than_there_are(backbone):
    with pytest.raises(BackboneError, match=r"has [0-9]+ stages behind its stem"):
        prepare_fine_tuning(backbone, 64, 50)


def test_a_network_without_named_stages():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten())
    freeze_stages(network, 0)
    with pytest.raises(BackboneError, match="name its stages"):
        freeze_stages(network, 1)


def test_norms_that_cannot_be_folded():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3), nn.Flatten())
    with pytest.raises(BackboneError, match="cannot be folded"):
        prepare_fine_tuning(network, 16, 0)


def test_parts_of_a_batch_give_what_the_whole_gives_and_the_same_gradients(backbone, monkeypatch):
    monkeypatch.setattr(inference, "_PIXELS_AT_A_TIME", 3 * 64 * 64)
    images = torch.randn(8, 3, 64, 64)
    sizes: list[int] = []
    prepared = prepare_fine_tuning(backbone, 64, 0).train()
    prepared.register_forward_pre_hook(lambda module, arguments: sizes.append(len(arguments[0])))
    gradients = []
    for run in (lambda network, images: network(images), inference.run_in_parts):
        prepared.zero_grad()
        run(prepared, images).square().mean().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in prepared.parameters()]))
    assert sizes == [8, 3, 3, 2]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_a_batch_norm_that_learns_sees_the_whole_batch(backbone, monkeypatch):
    monkeypatch.setattr(inference, "_PIXELS_AT_A_TIME", 1)
    sizes: list[int] = []
    backbone.register_forward_pre_hook(lambda module, arguments: sizes.append(len(arguments[0])))
    for learns in (True, False):
        inference.run_in_parts(backbone.train(learns), torch.randn(3, 3, 64, 64))
    assert sizes == [3, 1, 1, 1]
