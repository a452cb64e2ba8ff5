"""Models to encode with: without torch where the cache has their network, as load_model gives them where it has not."""

import json
import shutil

import numpy as np
import pytest
import torch

from deephash import ModelError, machine
from deephash.encoder_cache import EncoderCache
from deephash.encoders import VARIABLE, OpenVINOEncoder, kept_encoder
from deephash.encoding_model import CompiledModel, load_encoding_model
from deephash.fitting import fit_hash_layer
from deephash.images import load_image, preprocess
from deephash.model import HashModel, load_model
from deephash.model_file import read_card
from tests.deephash.photos import python, write_photo, write_photos

pytestmark = pytest.mark.skipif(machine.may_have_gpu(), reason="torch chooses where a GPU may be")


@pytest.fixture(scope="module")
def warm_cache(tmp_path_factory, tiny_file):
    """A cache as earlier runs leave it, with the networks of three models."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(VARIABLE)
        patch.setenv("DEEPHASH_CACHE", str(folder))
        for model in (tiny_file, "general-128", "copies-256"):
            assert load_model(model).encoder.name.startswith("openvino")
        patch.setenv(VARIABLE, "openvino")  # also where bfloat16 comes first
        assert load_model(tiny_file).encoder.name == "openvino"
    return folder


@pytest.fixture(autouse=True)
def cache(warm_cache, tmp_path, monkeypatch):
    """A copy of the warm cache; the back-end is chosen as for users."""
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("DEEPHASH_CACHE", str(shutil.copytree(warm_cache, tmp_path / "cache")))
    return EncoderCache.default()


def pixels_for(model, n=6):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, model.input_spec.size, model.input_spec.size, 3), np.uint8)


# --- The same model ---


@pytest.mark.parametrize("name", ["tiny", "general-64", "copies-256"])
def test_it_is_the_model_that_load_model_gives(name, tiny_file):
    compiled = load_encoding_model(tiny_file if name == "tiny" else name)
    model = load_model(tiny_file if name == "tiny" else name)
    assert isinstance(compiled, CompiledModel)
    assert compiled.card == model.card
    assert compiled.encoder.name == model.encoder.name
    for fact in ("n_bits", "n_features", "input_spec", "name", "method", "licence", "training_facts"):
        assert getattr(compiled, fact) == getattr(model, fact)
    pixels = pixels_for(model)
    assert np.array_equal(compiled.features(pixels), model.features(pixels))
    assert np.array_equal(compiled.encode(pixels), model.encode(pixels))
    assert compiled.to_bytes() == model.to_bytes()
    with pytest.raises(ValueError, match=rf"{model.name} wants uint8 \(B, "):
        compiled.features(pixels[:, 1:])


@pytest.mark.parametrize("name", ["tiny", "general-128"])
def test_a_hash_layer_fitted_on_it_has_the_same_fingerprint(name, tiny_file, tmp_path):
    compiled, model = (load(tiny_file if name == "tiny" else name) for load in (load_encoding_model, load_model))
    rng = np.random.default_rng(0)
    features = rng.standard_normal((90, model.n_features)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    ours, theirs = (fit_hash_layer(base, features, 48, collection="photos") for base in (compiled, model))
    assert isinstance(ours, CompiledModel)
    assert ours.encoder is compiled.encoder
    assert ours.card == theirs.card
    assert ours.to_bytes() == theirs.to_bytes()
    (tmp_path / "m.safetensors").write_bytes(ours.to_bytes())
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.card == ours.card == read_card(tmp_path / "m.safetensors")
    assert np.array_equal(loaded.codes_of_features(features), ours.codes_of_features(features))
    # The verdict is the network's: a model fitted a moment ago needs no torch.
    assert isinstance(load_encoding_model(tmp_path / "m.safetensors"), CompiledModel)


def test_hash_layers_that_fit_no_backbone_are_refused():
    compiled = load_encoding_model("general-128")
    good = np.ones((16, compiled.n_features), np.float32)
    for weight, bias, why in ((good[:, 1:], good[:, 0], "hash layer is"), (good * np.nan, good[:, 0], "not finite")):
        with pytest.raises(ValueError, match=why):
            compiled.with_hash_layer(weight, bias, name="x", method="x")


def test_a_model_that_has_encoded_can_be_saved_in_half_precision(tiny_file, tmp_path):
    model = load_model(tiny_file)
    model.features(pixels_for(model))
    model.save(tmp_path / "half.safetensors", half=True)
    assert isinstance(load_encoding_model(tmp_path / "half.safetensors"), HashModel)  # of other, rounded weights


# --- Where torch has to choose ---


def test_a_cold_cache_is_warm_the_next_time(tiny_file, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPHASH_CACHE", str(tmp_path / "cold"))
    model = load_encoding_model(tiny_file)
    assert isinstance(model, HashModel)
    codes = model.encode(pixels_for(model))
    again = load_encoding_model(tiny_file)
    assert isinstance(again, CompiledModel)
    assert np.array_equal(again.encode(pixels_for(model)), codes)


def test_a_gpu_may_be_faster(tiny_file, tmp_path, monkeypatch):
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(machine, "_GPU_DEVICES", (str(tmp_path / "nvidia0"),))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert isinstance(load_encoding_model(tiny_file), HashModel)


def test_the_variable_decides(tiny_file, monkeypatch, cache):
    for wish, kind in (("torch", HashModel), ("cuda", HashModel), ("openvino", CompiledModel), ("auto", CompiledModel)):
        monkeypatch.setenv(VARIABLE, wish)
        assert isinstance(load_encoding_model(tiny_file), kind)
    monkeypatch.setenv(VARIABLE, "onnx")
    with pytest.raises(ModelError, match="DEEPHASH_ENCODER is 'onnx': set it to auto, "):
        load_encoding_model(tiny_file)


def test_bfloat16_that_this_processor_lacks_is_an_error_and_not_slow(tiny_file, monkeypatch):
    monkeypatch.setattr("deephash.encoders.has_bf16_instructions", lambda: False)
    monkeypatch.setenv(VARIABLE, "openvino-bf16")
    with pytest.raises(ModelError, match="this machine lacks: unset it"):
        load_encoding_model(tiny_file).features(pixels_for(load_model(tiny_file)))


def test_bfloat16_comes_first_where_the_processor_has_it_and_it_keeps_the_codes(tiny_file, cache, monkeypatch):
    card = read_card(tiny_file)
    network = f"{card.backbone} {card.backbone_digest}", card.input_spec
    cache.put_network(*network, "openvino-bf16", cache.network(*network, "openvino"))
    cache.put_equal_bits(*network, "openvino", 1.0)
    for has, equal, name in ((True, 0.98, "openvino-bf16"), (True, 0.9, "openvino"), (False, 0.98, "openvino")):
        monkeypatch.setattr("deephash.encoders.computes_in_bf16", lambda has=has: has)
        cache.put_equal_bits(*network, "openvino-bf16", equal)
        cache.put_any_batch(*network, "openvino-bf16", False)
        assert kept_encoder(*network).name == name
    monkeypatch.setattr("deephash.encoders.computes_in_bf16", lambda: True)
    monkeypatch.setattr("deephash.encoder_cache._VERDICTS", "none.json")
    cache.put_equal_bits(*network, "openvino", 1.0)
    cache.put_any_batch(*network, "openvino", True)
    assert kept_encoder(*network) is None  # nobody has tried the faster one
    monkeypatch.setattr("deephash.encoders.computes_in_bf16", lambda: False)
    assert kept_encoder(*network).any_batch
    monkeypatch.setattr("deephash.encoder_cache._VERDICTS", "fewer.json")
    cache.put_equal_bits(*network, "openvino", 1.0)
    assert kept_encoder(*network) is None


@pytest.mark.parametrize("equal", [0.5, None])
def test_a_back_end_that_is_off_or_unknown_is_not_taken(tiny_file, cache, equal, monkeypatch):
    card = read_card(tiny_file)
    if equal is None:  # this folder, on another machine
        monkeypatch.setattr("deephash.encoder_cache.processor", lambda: "another")
    else:
        for name in ("openvino", "openvino-bf16"):
            cache.put_equal_bits(f"{card.backbone} {card.backbone_digest}", card.input_spec, name, equal)
    model = load_encoding_model(tiny_file)
    assert isinstance(model, HashModel)
    assert (model.encoder.name == "torch") == (equal is not None)


@pytest.mark.parametrize("damage", ["network.bin", "network.xml", "checksums.json", "*.compiled", "*"])
def test_a_damaged_network_is_made_again_of_what_is_left(tiny_file, tmp_path, damage):
    pixels = pixels_for(load_model(tiny_file))
    expected = load_encoding_model(tiny_file).encode(pixels)
    for path in (tmp_path / "cache" / "encoders").glob(f"*/{damage}"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    model = load_encoding_model(tiny_file)
    assert isinstance(model, HashModel if damage == "*" else CompiledModel)
    assert np.array_equal(model.encode(pixels), expected)
    again = load_encoding_model(tiny_file)
    assert isinstance(again, CompiledModel)
    assert np.array_equal(again.encode(pixels), expected)


def test_what_is_kept_compiled_computes_what_the_network_does(tiny_file, tmp_path):
    kept = load_encoding_model(tiny_file)
    compiled = list((tmp_path / "cache" / "encoders").glob("*/*.compiled"))
    assert len(compiled) == 3 or machine.has_bf16_instructions()
    for path in compiled:
        path.unlink()
    pixels = pixels_for(kept, 50)
    assert np.array_equal(load_encoding_model(tiny_file).features(pixels), kept.features(pixels))
    assert np.array_equal(load_model(tiny_file).features(pixels), kept.features(pixels))


@pytest.mark.parametrize("what", ["nothing", "another network"])
def test_what_would_compute_something_else_is_not_kept_compiled(tiny_file, tmp_path, monkeypatch, what):
    exported = b"nothing"
    if what == "another network":
        model, cache = load_model(tiny_file), EncoderCache.default()
        with torch.no_grad():
            next(model.backbone.parameters()).mul_(2)
        assert model.encoder.name.startswith("openvino")
        exported = cache.compiled(
            f"{model.card.backbone} {model.card.backbone_digest}", model.input_spec, model.encoder.name
        )
    monkeypatch.setenv("DEEPHASH_CACHE", str(tmp_path / "cold"))
    monkeypatch.setattr(OpenVINOEncoder, "export", lambda self: exported)
    assert load_model(tiny_file).encoder.name.startswith("openvino")
    assert not list((tmp_path / "cold" / "encoders").glob("*/*.compiled"))
    assert isinstance(load_encoding_model(tiny_file), CompiledModel)


# --- Files that are damaged ---


def spans(data):
    """The first byte of each tensor's values in a model file, by name, and the first of all."""
    n_header = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n_header])
    return {name: 8 + n_header + fact["data_offsets"][0] for name, fact in header.items() if name != "__metadata__"}


def test_damaged_files_get_the_sentences_of_load_model(tiny_file, tmp_path):
    data, path = tiny_file.read_bytes(), tmp_path / "m.safetensors"
    starts = spans(data)
    damaged = [data[:n_bytes] for n_bytes in (0, 7, 500, len(data) // 2, len(data) - 1)]
    for name in ("hash_layer.weight", "hash_layer.bias"):
        flipped = bytearray(data)
        flipped[starts[name] + 1] ^= 1
        damaged.append(bytes(flipped))
    damaged += [data + b"x", data.replace(b"hash_layer.bias", b"hash_layer.bios")]
    for content in damaged:
        path.write_bytes(content)
        said = []
        for load in (load_encoding_model, load_model):
            with pytest.raises(ModelError) as caught:
                load(path)
            said.append(str(caught.value))
        assert said[0] == said[1]


def test_weights_that_are_not_needed_are_not_read_but_never_copied_damaged(tiny_file, tmp_path):
    data, path = bytearray(tiny_file.read_bytes()), tmp_path / "m.safetensors"
    data[max(start for name, start in spans(data).items() if name.endswith("conv.weight"))] ^= 1
    path.write_bytes(data)
    whole, damaged = load_encoding_model(tiny_file), load_encoding_model(path)
    assert np.array_equal(damaged.encode(pixels_for(whole)), whole.encode(pixels_for(whole)))
    with pytest.raises(ModelError, match="copy it again"):
        damaged.to_bytes()


# --- Commands ---

RUN = """
import sys
from deephash import fitting
from deephash.cli import main
fitting.MIN_IMAGES = 8
try: main()
except SystemExit as end: assert end.code == 0, end.code
print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "timm", "torchvision"}))
"""


def test_commands_encode_without_torch(tmp_path):
    write_photos(tmp_path / "photos", 0, 10)
    cat = write_photo(tmp_path / "cat.png", 40)
    index = tmp_path / "photos.dhx"
    commands = [
        ["index", tmp_path / "photos", "-i", index],  # a new one, fitted
        ["index", tmp_path / "photos", "-i", index],
        ["query", index, cat],
        ["encode", cat, "--model", index],
    ]
    outputs = []
    for number, words in enumerate(commands):
        if number == 1:
            write_photos(tmp_path / "photos", 10, 13)
        done = python(RUN, *words)
        assert done.returncode == 0, done.stderr
        *lines, loaded = done.stdout.splitlines()
        assert loaded == "loaded:", words
        outputs.append("\n".join(lines))
    assert "10 added" in outputs[0]
    assert "3 added" in outputs[1]
    card = read_card(index / "model.safetensors")
    assert (card.method, card.training["images"]) == ("itq", 10)
    # The codes are those that torch finds the network to give.
    model = load_model(index / "model.safetensors")
    expected = model.encode(preprocess(load_image(cat), model.input_spec)[None]).tobytes().hex()
    assert expected in outputs[3]
