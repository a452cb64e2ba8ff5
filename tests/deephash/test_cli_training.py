import json
import subprocess
import sys

import pytest
from PIL import Image

from deephash.samples import load_cifar10_sample


def deephash(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "deephash", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )


TRAIN = ["train", "classes", "-o", "m.safetensors", "--loss", "orthohash", "--bits", 16, "--size", 32, "--scratch",
         "--backbone", "test_efficientnet", "--epochs", 2, "--json"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with classes/, 20 pictures of each of 3 classes of CIFAR-10, and a CSV that names them."""
    folder = tmp_path_factory.mktemp("training")
    sample = load_cifar10_sample()
    lines = ["path,labels"]
    for label in range(3):
        name = str(sample.class_names[label])
        (folder / "classes" / name).mkdir(parents=True)
        for i, pixels in enumerate(sample.database_images[sample.database_labels == label][:20]):
            Image.fromarray(pixels).save(folder / "classes" / name / f"{i}.png")
            lines.append(f"classes/{name}/{i}.png,{name}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    run = deephash(*TRAIN, "--log", "log.jsonl", "--validation", 0.2, cwd=folder)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_train_writes_a_model_a_log_and_its_quality(folder, trained):
    assert trained["quality"]["n_queries"] == 6
    assert trained["quality"]["n_database"] == 54
    epochs = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert all(0 < epoch["validation"]["map"] <= 1 for epoch in epochs)
    assert (folder / "m.safetensors").stat().st_size > 10_000
    assert not list(folder.glob(".*.checkpoint"))


@pytest.mark.parametrize("dataset", ["classes", "labels.csv"])
def test_evaluate_agrees_with_what_train_said(folder, trained, dataset):
    run = deephash("evaluate", "m.safetensors", dataset, "--json", cwd=folder)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)["quality"]
    assert found["n_queries"] == 6
    if dataset == "classes":  # the CSV lists the images in another order, and is split otherwise
        assert found["map"] == pytest.approx(trained["quality"]["map"], abs=0.02)


def test_a_trained_model_indexes_a_folder(folder, trained):
    run = deephash("index", "classes", "--index", "c.dhx", "--model", "m.safetensors", "--json", cwd=folder)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["n_images"] == 60


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "classes", "-o", "x.safetensors", "--loss", "dhsd"], 2, "dsdh"),
        (["train", "nothing", "-o", "x.safetensors"], 2, "does not exist"),
        (["train", "classes", "-o", "no/x.safetensors"], 2, "the folder does not exist"),
        (["train", "cifar10", "-o", "x.safetensors"], 1, "cifar-10-batches-py"),
        (["evaluate", "no-model", "classes"], 1, "general-128"),
    ],
)
def test_errors_are_one_sentence_that_names_the_mend(folder, arguments, code, message):
    run = deephash(*arguments, cwd=folder)
    assert run.returncode == code
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert not (folder / "x.safetensors").exists()
