"""A model as ONNX gives the codes that it gives here."""

import json
import sys

import numpy as np
import onnxruntime
import pytest
import torch

from deephash.backbones import Backbone
from deephash.errors import ModelError
from deephash.images import load_image, preprocess
from deephash.model import HashModel, load_model
from deephash.onnx_export import export_onnx
from tests.deephash.command_line import make_collection, run
from tests.deephash.photos import sample


def outputs(path, pixels):
    session = onnxruntime.InferenceSession(path)
    codes, logits = session.run(["codes", "logits"], {"pixels": pixels})
    return codes, logits, session.get_modelmeta().custom_metadata_map


@pytest.mark.parametrize("n_bits", [64, 20])
def test_its_codes_are_ours(tiny_model, tmp_path, n_bits):
    weight, bias = (parameter.detach().numpy()[:n_bits].copy() for parameter in tiny_model.hash_layer.parameters())
    model = tiny_model.with_hash_layer(weight, bias, name="short", method="itq")
    export_onnx(model, tmp_path / "m.onnx")
    for pixels in (sample().query_images, sample().query_images[:1]):
        codes, logits, facts = outputs(tmp_path / "m.onnx", pixels)
        expected = model.logits_of_features(model.features(pixels))
        assert np.allclose(logits, expected, atol=1e-4)
        assert codes.shape == (len(pixels), -(-n_bits // 8))
        assert codes.dtype == np.uint8
        sure = np.abs(expected).min(axis=1) > 1e-4
        assert sure.mean() > 0.9
        np.testing.assert_array_equal(codes[sure], model.encode(pixels)[sure])
    assert facts["fingerprint"] == model.card.fingerprint
    assert json.loads(facts["input_spec"]) == model.input_spec.to_dict()
    assert facts["n_bits"] == str(n_bits)


def test_the_model_of_an_index(tmp_path, tiny_file):
    made = make_collection(tmp_path, tiny_file)
    done = run("export", made.index, "--onnx", tmp_path / "m.onnx")
    assert done.exit_code == 0
    assert str(tmp_path / "m.onnx") in done.stderr
    model = load_model(tiny_file)
    pixels = preprocess(load_image(made.cat), model.input_spec)[None]
    np.testing.assert_array_equal(outputs(tmp_path / "m.onnx", pixels)[0], model.encode(pixels))
    assert run("export", made.index, "--onnx", tmp_path / "n.onnx", "--format", "csv").exit_code == 2


def test_a_network_that_onnx_has_no_words_for(tiny_model, tmp_path):
    class Odd(torch.nn.Module):
        def forward(self, images):
            return torch.linalg.svdvals(images.mean(1))

    backbone = Backbone("odd", Odd(), 32, tiny_model.input_spec, "random")
    model = HashModel(backbone, np.eye(32, dtype=np.float32), np.zeros(32, np.float32), name="odd", method="none")
    with pytest.raises(ModelError, match=r"odd cannot be written as ONNX .*: use another backbone"):
        export_onnx(model, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_without_the_packages_it_says_how_to_get_them(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelError, match=r"pip install 'deephash\[onnx\]'"):
        export_onnx(tiny_model, tmp_path / "m.onnx")
