"""Measures what a store's search costs beside its bare structure, and what bounds it: one query, and a thousand.

``python -m benchmarks.store --images 1e6`` writes `benchmarks/results/store.json` and prints it as a table. The store
has clustered codes of 64 bits, paths, and neither labels nor metadata. All take turns on the same queries; times are
medians over rounds, of a single query the mean over all queries.

``structure``: HammingIndex.search. ``search_ids``: Store.search_ids, arrays. ``search``: Store.search, a list of Match.
Its bounds, of the ids that it finds: ``rows``, what SQLite alone takes to read path, label and metadata of each, and
``objects``, to make a Match of each from values at hand.
"""

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import write_result
from benchmarks.search.data import make
from index import Entry, HammingIndex, Store
from index.records import matches_of

N_BITS, K, ROUNDS, SINGLE, AT_ONCE = 64, 10, 7, 200, 50_000


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=float, default=1e6)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    n = int(options.images)
    codes, queries = make("clustered", n, N_BITS, None)
    with tempfile.TemporaryDirectory(prefix="store-") as folder:
        filled(Path(folder) / "a.dhx", codes)
        with Store.open(Path(folder) / "a.dhx") as store:
            numbers = measured(store, codes, queries, options.rounds)
    config = {"n_images": n, "n_bits": N_BITS, "k": K, "batch": len(queries), "rounds": options.rounds}
    print(table(numbers))
    print(write_result("store", config=config, numbers=numbers))


def filled(folder: Path, codes: np.ndarray) -> None:
    """Makes a store of these codes."""
    with Store.create(folder, n_bits=N_BITS, fingerprint="benchmark") as store:
        for start in range(0, len(codes), AT_ONCE):
            numbers = range(start, min(len(codes), start + AT_ONCE))
            store.put([entry(number) for number in numbers], codes[start : start + AT_ONCE])


def entry(number: int) -> Entry:
    """Returns an image of a photo folder."""
    path = f"/home/someone/Pictures/{number // 1000:04d}/IMG_{number:08d}.jpg"
    time_ns = 1_700_000_000_000_000_000 + number
    return Entry(path, 2_000_000 + number, time_ns, number.to_bytes(32), 4000, 3000)


def measured(store: Store, codes: np.ndarray, queries: np.ndarray, rounds: int) -> dict[str, dict[str, float]]:
    """Returns milliseconds a call, of a single query and of all, by what is measured."""
    bare = HammingIndex(N_BITS)
    bare.add(codes, store.ids())
    bare.compact()
    db = sqlite3.connect(f"file:{store.folder / 'catalogue.db'}?mode=ro", uri=True)
    found = store.search(queries, K)
    assert [[match.id for match in row] for row in found] == bare.search(queries, K)[1].tolist()
    faces = {match.id: (match.path, match.label, match.metadata) for row in found for match in row}
    ids_of = {
        asked: [sorted({match.id for row in found[part] for match in row}) for part in parts]
        for asked, parts in asked_of(len(queries)).items()
    }
    calls: dict[str, Callable[[str, int, slice], Any]] = {
        "structure": lambda asked, at, part: bare.search(queries[part], K),
        "search_ids": lambda asked, at, part: store.search_ids(queries[part], K),
        "search": lambda asked, at, part: store.search(queries[part], K),
        "rows": lambda asked, at, part: rows(db, ids_of[asked][at]),
        "objects": lambda asked, at, part: matches_of(ids_of[asked][at], ids_of[asked][at], faces),
    }
    times: dict[str, dict[str, list[float]]] = {asked: {name: [] for name in calls} for asked in ids_of}
    for _ in range(rounds):
        for asked, parts in asked_of(len(queries)).items():
            for name, call in calls.items():
                call(asked, 0, parts[0])
                started = time.perf_counter()
                for at, part in enumerate(parts):
                    call(asked, at, part)
                times[asked][name].append(1000 * (time.perf_counter() - started) / len(parts))
    db.close()
    return {
        asked: {name: statistics.median(values) for name, values in found.items()} for asked, found in times.items()
    }


def asked_of(n_queries: int) -> dict[str, list[slice]]:
    """Returns the queries of each call."""
    return {"single": [slice(at, at + 1) for at in range(min(SINGLE, n_queries))], "batch": [slice(0, n_queries)]}


def rows(db: sqlite3.Connection, ids: list[int]) -> list[Any]:
    """Returns what a search reads of the catalogue."""
    marks = ",".join("?" * len(ids))
    return db.execute(f"SELECT id, path, label, metadata FROM images WHERE id IN ({marks})", ids).fetchall()


def table(numbers: dict[str, dict[str, float]]) -> str:
    """Returns the numbers as Markdown, each beside what it is of the bare structure."""
    lines = ["| ms a call | " + " | ".join(numbers) + " |", "|---" * (len(numbers) + 1) + "|"]
    for name in next(iter(numbers.values())):
        cells = [f"{found[name]:.3f} ({found[name] / found['structure']:.2f})" for found in numbers.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
