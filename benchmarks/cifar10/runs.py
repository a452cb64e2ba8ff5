"""One training, judged by every protocol that it serves."""

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cifar10.frame import BACKBONE, FeatureSet, budget, load_features
from benchmarks.cifar10.methods import FLOAT, METHODS, Nested
from deephash.datasets import RetrievalSplit
from deephash.evaluation import RetrievalReport, evaluate_codes, evaluate_features
from index import pack_bits

__all__ = ["Job", "config_of", "one_thread", "prefixes_of", "run"]


@dataclass(frozen=True)
class Job:
    """A method, a length (None for the float features) and a seed, on splits with the same queries and training set.

    Of a nested method the length is the longest; all are judged.
    """

    method: str
    n_bits: int | None
    seed: int
    splits: tuple[RetrievalSplit, ...]

    @property
    def lengths(self) -> tuple[int | None, ...]:
        """The lengths that are judged."""
        return prefixes_of(self.method) or (self.n_bits,)


def prefixes_of(method: str) -> tuple[int, ...]:
    """Returns the lengths that one training of a nested method gives; none for the others."""
    contestant = METHODS[method].contestant
    return contestant.lengths if isinstance(contestant, Nested) else ()


def one_thread() -> None:
    """Keeps processes that start from now on to one thread each: they share no core, and results depend on no count."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def config_of(method: str, n_train: int) -> dict[str, Any]:
    """Returns all that a result depends on, but for protocol, length and seed."""
    contestant = METHODS[method].contestant
    config: dict[str, Any] = {"backbone": BACKBONE}
    if contestant is not None:
        if contestant.has_head:
            config["budget"] = budget(n_train)
        config["options"] = contestant.options
    return config


def run(job: Job, targets: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Returns a result for each split and length of the job: quality, and the CPU seconds of learning and encoding."""
    features = load_features()
    split = job.splits[0]
    started = time.process_time()
    if job.method != FLOAT:
        contestant, n_bits = METHODS[job.method].contestant, job.n_bits
        assert contestant is not None
        assert n_bits is not None
        bits = contestant.bits(FeatureSet(features, targets, split.training), n_bits, job.seed)
    cpu_seconds = round(time.process_time() - started, 2)
    results = []
    for split in job.splits:
        labels = {"query_labels": targets[split.query], "database_labels": targets[split.database]}
        for length in job.lengths:
            if length is None:
                quality = evaluate_features(features[split.query], features[split.database], **labels)
            else:
                codes = pack_bits(bits[:, :length])
                quality = evaluate_codes(codes[split.query], codes[split.database], n_bits=length, **labels)
            results.append({"n_bits": length, "seed": job.seed, "cpu_seconds": cpu_seconds} | _numbers(quality))
    return results


def _numbers(quality: RetrievalReport) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "map": quality.map,
        "map_optimistic": quality.map_optimistic,
        "map_pessimistic": quality.map_pessimistic,
        "p_at_10": quality.precision_at[10],
        "chance": quality.chance,
    }
    if quality.health is not None:
        assert quality.precision_within is not None
        assert quality.empty_within is not None
        assert quality.pr_by_radius is not None
        numbers |= {
            "p_within_2": quality.precision_within[2],
            "empty_within_2": quality.empty_within[2],
            "distinct_codes": quality.health.distinct_codes,
            "entropy": quality.health.entropy,
            "precision_by_radius": [point.precision for point in quality.pr_by_radius],
            "recall_by_radius": [point.recall for point in quality.pr_by_radius],
        }
    return {name: _rounded(value) for name, value in numbers.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [round(number, 4) for number in value]
    return round(value, 5) if isinstance(value, float) else value
