"""Runs as the benchmark on CIFAR-10 records them, made up."""

from typing import Any

FRAME = {"backbone": "tiny", "budget": {"epochs": 3}}


def a_run(method: str, n_bits: int | None, seed: int, mean: float, *, protocol: str = "cifar10-1") -> dict[str, Any]:
    """A run of a method; ``float`` has neither budget nor bits."""
    run = {"protocol": protocol, "method": method, "n_bits": n_bits, "seed": seed, "map": mean, "chance": 0.1}
    if n_bits is None:
        return run | {"config": {"backbone": "tiny"}}
    return run | {
        "config": FRAME | {"options": {}},
        "p_within_2": mean / 2,
        "empty_within_2": 0.25,
        "recall_by_radius": [0.1, 0.5, 1.0],
        "precision_by_radius": [mean, mean / 2, 0.1],
    }
