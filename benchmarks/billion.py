"""Measures files of codes without a catalogue: built in a stream, searched exactly and approximately where they lie.

``python -m benchmarks.billion --codes 1e9 --folder /where/there/is/room`` needs 21 bytes of disk for each code of 64
bits: the file, and the lists over it. Codes are clustered: each is one of some centres with up to 6 bits flipped;
queries are codes of the file with another bit flipped. The result is `benchmarks/results/billion.json`.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import write_result
from index import CodeFile, CodeFileWriter, CodeLists
from index.groups import Distances, Ids

N_BITS = 64
CHUNK = 1 << 22
K = 10


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codes", type=float, default=1e9)
    parser.add_argument("--folder", type=Path, default=Path("billion"))
    parser.add_argument("--lists", type=int, default=None, help="lists of the approximate search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep the files; those that are there are used again")
    parser.add_argument("--measure", choices=["exact", "approximate"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        # A process of its own: what it has in memory is what searching takes.
        print(json.dumps(exact(options) if options.measure == "exact" else approximate(options)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, Any] = {}
    if not (options.folder / "codes").exists():
        numbers["write_seconds"] = timed(lambda: write(options))
    numbers["file_bytes"] = (options.folder / "codes").stat().st_size
    numbers |= fresh("exact")
    if not (options.folder / "lists").exists():
        codes = CodeFile.open(options.folder / "codes", check=False)
        numbers["build_lists_seconds"] = timed(
            lambda: CodeLists.build(codes, options.folder / "lists", lists=options.lists)
        )
    numbers["lists_bytes"] = sum(path.stat().st_size for path in (options.folder / "lists").iterdir())
    numbers |= fresh("approximate")
    if not options.keep:
        shutil.rmtree(options.folder)
    config = {"n_codes": int(options.codes), "n_bits": N_BITS, "k": K, "seed": options.seed, "codes": "clustered"}
    print(write_result("billion", config=config, numbers=numbers))


def table(numbers: dict[str, Any]) -> str:
    """Returns the numbers as a Markdown table."""
    n_bytes, lists = numbers["file_bytes"], numbers["lists"]
    fast = next((found for found in lists if found["recall"] >= 0.95), lists[-1])
    n_lists, seconds = numbers["n_lists"], numbers["query_seconds"]
    rows = [
        ("written", f"{n_bytes / 1e9:.1f} GB in {numbers['write_seconds']:.0f} s, making the codes included"),
        ("open", f"{1000 * numbers['open_seconds']:.0f} ms"),
        ("exact, one query", f"{1000 * seconds:.0f} ms, {n_bytes / 1e9 / seconds:.0f} GB a second"),
        ("exact, a query of a batch of 100", f"{1000 * numbers['query_of_batch_of_100_seconds']:.1f} ms"),
        ("in memory while scanning", f"{numbers['resident_share_of_codes']:.2f} times the codes, pages of the file"),
        (
            f"{n_lists:,} lists",
            f"{numbers['lists_bytes'] / 1e9:.1f} GB in {numbers['build_lists_seconds'] / 60:.0f} min",
        ),
        (f"lists, recall {fast['recall']:.3f}, one query", f"{1000 * fast['query_seconds']:.2f} ms"),
        (f"lists, recall {fast['recall']:.3f}, a query of a batch", f"{1000 * fast['batch_seconds']:.2f} ms"),
    ]
    return "\n".join(
        ["| codes without a catalogue | |", "|---|---|", *(f"| {what} | {found} |" for what, found in rows)]
    )


def fresh(measure: str) -> dict[str, Any]:
    """Returns what a new process measures."""
    command = [sys.executable, "-m", "benchmarks.billion", *sys.argv[1:], "--measure", measure]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    numbers: dict[str, Any] = json.loads(run.stdout)
    print(numbers, flush=True)
    return numbers


def clustered(rng: np.random.Generator, centres: np.ndarray, n: int) -> np.ndarray:
    """Returns n codes, (n, 8) uint8, each a centre with some bits flipped."""
    codes = centres[rng.integers(0, len(centres), n)]
    for _ in range(6):
        flips = np.uint64(1) << rng.integers(0, N_BITS, n, dtype=np.uint64)
        codes ^= np.where(rng.random(n, dtype=np.float32) < 0.7, flips, np.uint64(0))
    return codes.view(np.uint8).reshape(n, 8)


def write(options: argparse.Namespace) -> None:
    """Writes the file of codes."""
    rng, n = np.random.default_rng(options.seed), int(options.codes)
    # Some 500 codes around each centre.
    centres = rng.integers(0, 1 << 63, max(1, n // 500), dtype=np.uint64) << np.uint64(1)
    with CodeFileWriter(options.folder / "codes", N_BITS) as writer:
        while len(writer) < n:
            writer.append(clustered(rng, centres, min(CHUNK, n - len(writer))))


def queries_of(codes: CodeFile, n: int) -> np.ndarray:
    """Returns n queries, (n, 8) uint8."""
    rng = np.random.default_rng(1)
    queries = codes.codes(np.sort(rng.integers(0, len(codes), n)))
    queries[:, 0] ^= 1
    return queries


def exact(options: argparse.Namespace) -> dict[str, Any]:
    """Opens the file and scans it."""
    path, numbers = options.folder / "codes", {}
    numbers["open_seconds"] = timed(lambda: CodeFile.open(path, check=False))
    before = resident("RssAnon")
    codes = CodeFile.open(path, check=False)
    queries = queries_of(codes, 100)
    numbers["first_query_seconds"] = timed(lambda: codes.search(queries[:1], K))
    numbers["query_seconds"] = median(lambda i: codes.search(queries[i : i + 1], K), 5)
    batch = timed(lambda: codes.search(queries, K))
    numbers["query_of_batch_of_100_seconds"] = batch / len(queries)
    numbers["anonymous_bytes"] = resident("RssAnon") - before
    numbers["mapped_bytes_resident"] = resident("RssFile")
    numbers["resident_share_of_codes"] = resident("VmRSS") / (8 * len(codes))
    numbers["check_seconds"] = timed(lambda: codes.verify())
    truth = codes.search(queries, K)
    np.savez(options.folder / "truth.npz", queries=queries, distances=truth[0])
    return numbers


def approximate(options: argparse.Namespace) -> dict[str, Any]:
    """Opens the lists and looks into more and more of them."""
    folder, numbers = options.folder / "lists", {}
    truth = np.load(options.folder / "truth.npz")
    queries, distances = truth["queries"], truth["distances"]
    numbers["open_lists_seconds"] = timed(lambda: CodeLists.open(folder, check=False))
    lists = CodeLists.open(folder, check=False)
    numbers["n_lists"] = lists.n_lists
    numbers["lists"] = []
    nprobe = 1
    while nprobe <= min(1024, lists.n_lists):
        found = lists.search(queries, K, nprobe=nprobe)
        single = median(lambda i, n=nprobe: lists.search(queries[i : i + 1], K, nprobe=n), len(queries))
        batch = timed(lambda n=nprobe: lists.search(queries, K, nprobe=n)) / len(queries)
        recall = recall_of(found, distances)
        numbers["lists"].append({"nprobe": nprobe, "recall": recall, "query_seconds": single, "batch_seconds": batch})
        if recall == 1:
            break
        nprobe *= 2
    numbers["resident_share_of_codes_with_lists"] = resident("VmRSS") / (8 * len(lists))
    return numbers


def recall_of(found: tuple[Distances, Ids], truth: np.ndarray) -> float:
    """Returns the share of the true K nearest that were found; any that is as near counts."""
    return float((found[0] <= truth[:, -1:]).mean())


def resident(field: str) -> int:
    """Returns bytes in memory of this process, as Linux counts them."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines[field].split()[0])


def timed(work: Any) -> float:
    """Returns the seconds that work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median(work: Any, n: int) -> float:
    """Returns the median of the seconds that work(0) ... work(n - 1) take."""
    return statistics.median(timed(lambda i=i: work(i)) for i in range(n))


if __name__ == "__main__":
    main()
