"""Chooses the options of each loss on validation images: `python -m benchmarks.cifar10.tuning --data DIR`.

The images are those of the training set of ``cifar10-1``, seed 0, that are a query of no protocol and no seed of the
benchmark and not in the official test set; 1,000 of them are held out. After training on the others, within the budget
of the benchmark, each image held out ranks the other 999. The mean mAP at 12 and 48 bits over two seeds decides, for
all lengths, protocols and seeds.
"""

import argparse
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cifar10.frame import BACKBONE, FeatureSet, budget, load_features, make_features
from benchmarks.cifar10.methods import Contestant, Supervised
from benchmarks.cifar10.options import GRID, TUNING
from benchmarks.cifar10.runs import one_thread
from benchmarks.record import write_result
from deephash.datasets import PROTOCOLS, LabelledImages, load_cifar10, split_cifar10
from deephash.evaluation import evaluate_codes
from index import pack_bits

__all__ = ["judge", "prepared", "validation_positions"]

_BITS = (12, 48)
_SEEDS = (0, 1)
_QUERY_SEEDS = (0, 1, 2)
_HELD_OUT = 1000


def main() -> None:
    """Runs the script."""
    images, training, held_out, jobs = prepared(__doc__)
    numbers: dict[str, list[dict[str, Any]]] = {}
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        tasks = {
            (loss, number, n_bits, seed): pool.submit(
                judge, Supervised(loss, candidate, tuned=False), images.targets, training, held_out, (n_bits,), seed
            )
            for loss, candidates in GRID.items()
            for number, candidate in enumerate(candidates)
            for n_bits in _BITS
            for seed in _SEEDS
        }
        for loss, candidates in GRID.items():
            numbers[loss] = []
            for number, candidate in enumerate(candidates):
                maps = {n: [tasks[loss, number, n, seed].result()[0] for seed in _SEEDS] for n in _BITS}
                mean = round(statistics.mean(value for values in maps.values() for value in values), 4)
                numbers[loss].append({"options": candidate, "map": maps, "mean": mean})
                print(loss, candidate or "defaults", maps, f"mean {mean}", flush=True)
    config = {
        "backbone": BACKBONE, "budget": budget(len(training)), "training": len(training), "held_out": len(held_out),
        "bits": _BITS, "seeds": _SEEDS,
    }  # fmt: skip
    print(write_result(TUNING, config=config, numbers=numbers))


def prepared(description: str | None) -> tuple[LabelledImages, NDArray[np.int64], NDArray[np.int64], int]:
    """Reads the command line; returns CIFAR-10, whose features are there then, ``validation_positions``, and --jobs."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    images = load_cifar10(options.data)
    make_features(images.pixels)
    training, held_out = validation_positions(images)
    one_thread()
    return images, training, held_out, options.jobs


def validation_positions(images: LabelledImages) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the positions to train on and those to judge by: of no query of the benchmark, and no test image."""
    asked = [split_cifar10(images, protocol, seed=seed).query for protocol in PROTOCOLS for seed in _QUERY_SEEDS]
    pool = np.setdiff1d(split_cifar10(images, "cifar10-1", seed=0).training, np.concatenate(asked))
    held_out = np.sort(np.random.default_rng(0).choice(pool, _HELD_OUT, replace=False))
    return np.setdiff1d(pool, held_out), held_out


def judge(
    contestant: Contestant, targets: NDArray[np.int64], training: NDArray[np.int64], held_out: NDArray[np.int64],
    lengths: Sequence[int], seed: int,
) -> list[float]:  # fmt: skip
    """Returns the mAP of the images held out among each other, for prefixes of the code; the last length is its own."""
    used = np.concatenate([training, held_out])
    data = FeatureSet(np.array(load_features()[used]), targets[used], np.arange(len(training)))
    bits = contestant.bits(data, lengths[-1], seed)[len(training) :]
    labels = targets[held_out]
    rows = np.arange(len(held_out))
    maps = []
    for n_bits in lengths:
        codes = pack_bits(bits[:, :n_bits])
        report = evaluate_codes(codes, codes, n_bits=n_bits, query_labels=labels, database_labels=labels, exclude=rows)
        maps.append(round(report.map, 4))
    return maps


if __name__ == "__main__":
    main()
