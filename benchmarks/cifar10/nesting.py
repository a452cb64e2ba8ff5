"""How one model learns several lengths, on validation images: `python -m benchmarks.cifar10.nesting --data DIR`.

DSDH, with the options that validation chose; images, split and measure are those of ``tuning``. A model for each
length, and one model of nested codes: where every length moves all its bits (``joint``), and where a bit learns from
the shortest length that has it, for some values of ``given``.
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.cifar10.frame import BACKBONE, budget
from benchmarks.cifar10.methods import Contestant, Nested, Supervised
from benchmarks.cifar10.tuning import judge, prepared
from benchmarks.record import write_result

_DEDICATED = Supervised("dsdh")
_LENGTHS = Nested(_DEDICATED).lengths
_SEEDS = (0, 1, 2, 3, 4)
_WAYS: dict[str, tuple[Contestant, list[tuple[int, ...]]]] = {
    "a model for each length": (_DEDICATED, [(n_bits,) for n_bits in _LENGTHS]),
    "one model, each length moves all its bits": (Nested(_DEDICATED, joint=True), [_LENGTHS]),
    **{
        f"one model, a bit learns from the shortest length that has it, given = {given:g}": (
            Nested(_DEDICATED, given=given),
            [_LENGTHS],
        )
        for given in (1.0, 0.5, 0.0)
    },
}


def main() -> None:
    """Runs the script."""
    images, training, held_out, jobs = prepared(__doc__)
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        tasks = {
            (way, lengths, seed): pool.submit(judge, contestant, images.targets, training, held_out, lengths, seed)
            for way, (contestant, trainings) in _WAYS.items()
            for lengths in trainings
            for seed in _SEEDS
        }
        numbers: dict[str, dict[str, list[float]]] = {way: {str(n): [] for n in _LENGTHS} for way in _WAYS}
        for (way, lengths, seed), task in tasks.items():
            for n_bits, value in zip(lengths, task.result(), strict=True):
                numbers[way][str(n_bits)].append(value)
            print(way, lengths, f"seed {seed}", task.result(), flush=True)
    config = {
        "backbone": BACKBONE, "budget": budget(len(training)), "options": _DEDICATED.options,
        "training": len(training), "held_out": len(held_out), "seeds": _SEEDS,
    }  # fmt: skip
    print(write_result("cifar10-nesting", config=config, numbers=numbers))


if __name__ == "__main__":
    main()
