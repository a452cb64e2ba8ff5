"""Measures `deephash serve` under load: a million images, photographs, server and clients in processes of their own.

    python -m benchmarks.serve --photos DIR        # about 16 minutes, the index made once; writes results/serve.json,
                                                   # or serve-bf16.json where the encoder computes in that
    python -m benchmarks.serve --quick             # under a minute, a small index, writes nothing

Searches by id; searches by uploaded photograph beside the bare encoder, in turns; a mixed load for minutes, with the
server's memory; searches before and while 10,000 files are added, in turns. Without --photos the package's own samples
are taken. All share the processors; nothing is set for the server that a user would not have.
``python -m benchmarks.tables`` then writes the table, ``python -m benchmarks.plots`` the plot.
"""

import argparse
import os
import shutil
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.record import write_result
from benchmarks.serve.collection import MODEL, find_photos, make_index, make_new_files
from benchmarks.serve.measuring import Budget, adding, by_id, client_cost, soak, uploads
from benchmarks.serve.report import table
from benchmarks.serve.server import serving
from deephash.model import load_model

N_IMAGES = 1_000_000
QUICK = Budget(
    seconds=2.0, soak_seconds=5.0, soak_clients=16, upload_clients=8, rounds=1, round_seconds=2.0, n_new=200,
    adding_seconds=3.0,
)  # fmt: skip


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, metavar="DIR", help="photographs to index, upload and add")
    parser.add_argument("--images", type=int, default=N_IMAGES, help="in the index")
    parser.add_argument("--seconds", type=float, default=Budget.soak_seconds, help="of the mixed load")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    started = time.monotonic()
    budget = QUICK if options.quick else replace(Budget(), soak_seconds=options.seconds)
    n_images, n_photos = (5_000, 100) if options.quick else (options.images, 1_000)
    load_before = round(os.getloadavg()[0], 2)
    numbers = measure(find_photos(options.photos), n_images, n_photos, budget)
    print(table(numbers))
    if not options.quick:
        config: dict[str, Any] = {
            "images": n_images, "model": MODEL, "threads": os.environ.get("OMP_NUM_THREADS"),
            "cores": len(os.sched_getaffinity(0)), "load_average": [load_before, round(os.getloadavg()[0], 2)],
            **asdict(budget),
        }  # fmt: skip
        print(f"raw numbers: {write_result(_name(numbers), config=config, numbers=numbers)}")
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")


def measure(photos: Path, n_images: int, n_photos: int, budget: Budget) -> dict[str, Any]:
    """Returns what all phases found, of an index made of the photos."""
    index, n_photos = make_index(photos, n_images, n_photos)
    files = [path for path in sorted(photos.iterdir()) if path.suffix in (".jpg", ".jpeg", ".png")][:n_photos]
    model = load_model(MODEL)
    with tempfile.TemporaryDirectory(prefix="serve-") as place:
        root = Path(place).resolve()
        make_new_files(files, root / "new", budget.n_new)
        shutil.copytree(index, root / "served.dhx")
        load = {"n_images": n_images, "n_photos": n_photos, "uploads": [str(path) for path in files[:64]]}
        with serving(root / "served.dhx", root=root) as server:
            numbers: dict[str, Any] = {
                "images": n_images, "encoder": model.encoder.name, "client": client_cost(server),
            }  # fmt: skip
            print("searches by id", flush=True)
            numbers["by_id"] = by_id(server, load, budget)
            print("searches by photograph", flush=True)
            numbers["uploads"] = uploads(server, load, budget, model, files)
            print(f"mixed load, {budget.soak_seconds:g} s", flush=True)
            numbers["soak"] = soak(server, load, budget)
            print("searches while images are added", flush=True)
            numbers["adding"] = adding(server, load, budget, root / "new", numbers["by_id"]["per_second"])
    return numbers


def _name(numbers: dict[str, Any]) -> str:
    return "serve-bf16" if numbers["encoder"] == "openvino-bf16" else "serve"


if __name__ == "__main__":
    main()
