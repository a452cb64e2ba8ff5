"""What each command says of a small collection: tables, JSON lines, contact sheets, exit codes."""

import csv
import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from deephash.cli import app
from deephash.copies import copy_card
from index import Store
from tests.deephash.command_line import lines, make_collection, run
from tests.deephash.photos import write_photo, write_photos


@pytest.fixture(scope="module")
def collection(tmp_path_factory, tiny_file):
    return make_collection(tmp_path_factory.mktemp("cli"), tiny_file)


@pytest.fixture
def mine(collection, tmp_path):
    """A copy of the index that a test may change."""
    return shutil.copytree(collection.index, tmp_path / "mine.dhx")


def test_all_commands_have_tests_in_a_file_of_the_command_line():
    assert {command.callback.__name__ for command in app.registered_commands} == {
        "demo", "index", "query", "duplicates", "apply", "info", "remove", "verify", "export", "models", "train",
        "evaluate", "serve", "tune", "encode",
    }  # fmt: skip


# --- index ---


def test_index_counts_what_it_did_and_tells_it_again_as_json(tmp_path, tiny_file):
    photos, index = tmp_path / "p", tmp_path / "p.dhx"
    paths = write_photos(photos, 0, 5)
    first = run("index", photos, "-i", index, "--model", tiny_file)
    assert first.exit_code == 0
    assert first.stdout.startswith(f"{index}: 5 images; 5 added; 5 decoded in ")
    again = run("index", photos, "-i", index)
    assert "5 unchanged; 0 decoded" in again.stdout
    paths[0].unlink()
    paths[1].rename(photos / "moved.png")
    write_photo(paths[2], 77)
    vanished = run("index", photos, "-i", index)
    assert "1 updated" in vanished.stdout
    assert "1 moved" in vanished.stdout
    assert "1 indexed image is gone from disk: --prune removes them" in vanished.stderr
    (report,) = lines("index", photos, "-i", index, "--prune")
    expected = {"index": str(index), "found": 4, "removed": 1, "unchanged": 4, "n_images": 4, "skipped": []}
    assert {name: report[name] for name in expected} == expected


def test_index_by_default_is_named_after_the_folder_in_the_current_one(tmp_path, tiny_file, monkeypatch):
    write_photos(tmp_path / "far" / "photos", 0, 2)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    done = run("index", "../far/photos/", "--model", tiny_file)
    assert done.stdout.startswith("photos.dhx: 2 images")
    assert (tmp_path / "here" / "photos.dhx").is_dir()


def test_skipped_files_are_listed_with_reasons_and_the_exit_code_is_3(tmp_path, tiny_file):
    photos = tmp_path / "p"
    write_photos(photos, 0, 2)
    (photos / "empty.jpg").touch()
    (photos / "te\nxt.png").write_text("text")
    done = run("index", photos, "-i", tmp_path / "p.dhx", "--model", tiny_file)
    assert done.exit_code == 3
    assert "2 files skipped:\n" in done.stderr
    assert f"  {photos}/empty.jpg: is empty\n" in done.stderr
    assert f"  {photos}/te\\nxt.png: is not an image" in done.stderr
    assert "2 images; 2 added" in done.stdout
    as_json = run("index", photos, "-i", tmp_path / "p.dhx", "--json")
    assert as_json.exit_code == 3
    skipped = json.loads(as_json.stdout)["skipped"]
    assert [item["path"] for item in skipped] == [f"{photos}/empty.jpg", f"{photos}/te\nxt.png"]
    assert skipped[0]["reason"] == "is empty"
    info = run("info", tmp_path / "p.dhx")
    assert "2 (2 files skipped)" in info.stdout


def test_a_long_list_of_skipped_files_is_cut(tmp_path, tiny_file):
    write_photos(tmp_path / "p", 0, 1)
    for number in range(25):
        (tmp_path / "p" / f"{number}.png").touch()
    done = run("index", tmp_path / "p", "-i", tmp_path / "p.dhx", "--model", tiny_file)
    assert done.stderr.count("is empty") == 20
    assert "... and 5 more: --json lists them all" in done.stderr


def test_metadata_can_be_asked_for(tmp_path, tiny_file):
    write_photo(tmp_path / "p" / "a.png", 0), write_photo(tmp_path / "p" / "b.png", 1)
    (tmp_path / "meta.csv").write_text("path,label,year,place\np/a.png,cat,2024,Köln\np/b.png,dog,2023,\n", "utf-8")
    index = tmp_path / "p.dhx"
    done = run("index", tmp_path / "p", "-i", index, "--model", tiny_file, "--metadata", tmp_path / "meta.csv")
    assert done.exit_code == 0
    (answer,) = lines("query", index, "--id", 2, "--where", "year=2024", "--where", "place=Köln")
    assert [match["metadata"] for match in answer["matches"]] == [{"year": 2024, "place": "Köln"}]
    assert lines("query", index, "--id", 2, "--where", "year=2023")[0]["matches"] == []


# --- query ---


def test_query_by_image_finds_it_first_in_a_table(collection):
    picture = sorted(collection.photos.rglob("0003.png"))[0]
    done = run("query", collection.index, picture, "-k", 4)
    assert done.exit_code == 0
    assert done.stderr == ""
    head, first, *others = [line.split("\t") for line in done.stdout.splitlines()]
    assert head == ["distance", "id", "label", "path"]
    assert first[0] == "0"
    assert first[2:] == [picture.parent.name, str(picture)]
    assert len(others) == 3
    distances = [int(row[0]) for row in others]
    assert distances == sorted(distances)


def test_json_of_a_query_is_a_line_for_each_with_documented_fields(collection):
    code = run("export", collection.index, "--path", "*0007.png").stdout
    code = json.loads(code)["code"]
    answers = lines("query", collection.index, collection.cat, "--id", 2, "--code", code, "-k", 3)
    assert [next(iter(answer)) for answer in answers] == ["query", "query_id", "query_code"]
    assert [next(iter(answer.values())) for answer in answers] == [str(collection.cat), 2, code]
    for answer in answers:
        assert set(answer) == {next(iter(answer)), "matches"}
        assert len(answer["matches"]) == 3
        for match in answer["matches"]:
            assert set(match) == {"id", "distance", "path", "label", "metadata"}
            assert os.path.isfile(match["path"])
    assert answers[2]["matches"][0]["path"].endswith("0007.png")
    assert answers[2]["matches"][0]["distance"] == 0
    assert 2 not in [match["id"] for match in answers[1]["matches"]]


def test_the_json_is_what_the_store_answers(collection):
    (answer,) = lines("query", collection.index, "--id", 5, "-r", 64)
    with Store.open(collection.index) as store:
        expected = store.search(store.codes([5]), None, radius=64, exclude=[5])[0]
    assert [(m["distance"], m["id"]) for m in answer["matches"]] == [(m.distance, m.id) for m in expected]
    assert len(expected) == collection.n_images - 1


def test_ten_matches_unless_a_number_or_a_radius_is_given(collection):
    for options, n_matches in ([], 10), (["-k", 3], 3), (["-r", 64], 30), (["-r", 64, "-k", 3], 3):
        (answer,) = lines("query", collection.index, "--id", 1, *options)
        assert len(answer["matches"]) == n_matches


def test_filters_and_radius_narrow_the_answer(collection):
    (everything,) = lines("query", collection.index, "--id", 5, "-r", 64)
    labels = [match["label"] for match in everything["matches"]]
    label = labels[0]
    (by_label,) = lines("query", collection.index, "--id", 5, "-r", 64, "--label", label)
    assert len(by_label["matches"]) == labels.count(label) < len(labels)
    (by_path,) = lines("query", collection.index, "--id", 5, "-k", 99, "--path", f"*/{label}/*")
    assert by_path == by_label
    middle = everything["matches"][9]["distance"]
    (near,) = lines("query", collection.index, "--id", 5, "--radius", middle)
    assert near["matches"] == [match for match in everything["matches"] if match["distance"] <= middle]


def test_several_images_together_are_one_query(collection):
    images = sorted(collection.photos.rglob("*.png"))[:2]
    assert len(lines("query", collection.index, *images)) == 2
    (together,) = lines("query", collection.index, *images, "--together")
    assert together["query"] == f"{images[0]}, {images[1]}"


def test_rerank_orders_by_asymmetric_distance_and_shows_it(collection):
    (answer,) = lines("query", collection.index, collection.cat, "--rerank", "--oversampling", 2, "-k", 4)
    weights = [match["asymmetric_distance"] for match in answer["matches"]]
    assert len(weights) == 4
    assert weights == sorted(weights)
    head, *rows = run("query", collection.index, collection.cat, "--rerank", "-k", 4).stdout.splitlines()
    assert head.split("\t") == ["asymmetric", "distance", "id", "label", "path"]
    assert rows[0].split("\t")[0] == f"{weights[0]:.3f}"
    assert run("query", collection.index, collection.cat, "--rerank", "--label", "unicorn").stdout == f"{head}\n"


def test_what_has_no_logits_is_not_reranked(collection):
    done = run("query", collection.index, "--id", 1, "--rerank")
    assert done.exit_code == 2
    assert "has no logits to re-rank by" in " ".join(done.stderr.split())
    assert "goes with --rerank" in run("query", collection.index, collection.cat, "--oversampling", 3).stderr


def test_several_queries_in_a_pipe_are_told_apart_by_their_headings(collection):
    done = run("query", collection.index, "--id", 1, "--id", 2, "-k", 1)
    assert [line for line in done.stdout.splitlines() if line.startswith("#")] == ["# id 1", "# id 2"]


def test_no_match_is_no_error_and_is_said(collection):
    done = run("query", collection.index, "--id", 3, "--label", "unicorn", "-r", 5)
    assert done.exit_code == 0
    assert done.stdout == "distance\tid\tlabel\tpath\n"
    assert done.stderr == "id 3: no match within distance 5\n"
    assert lines("query", collection.index, "--id", 3, "--label", "unicorn") == [{"query_id": 3, "matches": []}]


def test_contact_sheets_of_a_query(collection, tmp_path):
    html, png = tmp_path / "a.html", tmp_path / "a.png"
    done = run("query", collection.index, collection.cat, "--id", 1, "-k", 4, "--html", html, "--png", png)
    assert done.stderr == f"contact sheet: {html}\ncontact sheet: {png}\n"
    assert html.read_text("utf-8").count("<img ") == 10
    assert Image.open(png).format == "PNG"


# --- duplicates ---


def test_duplicates_name_the_copy_to_keep(collection, tmp_path):
    html = tmp_path / "copies.html"
    done = run("duplicates", collection.index, "--identical", "--html", html)
    assert done.exit_code == 0
    head, keep, drop = [line.split("\t") for line in done.stdout.splitlines()]
    assert head == ["cluster", "kind", "copy", "distance", "id", "path"]
    assert keep[:4] == ["1", "identical", "keep", "0"]
    assert drop[:4] == ["1", "identical", "drop", "0"]
    assert int(keep[4]) < int(drop[4])
    assert "1 copy in 1 cluster\n" in done.stderr
    assert html.read_text("utf-8").count("<img ") == 2
    (cluster,) = lines("duplicates", collection.index, "--identical")
    assert set(cluster) == {"kind", "keep", "drop"}
    assert cluster["keep"] == {"id": int(keep[4]), "path": keep[5]}
    assert cluster["drop"] == [{"id": int(drop[4]), "distance": 0, "path": drop[5]}]


def test_duplicates_within_every_distance_are_one_cluster(collection):
    (cluster,) = lines("duplicates", collection.index, "--radius", 256)
    assert cluster["kind"] == "near"
    assert len(cluster["drop"]) == collection.n_images - 1
    assert f"radius {copy_card().training['radius']}\n" in run("duplicates", collection.index).stderr


# --- info, remove, verify, export, models ---


def test_info(collection):
    done = run("info", collection.index)
    assert done.exit_code == 0
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if not line.startswith(("fitted", "on ")))
    assert facts["images"] == str(collection.n_images)
    assert facts["codes"] == "64 bits"
    assert facts["folders"] == str(collection.photos)
    (info,) = lines("info", collection.index)
    assert info["n_images"] == collection.n_images
    assert info["n_bits"] == 64
    assert info["roots"] == [{"path": str(collection.photos)}]
    assert info["trouble"] is None
    assert set(info["model"]) == {"name", "method", "backbone", "training"}


def test_info_and_verify_of_an_index_without_its_model(mine):
    (mine / "model.safetensors").unlink()
    done = run("info", mine)
    assert done.exit_code == 3
    assert "has lost its model file model.safetensors: copy it back" in done.stderr
    assert "missing" in done.stdout
    done = run("verify", mine, "--json")
    assert done.exit_code == 3
    assert [json.loads(line)["kind"] for line in done.stdout.splitlines()] == ["model"]
    assert done.stderr == f"1 problem in {mine}\n"
    assert run("query", mine, "--id", 1).exit_code == 0


def test_remove_by_id_and_by_filter(mine):
    n_images = lines("info", mine)[0]["n_images"]
    label = lines("query", mine, "--id", 1, "-k", 1)[0]["matches"][0]["label"]
    assert run("remove", mine, "--id", 1, "--id", 2, "--id", 1).stdout == f"2 images removed from {mine}\n"
    would = run("remove", mine, "--label", label, "--dry-run").stdout
    assert would.endswith(f" images would be removed from {mine}\n")
    assert lines("info", mine)[0]["n_images"] == n_images - 2
    (report,) = lines("remove", mine, "--label", label)
    assert report["removed"] == len(report["ids"]) == int(would.split()[0]) > 0
    assert report["dry_run"] is False
    assert lines("info", mine)[0]["n_images"] == n_images - 2 - report["removed"]
    assert label not in run("export", mine, "--format", "csv").stdout.replace(",", " ").split()


def test_verify_of_a_good_index_and_of_a_damaged_one(collection, mine):
    done = run("verify", collection.index)
    assert done.exit_code == 0
    assert done.stdout == ""
    assert done.stderr == f"{collection.index}: {collection.n_images} images, no problem found\n"
    assert lines("verify", collection.index) == []
    model = mine / "model.safetensors"
    body = bytearray(model.read_bytes())
    body[-50] ^= 0xFF
    model.write_bytes(body)
    done = run("verify", mine)
    assert done.exit_code == 3
    assert done.stdout.startswith(f"model: {model}: ")
    (problem,) = run("verify", mine, "--json").stdout.splitlines()
    assert set(json.loads(problem)) == {"kind", "where", "message"}


def test_export_in_every_format(collection, tmp_path):
    done = run("export", collection.index)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["id"] for record in records] == list(range(1, collection.n_images + 1))
    for name in ("a.csv", "a.npz", "a.jsonl"):
        done = run("export", collection.index, "-o", tmp_path / name)
        assert done.exit_code == 0
        assert done.stdout == ""
        assert done.stderr == f"{tmp_path / name}: {collection.n_images} images\n"
    assert (tmp_path / "a.jsonl").read_text("utf-8").splitlines() == [
        json.dumps(r, ensure_ascii=False) for r in records
    ]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text("utf-8"))))
    assert [row["path"] for row in rows] == [record["path"] for record in records]
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["codes"].tobytes().hex() == "".join(record["code"] for record in records)
    label = records[0]["label"]
    only = run("export", collection.index, "--label", label, "--format", "csv").stdout
    assert only.count("\n") - 1 == sum(record["label"] == label for record in records)


def test_models_are_listed():
    done = run("models")
    head, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert head == ["name", "bits", "method", "backbone", "fitted to", "licence", "size"]
    assert "general-128" in [row[0] for row in rows]
    models = lines("models")
    assert [model["name"] for model in models] == [row[0] for row in rows]
    assert set(models[0]) == {"name", "n_bits", "method", "backbone", "licence", "bytes", "training"}
