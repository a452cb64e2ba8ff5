"""What goes wrong is told in one sentence that names the mend, with the exit code that the help promises."""

import contextlib
import shutil
import sqlite3

import pytest
from PIL import Image

from deephash.errors import DeepHashError
from index import Store
from tests.deephash.command_line import lines, make_collection, one_sentence, run


@pytest.fixture(scope="module")
def collection(tmp_path_factory, tiny_file):
    return make_collection(tmp_path_factory.mktemp("errors"), tiny_file)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("query", "{folder}/none.dhx", "--id", 1), "none.dhx does not exist: name an existing index, or create one"),
        (("query", "{photos}", "--id", 1), "{photos} is not an index: it has no catalogue.db"),
        (("info", "{cat}"), "{cat} is a file, and an index is a folder"),
        (("query", "{index}", "{folder}/no.jpg"), "{folder}/no.jpg: does not exist"),
        (("query", "{index}", "{folder}"), "{folder}: is a folder"),
        (("query", "{index}", __file__), "test_cli_errors.py: is not an image"),
        (("query", "{index}", "--id", 999), "{index} has no image 999: it was removed, or never there"),
        (("remove", "{index}", "--id", 1, "--id", 999), "has no image 999"),
        (("remove", "{index}", "--id", 999, "--dry-run"), "has no image 999"),
        (("index", "{folder}/none"), "there is no file or folder {folder}/none: check its spelling"),
        (
            ("index", "{folder}/hollow", "-i", "{folder}/h.dhx"),
            "no images were found under {folder}/hollow: give",
        ),
        (
            ("index", "{photos}", "-i", "{folder}/n.dhx", "--model", "none"),
            "there is no model 'none': give",
        ),
        (("index", "{photos}", "-i", "{folder}/n.dhx", "--bits", 4), "4: use an integer from 8 to 1024"),
        (
            ("index", "{photos}", "-i", "{index}", "--bits", 32),
            "cannot be compared: leave out 32 bits",
        ),
        (("index", "{photos}", "-i", "{index}", "--model", "general-64"), "leave out the model general-64"),
        (
            ("index", "{photos}", "-i", "{folder}/no/n.dhx"),
            "cannot create {folder}/no/n.dhx: the folder",
        ),
        (("index", "{photos}", "-i", "{index}", "--metadata", "no.csv"), "cannot read no.csv: No such file"),
        (("query", "{index}", "--id", 1, "--html", "{folder}/no/a.html"), "no/a.html: its folder does not exist"),
        (("query", "{index}", "--id", 1, "--png", "{folder}"), "cannot write {folder}: is a directory"),
        (("export", "{index}", "-o", "{folder}/no/a.csv"), "cannot write {folder}/no/a.csv: its folder does not exist"),
        (("demo", "-o", "{photos}"), "{photos} exists and is not an earlier demo's: name another folder with --output"),
    ],
)
def test_a_failure_is_one_sentence_and_exit_code_1(collection, arguments, said):
    (collection.folder / "hollow").mkdir(exist_ok=True)
    names = vars(collection)
    done = run(*(str(argument).format(**names) for argument in arguments))
    assert said.format(**names) in one_sentence(done)
    assert done.exit_code == 1
    assert len(lines("query", collection.index, "--id", 1, "-k", 99)[0]["matches"]) == collection.n_images - 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("query", "{index}"), "give an image, --id or --code to search with"),
        (("query", "{index}", "--id", 1, "-k", 0), "'-k'"),
        (("query", "{index}", "--id", "x"), "'--id'"),
        (("query", "{index}", "--id", 1, "--radius", -1), "'--radius'"),
        (("query", "{index}", "--id", 1, "-r", 65), "--radius 65: codes of this index have 64 bits"),
        (("duplicates", "{index}", "-r", 257), "--radius 257: codes of this index have 256 bits"),
        (
            ("query", "{index}", "--code", "zz" * 8),
            "'zzzzzzzzzzzzzzzz': a code of this index",
        ),
        (("query", "{index}", "--code", "ff"), "'ff': a code of this index (64 bits) is 16 hexadecimal digits"),
        (("query", "{index}", "--code", "00" * 8 + "0"), "is 16 hexadecimal digits, as deephash export writes them"),
        (("query", "{index}", "--id", 1, "--where", "year"), "--where 'year': write KEY=VALUE"),
        (("query", "{index}", "--id", 1, "--where", "=1"), "--where '=1': write KEY=VALUE"),
        (("query", "{index}", "--id", 1, "--together"), "--together takes images, not --id or --code"),
        (("duplicates", "{index}", "--identical", "-r", 1), "--identical and --radius or --mirror exclude each other"),
        (("index", "{photos}", "{photos}"), "several folders need --index NAME.dhx"),
        (
            ("index", "{photos}", "--folder-labels", "--metadata", "a.csv"),
            "exclude each other",
        ),
        (("remove", "{index}"), "say what to remove: --id, --path, --label or --where"),
        (("remove", "{index}", "--id", 1, "--label", "cat"), "--id does not go with --path, --label and --where"),
        (("export", "{index}", "-o", "a.txt"), "'txt' is no format: --format takes jsonl, csv, npz"),
        (("export", "{index}", "--format", "npz"), "npz is written to a file: add --output FILE"),
        (("index", "{photos}", "--wait", -1), "'--wait'"),
        (("index",), "FOLDER"),
        (("find",), "find"),
    ],
)
def test_wrong_usage_is_said_with_exit_code_2(collection, arguments, said):
    done = run(*(str(argument).format(**vars(collection)) for argument in arguments))
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "Usage: " in done.stderr
    error = " ".join(done.stderr[done.stderr.index("Error: ") :].split())
    assert said in error


def test_the_widest_radius_is_n_bits(collection):
    assert len(lines("query", collection.index, "--id", 1, "-r", 64)[0]["matches"]) == collection.n_images - 1


def test_an_unknown_id_among_others_removes_nothing(collection):
    run("remove", collection.index, "--id", 1, "--id", 999)
    assert lines("info", collection.index)[0]["n_images"] == collection.n_images


def test_a_second_writer_says_so_and_readers_go_on(collection):
    with Store.open(collection.index, writable=True):
        done = run("remove", collection.index, "--id", 1)
        assert done.exit_code == 1
        assert "writ" in one_sentence(done)
        assert run("query", collection.index, "--id", 1).exit_code == 0
        assert run("remove", collection.index, "--id", 1, "--dry-run").exit_code == 0
    assert lines("info", collection.index)[0]["n_images"] == collection.n_images


def test_a_damaged_and_a_newer_index_are_told_apart(collection, tmp_path):
    damaged = shutil.copytree(collection.index, tmp_path / "damaged.dhx")
    (damaged / "catalogue.db").write_bytes(b"no database" * 100)
    done = run("query", damaged, "--id", 1)
    assert done.exit_code == 1
    assert "damaged.dhx" in one_sentence(done)
    newer = shutil.copytree(collection.index, tmp_path / "newer.dhx")
    with contextlib.closing(sqlite3.connect(newer / "catalogue.db")) as database:
        database.execute("PRAGMA user_version = 99")
    done = run("query", newer, "--id", 1)
    assert done.exit_code == 1
    assert "newer" in one_sentence(done).replace("newer.dhx", "")


def test_names_in_errors_cannot_drive_the_terminal(collection, tmp_path):
    done = run("query", collection.index, tmp_path / "\x1b[31m\nno.jpg")
    assert r"\x1b[31m" in one_sentence(done)
    assert "\x1b" not in done.stderr


def test_no_bytes_are_left_behind_by_a_sheet_that_fails(collection, tmp_path, monkeypatch):
    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    done = run("query", collection.index, "--id", 1, "--png", tmp_path / "a.png")
    assert done.exit_code == 1
    assert one_sentence(done) == f"deephash: cannot write {tmp_path}/a.png: no space left on device"
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(collection):
    with pytest.raises(DeepHashError, match="has no image 999"):
        run("query", collection.index, "--id", 999, DEEPHASH_DEBUG="1")
