"""How well copies of photographs are told from other photographs: copy codes beside perceptual hashes.

    python -m benchmarks.copies --photos DIR --distractors DIR

The first DIR holds the photographs of ``benchmarks.make_copy_model``. Those that it did not train on, every second one
by name, are changed in each of ``CHANGES``, and each copy is compared with all of them and with all photographs of
the second DIR. A pair is found when its distance is within a contestant's threshold: the largest at which 99 % of the
pairs found in the first half of the photographs are copies. Recall (of the copies, with their originals) and precision
(of the pairs found) are those of the second half. Mirrored copies count in neither: they are compared by distance to
the mirrored code, which for the other contestants is the code of the mirrored original. Perceptual hashes come from
imagehash and pdqhash (pip install 'deephash[bench]'). Cosine: of the float features of EfficientNet-Lite0 at 224 px,
the way of imagededup's CNN with this network in place of its own. Raw numbers: ``results/copies.json``.
"""

import argparse
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from benchmarks.record import write_result
from deephash.image_files import find_images
from deephash.images import load_image, preprocess
from deephash.model import HashModel, load_model

PRECISION = 0.99
# Radius of the shipped model: all pairs found are copies, as collections are larger than this one.
CAREFUL_PRECISION = 1.0
MIRRORED = "mirrored"
_BLOCK = 256
Change = Callable[[Image.Image], Image.Image]
Codes = NDArray[Any]


def recompressed(quality: int) -> Change:
    """Returns a change: saved as JPEG of that quality."""

    def change(picture: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality)
        return Image.open(stream).convert("RGB")

    return change


def _scaled(factor: float) -> Change:
    return lambda picture: picture.resize((round(picture.width * factor), round(picture.height * factor)))


def _cropped(share: float) -> Change:
    def change(picture: Image.Image) -> Image.Image:
        x, y = round(picture.width * share / 2), round(picture.height * share / 2)
        return picture.crop((x, y, picture.width - x, picture.height - y))

    return change


def _rotated(degrees: float) -> Change:
    return lambda picture: picture.rotate(degrees, Image.Resampling.BICUBIC)


def _shifted(*factors: float) -> Change:
    def change(picture: Image.Image) -> Image.Image:
        channels = zip(picture.split(), factors, strict=True)
        return Image.merge(
            "RGB", [channel.point([min(255, int(v * f)) for v in range(256)]) for channel, f in channels]
        )

    return change


CHANGES: dict[str, Change] = {
    "half the size": _scaled(0.5),
    "twice the size": _scaled(2),
    "JPEG, quality 30": recompressed(30),
    "blurred, 2 pixels": lambda picture: picture.filter(ImageFilter.GaussianBlur(2)),
    "cropped by 10 %": _cropped(0.1),
    "brighter, paler": lambda p: ImageEnhance.Color(ImageEnhance.Brightness(p).enhance(1.2)).enhance(0.7),
    "warmer": _shifted(1.15, 1.0, 0.85),
    "more contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(1.4),
    "turned by 3°": _rotated(3),
    "turned by -5°": _rotated(-5),
    MIRRORED: lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


@dataclass(frozen=True)
class Contestant:
    """How pictures become rows, how far those are apart, and what the mirrored picture's row is, if that is known."""

    name: str
    encode: Callable[[Sequence[Image.Image]], Codes]
    distances: Callable[[Codes, Codes], NDArray[np.float32]]
    mirror: Callable[[Codes], Codes] | None = None


def training_half(photos: Path) -> list[str]:
    """Returns the paths of the photographs to train on."""
    return [file.path for file in find_images([photos])][::2]


def choose_radius(model: HashModel, photos: Path, distractors: Path) -> int:
    """Returns the largest radius that is careful enough on the first half of the photographs not trained on."""
    pairs = compare(_ours(model), _halves(photos)[0], _pictures(distractors))
    return int(threshold(pairs, CAREFUL_PRECISION))


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--distractors", type=Path, required=True)
    options = parser.parse_args()
    halves, others = _halves(options.photos), _pictures(options.distractors)
    rows = []
    for contestant in contestants():
        first, second = (compare(contestant, half, others) for half in halves)
        rows.append(judge(contestant.name, second, threshold(first, PRECISION)))
        if contestant.name == OURS:
            rows.append(judge(f"{OURS}, shipped radius", second, load_model("copies-256").training_facts["radius"]))
        print(f"{contestant.name}: recall {rows[-1]['recall']:.3f}", flush=True)
    config = {"photos": [len(half) for half in halves], "distractors": len(others), "precision": PRECISION}
    path = write_result("copies", config=config, numbers=rows)
    print(table(rows))
    print(f"raw numbers: {path}")


OURS = "copies-256 (ours)"


def contestants() -> list[Contestant]:
    """Returns all contestants."""
    import imagehash
    import pdqhash

    def perceptual(hash: Callable[[Image.Image], Any]) -> Callable[[Sequence[Image.Image]], Codes]:
        return lambda pictures: np.stack([np.packbits(np.asarray(hash(picture)).astype(bool)) for picture in pictures])

    general = load_model("general-256")
    return [
        _ours(load_model("copies-256")),
        Contestant("PDQ, 256 bits", perceptual(lambda p: pdqhash.compute(np.asarray(p))[0]), _hamming),
        Contestant("pHash, 64 bits", perceptual(lambda p: imagehash.phash(p).hash), _hamming),
        Contestant("pHash, 256 bits", perceptual(lambda p: imagehash.phash(p, hash_size=16).hash), _hamming),
        Contestant("dHash, 256 bits", perceptual(lambda p: imagehash.dhash(p, hash_size=16).hash), _hamming),
        Contestant("general-256", lambda pictures: general.encode(_pixels(general, pictures)), _hamming),
        Contestant(
            "cosine, EfficientNet-Lite0", lambda pictures: general.features(_pixels(general, pictures)), _cosine
        ),
    ]


def _ours(model: HashModel) -> Contestant:
    from index.copy_codes import mirrored

    return Contestant(OURS, lambda pictures: model.encode(_pixels(model, pictures)), _hamming, mirrored)


def _pixels(model: HashModel, pictures: Sequence[Image.Image]) -> NDArray[np.uint8]:
    return np.stack([preprocess(picture, model.input_spec) for picture in pictures])


def _hamming(a: Codes, b: Codes) -> NDArray[np.float32]:
    from index import hamming_distances

    return hamming_distances(a, b).astype(np.float32)


def _cosine(a: Codes, b: Codes) -> NDArray[np.float32]:
    return 1 - a @ b.T


@dataclass(frozen=True)
class Pairs:
    """Distances of copies to their originals, by change; and of pairs that are no copies, ascending."""

    copies: dict[str, NDArray[np.float32]]
    others: NDArray[np.float32]

    @property
    def searched(self) -> NDArray[np.float32]:
        """Distances of all copies but the mirrored ones, ascending."""
        return np.sort(np.concatenate([rows for name, rows in self.copies.items() if name != MIRRORED]))


def compare(contestant: Contestant, paths: Sequence[str], distractors: Sequence[str]) -> Pairs:
    """Returns the distances of all copies of these photographs to them and to the distractors."""
    originals, others = _encoded(contestant, paths, None), _encoded(contestant, distractors, None)
    copies, apart = {}, []
    for name, change in CHANGES.items():
        codes = _encoded(contestant, paths, change)
        targets = originals
        if name == MIRRORED:
            targets = contestant.mirror(originals) if contestant.mirror else _encoded(contestant, paths, change)
        between = contestant.distances(codes, targets)
        copies[name] = between.diagonal()
        apart += [between[~np.eye(len(codes), dtype=bool)], contestant.distances(codes, others).ravel()]
    return Pairs(copies, np.sort(np.concatenate(apart)))


def _encoded(contestant: Contestant, paths: Sequence[str], change: Change | None) -> Codes:
    parts = []
    for start in range(0, len(paths), _BLOCK):
        pictures = [load_image(path) for path in paths[start : start + _BLOCK]]
        parts.append(contestant.encode(pictures if change is None else [change(picture) for picture in pictures]))
    return np.concatenate(parts)


def threshold(pairs: Pairs, precision: float) -> float:
    """Returns the largest distance within which at least this share of the pairs are copies."""
    distances = np.unique(np.concatenate((pairs.searched, pairs.others[: len(pairs.searched)])))
    true = np.searchsorted(pairs.searched, distances, side="right")
    false = np.searchsorted(pairs.others, distances, side="right")
    good = true >= precision * (true + false)
    return float(distances[good].max()) if good.any() else -1.0


def judge(name: str, pairs: Pairs, radius: float) -> dict[str, Any]:
    """Returns precision and recall within a radius."""
    true = int(np.searchsorted(pairs.searched, radius, side="right"))
    false = int(np.searchsorted(pairs.others, radius, side="right"))
    return {
        "method": name,
        "threshold": round(radius, 4),
        "recall": true / len(pairs.searched),
        "precision": true / max(1, true + false),
        "recalls": {change: float((rows <= radius).mean()) for change, rows in pairs.copies.items()},
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the numbers as a Markdown table."""
    lines = ["| | " + " | ".join(row["method"] for row in rows) + " |", "|---" * (1 + len(rows)) + "|"]
    numbers: dict[str, Callable[[dict[str, Any]], str]] = {
        "threshold": lambda row: f"{row['threshold']:.4g}",
        "precision": lambda row: f"{row['precision']:.3f}",
        "**recall**": lambda row: f"**{row['recall']:.3f}**",
    }
    # The mirrored row says nothing of a method: mirrored codes are equal by construction.
    for change in (name for name in CHANGES if name != MIRRORED):
        numbers[change] = lambda row, change=change: f"{row['recalls'][change]:.3f}"  # type: ignore[misc]
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(map(cell, rows)) + " |" for name, cell in numbers.items())])


def _halves(photos: Path) -> tuple[list[str], list[str]]:
    """Returns the photographs not trained on, to choose a threshold on and to measure on."""
    paths = [file.path for file in find_images([photos])][1::2]
    return paths[::2], paths[1::2]


def _pictures(folder: Path) -> list[str]:
    return [file.path for file in find_images([folder])]


if __name__ == "__main__":
    main()
