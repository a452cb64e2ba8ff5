"""The benchmark of search: a small run from end to end, recall that counts ties, tables and plots of its numbers."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.search.data import DATA, N_QUERIES, make
from benchmarks.search.drawing import draw_search
from benchmarks.search.markdown import cost_table, ratio_table, table, wanted
from benchmarks.search.measuring import CONTESTANTS, Budget, measure, recall, true_distances
from benchmarks.search.results import file_of, load_results, took_part, write
from index import hamming_distances

NO_TIME = Budget(rounds=1, single_seconds=0.0, batch_seconds=0.01, openings=1)


def row(contestant, recall=1.0, ms=1.0, **setting):
    exact = contestant in ("ours-flat", "ours-mih", "faiss-flat", "numpy")
    return {
        "contestant": contestant, "setting": setting, "exact": exact, "recall": recall, "build_seconds": 2.0,
        "memory_bytes": 3000, "file_bytes": 1000, "versions": {}, "open_seconds": 0.004, "first_query_seconds": 0.001,
        "single_ms": {"1": ms, "2": ms / 2}, "batch_ms": {"1": ms / 4, "2": ms / 8},
    }  # fmt: skip


def result(data, rows, n=100, n_bits=64):
    return {"config": {"data": data, "n": n, "n_bits": n_bits, "threads": 2}, "rows": rows, "left_out": {}}


ROWS = [
    row("ours-mih", ms=0.5), row("faiss-flat", ms=0.8, use_heap=True), row("faiss-flat", ms=0.4, use_heap=False),
    row("ours-ivf", 0.9, 0.01, slack=0), row("ours-ivf", 0.96, 0.02, slack=1), row("ours-ivf", 0.99, 0.03, slack=2),
    row("faiss-hnsw", 0.7, 0.01, efSearch=16),
]  # fmt: skip


@pytest.fixture
def codes():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (500, 8), dtype=np.uint8), rng.integers(0, 256, (20, 8), dtype=np.uint8)


def test_recall_counts_ties_and_neither_repeats_nor_gaps(codes):
    database, queries = codes
    database = np.concatenate([database, database])
    k = 4
    distances = hamming_distances(queries, database)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :k]
    truth = true_distances(database, queries, k)
    assert np.array_equal(truth, np.sort(distances, axis=1)[:, :k])
    assert recall(nearest, database, queries, truth) == 1
    # The other copy of each is as near.
    assert recall((nearest + 500) % 1000, database, queries, truth) == 1
    assert recall(np.repeat(nearest[:, :1], k, axis=1), database, queries, truth) == 1 / k
    assert recall(np.where(np.arange(k) < 3, nearest, -1), database, queries, truth) == 3 / k
    furthest = np.argsort(-distances, axis=1)[:, :k]
    assert recall(furthest, database, queries, truth) == 0


@pytest.mark.parametrize("kind", [kind for kind in DATA if kind != "cifar10"])
def test_codes_are_the_same_every_time_and_queries_are_held_out(kind):
    codes, queries = make(kind, 5000, 128, None)
    assert (codes.shape, queries.shape, codes.dtype) == ((5000, 16), (N_QUERIES, 16), np.uint8)
    again = make(kind, 5000, 128, None)
    assert np.array_equal(codes, again[0])
    assert np.array_equal(queries, again[1])
    nearest = true_distances(codes, queries, 1).mean()
    assert {"random": 35, "clustered": 5, "clustered-10": 13}[kind] < nearest < {"random": 45}.get(kind, 20)


def test_codes_of_cifar10_say_what_they_need():
    with pytest.raises(ValueError, match="need --cifar10 DIR"):
        make("cifar10", 1000, 64, None)


def test_all_contestants_that_are_installed_run_and_exact_ones_agree(tmp_path, codes):
    names = [
        name
        for name, entry in CONTESTANTS.items()
        if entry.from_bits <= 64 and not name.startswith(("lancedb", "milvus", "usearch"))
    ]
    codes, queries = make("clustered", 3000, 64, None)
    measured = measure(
        [*names, "milvus-lite"], codes, queries, k=10, folder=tmp_path, budget=NO_TIME, python={}, say=lambda text: None
    )
    assert "not installed" in measured["left_out"].get("milvus-lite", "not installed")
    rows = measured["rows"]
    assert {row["contestant"] for row in rows} - {"milvus-lite"} == set(names)
    for one in rows:
        assert one["recall"] == 1 or not one["exact"]
        assert one["recall"] > 0.3
        assert min(*one["single_ms"].values(), *one["batch_ms"].values(), one["build_seconds"]) > 0
        assert one["file_bytes"] >= codes.nbytes
    # A graph that several threads build may lose a whole cluster.
    best = {one["contestant"]: one["recall"] for one in rows if not one["contestant"].endswith("-hnsw")}
    assert min(best.values()) > 0.9


@pytest.mark.parametrize("n_bits", [64, 128])
def test_prefixes_take_part_where_codes_are_longer_than_one(tmp_path, n_bits):
    codes, queries = make("clustered", 3000, n_bits, None)
    measured = measure(
        ["ours-prefix"], codes, queries, k=10, folder=tmp_path, budget=NO_TIME, python={}, say=lambda text: None
    )
    assert measured["left_out"] == ({"ours-prefix": "not below 128 bits"} if n_bits == 64 else {})
    assert max((one["recall"] for one in measured["rows"]), default=0) == (0 if n_bits == 64 else 1)


def test_a_contestant_that_is_not_exact_as_it_says_ends_the_run(tmp_path, monkeypatch):
    codes, queries = make("random", 2000, 64, None)
    monkeypatch.setattr("benchmarks.search.measuring.true_distances", lambda *_: np.zeros((1000, 10), np.int32))
    with pytest.raises(RuntimeError, match=r"ours-flat \{\} is not exact"):
        measure(["ours-flat"], codes, queries, k=10, folder=tmp_path, budget=NO_TIME, python={}, say=lambda text: None)


def test_the_quick_run_writes_what_tables_and_plots_read(tmp_path):
    command = [sys.executable, "-m", "benchmarks.search", "--quick", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "| ours, multi-index hashing |" in done.stdout
    path = file_of("clustered", 100_000, 64, tmp_path)
    written = json.loads(path.read_text())
    assert written["conditions"]["processor"]
    assert len(path.read_text().splitlines()) == len(written["rows"]) + 7
    assert {"ours, scan", "NumPy"} <= {line.split(" |")[0][2:] for line in table([written], 100_000, 64).splitlines()}
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "there already" in again.stdout


def test_table_has_the_fastest_setting_of_enough_recall_and_the_best_in_bold():
    rows = [row["setting"] for row in wanted(ROWS, exact=False)]
    assert rows == [{"slack": 1}, {"efSearch": 16}]
    lines = table([result("clustered", ROWS), result("random", ROWS[:1])], 100, 64).splitlines()
    assert lines[0] == "| 100 codes, 64 bits: ms a query, single / batch | random | clustered, 5 % flips |"
    assert "| faiss IndexBinaryFlat, counting |  | **0.400** / 0.100 |" in lines
    assert "| ours, multi-index hashing | **0.500** / 0.125 | 0.500 / 0.125 |" in lines
    assert "| ours, lists |  | **0.0200** / 0.0050 (0.960) |" in lines
    assert "| faiss IndexBinaryHNSW |  | under: 0.70 |" in lines
    assert table([result("random", ROWS)], 100, 128) == ""


def test_ratios_compare_at_equal_recall():
    rows = [*ROWS, row("faiss-hnsw", 0.97, 0.04, efSearch=32), row("faiss-ivf", 0.95, 0.01, nprobe=1)]
    lines = ratio_table([result("random", ROWS[:2]), result("clustered", rows)]).splitlines()
    assert lines[2] == (
        "| 100 codes, 64 bits, clustered, 5 % flips | 0.8 (faiss IndexBinaryFlat) | 0.8 (faiss IndexBinaryFlat) "
        "| 0.5 (faiss IndexBinaryIVF at 0.950) | 0.5 (faiss IndexBinaryIVF at 0.950) |"
    )
    assert (
        lines[3] == "| 100 codes, 64 bits, random | 1.6 (faiss IndexBinaryFlat) | 1.6 (faiss IndexBinaryFlat) |  |  |"
    )


def test_costs_stand_once_for_each_contestant():
    lines = cost_table([result("clustered", ROWS)], 100, 64).splitlines()
    assert lines[0].startswith("| 100 codes of 8 bytes, clustered, 5 % flips | build |")
    assert lines[2:] == [
        f"| {CONTESTANTS[name].label} | 2.0 s | 30 | 10 | 4.0 ms | 1.0 ms |"
        for name in ("ours-mih", "faiss-flat", "ours-ivf", "faiss-hnsw")
    ]
    assert cost_table([], 100, 64) == ""


def test_plot_has_a_line_for_each_contestant_and_a_point_for_each_setting():
    figure = draw_search([result("clustered", ROWS), result("random", ROWS)], 100, 64)
    assert [panel.get_title() for panel in figure.axes] == ["random", "clustered, 5 % flips"]
    points = sorted(len(line.get_xdata()) for line in figure.axes[1].get_lines())
    assert points == [1, 1, 1, 3]
    lines = [line.get_xydata().tolist() for line in figure.axes[1].get_lines()]
    assert [[pytest.approx(0.1), 0.01], [pytest.approx(0.04), 0.02], [pytest.approx(0.01), 0.03]] in lines
    assert [[1e-4, 0.4]] in lines
    assert len(figure.legends[0].get_texts()) == 4


def test_results_are_kept_by_size_length_and_kind(tmp_path):
    for data, n in (("random", 200), ("clustered", 100)):
        write(file_of(data, n, 64, tmp_path), {"data": data, "n": n, "n_bits": 64}, {"rows": ROWS, "left_out": {}})
    assert [one["config"]["n"] for one in load_results(tmp_path)] == [100, 200]
    assert load_results(tmp_path)[0]["rows"] == ROWS
    path = file_of("random", 200, 64, tmp_path)
    assert took_part(path) == {"ours-mih", "ours-ivf", "faiss-flat", "faiss-hnsw"}
    write(path, {"data": "random", "n": 200, "n_bits": 64}, {"rows": [], "left_out": {"numpy": "not installed"}})
    assert took_part(path) == {"numpy"}
    assert took_part(tmp_path / "none.json") == set()
