"""Measures contestants side by side: each in a process of its own, one working at a time, in turns."""

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONTESTANTS", "Budget", "Python", "measure", "recall", "true_distances"]

_Codes = NDArray[np.uint8]
Python = Mapping[str, str]
"""Interpreters of contestants that have one of their own, by name."""


@dataclass(frozen=True)
class Budget:
    """How long to measure. Seconds are for each setting and number of threads in each round."""

    rounds: int = 3
    single_seconds: float = 0.05
    batch_seconds: float = 0.2
    # Settings of a contestant that are measured: from recall .95 on to none missing, each with half the misses of the
    # last.
    max_settings: int = 10
    openings: int = 2
    # A contestant that takes longer for one step (building, that is) is left out.
    least_patience: float = 120.0
    patience_a_code: float = 3e-4


@dataclass(frozen=True)
class _Entry:
    label: str
    arguments: tuple[str, ...]
    # What it is sold for: a run at these sizes would take hours, or more memory than there is.
    up_to: float = math.inf
    is_graph: bool = False
    from_bits: int = 8


CONTESTANTS: dict[str, _Entry] = {
    "ours-flat": _Entry("ours, scan", ("contestants", "OursExact", "flat")),
    "ours-mih": _Entry("ours, multi-index hashing", ("contestants", "OursExact", "mih")),
    "ours-ivf": _Entry("ours, lists", ("contestants", "Ours", "ivf")),
    "ours-hnsw": _Entry("ours, graph", ("contestants", "Ours", "hnsw"), up_to=1e7, is_graph=True),
    "ours-prefix": _Entry("ours, prefix", ("contestants", "Ours", "prefix"), from_bits=128),
    "faiss-flat": _Entry("faiss IndexBinaryFlat", ("contestants", "FaissFlat", "flat")),
    "faiss-ivf": _Entry("faiss IndexBinaryIVF", ("contestants", "FaissIVF", "ivf")),
    "faiss-hnsw": _Entry("faiss IndexBinaryHNSW", ("contestants", "FaissIndex", "hnsw"), up_to=1e7, is_graph=True),
    "faiss-multihash": _Entry("faiss IndexBinaryMultiHash", ("contestants", "FaissIndex", "multihash"), up_to=1e8),
    "usearch-exact": _Entry("usearch, exact", ("engines", "USearchExact"), up_to=1e6),
    "usearch-hnsw": _Entry("usearch, HNSW", ("engines", "USearchGraph"), up_to=1e7, is_graph=True),
    "numpy": _Entry("NumPy", ("contestants", "NumPy"), up_to=1e7),
    "lancedb-flat": _Entry("LanceDB, no index", ("engines", "LanceFlat"), up_to=1e6),
    "lancedb-ivf": _Entry("LanceDB, IVF_FLAT", ("engines", "LanceIVF"), up_to=1e6),
    "milvus-lite": _Entry("Milvus Lite, BIN_FLAT", ("engines", "MilvusLite"), up_to=1e5),
}


# The tables show the fastest setting of this recall.
_ENOUGH = 0.95
# A setting's recall is measured with as many queries as fit into these seconds.
_SWEEP_SECONDS = 1.0


class _TooSlow(Exception):
    """A contestant was given up."""


class _Worker:
    """A contestant's process."""

    def __init__(self, name: str, python: str, patience: float) -> None:
        entry = CONTESTANTS[name]
        # Threads that wait must not spin: the next contestant needs the processor.
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONWARNINGS": "ignore", "RUST_LOG": "error"}
        self.name = name
        self._patience = patience
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.search.worker", *entry.arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, text=True, env=environment, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        self.told = self._told()

    def do(self, command: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._told()

    def _told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        timer = threading.Timer(self._patience, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            if self._process.wait() == -signal.SIGKILL:
                raise _TooSlow(f"took longer than {self._patience:.0f} s for one step")
            self._errors.seek(0)
            raise RuntimeError(f"{self.name} failed: {self._errors.read()[-2000:]}")
        told: dict[str, Any] = json.loads(line)
        return told

    def close(self) -> None:
        self._process.communicate()
        self._errors.close()


def true_distances(codes: _Codes, queries: _Codes, k: int) -> NDArray[np.int32]:
    """Returns the distances of the k nearest codes of each query, ascending: (Q, k), by faiss's scan with heaps."""
    import faiss

    flat = faiss.IndexBinaryFlat(8 * codes.shape[1])
    flat.add(np.ascontiguousarray(codes))
    found: NDArray[np.int32] = flat.search(np.ascontiguousarray(queries), k)[0]
    return found


def distances_of(found: NDArray[np.int64], codes: _Codes, queries: _Codes) -> NDArray[np.int64]:
    """Returns the distances of found positions (Q, k), ascending; of none and of repeated ones, 2**31."""
    found = np.sort(found, axis=1)
    distances = np.bitwise_count(codes[found] ^ queries[:, None]).sum(axis=2, dtype=np.int64)
    repeated = np.zeros(found.shape, np.bool_)
    repeated[:, 1:] = found[:, 1:] == found[:, :-1]
    distances[repeated | (found < 0)] = 1 << 31
    return np.sort(distances, axis=1)


def recall(found: NDArray[np.int64], codes: _Codes, queries: _Codes, truth: NDArray[np.int32]) -> float:
    """Returns the mean share of found positions (Q, k) that are no further than the k-th nearest: ties count."""
    return float((distances_of(found, codes, queries) <= truth[: len(found), -1:]).mean())


def measure(
    names: Sequence[str],
    codes: _Codes,
    queries: _Codes,
    *,
    k: int,
    folder: Path,
    budget: Budget,
    python: Python,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Returns ``rows``, one for each contestant and setting, and ``left_out``: who did not take part, and why.

    Raises:
        RuntimeError: an exact contestant's distances are not those of the nearest, or a contestant died.
    """
    n, threads = len(codes), len(os.sched_getaffinity(0))
    patience = max(budget.least_patience, budget.patience_a_code * n)
    files = {"codes": str(folder / "codes.npy"), "queries": str(folder / "queries.npy")}
    np.save(files["codes"], codes)
    np.save(files["queries"], queries)
    truth = true_distances(codes, queries, k)
    left_out: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    workers: dict[str, _Worker] = {}
    try:
        for name in names:
            if n > CONTESTANTS[name].up_to:
                left_out[name] = f"not above {CONTESTANTS[name].up_to:,.0f} codes"
                continue
            if 8 * codes.shape[1] < CONTESTANTS[name].from_bits:
                left_out[name] = f"not below {CONTESTANTS[name].from_bits} bits"
                continue
            worker = _Worker(name, python.get(name.partition("-")[0], sys.executable), patience)
            workers[name] = worker
            if "missing" in worker.told:
                left_out[name] = f"not installed: {worker.told['missing']}"
                continue
            place = folder / name
            place.mkdir()
            try:
                built = worker.do("build", **files, folder=str(place), threads=threads)
                say(f"{name}: built in {built['seconds']:.1f} s")
                found = _sweep(worker, built["settings"], codes, queries, truth, k, threads, folder, budget)
            except _TooSlow as error:
                left_out[name] = str(error)
                say(f"{name}: {error}")
                continue
            costs = {
                "build_seconds": built["seconds"], "memory_bytes": built["memory"], "file_bytes": built["file_bytes"],
                "versions": worker.told["versions"],
                **_opening(name, files, place, codes.shape[1], k, threads, python, patience, budget.openings),
            }  # fmt: skip
            for setting, reached in found:
                row = {"contestant": name, "setting": setting, "exact": worker.told["exact"], "recall": reached}
                rows.append(row | costs | {"single_ms": {}, "batch_ms": {}})
        _take_turns(workers, rows, k, threads, budget, say)
    finally:
        for worker in workers.values():
            worker.close()
    return {"rows": rows, "left_out": left_out}


def _opening(
    name: str,
    files: dict[str, str],
    place: Path,
    n_bytes: int,
    k: int,
    threads: int,
    python: Python,
    patience: float,
    openings: int,
) -> dict[str, float]:
    """Returns how long a new process takes to open what was saved, and to answer then; its imports are not counted."""
    times = []
    # Milvus locks its file while the builder has it open.
    if name == "milvus-lite":
        return {}
    for _ in range(openings):
        worker = _Worker(name, python.get(name.partition("-")[0], sys.executable), patience)
        told = worker.do("open", queries=files["queries"], folder=str(place), n_bits=8 * n_bytes, k=k, threads=threads)
        worker.close()
        times.append((told["seconds"], told["first_seconds"]))
    opened, first = (statistics.median(column) for column in zip(*times, strict=True))
    return {"open_seconds": opened, "first_query_seconds": first}


def _sweep(
    worker: _Worker,
    settings: Sequence[dict[str, Any]],
    codes: _Codes,
    queries: _Codes,
    truth: NDArray[np.int32],
    k: int,
    threads: int,
    folder: Path,
    budget: Budget,
) -> list[tuple[dict[str, Any], float]]:
    """Returns the settings to time with their recall."""
    kept: list[tuple[dict[str, Any], float]] = []
    # A setting that is slower than the slowest scan by far is of no use.
    slowest = max(0.003, 20e-9 * len(codes))
    for setting in settings:
        # A few queries tell how many there is time for.
        n, file = 20, folder / "found.npy"
        for _ in range(2):
            asked = {"setting": setting, "k": k, "threads": threads, "n": n, "file": str(file)}
            seconds = worker.do("answer", **asked)["seconds"] / n
            n = min(len(queries), max(n, int(_SWEEP_SECONDS / seconds)))
        found = np.load(file)
        n = len(found)
        if worker.told["exact"]:
            if not np.array_equal(distances_of(found, codes, queries[:n]), truth[:n]):
                raise RuntimeError(f"{worker.name} {setting} is not exact: its distances are not those of the nearest")
            kept.append((setting, 1.0))
            continue
        reached = recall(found, codes, queries[:n], truth)
        if not kept or 1 - reached <= 0.5 * (1 - kept[-1][1]):
            kept.append((setting, reached))
        if reached == 1 or seconds > slowest:
            break
    # Where the recall is enough, and the last before.
    first = next((at for at, (_, reached) in enumerate(kept) if reached >= _ENOUGH), len(kept))
    start = max(0, min(first - 1, len(kept) - budget.max_settings))
    return kept[start:][: budget.max_settings]


def _take_turns(
    workers: dict[str, _Worker],
    rows: list[dict[str, Any]],
    k: int,
    threads: int,
    budget: Budget,
    say: Callable[[str], None],
) -> None:
    """Times all settings, round by round, and writes milliseconds a query into the rows, by threads.

    Of a single query it is the mean over queries of their medians over rounds: some take much longer than most. Of a
    batch it is the median.
    """
    single: dict[tuple[int, int], list[list[float]]] = {}
    batch: dict[tuple[int, int], list[float]] = {}
    for number in range(budget.rounds):
        for at, row in enumerate(rows):
            worker = workers[row["contestant"]]
            for used in sorted({1, threads}):
                asked = {"setting": row["setting"], "k": k, "threads": used}
                told = worker.do("single", **asked, seconds=budget.single_seconds)
                single.setdefault((at, used), []).append(told["seconds"])
                # So many that the batch takes no longer than it may.
                n = int(min(1000, max(1, budget.batch_seconds / statistics.mean(told["seconds"]))))
                told = worker.do("batch", **asked, n=n)
                batch.setdefault((at, used), []).extend(seconds / told["n"] for seconds in told["seconds"])
        say(f"round {number + 1} of {budget.rounds}")
    for at, row in enumerate(rows):
        for used in sorted({1, threads}):
            # Queries that each round had time for.
            queries = zip(*single[at, used], strict=False)
            row["single_ms"][str(used)] = 1000 * statistics.mean(statistics.median(times) for times in queries)
            row["batch_ms"][str(used)] = 1000 * statistics.median(batch[at, used])
