"""What is measured of a running server, by phases."""

import asyncio
import itertools
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.serve.load import KINDS, Connection
from benchmarks.serve.server import Memory, Served, ask, ask_counting
from deephash.image_limits import MAX_PIXELS
from deephash.model import HashModel
from deephash.server.decode_tasks import prepare

__all__ = ["Budget", "adding", "by_id", "client_cost", "soak", "uploads"]

_MIX = {"id": 0.7, "thumbnail": 0.2, "upload": 0.05, "stats": 0.05}
_PERCENTILES = (50, 90, 95, 99, 99.9)
_WARM_UP_SECONDS = 2.0
_MEMORY = ("rss", "anonymous", "workers")
# The load under which images are added, as a share of the highest throughput.
_STEADY = 1 / 3


@dataclass(frozen=True)
class Budget:
    """How long and how many: seconds of each phase, clients, files to add."""

    seconds: float = 20.0
    soak_seconds: float = 300.0
    soak_clients: int = 64
    clients: int = 8
    upload_clients: int = 48
    rounds: int = 3
    round_seconds: float = 8.0
    n_new: int = 10_000
    adding_seconds: float = 240.0


def by_id(server: Served, load: dict[str, Any], budget: Budget) -> dict[str, Any]:
    """Searches by id, without a pause between an answer and the client's next request."""
    load = load | {"shares": {"id": 1.0}, "clients": budget.clients}
    ask(server, **load, seconds=_WARM_UP_SECONDS)
    answers = ask(server, **load, seconds=budget.seconds, seed=1)
    return {"clients": budget.clients} | _summary(answers, budget.seconds)


def uploads(
    server: Served, load: dict[str, Any], budget: Budget, model: HashModel, photos: Sequence[Path]
) -> dict[str, Any]:
    """Searches by photograph beside what they cannot do without, in turns.

    One client beside decoding, forward pass and binarising of one image; many beside the forward pass of batches, and
    beside what decoding on the same processors leaves of it. ``core_ms`` says who takes how much of a processor for
    each search of the many, the clients among them; ``encoder_core_ms`` what the encoder takes alone.
    """
    files, spec = [path.read_bytes() for path in photos], model.input_spec
    pixels = [prepare(data, spec, MAX_PIXELS) for data in files[:32]]
    batch = np.stack([pixels[number % len(pixels)] for number in range(32)])
    turn = itertools.cycle(files)

    def decoded() -> NDArray[np.uint8]:
        found = prepare(next(turn), spec, MAX_PIXELS)
        assert isinstance(found, np.ndarray)
        return found

    def one() -> None:
        model.encode(decoded()[None])

    load = load | {"shares": {"upload": 1.0}}
    ask(server, **load, clients=budget.upload_clients, seconds=_WARM_UP_SECONDS)
    single, bare, decoding, rates, batch_rates = [], [], [], [], []
    spent: Counter[str] = Counter()
    n_answers, encoder_seconds, n_encoded = 0, 0.0, 0
    for number in range(budget.rounds):
        seconds = budget.round_seconds
        bare += _timed(one, seconds / 2)
        decoding += _timed(decoded, seconds / 4)
        single.append(ask(server, **load, clients=1, seconds=seconds / 2, seed=number))
        started = time.process_time()
        times = _timed(lambda: model.features(batch), seconds)
        encoder_seconds += time.process_time() - started
        n_encoded += len(batch) * (len(times) + 1)
        batch_rates.append(len(batch) * len(times) / sum(times))  # a mean of that time, as the clients' rate is
        many, took = ask_counting(server, **load, clients=budget.upload_clients, seconds=seconds, seed=number)
        rates.append(_summary(many, seconds)["per_second"])
        spent.update(took)
        n_answers += len(many)
    found = _summary(np.concatenate(single), budget.rounds * budget.round_seconds / 2)
    bare_ms, rate, batch_rate = 1000 * statistics.median(bare), statistics.median(rates), statistics.median(batch_rates)
    decode_ms = 1000 * statistics.mean(decoding)  # of one processor
    most = 1 / (1 / batch_rate + decode_ms / 1000 / len(os.sched_getaffinity(0)))
    return {
        "one_client": found, "bare_ms": round(bare_ms, 2), "slowdown": round(found["ms"]["50"] / bare_ms, 3),
        "many_clients": budget.upload_clients, "per_second": round(rate, 1), "encoder_per_second": round(batch_rate, 1),
        "share_of_encoder": round(rate / batch_rate, 3), "decode_ms": round(decode_ms, 2),
        "most_per_second": round(most, 1), "share_of_most": round(rate / most, 3),
        "encoder_core_ms": round(1000 * encoder_seconds / n_encoded, 3),
        "core_ms": {name: round(1000 * seconds / n_answers, 3) for name, seconds in spent.items()},
    }  # fmt: skip


def soak(server: Served, load: dict[str, Any], budget: Budget) -> dict[str, Any]:
    """Everything at once, for minutes."""
    load = load | {"shares": _MIX, "clients": budget.soak_clients}
    with Memory(server.pid) as memory:
        answers = ask(server, **load, seconds=budget.soak_seconds, seed=2)
    by_kind = {
        kind: _summary(answers[answers["kind"] == number], budget.soak_seconds) for number, kind in enumerate(KINDS)
    }
    start = min(60.0, budget.soak_seconds / 5)
    settled = [sample[1:] for sample in memory.samples if sample[0] >= start]
    # Batches that are being encoded come and go, with their memory: medians of a fifth of the time.
    few = max(1, len(settled) // 5)
    before, after = np.median(settled[:few], axis=0), np.median(settled[-few:], axis=0)
    return {
        "clients": budget.soak_clients, "shares": _MIX, **_summary(answers, budget.soak_seconds), "kinds": by_kind,
        "growth_from_second": start,
        "growth_mib": dict(zip(_MEMORY, np.round(after - before, 1).tolist(), strict=True)),
        "settled_mib": dict(zip(_MEMORY, np.round(before, 1).tolist(), strict=True)),
        "memory_mib": memory.samples,
    }  # fmt: skip


def adding(server: Served, load: dict[str, Any], budget: Budget, folder: Path, highest: float) -> dict[str, Any]:
    """Searches by id at a steady rate, before and while a job adds the images of a folder, in turns.

    A job is cancelled at the end of its turn, and the next one goes on from there, until all are added or the turns
    have taken ``adding_seconds``: what else disturbs the machine, for minutes at times, is in both alike.
    ``p99_ratio`` compares the medians of the turns' p99: a single stall of 100 ms, seen without a job too, would
    decide what all turns together have.
    ``waiting_ms``: how long, for each search, the server was ready to run and others had the processors.
    """
    rate = _STEADY * highest
    load = load | {"shares": {"id": 1.0}, "clients": budget.clients, "rate": rate, "seconds": budget.seconds}
    before, during = _Turns(), _Turns()
    to_add = added = 0
    all_added = False
    while not all_added and during.seconds < budget.adding_seconds:
        before.add(*ask_counting(server, **load, seed=3 + len(before)), budget.seconds)
        job = server.client.start_sync([folder])
        while (now := server.client.job(job)).state in ("queued", "running") and not now.done:
            time.sleep(0.1)
        done, started = now.done, time.time()
        to_add = to_add or now.total
        answers, spent = ask_counting(server, **load, seed=3 + len(during))
        now, ended = server.client.job(job), time.time()
        if now.state == "running":
            server.client.cancel(job)
            while server.client.job(job).state == "running":
                time.sleep(0.1)
        elif now.state != "done":
            raise RuntimeError(f"the job was {now.state}: {now.error}")
        else:
            all_added = True
            finished = httpx.get(f"{server.url}v1/jobs/{job.id}").json()["finished"]
            ended = datetime.fromisoformat(finished).timestamp()
            answers = answers[answers["start"] < ended - started]
        during.add(answers, spent, max(0.0, min(ended - started, budget.seconds)))
        added += now.done - done
    found = [before.summary(), during.summary()]
    return {
        "rate": round(rate), "before": found[0], "while_adding": found[1],
        "p99_ratio": round(during.p99 / before.p99, 3),
        "p99_of_turns": {"before": before.p99s, "while_adding": during.p99s},
        "to_add": to_add, "added": added, "all_added": all_added, "seconds": round(during.seconds, 1),
        "waiting_ms": {"before": before.waiting_ms, "while_adding": during.waiting_ms},
    }  # fmt: skip


class _Turns:
    """Answers of several times, counted together."""

    def __init__(self) -> None:
        self._answers: list[NDArray[np.void]] = []
        self._waiting = 0.0
        self.seconds = 0.0

    def __len__(self) -> int:
        return len(self._answers)

    def add(self, answers: NDArray[np.void], spent: dict[str, float], seconds: float) -> None:
        self._answers.append(answers)
        self._waiting += spent["waiting"]
        self.seconds += seconds

    def summary(self) -> dict[str, Any]:
        return _summary(np.concatenate(self._answers), self.seconds)

    @property
    def p99(self) -> float:
        """The median of the turns, ms."""
        return statistics.median(self.p99s)

    @property
    def p99s(self) -> list[float]:
        """Of each turn that has answers, ms."""
        return [_summary(answers, 1.0)["ms"]["99"] for answers in self._answers if len(answers)]

    @property
    def waiting_ms(self) -> float:
        return round(1000 * self._waiting / sum(map(len, self._answers)), 3)


def client_cost(server: Served, n: int = 500) -> dict[str, float]:
    """Returns the microseconds of processor time that a request costs the benchmark's client, and httpx."""
    address = urlsplit(server.url)
    request = b"GET /healthz HTTP/1.1\r\nHost: %b\r\n\r\n" % address.netloc.encode()

    async def lean() -> float:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, address.hostname, address.port)
        started = time.process_time()
        for _ in range(n):
            await connection.ask(request)
        return time.process_time() - started

    with httpx.Client(base_url=server.url) as client:
        client.get("/healthz")
        started = time.process_time()
        for _ in range(n):
            client.get("/healthz")
        spent = time.process_time() - started
    return {"lean_us": round(1e6 * asyncio.run(lean()) / n, 1), "httpx_us": round(1e6 * spent / n, 1)}


def _timed(work: Callable[[], object], seconds: float) -> list[float]:
    work()
    times, until = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < until:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return times


def _summary(answers: NDArray[np.void], seconds: float) -> dict[str, Any]:
    """Answers a second, milliseconds by percentile; who was sent away (429 with Retry-After) is no error."""
    good = answers[answers["status"] == 200]
    sent_away = int(np.count_nonzero((answers["status"] == 429) & answers["promised"]))
    errors = len(answers) - len(good) - sent_away
    if not len(good):
        return {"answers": 0, "errors": errors, "sent_away": sent_away, "per_second": 0.0, "ms": {}}
    ms = np.percentile(1000 * good["seconds"], _PERCENTILES).round(3).tolist()
    return {
        "answers": len(good), "errors": errors, "sent_away": sent_away, "per_second": round(len(good) / seconds, 1),
        "ms": {f"{percentile:g}": value for percentile, value in zip(_PERCENTILES, ms, strict=True)},
    }  # fmt: skip
