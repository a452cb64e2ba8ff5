"""What is known of the images, written and read back, whatever their names."""

import csv
import json
import os

import numpy as np
import pytest

from deephash.exporting import export_records
from index import Entry, Filter, Store

NAMES = ["/p/a.jpg", "/p/caf\udce9.jpg", "/p/new\nline.jpg", '/p/"quoted", comma.jpg', "/p/日本.jpg"]
CODES = np.arange(10, dtype=np.uint8).reshape(5, 2) * 16


@pytest.fixture
def store(tmp_path):
    entries = [
        Entry(name, 10 + i, 20 + i, bytes([i] * 16), 30 + i, 40 + i, "cat" if i < 2 else None, {"note": "é\n", "n": i})
        for i, name in enumerate(NAMES)
    ]
    with Store.create(tmp_path / "a.dhx", n_bits=12, fingerprint="f" * 32) as store:
        store.put(entries, CODES)
        yield store


def test_json_lines(store, tmp_path):
    assert export_records(store, tmp_path / "a", "jsonl") == 5
    rows = [json.loads(line) for line in (tmp_path / "a").read_text("utf-8").splitlines()]
    assert rows[0] == {
        "id": 1, "path": "/p/a.jpg", "label": "cat", "code": "0010", "width": 30, "height": 40, "n_bytes": 10,
        "mtime_ns": 20, "content_hash": "00" * 16, "metadata": {"note": "é\n", "n": 0},
    }  # fmt: skip
    paths = [bytes.fromhex(row["path_hex"]) if "path_hex" in row else row["path"].encode() for row in rows]
    assert paths == [os.fsencode(name) for name in NAMES]
    assert rows[1]["path"] == r"/p/caf\xe9.jpg"
    assert rows[2]["label"] is None


def test_csv(store, tmp_path):
    assert export_records(store, tmp_path / "a", "csv", where=Filter(label="cat")) == 2
    assert export_records(store, tmp_path / "b", "csv") == 5
    with open(tmp_path / "b", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [NAMES[0], r"/p/caf\xe9.jpg", *NAMES[2:]]
    assert [row["code"] for row in rows] == [code.tobytes().hex() for code in CODES]
    assert [row["label"] for row in rows] == ["cat", "cat", "", "", ""]
    assert json.loads(rows[4]["metadata"]) == {"note": "é\n", "n": 4}


def test_npz(store, tmp_path):
    assert export_records(store, tmp_path / "a.npz", "npz") == 5
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["ids"].tolist() == [1, 2, 3, 4, 5]
        assert np.array_equal(arrays["codes"], CODES)
        assert [os.fsdecode(path) for path in arrays["paths"]] == NAMES
        assert arrays["labels"].tolist() == ["cat", "cat", "", "", ""]
        assert int(arrays["n_bits"]) == 12
        assert str(arrays["fingerprint"]) == "f" * 32


@pytest.mark.parametrize("format", ["jsonl", "csv", "npz"])
def test_nothing_is_written_as_nothing(store, tmp_path, format):
    assert export_records(store, tmp_path / "a", format, where=Filter(label="unicorn")) == 0
    if format == "npz":
        with np.load(tmp_path / "a", allow_pickle=False) as arrays:
            assert arrays["codes"].shape == (0, 2)
            assert arrays["paths"].shape == (0,)
    else:
        assert len((tmp_path / "a").read_text("utf-8").splitlines()) == (1 if format == "csv" else 0)


def test_stdout(store, capsys):
    assert export_records(store, None, "jsonl") == 5
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_a_format_that_is_none(store, tmp_path):
    with pytest.raises(ValueError, match="choose one of jsonl, csv, npz"):
        export_records(store, tmp_path / "a", "xml")
    with pytest.raises(ValueError, match="npz needs a file"):
        export_records(store, None, "npz")
