"""Runs what is missing of the benchmark on CIFAR-10: the same frozen features, head and budget for every method.

    python -m benchmarks.cifar10 --data DIR --jobs 2
    python -m benchmarks.cifar10 --data DIR --methods dsdh dpsh --bits 48 --protocols cifar10-1 --seeds 0

DIR holds cifar-10-batches-py. The first run computes the features of EfficientNet-Lite0 (ImageNet weights, 224 pixels)
and keeps them in ``benchmarks/cache``. Results are added to ``results/cifar10`` as they come; those that are there are
not run again. Protocols with the same queries and training set share their trainings. ``python -m benchmarks.tables``
then writes the tables, ``python -m benchmarks.plots`` the plots.
"""

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cifar10.frame import make_features
from benchmarks.cifar10.methods import FLOAT, METHODS
from benchmarks.cifar10.results import add_run, finished
from benchmarks.cifar10.runs import Job, config_of, one_thread, prefixes_of, run
from deephash.datasets import PROTOCOLS, LabelledImages, RetrievalSplit, load_cifar10, split_cifar10

BITS = (12, 24, 32, 48)
# The split of this protocol is the official one, whatever the seed.
_ONE_SPLIT = "cifar10-2"


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--bits", nargs="+", type=int, default=list(BITS))
    parser.add_argument("--protocols", nargs="+", choices=list(PROTOCOLS), default=list(PROTOCOLS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    options = parser.parse_args()
    images = load_cifar10(options.data)
    make_features(images.pixels)
    jobs = list(_missing(images, options.methods, options.bits, options.protocols, options.seeds))
    print(f"{len(jobs)} runs are missing", flush=True)
    one_thread()
    started = time.monotonic()
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        try:
            waiting: dict[Future[Any], Job] = {pool.submit(run, job, images.targets): job for job in jobs}
            for number, future in enumerate(as_completed(waiting), start=1):
                # What is done is let go: the results of many runs need not stay in memory.
                job = waiting.pop(future)
                judged = itertools.product(job.splits, job.lengths)
                for (split, n_bits), result in zip(judged, future.result(), strict=True):
                    add_run(split.protocol, job.method, config_of(job.method, len(split.training)), result)
                    print(
                        f"{number}/{len(jobs)} {split.protocol} {job.method} {n_bits} bits, seed {job.seed}: "
                        f"mAP {result['map']:.4f}, {result['cpu_seconds']:.0f} CPU s",
                        flush=True,
                    )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # else an error would be told when all is done
            raise
    print(f"{len(jobs)} runs in {(time.monotonic() - started) / 60:.1f} minutes")


def _missing(
    images: LabelledImages, methods: Sequence[str], bits: Sequence[int], protocols: Sequence[str], seeds: Sequence[int]
) -> Iterator[Job]:
    """Yields the jobs that are not finished: by seed, then training set, then method."""
    for seed in seeds:
        for splits in _sharing([split_cifar10(images, protocol, seed=seed) for protocol in protocols]):
            for method in methods:
                splits_of_method = [split for split in splits if _belongs(method, split.protocol, seed)]
                # One training of a nested method gives all its lengths; the longest is the last to be written.
                for n_bits in [None] if method == FLOAT else prefixes_of(method)[-1:] or bits:
                    missing = tuple(
                        split
                        for split in splits_of_method
                        if (n_bits, seed)
                        not in finished(split.protocol, method, config_of(method, len(split.training)))
                    )
                    if missing:
                        yield Job(method, n_bits, seed, missing)


def _belongs(method: str, protocol: str, seed: int) -> bool:
    if METHODS[method].asymmetric:
        # Its codes of the database are its own codes of the training set.
        return protocol == _ONE_SPLIT
    if METHODS[method].is_ablation and protocol == _ONE_SPLIT:
        # Two epochs have one discrete step.
        return False
    return method != FLOAT or protocol != _ONE_SPLIT or seed == 0


def _sharing(splits: Sequence[RetrievalSplit]) -> list[list[RetrievalSplit]]:
    """Groups splits with the same training set and queries."""
    groups: list[list[RetrievalSplit]] = []
    for split in splits:
        for group in groups:
            if np.array_equal(split.training, group[0].training) and np.array_equal(split.query, group[0].query):
                group.append(split)
                break
        else:
            groups.append([split])
    return groups


if __name__ == "__main__":
    main()
