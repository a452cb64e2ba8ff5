"""How long a large store takes to fill, to open, to answer and to grow: `python -m benchmarks.startup --n 10000000`.

Single queries are timed side by side with faiss.IndexBinaryFlat over the same codes, call by call in turn. Half of
the codes are random, half lie around a thousand centres, as learned codes do.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import write_result
from index import Entry, Filter, Store, pack_bits

_FRESH = """
import sys, time
start = time.perf_counter()
import numpy as np
import index
imported = time.perf_counter()
store = index.Store.open(sys.argv[1])
stats = store.stats()
opened = time.perf_counter()
if sys.argv[2] == "search":
    store.search(np.zeros((1, index.n_code_bytes(store.n_bits)), np.uint8), 10)
searched = time.perf_counter()
with open("/proc/self/status") as file:
    rss = int(next(line for line in file if line.startswith("VmRSS:")).split()[1])
print(imported - start, opened - imported, searched - opened, rss / 1024)
"""

_ADD = """
import sys, time
from pathlib import Path
from benchmarks.startup import entry, make_codes
import index
folder, n = Path(sys.argv[1]), int(sys.argv[2])
codes = make_codes(1000, int(sys.argv[3]), n)
start = time.perf_counter()
with index.Store.open(folder, writable=True) as store:
    store.put([entry(number) for number in range(n, n + 1000)], codes)
    put = time.perf_counter()
closed = time.perf_counter()
with open("/proc/self/io") as file:
    written = int(next(line for line in file if line.startswith("wchar:")).split()[1])
print(put - start, closed - start, written / 2**20)
"""


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_000_000, help="images in the store")
    parser.add_argument("--n-bits", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1000, help="images in one put, which is one transaction")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to make the temporary store")
    options = parser.parse_args()
    load_before = round(os.getloadavg()[0], 2)
    parent = Path(tempfile.mkdtemp(prefix="startup-", dir=options.folder))
    try:
        numbers = measure(parent / "million.dhx", options)
    finally:
        shutil.rmtree(parent)
    config: dict[str, Any] = {"n": options.n, "n_bits": options.n_bits, "batch": options.batch, "seed": options.seed}
    # Other work on the machine is felt most by single queries: a run says how busy it was, before and after.
    config |= {"load_average": [load_before, round(os.getloadavg()[0], 2)]}
    path = write_result("startup", config=config, numbers=numbers)
    print(f"\n{options.n:,} images, {options.n_bits} bits")
    for name, value in numbers.items():
        print(f"  {name:45} {value if value is not None else 'not installed':>12}")
    print(f"\nraw result: {path}")


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Fills a store and returns all measurements, by name; seconds, milliseconds or MiB as the name says."""
    numbers: dict[str, Any] = {"images": options.n}
    codes = make_codes(options.n, options.n_bits, options.seed)

    started = time.perf_counter()
    store = Store.create(folder, n_bits=options.n_bits, fingerprint="benchmark")
    for first in range(0, options.n, options.batch):
        stop = min(first + options.batch, options.n)
        store.put([entry(number) for number in range(first, stop)], codes[first:stop])
    numbers["insert_seconds"] = time.perf_counter() - started
    started = time.perf_counter()
    store.close()
    numbers["close_and_write_cache_seconds"] = time.perf_counter() - started
    with Store.open(folder) as store:
        stats = store.stats()
    numbers["catalogue_mib"] = stats.catalogue_bytes / 2**20
    numbers["cache_mib"] = stats.cache_bytes / 2**20

    with_cache = [fresh(folder, "search") for _ in range(5)]
    numbers["import_seconds"] = statistics.median(run[0] for run in with_cache)
    numbers["open_and_stats_seconds"] = statistics.median(run[1] for run in with_cache)
    numbers["first_search_with_cache_seconds"] = statistics.median(run[2] for run in with_cache)
    without_search = statistics.median(fresh(folder, "stats")[3] for _ in range(3))
    numbers["import_rss_mib"] = without_search
    numbers["searching_rss_mib"] = statistics.median(run[3] for run in with_cache)
    [manifest] = folder.glob("snapshot-*.json")
    manifest.rename(folder / "away")
    numbers["first_search_without_cache_seconds"] = statistics.median(fresh(folder, "search")[2] for _ in range(3))
    (folder / "away").rename(manifest)

    numbers |= searches(folder, codes, options.seed)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("snapshot-*")}
    run = python(_ADD, str(folder), str(options.n), str(options.n_bits))
    numbers |= dict(zip(("add_1000_seconds", "add_1000_and_close_seconds", "add_1000_written_mib"), run, strict=True))
    numbers["add_1000_rewrites_cache"] = before != {
        path.name: path.stat().st_mtime_ns for path in folder.glob("snapshot-*")
    }
    numbers["deephash_help_seconds"] = command(["--help"], shows="Usage:")
    numbers["deephash_info_seconds"] = command(["info", str(folder)], shows="fingerprint")
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in numbers.items()}


def table(numbers: dict[str, Any]) -> str:
    """Returns what a user feels of the numbers as a Markdown table."""
    seconds = {
        "`deephash --help`": numbers["deephash_help_seconds"],
        "`deephash info`": numbers["deephash_info_seconds"],
        "open and read the statistics": numbers["open_and_stats_seconds"],
        "first search, search structure from the cache": numbers["first_search_with_cache_seconds"],
        "first search, cache lost, rebuilt from the catalogue": numbers["first_search_without_cache_seconds"],
    }
    ratio = numbers["one_query_k10_search_ms"] / numbers["one_query_k10_faiss_ms"]
    batch = numbers["batch_of_1000_k10_search_ids_seconds"] / numbers["batch_of_1000_k10_faiss_seconds"]
    rows = [
        f"| {name} | {f'{value:.2f} s' if value > 0.01 else f'{1000 * value:.0f} ms'} |"
        for name, value in seconds.items()
    ]
    rows += [
        f"| one query, k = 10, with paths | {numbers['one_query_k10_search_ms']:.2f} ms, "
        f"{ratio:.2f} of bare faiss flat |",
        f"| a query in a batch of 1,000, k = 10 | {numbers['batch_of_1000_k10_search_ids_seconds']:.2f} ms, "
        f"{batch:.2f} of bare faiss flat |",
        f"| on disk | {numbers['catalogue_mib']:.0f} MiB, and a cache of {numbers['cache_mib']:.0f} MiB |",
    ]
    n, added = numbers["images"], numbers["add_1000_and_close_seconds"]
    memory = 2**20 * (numbers["searching_rss_mib"] - numbers["import_rss_mib"]) / n
    rewritten = "the cache is written again" if numbers["add_1000_rewrites_cache"] else "the cache stays"
    rows += [
        f"| in memory once it has searched, beyond Python itself | {memory:.0f} bytes an image, most of them mapped |",
        f"| 1,000 images more, opening and closing included | {added:.2f} s, "
        f"{numbers['add_1000_written_mib']:.0f} MiB written, {rewritten} |",
    ]
    return "\n".join([f"| an index of {n:,} images, 64 bits | 2 cores |", "|---|---|", *rows])


def make_codes(n: int, n_bits: int, seed: int) -> np.ndarray:
    """Returns (n, n_bytes) uint8: half random, half around a thousand centres with 5 % of the bits flipped."""
    rng = np.random.default_rng(seed)
    centres = rng.random((1000, n_bits)) > 0.5
    blocks = []
    for first in range(0, n, 100_000):
        size = min(100_000, n - first)
        bits = rng.random((size, n_bits)) > 0.5
        near = centres[rng.integers(0, 1000, size)] ^ (rng.random((size, n_bits)) < 0.05)
        blocks.append(pack_bits(np.where(rng.random((size, 1)) < 0.5, bits, near)))
    return np.concatenate(blocks)


def entry(number: int) -> Entry:
    """Returns an image as a photo folder would give it."""
    path = f"/home/user/pictures/2024/{number // 1000:04}/IMG_{number:08}.jpg"
    content = hashlib.blake2b(number.to_bytes(8), digest_size=16).digest()
    return Entry(path, 2_000_000 + number, 1_700_000_000_000_000_000 + number, content, 4000, 3000)


def fresh(folder: Path, what: str) -> list[float]:
    """Returns the seconds of import, open and first search in a new process, and its memory then, MiB."""
    return python(_FRESH, str(folder), what)


def python(code: str, *arguments: str) -> list[float]:
    """Returns the numbers that a script prints."""
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return [float(value) for value in run.stdout.split()]


def searches(folder: Path, codes: np.ndarray, seed: int) -> dict[str, float]:
    """Returns medians of single queries, ours and faiss's in turn, and of batches of a thousand."""
    import faiss

    flat = faiss.IndexBinaryFlat(8 * codes.shape[1])
    flat.add(codes)
    rng = np.random.default_rng(seed + 1)
    queries = codes[rng.integers(0, len(codes), 1000)]
    numbers = {}
    with Store.open(folder) as store:
        store.refresh()
        for k in (10, 100):
            contestants: dict[str, Callable[[np.ndarray], Any]] = {
                "faiss": lambda query, k=k: flat.search(query, k),  # type: ignore[misc]
                "search_ids": lambda query, k=k: store.search_ids(query, k),  # type: ignore[misc]
                "search": lambda query, k=k: store.search(query, k),  # type: ignore[misc]
            }
            for name, seconds in side_by_side(contestants, [queries[i : i + 1] for i in range(200)]).items():
                numbers[f"one_query_k{k}_{name}_ms"] = 1000 * seconds
            batch = {name: contestants[name] for name in ("faiss", "search_ids")}
            for name, seconds in side_by_side(batch, [queries] * 5).items():
                numbers[f"batch_of_1000_k{k}_{name}_seconds"] = seconds
        where = Filter(path="*/2024/00*")
        started = time.perf_counter()
        store.search(queries[:1], 10, where=where)
        numbers["first_filtered_query_seconds"] = time.perf_counter() - started
        again = side_by_side({"filtered": lambda query: store.search(query, 10, where=where)}, [queries[:1]] * 20)
        numbers["same_filter_again_ms"] = 1000 * again["filtered"]
    return numbers


def side_by_side(contestants: dict[str, Callable[[np.ndarray], Any]], queries: list[np.ndarray]) -> dict[str, float]:
    """Returns the median seconds of each contestant; they take turns, after one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for contestant in contestants.values():
        contestant(queries[0])
    for query in queries:
        for name, contestant in contestants.items():
            started = time.perf_counter()
            contestant(query)
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def command(arguments: list[str], *, shows: str) -> float | None:
    """Returns the median wall seconds of five runs of the console script, None when it is not installed.

    Raises:
        RuntimeError: a run did not print what it should: the time of a crash is no result.
    """
    script = Path(sys.executable).with_name("deephash")
    if not script.exists():
        return None
    times = []
    for _ in range(5):
        started = time.perf_counter()
        # The exit code is no sign: `info` has one of its own for this store, which has no model in it.
        done = subprocess.run([str(script), *arguments], capture_output=True, text=True, check=False)
        times.append(time.perf_counter() - started)
        if shows not in done.stdout:
            raise RuntimeError(f"deephash {' '.join(arguments)} exited with {done.returncode}: {done.stderr[-500:]}")
    return statistics.median(times)


if __name__ == "__main__":
    main()
