"""The help: every command explains itself, and every example in it runs."""

import dataclasses
import os
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest

from deephash.cli import app
from deephash.cli_errors import EXIT_INCOMPLETE
from tests.deephash.command_line import make_collection, run
from tests.deephash.photos import ROOT, deephash, sample, write_photo
from tests.deephash.photos import command as process_of

COMMANDS = [command.callback.__name__ for command in app.registered_commands]


def help_of(*words):
    done = run(*words, "--help")
    assert done.exit_code == 0
    return done.stdout


def examples_of(*words):
    """Returns the commands in a help text, without what is said beside them."""
    found = (line.strip() for line in help_of(*words).splitlines() if line.startswith("    deephash "))
    return [re.split(r"\s{3,}", line)[0] for line in found]


EXAMPLES = list(dict.fromkeys([*examples_of(), *(text for name in COMMANDS for text in examples_of(name))]))


@pytest.fixture(scope="module")
def collection(tmp_path_factory, tiny_file):
    return make_collection(tmp_path_factory.mktemp("help"), tiny_file)


@pytest.fixture
def small_demo(monkeypatch):
    """The demo with 40 images and 10 queries, one of each class."""
    whole = sample()
    first = [int(np.flatnonzero(whole.query_labels == label)[0]) for label in range(10)]
    small = dataclasses.replace(
        whole,
        database_images=whole.database_images[:40],
        database_labels=whole.database_labels[:40],
        query_images=whole.query_images[first],
        query_labels=whole.query_labels[first],
    )
    monkeypatch.setattr("deephash.demo.load_cifar10_sample", lambda: small)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples_and_a_first_line_that_fits(command):
    text = help_of(command)
    assert f"    deephash {command}" in text
    assert max(map(len, text.splitlines())) <= 80
    (in_list,) = [line for line in help_of().splitlines() if line.split()[:1] == [command]]
    assert in_list.endswith(".")
    assert "..." not in in_list


def test_the_help_names_the_exit_codes():
    text = " ".join(help_of().split())
    for code in ("0 done", "1 failed", "2 wrong usage", f"{EXIT_INCOMPLETE} done, but", "130 interrupted", "141"):
        assert code in text


APART = ("deephash index", "deephash train", "deephash evaluate", "deephash serve", "deephash apply")


@pytest.mark.parametrize("example", [example for example in EXAMPLES if not example.startswith(APART)])
def test_every_example_runs(collection, small_demo, tmp_path, monkeypatch, example):
    shutil.copytree(collection.index, tmp_path / "photos.dhx")
    for number, name in enumerate(("cat.jpg", "dog.jpg")):
        write_photo(tmp_path / name, 100 + number)
    (tmp_path / "photos" / "best").mkdir(parents=True)
    write_photo(tmp_path / "photos" / "best" / "bird.jpg", 102)
    (tmp_path / "names.txt").write_text("cat.jpg\ndog.jpg\n")
    monkeypatch.chdir(tmp_path)
    command = example.partition("|")[0].replace("/tmp/demo", str(tmp_path / "tmp-demo"))
    done = run(*shlex.split(command)[1:])
    assert done.exit_code == 0, done.output
    for option in ("--html", "-o", "--plan", "--onnx"):
        if option in shlex.split(command):
            name = shlex.split(command)[shlex.split(command).index(option) + 1]
            assert (tmp_path / name).exists()


def test_every_example_of_index_runs(collection, tmp_path, monkeypatch):
    shutil.copytree(collection.photos, tmp_path / "photos")
    write_photo(tmp_path / "more" / "a.png", 90)
    monkeypatch.chdir(tmp_path)
    examples = [example for example in EXAMPLES if example.startswith("deephash index")]
    assert len(examples) == 3
    for example in examples:
        done = run(*shlex.split(example)[1:])
        assert done.exit_code == 0, done.output
    assert "64 bits" in run("info", "all.dhx").stdout
    assert "128 bits" in run("info", "photos.dhx").stdout
    assert run("query", "all.dhx", "photos", "--id", 1).exit_code == 1


def test_every_example_of_apply_runs(tmp_path, tiny_file):
    examples = [example for example in EXAMPLES if example.startswith("deephash apply")]
    assert len(examples) == 4
    for number, example in enumerate(examples):
        made = make_collection(tmp_path / str(number), tiny_file)
        (made.photos / "best").mkdir()
        plan = made.folder / "copies.json"
        assert run("duplicates", made.index, "--identical", "--plan", plan).exit_code == 0
        if "--undo" in example:
            assert run("apply", plan, "--move", made.folder / "dropped").exit_code == 0
        # A process of its own: the trash is found when the package for it is imported.
        home = os.environ | {"HOME": str(made.folder), "XDG_DATA_HOME": str(made.folder / "share")}
        done = deephash(*shlex.split(example)[1:], cwd=made.folder, env=home | {"PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stderr
        here = len([*made.photos.rglob("*.png")])
        there = len([*made.folder.glob("dropped/*/*.png")])
        trashed = len([*made.folder.glob("share/Trash/files/*.png")])
        expected = {"--move": (30, 1, 0), "--trash": (30, 0, 1)}
        assert (here, there, trashed) == next((n for how, n in expected.items() if how in example), (31, 0, 0))


def test_every_example_of_train_and_evaluate_runs_that_needs_no_download(tmp_path, monkeypatch):
    lines = ["path,labels"]
    for number in range(12):
        name = f"by-class/{'abc'[number % 3]}/{number}.png"
        write_photo(tmp_path / name, number)
        lines.append(f"{name},{'abc'[number % 3]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    examples = [example for example in EXAMPLES if example.startswith(APART[1:3]) and "cifar10" not in example]
    assert len(examples) == 6
    for example in examples:
        done = run(*shlex.split(example)[1:])
        assert done.exit_code == 0, done.output
    assert (tmp_path / "mine.safetensors").exists()
    assert (tmp_path / "other.safetensors").exists()
    assert (tmp_path / "curve.csv").exists()


def test_every_example_of_serve_starts_and_stops(collection, tmp_path):
    shutil.copytree(collection.index, tmp_path / "photos.dhx")
    for name in ("incoming", "photos"):
        (tmp_path / name).mkdir()
    examples = [example for example in EXAMPLES if example.startswith("deephash serve")]
    assert len(examples) == 2
    for example in examples:
        words = [*shlex.split(example)[1:], "--port", "0"]  # the last one counts
        process = subprocess.Popen(process_of(*words), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.terminate()
        assert process.wait(timeout=40) == 0


def test_the_demo_in_small_says_everything(small_demo, tmp_path):
    done = run("demo", "-o", tmp_path / "d")
    assert done.exit_code == 0
    assert re.search(r"mAP   0\.\d{3}   \(chance 0\.\d{3}; between", done.stdout)
    assert re.search(r"P@10  0\.\d{3}", done.stdout)
    assert f"contact sheet: {tmp_path}/d/results.html" in done.stdout
    assert "Next, on your own images:" in done.stderr
    follow_up = re.search(r"deephash (query .* --id 1)", done.stderr)[1]
    assert run(*shlex.split(follow_up)).exit_code == 0


def test_version():
    assert re.fullmatch(r"deephash \d+\.\d+\.\d+\n", run("--version").stdout)
