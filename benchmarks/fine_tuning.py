"""How fast the default backbone is fine-tuned on this machine, and what each measure of ``fine_tuning`` brings.

    python -m benchmarks.fine_tuning

Images a second of forward and backward pass, on random pixels: variants in turn, several rounds, the fastest of each.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.record import write_result
from deephash.backbones import DEFAULT_BACKBONE, create_backbone
from deephash.fine_tuning import freeze_stages, prepare_fine_tuning
from deephash.inference import inference_copy, run_in_parts


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--frozen-stages", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    images = torch.rand(options.batch_size, 3, options.size, options.size)
    images = images.contiguous(memory_format=torch.channels_last)
    steps = {name: _step(*made, images) for name, made in _variants(options.size, options.frozen_stages).items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds + 1):  # the first round warms up
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    rates = {name: options.batch_size / min(values[1:]) for name, values in seconds.items()}
    first = next(iter(rates.values()))
    numbers = [
        {"variant": name, "images_per_second": round(rate, 1), "ratio": round(rate / first, 2)}
        for name, rate in rates.items()
    ]
    for row in numbers:
        print(f"{row['variant']:60} {row['images_per_second']:7} images/s   x {row['ratio']}")
    write_result("fine_tuning", config=vars(options), numbers=numbers)


def table(numbers: list[dict[str, Any]]) -> str:
    """Returns one row for each variant."""
    lines = ["| forward and backward pass, 224 pixels, 2 cores | images a second | times as fast |", "|---|---|---|"]
    lines += [f"| {row['variant']} | {row['images_per_second']:.0f} | {row['ratio']:.2f} |" for row in numbers]
    return "\n".join(lines)


def _variants(size: int, frozen: int) -> dict[str, tuple[nn.Module, bool, bool]]:
    """Networks by name, each with whether it runs under bfloat16 autocast, and whether in parts of a batch."""
    plain = create_backbone(DEFAULT_BACKBONE).module.train()
    folded = inference_copy(plain, size).train().requires_grad_(True)
    partly = inference_copy(plain, size).train().requires_grad_(True)
    freeze_stages(partly, frozen)
    prepared = prepare_fine_tuning(plain, size, frozen)
    return {
        "all of it, batch norms learning": (plain, False, False),
        "batch norms folded": (folded, False, False),
        f"... stem and {frozen} stages frozen": (partly, False, False),
        "... bfloat16": (partly, True, False),
        "... bfloat16, depthwise convolutions of our own": (prepared, True, False),
        "... the batch in parts that fit the caches": (prepared, True, True),
    }


def _step(network: nn.Module, bf16: bool, parts: bool, images: torch.Tensor) -> Callable[[], None]:
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            features = run_in_parts(network, images) if parts else network(images)
        features.float().square().mean().backward()
        network.zero_grad(set_to_none=True)

    return step


if __name__ == "__main__":
    main()
