"""Measures what a large index pays for changes: a tenth of the codes removed and as many added, beside a fresh build.

``python -m benchmarks.churn --codes 1e7`` writes `benchmarks/results/churn.json`: how long updates take, and the time
of a query before, while segments are merged in the background, and after. Codes are clustered, of 64 bits. Each state
is measured beside the fresh index, in turns; `slowdown` is the ratio of the medians.
"""

import argparse
import statistics
import time
from typing import Any

import numpy as np

from benchmarks.billion import clustered
from benchmarks.record import write_result
from index import HammingIndex

N_BITS, K, ROUNDS, BATCH = 64, 10, 5, 1000


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codes", type=float, default=1e7)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    n, rng = int(options.codes), np.random.default_rng(options.seed)
    centres = rng.integers(0, 1 << 63, max(1, n // 500), dtype=np.uint64) << np.uint64(1)
    codes = clustered(rng, centres, n)
    queries = codes[rng.integers(0, n, BATCH)]
    queries[:, 0] ^= 1

    fresh = HammingIndex(N_BITS)
    numbers: dict[str, Any] = {"build_seconds": timed(lambda: fresh.add(codes))}
    changed = fresh.copy()
    numbers["bytes_a_code"] = fresh.n_bytes / n
    out = rng.permutation(n)[: n // 10]
    numbers["add_1000_seconds"] = statistics.median(timed(lambda: changed.add(codes[:BATCH])) for _ in range(20))
    numbers["remove_1000_seconds"] = timed(lambda: changed.remove(out[:BATCH]))
    numbers["after_small_changes"] = compare(fresh, changed, queries)
    numbers["remove_tenth_seconds"] = timed(lambda: changed.remove(out))
    numbers["add_tenth_seconds"] = timed(lambda: changed.add(codes[out]))
    numbers["while_merging"] = compare(fresh, changed, queries)
    numbers["merge_seconds"] = timed(changed.settle)
    numbers["after_merging"] = compare(fresh, changed, queries)
    config = {"n_codes": n, "n_bits": N_BITS, "k": K, "batch": BATCH, "seed": options.seed, "codes": "clustered"}
    print(write_result("churn", config=config, numbers=numbers))


def compare(fresh: HammingIndex, changed: HammingIndex, queries: np.ndarray) -> dict[str, Any]:
    """Returns the seconds a query takes in both, alone and in a batch, and what the changed one is slower by."""
    times: dict[str, list[list[float]]] = {"query": [[], []], "batch": [[], []]}
    for _ in range(ROUNDS):
        for number, index in enumerate((fresh, changed)):
            times["batch"][number].append(timed(lambda index=index: index.search(queries, K)) / len(queries))
        for at in range(200):
            for number, index in enumerate((fresh, changed)):
                query = queries[at : at + 1]
                times["query"][number].append(timed(lambda index=index, query=query: index.search(query, K)))
    result: dict[str, Any] = {"segments": [len(segment) for segment in changed.segments]}
    for name, (before, after) in times.items():
        result[f"{name}_seconds"] = statistics.median(after)
        result[f"{name}_slowdown"] = statistics.median(after) / statistics.median(before)
    return result


def table(numbers: dict[str, Any]) -> str:
    """Returns the numbers as a Markdown table."""
    states = {
        "after_small_changes": "20,000 codes added and 1,000 removed, by thousands",
        "while_merging": "a tenth removed and added again, while a thread merges",
        "after_merging": "a tenth removed and added again, merged",
    }
    lines = ["| beside a fresh index of the same size, a query takes | single | batch of 1,000 |", "|---|---|---|"]
    for name, title in states.items():
        found = numbers[name]
        lines.append(f"| {title} | {found['query_slowdown']:.2f} times | {found['batch_slowdown']:.2f} times |")
    return "\n".join(lines)


def timed(work: Any) -> float:
    """Returns the seconds that work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
