"""The runs of the CIFAR-10 benchmark: their files, what they share, and that validation sees no query."""

import json

import numpy as np
import pytest

from benchmarks.cifar10 import __main__ as script
from benchmarks.cifar10 import runs
from benchmarks.cifar10.methods import METHODS
from benchmarks.cifar10.results import add_run, finished, load_results
from benchmarks.cifar10.tuning import validation_positions
from deephash.datasets import PROTOCOLS, LabelledImages, RetrievalSplit, split_cifar10

CONFIG = {"backbone": "tiny", "options": {"eta": 1.0}}


@pytest.fixture(scope="module")
def cifar10():
    """As many images and labels as CIFAR-10 has, of one pixel."""
    targets = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 6_000))
    is_test = np.arange(60_000) >= 50_000
    return LabelledImages(np.zeros((60_000, 1, 1, 3), np.uint8), targets, [], [], is_test)


def test_a_file_has_one_line_for_each_run_in_order(tmp_path):
    for n_bits, seed, value in ((48, 0, 0.1), (12, 1, 0.2), (12, 0, 0.3), (12, 1, 0.4)):
        add_run("cifar10-1", "csq", CONFIG, {"n_bits": n_bits, "seed": seed, "map": value}, tmp_path)
    results = load_results(tmp_path)
    assert [(run["n_bits"], run["seed"], run["map"]) for run in results] == [(12, 0, 0.3), (12, 1, 0.4), (48, 0, 0.1)]
    assert all(run["config"] == CONFIG and run["method"] == "csq" and run["commit"] for run in results)
    assert finished("cifar10-1", "csq", CONFIG, tmp_path) == {(12, 0), (12, 1), (48, 0)}
    lines = (tmp_path / "cifar10-1" / "csq.json").read_text().splitlines()
    assert sum('"n_bits"' in line for line in lines) == 3
    assert "torch" in json.loads("\n".join(lines))["conditions"]["packages"]


def test_a_file_takes_one_configuration(tmp_path):
    add_run("cifar10-1", "csq", CONFIG, {"n_bits": 12, "seed": 0}, tmp_path)
    before = (tmp_path / "cifar10-1" / "csq.json").read_text()
    other = {"backbone": "tiny", "options": {}}
    with pytest.raises(ValueError, match=r"csq.json holds results of another configuration: delete it"):
        add_run("cifar10-1", "csq", other, {"n_bits": 24, "seed": 0}, tmp_path)
    with pytest.raises(ValueError, match="another configuration"):
        finished("cifar10-1", "csq", other, tmp_path)
    path = tmp_path / "cifar10-1" / "csq.json"
    path.write_text(before.replace('"torch": "', '"torch": "0.'))
    with pytest.raises(ValueError, match="made under other conditions"):
        add_run("cifar10-1", "csq", CONFIG, {"n_bits": 24, "seed": 0}, tmp_path)


def test_protocols_with_the_same_training_set_share_their_runs(cifar10, monkeypatch):
    monkeypatch.setattr(script, "finished", lambda protocol, *_: {(12, 1)} if protocol == "cifar10" else set())
    jobs = list(script._missing(cifar10, ["float", "csq", "adsh"], [12], list(PROTOCOLS), [0, 1]))
    asked = [(job.method, job.n_bits, job.seed, *(split.protocol for split in job.splits)) for job in jobs]
    assert asked == [
        ("float", None, 0, "cifar10-1", "cifar10"),
        ("csq", 12, 0, "cifar10-1", "cifar10"),
        ("float", None, 0, "cifar10-2"),
        ("csq", 12, 0, "cifar10-2"),
        ("adsh", 12, 0, "cifar10-2"),
        ("float", None, 0, "cifar10-unseen"),
        ("csq", 12, 0, "cifar10-unseen"),
        # The second seed: the split of cifar10-2 is the same, and one run is finished.
        ("float", None, 1, "cifar10-1", "cifar10"),
        ("csq", 12, 1, "cifar10-1"),
        ("csq", 12, 1, "cifar10-2"),
        ("adsh", 12, 1, "cifar10-2"),
        ("float", None, 1, "cifar10-unseen"),
        ("csq", 12, 1, "cifar10-unseen"),
    ]


def test_one_training_of_a_nested_method_gives_all_its_lengths(cifar10, monkeypatch, tmp_path):
    monkeypatch.setattr(script, "finished", lambda *_: set())
    (job,) = script._missing(cifar10, ["dsdh-nested"], [12, 24], ["cifar10-1", "cifar10-2"], [0])
    assert (job.n_bits, job.lengths) == (48, (12, 24, 32, 48))
    assert [split.protocol for split in job.splits] == ["cifar10-1"]
    # After a kill between two lengths, the training is run again; after the last one, not.
    monkeypatch.setattr(script, "finished", lambda *_: {(12, 0), (24, 0), (32, 0)})
    (again,) = script._missing(cifar10, ["dsdh-nested"], [12], ["cifar10-1"], [0])
    assert again.lengths == job.lengths
    monkeypatch.setattr(script, "finished", lambda *_: {(48, 0)})
    assert not list(script._missing(cifar10, ["dsdh-nested"], [12], ["cifar10-1"], [0]))


def test_validation_images_are_no_query_and_no_test_image(cifar10):
    training, held_out = validation_positions(cifar10)
    assert len(held_out) == 1000
    assert not np.intersect1d(training, held_out).size
    used = np.concatenate([training, held_out])
    assert np.isin(used, split_cifar10(cifar10, "cifar10-1", seed=0).training).all()
    assert not cifar10.is_test[used].any()
    for protocol in PROTOCOLS:
        for seed in range(3):
            assert not np.isin(used, split_cifar10(cifar10, protocol, seed=seed).query).any()


@pytest.mark.parametrize("method", ["float", "trivial", "itq", "sdh", "bihalf", "csq", "dsdh", "adsh", "dsdh-nested"])
def test_each_kind_of_contestant_finds_classes_that_are_apart(monkeypatch, method):
    rng = np.random.default_rng(0)
    targets = np.tile(np.arange(10), 60)
    features = (np.eye(32)[targets] + 0.05 * rng.standard_normal((600, 32))).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    monkeypatch.setattr(runs, "load_features", lambda: features)
    monkeypatch.setattr("benchmarks.cifar10.frame._IMAGES_SEEN", 5_000)
    rest = np.arange(100, 600)
    splits = (
        RetrievalSplit("cifar10-1", np.arange(100), rest[:250], rest),
        RetrievalSplit("cifar10", np.arange(100), rest[:250], rest[250:]),
    )
    lengths = runs.prefixes_of(method) or (None if method == "float" else 16,)
    found = runs.run(runs.Job(method, lengths[-1], 0, splits), targets)
    assert [result["n_bits"] for result in found] == [*lengths, *lengths]
    for result in found:
        assert result["map"] > (0.6 if METHODS[method].group == "Without labels" else 0.95)
        assert result["chance"] == 0.1
        if method != "float":
            assert len(result["precision_by_radius"]) == result["n_bits"] + 1
            assert result["recall_by_radius"][-1] == 1
    assert found[0]["map"] != found[len(lengths)]["map"] or found[0]["map"] == 1
