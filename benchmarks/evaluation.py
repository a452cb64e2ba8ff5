"""How long an evaluation takes, beside the loop that published deep hashing code uses.

    python -m benchmarks.evaluation

The loop multiplies codes as -1 and +1 in float32, sorts the database for every query and computes mAP alone. It is run
on a sample of the queries and scaled: every query costs it the same. `evaluate_codes` is run on all queries and
computes everything it reports. They take turns; medians count. Both may use every core (NumPy's BLAS reads
OMP_NUM_THREADS, which is recorded; on a busy machine the loop is faster with 1). Seconds are wall time; CPU seconds
stand beside them because other programs lengthen them less. Memory is the peak of all NumPy arrays, inputs apart, in
a run of its own. Raw numbers: ``results/evaluation.json``.

Codes: `random` are uniform bits, the worst case: no two are equal. `trained` stand for the codes of a good model: one
centre for each class, 5 % of the bits flipped. `multi-label` are random codes with 20 labels, each present in 10 % of
the images; the report then has the graded metrics, too.
"""

import argparse
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import write_result
from deephash.evaluation import RetrievalReport, evaluate_codes
from index import pack_bits, unpack_bits

_CLASSES = 10
_Bytes = NDArray[np.uint8]


class Case(NamedTuple):
    """Codes and labels of queries and database."""

    name: str
    n_bits: int
    queries: _Bytes
    database: _Bytes
    query_labels: NDArray[Any]
    database_labels: NDArray[Any]


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--database", type=int, default=50_000)
    parser.add_argument("--sample", type=int, default=300, help="queries for the loop")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    numbers = []
    for case in make_cases(options.queries, options.database, options.seed):
        numbers.append(measure(case, options.sample, options.rounds))
        print(numbers[-1])
    config = vars(options) | {"blas_threads": os.environ.get("OMP_NUM_THREADS", "default"), "load": os.getloadavg()[0]}
    path = write_result("evaluation", config=config, numbers=numbers)
    print(f"\n{table(numbers)}\n\nraw numbers: {path}")


def make_cases(n_queries: int, n_database: int, seed: int) -> list[Case]:
    """Returns the sets of codes that are measured."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, _CLASSES, n_queries), rng.integers(0, _CLASSES, n_database)
    multi_hot = rng.random((n_queries, 20)) < 0.1, rng.random((n_database, 20)) < 0.1

    def uniform(n: int, n_bits: int) -> _Bytes:
        return pack_bits(rng.integers(0, 2, (n, n_bits), dtype=np.uint8))

    def trained(labels: NDArray[np.int64], centres: NDArray[np.bool_]) -> _Bytes:
        return pack_bits(centres[labels] ^ (rng.random((len(labels), centres.shape[1])) < 0.05))

    cases = [Case("random", 48, uniform(n_queries, 48), uniform(n_database, 48), *classes)]
    for n_bits in (48, 12):
        centres = rng.random((_CLASSES, n_bits)) < 0.5
        cases.append(Case("trained", n_bits, trained(classes[0], centres), trained(classes[1], centres), *classes))
    cases.append(Case("multi-label", 48, uniform(n_queries, 48), uniform(n_database, 48), *multi_hot))
    return cases


def measure(case: Case, sample: int, rounds: int) -> dict[str, Any]:
    """Returns the seconds of both, the memory of ours, and what both found.

    Raises:
        RuntimeError: the loop's mAP lies outside the bounds that ties allow.
    """
    loop, loop_map = _loop(case, sample)

    def ours(n_queries: int = len(case.queries)) -> RetrievalReport:
        return evaluate_codes(
            case.queries[:n_queries],
            case.database,
            n_bits=case.n_bits,
            query_labels=case.query_labels[:n_queries],
            database_labels=case.database_labels,
        )

    report = ours(sample)
    if not report.map_pessimistic - 1e-5 <= loop_map <= report.map_optimistic + 1e-5:
        raise RuntimeError(f"the loop found {loop_map}, outside {report.map_pessimistic} ... {report.map_optimistic}")
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "loop": []}
    for _ in range(rounds):
        times["ours"].append(_timed(ours))
        seconds, cpu_seconds = _timed(loop)
        scale = len(case.queries) / sample
        times["loop"].append((seconds * scale, cpu_seconds * scale))
    result: dict[str, Any] = {
        "codes": case.name,
        "n_bits": case.n_bits,
        "queries": len(case.queries),
        "database": len(case.database),
        "distinct_database_codes": report.health.distinct_codes if report.health else None,
    }
    for name, pairs in times.items():
        result[f"{name}_seconds"] = round(statistics.median(wall for wall, _ in pairs), 3)
        result[f"{name}_cpu_seconds"] = round(statistics.median(cpu for _, cpu in pairs), 3)
    result["ratio"] = round(statistics.median(b[0] / a[0] for a, b in zip(*times.values(), strict=True)), 1)
    result["cpu_ratio"] = round(statistics.median(b[1] / a[1] for a, b in zip(*times.values(), strict=True)), 1)
    result["peak_mib"] = round(_peak_mib(ours), 1)
    result["peak_mib_of_a_quarter_of_the_queries"] = round(_peak_mib(lambda: ours(len(case.queries) // 4)), 1)
    result |= {"map_of_sample": report.map, "loop_map_of_sample": loop_map}
    return result


def table(numbers: list[dict[str, Any]]) -> str:
    """Returns the numbers as a Markdown table."""
    first = numbers[0]
    lines = [
        f"| {first['queries']:,} queries, database of {first['database']:,} | `evaluate_codes`, all metrics "
        "| the usual loop, mAP alone | times as fast | in CPU time | memory |",
        "|---|---|---|---|---|---|",
    ]
    for row in numbers:
        lines.append(
            f"| {row['codes']} codes, {row['n_bits']} bits | {row['ours_seconds']:.2f} s | {row['loop_seconds']:.1f} s "
            f"| {row['ratio']:.0f} | {row['cpu_ratio']:.0f} | {row['peak_mib']:.0f} MiB |"
        )
    return "\n".join(lines)


def _loop(case: Case, sample: int) -> tuple[Callable[[], float], float]:
    """The usual loop over the first `sample` queries, inputs prepared, and the mAP it finds.

    Source: after CalcTopMap in utils/tools.py of github.com/swuxyj/DeepHash-pytorch, with topK = all.
    """
    queries, database = (_signs(codes, case.n_bits) for codes in (case.queries[:sample], case.database))
    query_labels, database_labels = (_multi_hot(x) for x in (case.query_labels[:sample], case.database_labels))

    def loop() -> float:
        total = 0.0
        for query, label in zip(queries, query_labels, strict=True):
            relevant = (np.dot(label, database_labels.T) > 0).astype(np.float32)
            distances = 0.5 * (case.n_bits - np.dot(query, database.T))
            ranked = relevant[np.argsort(distances)]
            n_relevant = int(ranked.sum())
            if n_relevant:
                ranks = np.flatnonzero(ranked == 1) + 1.0
                total += float(np.mean(np.linspace(1, n_relevant, n_relevant) / ranks))
        return total / len(queries)

    answerable = (query_labels @ database_labels.T > 0).any(axis=1).mean()
    return loop, loop() / float(answerable)


def _signs(codes: _Bytes, n_bits: int) -> NDArray[np.float32]:
    return unpack_bits(codes, n_bits).astype(np.float32) * 2 - 1


def _multi_hot(labels: NDArray[Any]) -> NDArray[np.float32]:
    return (np.eye(_CLASSES)[labels] if labels.ndim == 1 else labels).astype(np.float32)


def _timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _peak_mib(work: Callable[[], Any]) -> float:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    main()
