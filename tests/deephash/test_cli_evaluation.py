import csv
import json

import numpy as np
import pytest

from deephash.cli_evaluation import print_quality
from deephash.evaluation import evaluate_codes
from index import pack_bits
from tests.deephash.command_line import run
from tests.deephash.photos import write_photo


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 pictures of two labels each in labels.csv, and by-class/ with the first ten of them."""
    folder = tmp_path_factory.mktemp("evaluation")
    lines = ["path,labels"]
    for number in range(40):
        name = f"by-class/{'ab'[number % 2]}/{number}.png" if number < 10 else f"more/{number}.png"
        write_photo(folder / name, number)
        lines.append(f"{name},{'ab'[number % 2]};{'cde'[number % 3]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def evaluate(folder, tiny_file, monkeypatch):
    monkeypatch.chdir(folder)
    return lambda *arguments: run("evaluate", tiny_file, *arguments)


def test_several_labels_have_graded_metrics_at_every_k(evaluate):
    done = evaluate("labels.csv", "--k", "3,5", "--k", "7", "--radius", "0", "--radius", "4,9")
    assert done.exit_code == 0, done.output
    names = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    at = [f"{name}@{k}" for k in (3, 5, 7) for name in ("mAP", "P", "R", "NDCG", "ACG", "WAP")]
    assert names == ["mAP", "chance", "WAP", *at, "P@H≤0", "P@H≤4", "P@H≤9"]


def test_json_says_what_the_text_does_and_more(evaluate):
    arguments = ["labels.csv", "--k", "5", "--legacy", "hashnet"]
    said, done = evaluate(*arguments).stdout, evaluate(*arguments, "--json")
    quality = json.loads(done.stdout)["quality"]
    rows = [line.split() for line in said.splitlines() if line.startswith("  ")]
    first = {}
    for name, value, *_ in rows:
        first.setdefault(name, float(value))
    assert first["mAP"] == pytest.approx(quality["map"], abs=1e-4)
    assert first["mAP@5"] == pytest.approx(quality["map_at"]["5"], abs=1e-4)
    assert first["R@5"] == pytest.approx(quality["recall_at"]["5"], abs=1e-4)
    assert first["NDCG@5"] == pytest.approx(quality["ndcg_at"]["5"], abs=1e-4)
    assert first["P@H≤2"] == pytest.approx(quality["precision_within"]["2"], abs=1e-4)
    legacy = [float(value) for name, value, *remark in rows if remark[-1:] == ["hashnet"]]
    assert legacy == pytest.approx([quality["legacy_map"], quality["legacy_map_at"]["5"]], abs=1e-4)
    assert len(quality["pr_by_radius"]) == quality["n_bits"] + 1
    assert len(quality["health"]["bit_means"]) == quality["n_bits"]


def test_the_curve_is_that_of_the_report(evaluate, tmp_path):
    done = evaluate("by-class", "--curve", tmp_path / "c.csv", "--json")
    assert done.exit_code == 0, done.output
    with (tmp_path / "c.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == json.loads(done.stdout)["quality"]["pr_by_radius"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["by-class", "--k", "5,x"], 2, "--k 'x': write whole numbers from 1"),
        (["by-class", "--k", "0"], 2, "--k '0'"),
        (["by-class", "--radius", "-1"], 2, "--radius '-1'"),
        (["by-class", "--radius", "2000"], 2, "--radius 2000: no two codes of"),
        (["by-class", "--legacy", "x"], 2, "choose one of deephash-pytorch, hashnet"),
        (["by-class", "--curve", "c.pdf"], 2, "neither .png nor .csv"),
        (["nothing"], 2, "does not exist"),
        (["by-class", "--bits", "2000"], 2, "--bits: n_bits is 2000"),
        (["by-class", "--bits", "7"], 2, "--bits: n_bits is 7: use an integer from 8"),
        (["by-class", "--bits", "8", "--radius", "9"], 2, "--radius 9: no two codes of 8 bits"),
    ],
)
def test_wrong_options_are_refused(evaluate, arguments, code, message):
    done = evaluate(*arguments)
    assert done.exit_code == code
    assert message in " ".join(done.stderr.replace("│", "").split())


def test_an_unknown_model_names_the_known(folder, monkeypatch):
    monkeypatch.chdir(folder)
    done = run("evaluate", "no-model", "by-class")
    assert done.exit_code == 1
    assert "general-128" in done.stderr


def quality_of(bits, labels, query_labels=None):
    bits, labels = np.array(bits, bool), np.array(labels)
    queries = labels if query_labels is None else np.array(query_labels)
    codes = pack_bits(bits)
    return evaluate_codes(codes, codes, n_bits=bits.shape[1], query_labels=queries, database_labels=labels, ks=(1,))


def test_rare_facts_are_told_only_when_they_matter(capsys):
    far = [[0] * 8, [0] * 8, [1] * 8, [1] * 8]
    print_quality(quality_of(far, [0, 0, 1, 1]), "p")
    calm = capsys.readouterr().out
    assert calm.splitlines() == [
        "p: 4 queries against 4 images, 8 bits",
        "  mAP     1.0000",
        "  chance  0.5000",
        "  mAP@1   1.0000",
        "  P@1     1.0000",
        "  R@1     0.5000",
        "  P@H≤2   1.0000",
        "codes: 2 distinct, 50.0% of the images share the most frequent",
        "bits: |share of ones - 0.5| is 0.000 on average, 0.000 at worst; |correlation| 1.000, 1.000",
    ]
    print_quality(quality_of([[0] * 8, [0] * 8, [0] * 8, [0, *[1] * 7]], [0, 0, 1, 1], [0, 0, 1, 2]), "p")
    told = capsys.readouterr().out
    assert "by the order of ties" in told
    assert "1 bit has the same value in all codes" in told
    assert "1 query has no relevant image, and no part in the means" in told
