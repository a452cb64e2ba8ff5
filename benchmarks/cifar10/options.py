"""Which options of a loss the benchmark tries on validation images, and which it then uses."""

import functools
import json
from typing import Any

from benchmarks.record import RESULTS

__all__ = ["GRID", "TUNING", "chosen_options"]

TUNING = "cifar10-tuning"

# For every loss its defaults and three others: the same chance for each. The weight of what draws logits to codes where
# there is one; else what else the authors of the loss set by hand.
GRID: dict[str, list[dict[str, Any]]] = {
    "dsdh": [{}, {"mu": 1e3, "nu": 1e2}, {"mu": 1e4, "nu": 1e3, "eta": 550.0}, {"mu": 1e6, "nu": 1e5}],
    "dpsh": [{}, {"eta": 1.0}, {"eta": 50.0}, {"eta": 200.0}],
    "dhn": [{}, {"weight": 0.01}, {"weight": 0.03}, {"weight": 1.0}],
    "dsh": [{}, {"alpha": 0.001}, {"alpha": 0.1}, {"alpha": 1.0}],
    "dtsh": [{}, {"eta": 0.0005}, {"eta": 0.05}, {"eta": 0.5}],
    "hashnet": [{}, {"beta_max": 1.0}, {"beta_max": 3.0}, {"beta_max": 20.0}],
    "dch": [{}, {"gamma": 10.0}, {"gamma": 5.0}, {"weight": 0.0}],
    "mihash": [{}, {"sharpness": 1.0}, {"sharpness": 3.0}, {"sharpness": 30.0}],
    "csq": [{}, {"weight": 0.01}, {"weight": 0.1}, {"weight": 1.0}],
    "dpn": [{}, {"margin": 0.3}, {"margin": 2.0}, {"margin": 4.0}],
    "greedyhash": [{}, {"weight": 0.0}, {"weight": 0.01}, {"weight": 1.0}],
    "orthohash": [{}, {"scale": 4.0}, {"scale": 16.0}, {"margin": 0.5}],
}


def chosen_options(loss: str) -> dict[str, Any]:
    """Returns the options with the best validation mAP.

    Raises:
        FileNotFoundError: nothing was tried yet.
    """
    return dict(_choices()[loss])


@functools.cache
def _choices() -> dict[str, dict[str, Any]]:
    path = RESULTS / f"{TUNING}.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: python -m benchmarks.cifar10.tuning")
    tried = json.loads(path.read_text(encoding="utf-8"))["numbers"]
    return {loss: max(options, key=lambda one: one["mean"])["options"] for loss, options in tried.items()}
