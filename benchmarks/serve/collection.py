"""What is served: a million images, of which some are real files; and new files to add.

Codes are real ones of photographs; the codes of the others come from mixtures of the logits of two photographs.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.startup import entry
from deephash.engine import MODEL_FILE
from deephash.image_batches import ImageBatches
from deephash.image_files import Decoded, find_images
from deephash.model import load_model
from deephash.model_file import find_model
from deephash.samples import load_cifar10_sample
from index import Entry, Store, pack_bits

__all__ = ["CACHE", "MODEL", "find_photos", "make_index", "make_new_files"]

CACHE = Path(__file__).parents[1] / "cache"
MODEL = "general-64"
_BATCH = 20_000
_CROP_SHARE = 0.7
_SHORT_SIDE = 128


def find_photos(photos: Path | None) -> Path:
    """Returns a folder of photographs: the given one, or the package's 1,200 samples, written as files."""
    if photos is not None:
        return photos.resolve()
    folder = CACHE / "serve-samples"
    if not folder.is_dir():
        unfinished = folder.with_suffix(".part")
        unfinished.mkdir(parents=True, exist_ok=True)
        for number, pixels in enumerate(load_cifar10_sample().database_images):
            Image.fromarray(pixels).save(unfinished / f"{number:04}.png")
        unfinished.rename(folder)
    return folder


def make_index(photos: Path, n: int, n_photos: int, seed: int = 0) -> tuple[Path, int]:
    """Returns an index of n images in the cache, and how many of its first ids are photographs of the folder."""
    # The paths of the photographs are in it.
    place = hashlib.blake2b(os.fsencode(photos), digest_size=4).hexdigest()
    folder = CACHE / f"serve-{place}-{n}-{n_photos}-{seed}.dhx"
    if folder.is_dir():
        with Store.open(folder) as store:
            return folder, sum(1 for _ in store.paths(under=str(photos)))
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    model = load_model(MODEL)
    files = sorted(find_images([str(photos)]), key=lambda file: file.path)[: min(n_photos, n)]
    entries, logits = [], []
    for batch in ImageBatches(files, model.input_spec):
        images = [image for image in batch if isinstance(image, Decoded)]
        logits.append(model.logits_of_features(model.features(np.stack([image.pixels for image in images]))))
        entries += [
            Entry(i.file.path, i.file.n_bytes, i.file.mtime_ns, i.content_hash, i.width, i.height) for i in images
        ]
    real, rng = np.concatenate(logits), np.random.default_rng(seed)
    given = {MODEL_FILE: find_model(MODEL)}
    with Store.create(unfinished, n_bits=model.n_bits, fingerprint=model.card.fingerprint, files=given) as store:
        store.add_root(str(photos))
        store.put(entries, pack_bits(real > 0))
        for first in range(len(entries), n, _BATCH):
            size = min(_BATCH, n - first)
            share = rng.random((size, 1), np.float32)
            pairs = rng.integers(0, len(real), (2, size))
            mixed = share * real[pairs[0]] + (1 - share) * real[pairs[1]]
            store.put([entry(number) for number in range(first, first + size)], pack_bits(mixed > 0))
    unfinished.rename(folder)
    return folder, len(entries)


def make_new_files(sources: Sequence[Path], folder: Path, n: int, seed: int = 0) -> None:
    """Writes n small JPEG files into the folder: random crops of the photographs, none twice."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(n):
        with Image.open(sources[number % len(sources)]) as file:
            image = file.convert("RGB")
        width, height = (max(1, int(_CROP_SHARE * side)) for side in image.size)
        left, top = (
            int(rng.integers(0, side - part + 1)) for side, part in zip(image.size, (width, height), strict=True)
        )
        crop = image.crop((left, top, left + width, top + height))
        scale = _SHORT_SIDE / min(crop.size)
        crop = crop.resize((round(width * scale), round(height * scale)))
        crop.save(folder / f"{number:05}.jpg", quality=85)
