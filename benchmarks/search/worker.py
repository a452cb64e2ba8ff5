"""One contestant in a process of its own: commands as JSON lines on stdin, answers on stdout. Started by measuring.py.

    python -m benchmarks.search.worker MODULE CLASS [ARGUMENT]

MODULE and CLASS lie in this package. The interpreter may be another one: numpy and the contestant's library are enough.
"""

import contextlib
import ctypes
import gc
import importlib
import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_QUERIES_IN_A_BATCH = 1000
_BATCH_SECONDS = 0.1
_MOST_BATCHES = 10


def main() -> None:
    """Answers until stdin ends."""
    commands, answers = sys.stdin, os.fdopen(os.dup(1), "w")
    # What libraries print must not fall among the answers.
    os.dup2(2, 1)
    module, name, *arguments = sys.argv[1:]
    try:
        contestant = getattr(importlib.import_module(f"benchmarks.search.{module}"), name)(*arguments)
        versions = {package: importlib.metadata.version(package) for package in contestant.packages}
        told: dict[str, Any] = {"exact": contestant.exact, "versions": versions}
    except ImportError as error:
        told = {"missing": str(error)}
    worker = None if "missing" in told else _Worker(contestant)
    while True:
        print(json.dumps(told), file=answers, flush=True)
        line = commands.readline()
        if not line:
            return
        command = json.loads(line)
        told = getattr(worker, command.pop("do"))(**command) or {}


class _Worker:
    """The commands."""

    def __init__(self, contestant: Any) -> None:
        self._contestant = contestant
        self._queries: NDArray[np.uint8] = np.empty((0, 8), np.uint8)

    def build(self, codes: str, queries: str, folder: str, threads: int) -> dict[str, Any]:
        """Builds the index, saves it, and tells what it takes."""
        self._queries = np.load(queries)
        mapped = np.load(codes, mmap_mode="r")
        with contextlib.suppress(ImportError):
            # Threads for building; those for searching come with `use`.
            import faiss

            faiss.omp_set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        before, started = _memory(), time.perf_counter()
        self._contestant.build(mapped, Path(folder))
        seconds = time.perf_counter() - started
        del mapped
        memory = _memory() - before
        self._contestant.save(Path(folder))
        n_bytes = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        settings = self._contestant.settings()
        return {"seconds": seconds, "memory": memory, "file_bytes": n_bytes, "settings": settings}

    def open(self, queries: str, folder: str, n_bits: int, k: int, threads: int) -> dict[str, Any]:
        """Opens what another process saved, and answers one query."""
        self._queries = np.load(queries)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        started = time.perf_counter()
        self._contestant.open(Path(folder), n_bits)
        opened = time.perf_counter()
        self._contestant.search(self._queries[:1], k)
        return {"seconds": opened - started, "first_seconds": time.perf_counter() - opened}

    def answer(self, setting: dict[str, Any], k: int, threads: int, n: int, file: str) -> dict[str, Any]:
        """Answers the first n queries as a batch, and writes the positions to a file."""
        self._contestant.use(setting, threads)
        started = time.perf_counter()
        found = self._contestant.search(self._queries[:n], k)
        seconds = time.perf_counter() - started
        np.save(file, self._contestant.positions(found))
        return {"seconds": seconds}

    def single(self, setting: dict[str, Any], k: int, threads: int, seconds: float) -> dict[str, Any]:
        """Times queries one by one, in their order, for so many seconds (and no fewer than three)."""
        self._contestant.use(setting, threads)
        self._contestant.search(self._queries[-1:], k)
        times: list[float] = []
        spent = 0.0
        while len(times) < len(self._queries) and (spent < seconds or len(times) < 3):
            query = self._queries[len(times)][None]
            started = time.perf_counter()
            self._contestant.search(query, k)
            times.append(time.perf_counter() - started)
            spent += times[-1]
        return {"seconds": times}

    def batch(self, setting: dict[str, Any], k: int, threads: int, n: int) -> dict[str, Any]:
        """Times a batch of the first n queries; a short one several times."""
        self._contestant.use(setting, threads)
        queries = self._queries[: min(n, _QUERIES_IN_A_BATCH)]
        times: list[float] = []
        while not times or (sum(times) < _BATCH_SECONDS and len(times) < _MOST_BATCHES):
            started = time.perf_counter()
            self._contestant.search(queries, k)
            times.append(time.perf_counter() - started)
        return {"seconds": times, "n": len(queries)}


def _memory() -> int:
    """Returns the bytes of memory that this process and its children hold, files that are mapped left out."""
    from benchmarks.search.engines import descendants

    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    total = 0
    for process in [os.getpid(), *descendants(os.getpid())]:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                total += 1024 * int(line.split()[1])
    return total


if __name__ == "__main__":
    main()
