"""How far copies of a photograph lie from it, and how near different photographs come to each other.

    python -m benchmarks.copies --photos DIR

Indexes DIR as ``deephash index`` does (128 bits fitted to it), makes copies of 200 of its photographs, and counts by
radius: which share of the copies lies within it of the original, and how many pairs of different photographs do.
``deephash duplicates`` takes a 32nd of the bits by default: of two different pictures none should be called copies,
so small changes are found and large ones are left to ``--radius``. Raw numbers: ``results/copies.json``.
"""

import argparse
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.record import write_result
from deephash.engine import ImageSearch
from deephash.indexing import index_images
from index import hamming_distances

RADII = (0, 2, 4, 6, 8, 12, 16)
_N_COPIED = 200


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        index_images(options.photos, Path(folder) / "photos.dhx")
        with ImageSearch.open(Path(folder) / "photos.dhx") as search:
            numbers = measure(search)
    path = write_result("copies", config={"n_bits": 128, "n_copied": _N_COPIED, "radii": RADII}, numbers=numbers)
    print(table(numbers))
    print(f"raw numbers: {path}")


def measure(search: ImageSearch) -> dict[str, Any]:
    """Returns shares of copies and counts of pairs by radius, in the order of RADII."""
    ids = search.store.ids()
    codes = search.store.codes(ids)
    between = hamming_distances(codes, codes)[np.triu_indices(len(codes), 1)]
    records = search.records(ids[:: max(1, len(ids) // _N_COPIED)][:_N_COPIED])
    originals = np.stack([np.frombuffer(record.code, np.uint8) for record in records])
    pictures = [Image.open(record.path).convert("RGB") for record in records]
    shares = {}
    for name, change in CHANGES.items():
        copies = search.encode([change(picture) for picture in pictures])
        distances = np.bitwise_count(copies ^ originals).sum(axis=1)
        shares[name] = [float((distances <= radius).mean()) for radius in RADII]
    pairs = [int((between <= radius).sum()) for radius in RADII]
    return {"n_photos": len(codes), "n_pairs": len(between), "different_pairs_within": pairs, "copies_within": shares}


def table(numbers: dict[str, Any]) -> str:
    """Returns the numbers as a Markdown table."""
    lines = ["| within radius | " + " | ".join(map(str, RADII)) + " |", "|---" * (len(RADII) + 1) + "|"]
    for name, shares in numbers["copies_within"].items():
        lines.append(f"| {name} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")
    counts = " | ".join(map(str, numbers["different_pairs_within"]))
    return "\n".join([*lines, f"| different photographs, of {numbers['n_pairs']:,} pairs | {counts} |"])


def _recompressed(quality: int) -> Callable[[Image.Image], Image.Image]:
    def change(picture: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality)
        return Image.open(stream).convert("RGB")

    return change


def _scaled(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda picture: picture.resize((round(picture.width * factor), round(picture.height * factor)))


def _cropped(picture: Image.Image) -> Image.Image:
    x, y = picture.width // 20, picture.height // 20
    return picture.crop((x, y, picture.width - x, picture.height - y))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 90": _recompressed(90),
    "JPEG, quality 50": _recompressed(50),
    "twice the size": _scaled(2),
    "half the size": _scaled(0.5),
    "cropped by 10 %": _cropped,
}


if __name__ == "__main__":
    main()
