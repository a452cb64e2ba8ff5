import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from deephash.augmentation import Augmentation
from deephash.backbones import DEFAULT_BACKBONE, create_backbone
from deephash.cli_training import _epoch_text
from deephash.model import HashModel, load_model
from deephash.recipes import CIFAR_RESNET, FINE_TUNING
from deephash.samples import load_cifar10_sample
from deephash.training import EpochReport
from tests.deephash.command_line import run as run_here
from tests.deephash.torchrun import start_torchrun, torchrun


def deephash(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "deephash", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )


TRAIN = ["train", "classes", "-o", "m.safetensors", "--loss", "orthohash", "--bits", 16, "--size", 32, "--scratch",
         "--backbone", "test_efficientnet", "--epochs", 2, "--batch-size", 16, "--no-bf16", "--json"]  # fmt: skip


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
    (folder / "one.csv").write_text("path,labels\nclasses/bird/0.png,bird\n")
    (folder / "wrong.csv").write_text("path;labels\nclasses/bird/0.png;bird\n")
    # Of 60 images, the split of seed 0 makes the ninth a query.
    image, _, _ = lines[9].partition(",")
    (folder / "rare.csv").write_text("\n".join([*lines[:9], f"{image},rare", *lines[10:]]) + "\n")
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
    assert set(epochs[0]) == {"epoch", "epochs", "loss", "lr", "seconds", "validation", "best_epoch"}
    assert all(0 < epoch["validation"]["map"] <= 1 for epoch in epochs)
    assert 0 < epochs[0]["seconds"] < epochs[1]["seconds"]
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
    ],
)
def test_errors_are_one_sentence_that_names_the_mend(folder, arguments, code, message):
    run = deephash(*arguments, cwd=folder)
    assert run.returncode == code
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert not (folder / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("dataset", "options", "code", "message"),
    [
        ("classes", ["--patience", 3], 2, "give both"),
        ("one.csv", [], 1, "one.csv has 1 labels in all: retrieval needs two or more"),
        ("wrong.csv", [], 1, "needs the columns path and labels in its first line, which has path;labels"),
        ("rare.csv", [], 1, "no training image is left of class 'rare' (54 training images, 6 queries): add images"),
        ("classes", ["--validation", 0.97], 1, "the validation share is 0.97: hold out another"),
        ("classes", ["--validation", 0.001], 1, "no query shares a label with an image of the database (0 queries, 54"),
    ],
)
def test_data_that_make_no_task_are_refused_before_training(folder, monkeypatch, dataset, options, code, message):
    monkeypatch.chdir(folder)
    done = run_here("train", dataset, "-o", "x.safetensors", "--backbone", "test_efficientnet", "--scratch", *options)
    assert done.exit_code == code
    assert message in " ".join(done.stderr.split())
    assert not list(folder.glob("*x.safetensors*"))


def test_patience_stops_early_and_says_so(folder, monkeypatch):
    monkeypatch.chdir(folder)
    done = run_here(
        "train", "classes", "-o", "p.safetensors", "--bits", 16, "--size", 32, "--scratch", "--backbone",
        "test_efficientnet", "--epochs", 30, "--lr", 0, "--backbone-lr", 0, "--validation", 0.3, "--patience", 1,
        "--log", "p.jsonl",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    epochs = [json.loads(line) for line in (folder / "p.jsonl").read_text().splitlines()]
    best = epochs[-1]["best_epoch"]
    assert epochs[-1]["epoch"] == best + 1 < 30
    assert f"stopped after epoch {best + 1} of 30; the model is that of epoch {best}" in done.stderr


QUICK = ["--bits", 16, "--size", 32, "--epochs", 2, "--batch-size", 16, "--json"]


def facts_of(folder, *arguments):
    """Trains in this process; returns what it said on stderr, and the training facts in the model."""
    done = run_here("train", "classes", "-o", folder / "f.safetensors", *QUICK, *arguments)
    assert done.exit_code == 0, done.output
    return done.stderr, load_model(folder / "f.safetensors").card.training


def test_a_pretrained_backbone_is_fine_tuned_by_the_recipe(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("deephash.inference.has_fast_bf16", lambda device: False)
    said, facts = facts_of(tmp_path)
    config = facts["config"]
    assert "training everything" not in said
    assert (config["frozen_stages"], config["head_epochs"]) == (2, 30)
    assert config["training"]["backbone_lr"] == FINE_TUNING.training.backbone_lr
    assert config["training"]["epochs"] == 2
    assert config["training"]["bf16"] is False
    assert config["augmentation"] == asdict(FINE_TUNING.augmentation)
    assert config["loss_options"] == {"mu": 1e3, "nu": 1e2}
    untouched = create_backbone(DEFAULT_BACKBONE).module.state_dict()
    trained = load_model(tmp_path / "f.safetensors").backbone.state_dict()
    last = "blocks.6.0.conv_pwl.weight"
    assert not torch.equal(trained[last], untouched[last])


def test_the_help_gives_the_defaults_of_the_recipe():
    text = " ".join(run_here("train", "--help").stdout.split())
    for option, default in (
        ("--size", FINE_TUNING.image_size),
        ("--frozen-stages", FINE_TUNING.frozen_stages),
        ("--head-epochs", FINE_TUNING.head_epochs),
        ("--epochs", FINE_TUNING.training.epochs),
        ("--batch-size", FINE_TUNING.training.batch_size),
        ("--lr", FINE_TUNING.training.lr),
        ("--backbone-lr", FINE_TUNING.training.backbone_lr),
    ):
        (told,) = re.findall(rf" {option} [A-Z]+ [^\[]*\[default: (\S+)\]", text)
        assert float(told) == default, option


def test_options_override_the_recipe(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    _, facts = facts_of(
        tmp_path, "--frozen-stages", 4, "--head-epochs", 1, "--lr", 1e-3, "--bf16", "--loss-option", "mu=10",
        "--loss-option", "discrete=false",
    )  # fmt: skip
    config = facts["config"]
    assert (config["frozen_stages"], config["head_epochs"]) == (4, 1)
    assert (config["training"]["lr"], config["training"]["bf16"]) == (1e-3, True)
    assert config["loss_options"] == {"mu": 10.0, "nu": 100.0, "discrete": False}


def test_stages_that_the_backbone_lacks_are_an_error_if_asked_for_and_else_a_note(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    done = run_here("train", "classes", "-o", tmp_path / "x.safetensors", *QUICK, "--frozen-stages", 90)
    assert done.exit_code == 1
    assert "frozen_stages is 90, but the backbone has" in done.stderr
    monkeypatch.setattr("deephash.recipes.FINE_TUNING", replace(FINE_TUNING, frozen_stages=90))
    said, facts = facts_of(tmp_path, "--epochs", 1)
    assert said.startswith("training everything: frozen_stages is 90, but the backbone has")
    assert facts["config"]["frozen_stages"] is None
    assert facts["config"]["head_epochs"] == 30


def test_cifar_resnet_from_scratch_has_its_own_recipe(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    said, facts = facts_of(tmp_path, "--scratch", "--backbone", "cifar_resnet")
    config = facts["config"]
    assert "training everything" not in said
    assert config["training"]["optimizer"] == "muon"
    assert config["hash_layer_scale"] == CIFAR_RESNET.hash_layer_scale
    # The files are not as small as the network sees: they cannot be shifted by its pixels.
    assert config["augmentation"] == asdict(Augmentation())
    assert config["loss_options"]["eta"] == pytest.approx(0.03 * 54)


def test_one_nested_model_is_judged_at_every_length(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    command = ["train", "classes", "-o", tmp_path / "n.safetensors", *QUICK, "--scratch", "--backbone",
               "test_efficientnet", "--nested", "8,12"]  # fmt: skip
    done = run_here(*command)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["quality"]["n_bits"], {n: q["n_bits"] for n, q in told["nested"].items()}) == (16, {"8": 8, "12": 12})
    facts = load_model(tmp_path / "n.safetensors").card.training
    assert facts["config"]["nested"] == [8, 12]
    assert facts["map_of_first_bits"] == {n: round(q["map"], 4) for n, q in told["nested"].items()}
    text = run_here(*(word for word in command if word != "--json")).stdout
    told_lines = re.findall(r"^  (\d+) bits +(0\.\d{4})$", text.partition("mAP of the first bits:")[2], re.MULTILINE)
    assert told_lines == [(n, f"{q['map']:.4f}") for n, q in told["nested"].items()]
    for n_bits, quality in told["nested"].items():
        judged = run_here("evaluate", tmp_path / "n.safetensors", "classes", "--bits", n_bits, "--json")
        found = json.loads(judged.stdout)["quality"]
        assert found["n_bits"] == int(n_bits)
        assert found["map"] == pytest.approx(quality["map"], abs=0.02)


def test_the_same_command_goes_on_and_another_is_refused(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    command = ["train", "classes", "-o", tmp_path / "r.safetensors", *QUICK, "--scratch", "--backbone",
               "test_efficientnet", "--loss", "greedyhash"]  # fmt: skip
    save = HashModel.save

    def full_disk(model, path):
        raise OSError(28, "no space left")

    monkeypatch.setattr(HashModel, "save", full_disk)
    assert run_here(*command).exit_code == 1
    assert (tmp_path / ".r.safetensors.checkpoint").exists()
    monkeypatch.setattr(HashModel, "save", save)
    for options, message in (
        (["--loss-option", "weight=0.5"], "loss_options was {}, is {'weight': 0.5}"),
        (["--nested", "8"], "nested was [], is [8]"),
    ):
        other = run_here(*command, *options)
        assert other.exit_code == 1
        assert message in other.stderr
    done = run_here(*command)
    assert done.exit_code == 0, done.output
    assert "going on from" in done.stderr
    assert not (tmp_path / ".r.safetensors.checkpoint").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--loss-option", "my=1"], "write NAME=VALUE; dsdh has mu, nu, eta, update, discrete"),
        (["--loss-option", "mu"], "--loss-option 'mu': write NAME=VALUE"),
        (["--loss-option", "mu=much"], "mu is a number, such as 1.0"),
        (["--loss-option", "discrete=1"], "discrete is true or false"),
        (["--scratch", "--frozen-stages", 2], "--scratch trains everything"),
        (["--scratch", "--head-epochs", 2], "--scratch trains everything"),
        (["--nested", "12,x"], "--nested 'x': write whole numbers from 1"),
        (["--nested", "24,12"], "--nested: the nested lengths are 24, 12: they must ascend, below 48 bits"),
        (["--nested", "12,48"], "must ascend, below 48 bits"),
        (["--nested", "4,12"], "--nested: n_bits is 4: use an integer from 8 to 1024"),
        (["--nested", "12", "--loss", "adsh"], "--nested: adsh has codes of its own for the database"),
        (["--bits", 2000], "--bits: n_bits is 2000: use an integer from 8 to 1024"),
    ],
)
def test_options_that_do_not_fit_are_refused(folder, monkeypatch, options, message):
    monkeypatch.chdir(folder)
    done = run_here("train", "classes", "-o", "x.safetensors", *options)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("│", "").split())


def test_an_epoch_is_told_with_its_loss_validation_and_time_left():
    report = EpochReport(epoch=3, epochs=20, loss=1.25, lr=1e-3, seconds=30.0, validation={"map": 0.75})
    assert _epoch_text(report, 10.0) == "epoch 3 of 20: loss 1.2500, validation map 0.7500, 3 min left"
    assert _epoch_text(report, 1.0).endswith(", 17 s left")
    assert _epoch_text(report, 700.0).endswith(", 3 h 18 min left")
    last = EpochReport(epoch=20, epochs=20, loss=1.25, lr=1e-3, seconds=30.0)
    assert _epoch_text(last, 10.0) == "epoch 20 of 20: loss 1.2500"


def test_two_processes_train_the_model_that_one_does(folder, trained):
    command = ["-m", "deephash", *TRAIN, "-o", "two.safetensors", "--log-file", "two.jsonl", "--validation", 0.2]
    done = torchrun(2, *command, cwd=folder)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["quality"]["map"] == pytest.approx(trained["quality"]["map"], abs=0.02)
    one, two = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()] for name in ("log.jsonl", "two.jsonl")
    )
    assert [epoch["epoch"] for epoch in two] == [1, 2]
    assert [epoch["loss"] for epoch in two] == pytest.approx([epoch["loss"] for epoch in one], rel=1e-5)
    of_one, of_two = (load_file(folder / name) for name in ("m.safetensors", "two.safetensors"))
    assert of_one.keys() == of_two.keys()
    for name, tensor in of_one.items():
        # Biases before a batch norm have a gradient of rounding errors, of which AdamW makes steps of full size.
        assert torch.allclose(tensor.float(), of_two[name].float(), atol=2e-3 if "backbone" in name else 1e-5), name
    assert not list(folder.glob(".*.checkpoint"))


def test_of_two_processes_one_tells_the_error(folder):
    done = torchrun(2, "-m", "deephash", "train", "rare.csv", "-o", "x.safetensors", cwd=folder)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("deephash: no training image is left of class 'rare'") == 1
    assert "AnotherProcessFailed" not in done.stderr


def test_ctrl_c_ends_two_processes_with_one_word_and_keeps_the_epochs(folder):
    checkpoint = folder / ".c.safetensors.checkpoint"
    many = ["--epochs", 100_000, "-o", "c.safetensors"]
    with start_torchrun(2, "-m", "deephash", *TRAIN, *many, cwd=folder) as process:
        end = time.monotonic() + 300
        while not checkpoint.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=100)
    assert process.returncode != 0
    assert stdout == ""
    assert stderr.count("interrupted: the epochs done are kept; the same command goes on") == 1, stderr
    assert stderr.count("interrupted") == 1
    assert checkpoint.exists()
    assert not (folder / "c.safetensors").exists()
