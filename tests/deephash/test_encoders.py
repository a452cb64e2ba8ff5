import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from deephash import encoder_cache, machine
from deephash.backbones import Backbone
from deephash.encoder_cache import EncoderCache
from deephash.encoders import BACK_ENDS, VARIABLE, OpenVINOEncoder, _Streams
from deephash.errors import ModelError
from deephash.input_spec import InputSpec
from deephash.model import HashModel, load_model
from deephash.openvino_network import convert
from deephash.torch_encoders import PixelsToFeatures, TorchEncoder, choose_encoder
from tests.deephash.photos import sample

SMALL = InputSpec(size=32, resize=32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache of these tests, empty; the back-end is chosen as for users without a GPU (which has test_gpu)."""
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("DEEPHASH_CACHE", str(tmp_path / "cache"))
    return EncoderCache.default()


@pytest.fixture
def pixels():
    return sample().query_images[:50]


def reference(model, pixels):
    encoder = TorchEncoder(model.backbone, model.input_spec, torch.device("cpu"))
    return model.logits_of_features(encoder(pixels)) > 0


def networks(tmp_path):
    return sorted(path for path in (tmp_path / "cache" / "encoders").iterdir() if path.is_dir())


def test_float32_keeps_every_code_and_bfloat16_nearly_all(tiny_model, pixels, monkeypatch):
    expected = reference(tiny_model, pixels)
    for name, least in (("openvino", 0.999), ("torch", 1.0), ("openvino-bf16", 0.97)):
        monkeypatch.setenv(VARIABLE, name)
        try:
            encoder = choose_encoder(tiny_model)
        except ModelError:
            assert name == "openvino-bf16"  # a processor without it
            continue
        assert encoder.name == name
        assert ((tiny_model.logits_of_features(encoder(pixels)) > 0) == expected).mean() >= least


def test_the_default_is_a_compiled_network(tiny_file, pixels):
    model = load_model(tiny_file)
    assert model.encoder.name.startswith("openvino")
    assert np.allclose(np.linalg.norm(model.features(pixels), axis=1), 1, atol=1e-3)
    assert model.encoder is model.encoder


def test_features_do_not_depend_on_the_batch(tiny_model, pixels):
    encoder = choose_encoder(tiny_model)
    together = encoder(pixels)
    for size in (1, 3, 7):
        parts = [encoder(pixels[start : start + size]) for start in range(0, len(pixels), size)]
        np.testing.assert_array_equal(np.concatenate(parts), together)
    assert encoder(pixels[:0]).shape == (0, tiny_model.n_features)


@pytest.fixture
def chunks(monkeypatch):
    """The numbers of images that streams took at a time, in order."""
    seen, run = [], _Streams._run

    def watch(streams, pixels, features):
        seen.append(len(pixels))
        run(streams, pixels, features)

    monkeypatch.setattr(_Streams, "_run", watch)
    return seen


def compiled(model, size, **options):
    """The network of a model for images of another size, on one stream."""
    encoder = OpenVINOEncoder(convert(PixelsToFeatures(model.backbone, model.input_spec), size), bf16=False, **options)
    encoder._streams.n = 1
    return encoder


def noise(n, size):
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8)


@pytest.mark.parametrize(
    ("n", "size", "filled", "free"),
    [
        (0, 32, [], []),
        (1, 32, [16], [1]),
        (40, 32, [16, 16, 16], [16, 16, 8]),
        (9, 160, [1] * 9, [7, 2]),
        (2, 480, [1, 1], [1, 1]),
    ],
)
def test_chunks_have_one_size_unless_any_gives_the_same(tiny_model, chunks, n, size, filled, free):
    expected = compiled(tiny_model, size)(noise(n, size))
    assert chunks == filled
    chunks.clear()
    found = compiled(tiny_model, size, any_batch=True)(noise(n, size))
    assert chunks == free
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_any_batch_is_allowed_where_features_do_not_depend_on_it(tiny_model, chunks, monkeypatch):
    encoder = compiled(tiny_model, 64)
    assert encoder.allow_any_batch(noise(20, 64))
    assert sorted(set(chunks)) == list(range(1, 17))
    infer = _Streams._run

    def infer_in_another_order(streams, pixels, features):
        infer(streams, pixels, features)
        if len(pixels) == 13:
            features[5, 7] = np.nextafter(features[5, 7], np.float32(2))

    # Small networks do so with AMX.
    monkeypatch.setattr(_Streams, "_run", infer_in_another_order)
    assert not encoder.allow_any_batch(noise(20, 64))
    chunks.clear()
    assert encoder(noise(3, 64)).shape == (3, tiny_model.n_features)
    assert chunks == [8]


def test_whether_any_batch_is_allowed_is_asked_once(tiny_model, monkeypatch):
    answers, allow = [], OpenVINOEncoder.allow_any_batch
    monkeypatch.setattr(
        OpenVINOEncoder, "allow_any_batch", lambda encoder, probe: answers.append(allow(encoder, probe)) or answers[-1]
    )
    monkeypatch.setattr("deephash.torch_encoders.computes_in_bf16", lambda: False)
    for wish in ("auto", "openvino"):
        monkeypatch.setenv(VARIABLE, wish)
        encoder = choose_encoder(tiny_model)
        assert [encoder.any_batch] == answers


def test_threads_that_encode_at_the_same_time_get_features_of_their_own(tiny_model, pixels, monkeypatch):
    monkeypatch.setenv(VARIABLE, "openvino")
    encoder = choose_encoder(tiny_model)
    parts = [pixels[start : start + size] for size in (1, 2, 5, 9) for start in range(0, 45, size)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(encoder, parts))
    for part, features in zip(parts, found, strict=True):
        np.testing.assert_array_equal(features, encoder(part))


def test_an_error_in_a_stream_is_raised_and_the_stream_goes_on(tiny_model, pixels, monkeypatch):
    monkeypatch.setenv(VARIABLE, "openvino")
    encoder = choose_encoder(tiny_model)
    expected = encoder(pixels)
    for wrong in (pixels[:1, :16], pixels[:40, :16]):
        with pytest.raises((RuntimeError, ValueError)):
            encoder(wrong)
    np.testing.assert_array_equal(encoder(pixels), expected)


def test_a_network_is_converted_once(tiny_model, tmp_path, pixels):
    first = choose_encoder(tiny_model)(pixels)
    (folder,) = networks(tmp_path)
    inode = folder.stat().st_ino
    np.testing.assert_array_equal(choose_encoder(tiny_model)(pixels), first)
    assert [path.stat().st_ino for path in networks(tmp_path)] == [inode]


def test_a_network_is_converted_anew_where_the_code_that_makes_it_changed(tiny_model, tmp_path, pixels, monkeypatch):
    first = choose_encoder(tiny_model)(pixels)
    assert len(networks(tmp_path)) == 1
    assert len(encoder_cache._source()) == len(encoder_cache._SOURCES)
    monkeypatch.setattr(encoder_cache, "_source", lambda: ["another"])
    np.testing.assert_array_equal(choose_encoder(tiny_model)(pixels), first)
    assert len(networks(tmp_path)) == 2


def test_for_bfloat16_another_network_is_made_of_filters_rounded_as_a_whole(tiny_model, tmp_path, pixels, monkeypatch):
    # Where the processor lacks bfloat16, OpenVINO computes in float32: of the rounding that of the filters is left.
    monkeypatch.setattr("deephash.torch_encoders.computes_in_bf16", lambda: True)
    monkeypatch.setenv(VARIABLE, "openvino-bf16")
    encoder = choose_encoder(tiny_model)
    assert encoder.name == "openvino-bf16"
    monkeypatch.setenv(VARIABLE, "openvino")
    exact = choose_encoder(tiny_model)
    assert len(networks(tmp_path)) == 2
    difference = np.abs(encoder(pixels) - exact(pixels)).max()
    assert 1e-5 < difference < 0.1
    monkeypatch.setattr("deephash.torch_encoders.round_depthwise", lambda network, inputs: None)
    monkeypatch.setenv("DEEPHASH_CACHE", str(tmp_path / "another"))
    monkeypatch.setenv(VARIABLE, "openvino-bf16")
    if not machine.has_bf16_instructions():
        np.testing.assert_allclose(choose_encoder(tiny_model)(pixels), exact(pixels), atol=1e-6)


@pytest.mark.parametrize("damage", ["network.bin", "network.xml", "checksums.json"])
@pytest.mark.parametrize("content", [b"", b"{}", None])
def test_a_damaged_network_is_converted_again(tiny_model, tmp_path, pixels, damage, content):
    first = choose_encoder(tiny_model)(pixels)
    (folder,) = networks(tmp_path)
    for compiled in folder.glob("*.compiled"):
        compiled.unlink()
    damaged = folder / damage
    damaged.write_bytes(content) if content is not None else damaged.unlink()
    np.testing.assert_array_equal(choose_encoder(tiny_model)(pixels), first)
    (folder,) = networks(tmp_path)
    assert (folder / damage).read_bytes() not in (b"", b"{}")


def test_without_a_place_for_the_cache_it_is_converted_each_time(tiny_model, tmp_path, monkeypatch, pixels):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("DEEPHASH_CACHE", str(tmp_path / "file" / "below"))
    assert (
        (tiny_model.logits_of_features(choose_encoder(tiny_model)(pixels)) > 0) == reference(tiny_model, pixels)
    ).mean() > 0.97


def test_the_cache_keeps_the_networks_used_last(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("deephash.encoder_cache._MAX_NETWORKS", 2)
    choose_encoder(tiny_model)
    (first,) = networks(tmp_path)
    for size in (40, 48):
        os.utime(first, (1, 1))
        backbone = Backbone(
            "test_efficientnet", tiny_model.backbone, tiny_model.n_features, InputSpec(size, size), "random"
        )
        weight = tiny_model.hash_layer.weight.detach().numpy()
        choose_encoder(HashModel(backbone, weight, weight[:, 0].copy(), name="n", method="none"))
    assert len(networks(tmp_path)) == 2
    assert first not in networks(tmp_path)


def test_an_encoder_that_changes_the_codes_is_not_taken_nor_made_again(tiny_model, cache, tmp_path):
    network = f"{tiny_model.card.backbone} {tiny_model.card.backbone_digest}", tiny_model.input_spec
    for name in BACK_ENDS[:-1]:
        cache.put_equal_bits(*network, name, 0.5)
    assert choose_encoder(tiny_model).name == "torch"
    assert not networks(tmp_path)
    cache.put_equal_bits(*network, "openvino", 1.0)
    assert choose_encoder(tiny_model).name == "openvino"


class Odd(nn.Module):
    """Computes what OpenVINO has no operation for."""

    def forward(self, images):
        return torch.linalg.svdvals(images.mean(1))


def test_what_cannot_be_converted_runs_in_torch(pixels, monkeypatch):
    weight = np.eye(32, dtype=np.float32)
    model = HashModel(Backbone("odd", Odd(), 32, SMALL, "random"), weight, weight[0].copy(), name="odd", method="none")
    assert model.encoder.name == "torch"
    assert model.features(pixels).shape == (50, 32)
    monkeypatch.setenv(VARIABLE, "openvino")
    with pytest.raises(ModelError, match="this machine lacks: unset it"):
        choose_encoder(model)


def test_an_unknown_name_is_refused(tiny_model, monkeypatch):
    monkeypatch.setenv(VARIABLE, "onnx")
    with pytest.raises(ModelError, match="DEEPHASH_ENCODER is 'onnx': set it to auto, cuda-fp16,"):
        choose_encoder(tiny_model)


def test_openvino_reports_to_nobody(tmp_path):
    program = """
import sys
from deephash.openvino_import import import_openvino
sys.addaudithook(lambda event, args: event in ("socket.connect", "socket.getaddrinfo") and print("CONNECTS", args))
openvino = import_openvino()
print("openvino.tools.ovc" in sys.modules)
import torch
openvino.convert_model(torch.nn.ReLU(), example_input=torch.zeros(1, 2))
print("openvino_telemetry" in sys.modules)
"""
    environment = os.environ | {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    # The converter takes long to import, and only they need it who convert.
    assert done.stdout.splitlines() == ["False", "False"]
    assert not list(tmp_path.glob("intel"))


def test_whoever_imports_openvino_after_us_has_all_of_it():
    program = """
from deephash.openvino_import import import_openvino
import_openvino()
import openvino
from openvino import convert_model
print(convert_model is openvino.convert_model, hasattr(openvino, "no_such_thing"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


def test_encoders_that_begin_at_the_same_time_do_not_wait_for_one_another_for_good(tiny_model, pixels, tmp_path):
    # Slow calls of Python let the other thread in wherever it can be let in, which otherwise happens once in many runs.
    encoder = choose_encoder(tiny_model)
    assert isinstance(encoder, OpenVINOEncoder)
    (tmp_path / "network").write_bytes(encoder.export())
    np.save(tmp_path / "pixels.npy", pixels)
    program = """
import sys, threading, time
import numpy as np
from deephash.encoders import OpenVINOEncoder
from deephash.openvino_import import import_openvino
import_openvino()
with open("network", "rb") as file:
    network = file.read()
encoders = [OpenVINOEncoder(network, bf16=sys.argv[1].endswith("bf16")) for _ in range(2)]
pixels = np.load("pixels.npy")
threading.setprofile(lambda *_: time.sleep(0.001))
threads = [threading.Thread(target=encoder, args=[pixels]) for encoder in encoders]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("encoded")
"""
    command = [sys.executable, "-c", program, encoder.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "encoded\n"


def test_the_default_model_keeps_its_codes(monkeypatch):
    model = load_model("general-128")
    pictures = np.repeat(np.repeat(sample().query_images[:8], 7, axis=1), 7, axis=2)
    assert ((model.logits_of_features(model.features(pictures)) > 0) == reference(model, pictures)).mean() > 0.97
