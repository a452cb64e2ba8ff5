"""`deephash serve` in a process of its own, and the process of the clients that ask it."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from deephash import Client

__all__ = ["Memory", "Served", "ask", "ask_counting", "serving"]

_TOKEN = "token-of-the-benchmark"
_START_SECONDS = 120.0


@dataclass(frozen=True)
class Served:
    """A running server; ``client`` may change its index."""

    url: str
    pid: int
    client: Client


@contextmanager
def serving(index: Path, *, root: Path) -> Iterator[Served]:
    """Serves an index, ready to search and to encode; folders under the root may be indexed."""
    command = [sys.executable, "-m", "deephash", "serve", str(index), "--port", "0", "--root", str(root)]
    environment = {**os.environ, "DEEPHASH_TOKEN": _TOKEN}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().partition("#")[0]
            if not url:
                raise RuntimeError("the server did not start")
            until = time.monotonic() + _START_SECONDS
            while httpx.get(f"{url}readyz").status_code != 200:
                if time.monotonic() > until:
                    raise RuntimeError(f"the server was not ready within {_START_SECONDS:g} s")
                time.sleep(0.2)
            with Client(url, token=_TOKEN) as client:
                yield Served(url, process.pid, client)
        finally:
            process.terminate()


def ask(server: Served, **load: Any) -> NDArray[np.void]:
    """Returns what clients in a process of their own saw: `load.Load` without its URL, `load.ANSWER`."""
    return ask_counting(server, **load)[0]


def ask_counting(server: Served, **load: Any) -> tuple[NDArray[np.void], dict[str, float]]:
    """Returns what `ask` does, and the seconds of a processor that it took, by who took them.

    ``server`` is the event loop's thread, ``encoder`` the other threads of its process, ``decoding`` its other
    processes, ``clients`` the process that asked, without its start; ``waiting`` is how long the event loop's thread
    was ready to run and others had the processors.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.npz"
        given = json.dumps({**load, "url": server.url, "output": str(path)})
        before = _spent(server.pid)
        subprocess.run([sys.executable, "-m", "benchmarks.serve.load"], input=given, text=True, check=True)
        after = _spent(server.pid)
        with np.load(path) as found:
            answers, clients = found["answers"], float(found["processor_seconds"])
    return answers, {name: after[name] - before[name] for name in before} | {"clients": clients}


def _spent(pid: int) -> dict[str, float]:
    threads = {thread: _scheduled(f"{pid}/task/{thread}") for thread in os.listdir(f"/proc/{pid}/task")}
    own, waiting = threads.pop(str(pid))
    others = sum(_scheduled(f"{child}/task/{child}")[0] for child in _children(pid))
    encoder = sum(seconds for seconds, _ in threads.values())
    return {"server": own, "encoder": encoder, "decoding": others, "waiting": waiting}


def _scheduled(task: str) -> tuple[float, float]:
    """Returns the seconds that a thread ran, and those that it waited for a processor."""
    try:
        ran, waited, _ = Path(f"/proc/{task}/schedstat").read_text().split()
    except OSError:  # it has ended, or this is no Linux
        return 0.0, 0.0
    return int(ran) / 1e9, int(waited) / 1e9


@dataclass
class Memory:
    """Samples the memory of a server while the context lasts: (seconds, RSS, its anonymous part, RSS of its workers).

    In MiB. The rest of the server's RSS are files that are mapped, such as the search structure.
    """

    pid: int
    every: float = 1.0
    samples: list[tuple[float, float, float, float]] = field(default_factory=list)

    def __enter__(self) -> "Memory":
        self._stopping, self._began = threading.Event(), time.monotonic()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            rss, anonymous = _memory(self.pid)
            workers = sum(_memory(pid)[0] for pid in _children(self.pid))
            now = time.monotonic() - self._began
            self.samples.append((round(now, 1), round(rss, 1), round(anonymous, 1), round(workers, 1)))
            if self._stopping.wait(self.every):
                return


def _memory(pid: int) -> tuple[float, float]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    values = {name: value for name, _, value in (line.partition(":") for line in lines)}
    rss, anonymous = (int(values.get(name, "0").split()[0]) / 1024 for name in ("VmRSS", "RssAnon"))
    return rss, anonymous


def _children(pid: int) -> list[int]:
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(text) for task in tasks for text in (task / "children").read_text().split()]
    except OSError:
        return []
