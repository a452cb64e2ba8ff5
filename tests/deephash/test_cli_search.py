"""tune, and what info says of the search."""

import shutil

import pytest

import index.choice
import index.live
from tests.deephash.command_line import lines, make_collection, run


@pytest.fixture(scope="module")
def collection(tmp_path_factory, tiny_file):
    return make_collection(tmp_path_factory.mktemp("tune"), tiny_file)


@pytest.fixture
def mine(collection, tmp_path):
    return shutil.copytree(collection.index, tmp_path / "mine.dhx")


@pytest.fixture
def few_are_many(monkeypatch):
    monkeypatch.setattr(index.choice, "_APPROXIMATE_ABOVE", 1)
    monkeypatch.setattr(index.live, "_CACHE_ABOVE", 1)


def test_a_small_index_is_scanned_whatever_is_chosen(mine):
    done = run("tune", mine, "--structure", "ivf", "--structure", "flat")
    assert done.exit_code == 0
    header, row = done.stdout.splitlines()
    assert header.split("\t") == ["structure", "parameters", "recall", "ms/query", "bytes/image", "build_s"]
    assert row.split("\t")[:3] == ["flat", "", "exact"]
    assert "search is flat, exact" in done.stderr
    assert "flat, exact" in run("info", mine).stdout


def test_what_tune_chooses_info_tells(mine, few_are_many):
    (trial,) = lines("tune", mine, "--structure", "ivf", "--recall", 0.9)
    assert trial["structure"] == "ivf"
    assert trial["chosen"]
    assert trial["reaches"]
    assert trial["recall"] >= 0.9
    (info,) = lines("info", mine)
    assert info["search"]["structure"] == "ivf,recall=0.9"
    assert info["search"]["recall"] == trial["recall"]
    assert not info["search"]["exact"]
    assert f"recall {trial['recall']:.4f} of the 10 nearest" in run("info", mine).stdout
    assert " bytes an image)" in run("info", mine).stdout
    assert run("query", mine, "--id", 1).exit_code == 0
    assert run("tune", mine, "-s", "auto").exit_code == 0
    assert lines("info", mine)[0]["search"]["exact"]


def test_a_dry_run_changes_nothing(mine, few_are_many):
    trials = lines("tune", mine, "--structure", "ivf", "--structure", "flat", "--dry-run")
    assert {trial["structure"] for trial in trials} == {"ivf", "flat"}
    assert not any(trial["chosen"] for trial in trials)
    assert lines("info", mine)[0]["search"]["structure"] == "auto"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--structure", "fast"], "'fast' is no structure: use auto, flat, mih, ivf, hnsw, prefix"),
        (["--structure", "ivf,ef=3"], "ivf has no parameter 'ef'"),
        (["--recall", "1.5"], "recall is 1.5"),
    ],
)
def test_a_wrong_wish_is_wrong_usage(mine, words, text):
    done = run("tune", mine, *words)
    assert done.exit_code == 2
    assert text in done.stderr
