"""Codes without an index: what is written, what is skipped, what an interrupt leaves."""

import csv
import json
import os

import numpy as np
import pytest

from deephash.code_writing import EncodeInterrupted, encode_files
from deephash.images import load_image, preprocess
from deephash.model import load_model
from deephash.sync import find_collection
from tests.deephash.command_line import lines_of, make_collection, one_sentence, run
from tests.deephash.photos import deephash


@pytest.fixture(scope="module")
def collection(tmp_path_factory, tiny_file):
    return make_collection(tmp_path_factory.mktemp("encode"), tiny_file)


def codes_of(model, paths):
    pixels = [preprocess(load_image(path, at_least=model.input_spec.resize), model.input_spec) for path in paths]
    return model.encode(np.stack(pixels))


def test_json_lines_have_the_codes_of_the_index(collection, tiny_file):
    done = run("encode", collection.photos, "--model", tiny_file)
    assert done.exit_code == 0
    rows = lines_of(done)
    exported = lines_of(run("export", collection.index))
    assert {row["path"]: row["code"] for row in rows} == {row["path"]: row["code"] for row in exported}
    assert list(rows[0]) == ["path", "code", "width", "height"]
    assert "codes of 31 images" in done.stderr
    assert "encoding: 31 of 31" in done.stderr
    assert lines_of(run("encode", collection.photos, "--model", collection.index)) == rows


def test_csv_and_npz(collection, tiny_file, tmp_path):
    rows = lines_of(run("encode", collection.photos, "--model", tiny_file))
    done = run("encode", collection.photos, "--model", tiny_file, "-o", tmp_path / "codes.csv")
    assert done.exit_code == 0
    assert done.stdout == ""
    with open(tmp_path / "codes.csv", newline="") as file:
        assert [(row["path"], row["code"]) for row in csv.DictReader(file)] == [(r["path"], r["code"]) for r in rows]
    assert run("encode", collection.photos, "--model", tiny_file, "-o", tmp_path / "codes.npz").exit_code == 0
    arrays = np.load(tmp_path / "codes.npz")
    assert [code.tobytes().hex() for code in arrays["codes"]] == [row["code"] for row in rows]
    assert [os.fsdecode(path) for path in arrays["paths"]] == [row["path"] for row in rows]
    assert arrays["n_bits"] == 64
    assert arrays["fingerprint"] == load_model(tiny_file).card.fingerprint


def test_a_list_of_names(collection, tiny_file, tmp_path):
    names = sorted(map(str, collection.photos.rglob("*.png")))[:3]
    (tmp_path / "names").write_text("\n".join(names) + "\n\n")
    rows = lines_of(run("encode", "--list", tmp_path / "names", "--model", tiny_file))
    assert [row["path"] for row in rows] == names
    expected = codes_of(load_model(tiny_file), names)
    assert [row["code"] for row in rows] == [code.tobytes().hex() for code in expected]
    done = deephash("encode", "--list", "-", "--model", tiny_file, input="\n".join(names))
    assert lines_of(done) == rows


def test_what_cannot_be_read_is_skipped_and_told(collection, tiny_file, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    done = run("encode", collection.cat, tmp_path, "--model", tiny_file)
    assert done.exit_code == 3
    assert [row["path"] for row in lines_of(done)] == [str(collection.cat)]
    assert "1 file skipped:" in done.stderr
    assert "broken.png" in done.stderr
    assert "codes of 1 image" in done.stderr


def test_wrong_usage(collection, tmp_path):
    for words, said in (
        ([], "say what to encode: a folder, images, or --list FILE"),
        ([collection.photos, "--format", "npz"], "add --output FILE"),
        ([collection.photos, "-o", tmp_path / "codes.parquet"], "'parquet' is no format"),
    ):
        done = run("encode", *words)
        assert done.exit_code == 2
        assert said in done.stderr
    done = run("encode", tmp_path / "gone")
    assert done.exit_code == 1
    one_sentence(done)


def test_an_interrupt_leaves_what_was_done(collection, tiny_model, tmp_path, monkeypatch):
    files, _ = find_collection([str(collection.photos)])
    encode, calls = type(tiny_model).encode, []

    def interrupted(self, pixels):
        calls.append(len(pixels))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(self, pixels)

    monkeypatch.setattr(type(tiny_model), "encode", interrupted)
    with pytest.raises(EncodeInterrupted, match="the codes of 32 images were written"):
        encode_files([*files, *files], tiny_model, tmp_path / "codes.jsonl", "jsonl")
    written = [json.loads(line) for line in (tmp_path / "codes.jsonl").read_text().splitlines()]
    assert [row["path"] for row in written] == [file.path for file in [*files, *files][:32]]
