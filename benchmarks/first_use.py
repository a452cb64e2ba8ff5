"""How long the main jobs take, as a user waits for them: whole commands, in processes of their own.

    python -m benchmarks.first_use --photos DIR

Times ``deephash demo``; ``deephash index`` over DIR into a new index and again over the unchanged folder; one query by
photograph and one by id. Beside the indexing rate stands the bare forward pass of the same network on the same machine,
in this very run: what decoding, fitting, storing and starting up cost is the difference.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import write_result
from deephash.augmentation import normalise
from deephash.input_spec import InputSpec
from deephash.model import load_model

_N_FORWARD, _BATCH = 12, 32


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    options = parser.parse_args()
    photos = options.photos.resolve()
    with tempfile.TemporaryDirectory() as folder:
        numbers = measure(photos, Path(folder))
    path = write_result("first_use", config={"photos": numbers["images"], "batch": _BATCH}, numbers=numbers)
    print(table(numbers))
    print(f"raw numbers: {path}")


def measure(photos: Path, folder: Path) -> dict[str, Any]:
    """Returns seconds of commands, images and images a second."""
    before = forward_rate()
    unfolded = without_folding()
    demo, _ = run(["demo", "--output", str(folder / "demo")], folder)
    seconds, report = run(["index", str(photos), "--index", "photos.dhx", "--json"], folder)
    again, unchanged = run(["index", str(photos), "--index", "photos.dhx", "--json"], folder)
    if unchanged["decoded"]:
        raise RuntimeError(f"the second run decoded {unchanged['decoded']} images of an unchanged folder")
    image = str(next(photos.rglob("*.jpg")))
    by_image = statistics.median(run(["query", "photos.dhx", image, "--json"], folder)[0] for _ in range(3))
    by_id = statistics.median(run(["query", "photos.dhx", "--id", "1", "--json"], folder)[0] for _ in range(3))
    return {
        "images": report["n_images"],
        "demo_seconds": demo,
        "index_seconds": seconds,
        "index_rate": report["decoded"] / report["seconds"],
        "forward_rate": statistics.median([before, forward_rate()]),
        "forward_rate_batch_norms_unfolded": unfolded["rate"],
        "features_differ_by_folding": unfolded["difference"],
        "index_again_seconds": again,
        "query_by_image_seconds": by_image,
        "query_by_id_seconds": by_id,
    }


def run(arguments: list[str], folder: Path) -> tuple[float, Any]:
    """Returns the wall seconds of a command and the first JSON line that it printed, if any."""
    command = [sys.executable, "-m", "deephash", *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    first = done.stdout.partition("\n")[0]
    return seconds, json.loads(first) if first.startswith("{") else None


def forward_rate() -> float:
    """Returns images a second of the general model's features, batches of pixels at hand, median batch."""
    model = load_model("general-128")
    spec: InputSpec = model.input_spec
    pixels = np.random.default_rng(0).integers(0, 256, (_BATCH, spec.size, spec.size, 3), dtype=np.uint8)
    model.features(pixels)
    times = []
    for _ in range(_N_FORWARD):
        started = time.perf_counter()
        model.features(pixels)
        times.append(time.perf_counter() - started)
    return _BATCH / statistics.median(times)


def without_folding() -> dict[str, float]:
    """Returns the rate of the same forward pass with batch norms, and the largest difference in a feature."""
    model = load_model("general-128")
    pixels = np.random.default_rng(0).integers(0, 256, (_BATCH, 224, 224, 3), dtype=np.uint8)
    images = normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, model.input_spec)
    network = model.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    times = []
    with torch.inference_mode():
        for _ in range(_N_FORWARD + 1):
            started = time.perf_counter()
            features = torch.nn.functional.normalize(network(images))
            times.append(time.perf_counter() - started)
    difference = float(np.abs(features.numpy() - model.features(pixels)).max())
    return {"rate": _BATCH / statistics.median(times[1:]), "difference": difference}


def table(numbers: dict[str, Any]) -> str:
    """Returns the numbers as a Markdown table."""
    n, ratio = numbers["images"], numbers["index_rate"] / numbers["forward_rate"]
    rows = {
        "`deephash demo`": f"{numbers['demo_seconds']:.0f} s",
        f"`deephash index`, {n:,} photographs, model fitted": f"{numbers['index_seconds']:.0f} s "
        f"({numbers['index_rate']:.0f} images/s, {ratio:.2f} of the bare forward pass)",
        "`deephash index` again, nothing changed": f"{numbers['index_again_seconds']:.1f} s, nothing decoded",
        "`deephash query` by photograph": f"{numbers['query_by_image_seconds']:.1f} s",
        "`deephash query` by id": f"{numbers['query_by_id_seconds']:.1f} s",
    }
    return "\n".join(
        ["| whole command | 2 cores |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items())]
    )


if __name__ == "__main__":
    main()
