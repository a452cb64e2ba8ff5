"""Labels and metadata of images, from folder names and from files that people make."""

import json
import os

import pytest

from deephash.annotations import AnnotationError, folder_labels, parse_scalar, read_annotations


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_folder_labels():
    assert folder_labels("/photos/cat/a.jpg") == ("cat", {})


def test_csv_with_relative_and_absolute_paths(tmp_path):
    text = f'path,label,year,ratio,note\nimg/a.jpg,cat,2024,1.5,"a, b"\n{tmp_path}/b.jpg,,,,\nimg/../c.jpg,7,x,-3,\n'
    annotate = read_annotations(write(tmp_path / "a.csv", text))
    assert annotate(str(tmp_path / "img" / "a.jpg")) == ("cat", {"year": 2024, "ratio": 1.5, "note": "a, b"})
    assert annotate(str(tmp_path / "b.jpg")) == (None, {})
    assert annotate(str(tmp_path / "c.jpg")) == ("7", {"year": "x", "ratio": -3})
    assert annotate(str(tmp_path / "d.jpg")) is None


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "A.JSONL"])
def test_json_lines(tmp_path, name):
    rows = [{"path": "é.jpg", "label": 3, "good": True, "none": None}, {"path": "b.jpg", "label": None}]
    annotate = read_annotations(write(tmp_path / name, "\n\n".join(map(json.dumps, rows))))
    assert annotate(str(tmp_path / "é.jpg")) == ("3", {"good": True, "none": None})
    assert annotate(str(tmp_path / "b.jpg")) == (None, {})


def test_what_spreadsheets_write(tmp_path):
    annotate = read_annotations(write(tmp_path / "a.csv", "path,label\r\na.jpg,Käse\r\n", "utf-8-sig"))
    assert annotate(str(tmp_path / "a.jpg")) == ("Käse", {})


def test_paths_are_relative_to_the_file_not_to_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.csv", "path,label\na.jpg,cat\n")
    monkeypatch.chdir(tmp_path)
    assert read_annotations(os.path.join("in", "a.csv"))(str(tmp_path / "in" / "a.jpg")) == ("cat", {})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "file,label\na.jpg,cat\n", "no column 'path' in its first line"),
        ("a.csv", "", "no column 'path'"),
        ("a.csv", "path,label\na.jpg,cat\n,dog\n", "line 3: there is no 'path'"),
        ("a.csv", "path,label\na.jpg,cat,dog\n", "line 2: more cells than columns"),
        ("a.jsonl", '{"path": "a.jpg"}\n{"path": \n', "line 2 is not JSON"),
        ("a.jsonl", '{"path": "a.jpg", "x": NaN}\n', "line 1 is not JSON: NaN is no number"),
        ("a.jsonl", '["a.jpg"]\n', "line 1: give one JSON object a line"),
        ("a.jsonl", '{"label": "cat"}\n', "line 1: there is no 'path'"),
        ("a.jsonl", '{"path": 5}\n', "line 1: there is no 'path'"),
        ("a.jsonl", '{"path": "a.jpg", "tags": ["x"]}\n', "line 1: metadata must be text, numbers"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, name, text, message):
    with pytest.raises(AnnotationError, match=name) as caught:
        read_annotations(write(tmp_path / name, text))
    assert message in str(caught.value)


def test_a_missing_file_and_one_that_is_not_utf8(tmp_path):
    with pytest.raises(AnnotationError, match=r"cannot read .*none\.csv: No such file"):
        read_annotations(tmp_path / "none.csv")
    for name, text in (("a.csv", "path,label\na.jpg,Käse\n"), ("a.jsonl", '{"path": "ä.jpg"}')):
        with pytest.raises(AnnotationError, match="is not UTF-8 text: save it as UTF-8"):
            read_annotations(write(tmp_path / name, text, "latin-1"))


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("-2", -2), ("1.5", 1.5), ("cat", "cat"), ("1e3", 1000.0), ("", ""), ("2024-01-01", "2024-01-01")],
)
def test_numbers_are_kept_as_numbers(text, value):
    assert parse_scalar(text) == value
    assert type(parse_scalar(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    ["nan", "inf", "-Infinity", "1_000", "007", "+49", " 5", "1.", ".5", "\uff11\uff12", "1e999", "9" * 19, "1" * 5000],
)
def test_what_only_looks_like_a_number_stays_text(text):
    assert parse_scalar(text) == text
