"""Draws the CIFAR-10 sample that ships inside deephash: `python -m benchmarks.make_samples --data DIR`.

DIR holds the official python version, unpacked: cifar-10-batches-py (https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deephash.samples import CIFAR10_FILE

SEED = 0
DATABASE_PER_CLASS = 120
QUERIES_PER_CLASS = 20

# The sums that the data set's publisher and torchvision give. The files are pickles: nothing else is unpickled.
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
TRAINING_BATCHES = [name for name in MD5 if name.startswith("data_batch_")]


def read_batch(folder: Path, name: str) -> dict[bytes, Any]:
    """Contents of one official file, unpickled only if its MD5 sum is the published one.

    Raises:
        ValueError: the sum differs.
    """
    content = (folder / name).read_bytes()
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != MD5[name]:
        raise ValueError(f"{folder / name} has MD5 {found}, the official file {MD5[name]}: download CIFAR-10 again")
    contents: dict[bytes, Any] = pickle.loads(content, encoding="bytes")
    return contents


def read_images(folder: Path, names: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) int64 of the batches, in their order."""
    batches = [read_batch(folder, name) for name in names]
    planes = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([np.array(batch[b"labels"], np.int64) for batch in batches])
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def draw(labels: NDArray[np.int64], per_class: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of `per_class` random items of every class, ascending: so the classes stand mixed."""
    return np.sort(
        np.concatenate([rng.choice(np.flatnonzero(labels == label), per_class, replace=False) for label in range(10)])
    )


def make_cifar10(folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays of the sample, drawn from the official files in `folder`."""
    rng = np.random.default_rng(SEED)
    class_names = [name.decode() for name in read_batch(folder, "batches.meta")[b"label_names"]]
    images, labels = read_images(folder, TRAINING_BATCHES)
    query_images, query_labels = read_images(folder, ["test_batch"])
    chosen, asked = draw(labels, DATABASE_PER_CLASS, rng), draw(query_labels, QUERIES_PER_CLASS, rng)
    return {
        "database_images": images[chosen],
        "database_labels": labels[chosen],
        "query_images": query_images[asked],
        "query_labels": query_labels[asked],
        "class_names": np.array(class_names),
    }


def main() -> None:
    """Parse, draw, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that contains cifar-10-batches-py")
    parser.add_argument("--output", type=Path, default=CIFAR10_FILE, help="default: %(default)s")
    arguments = parser.parse_args()
    sample = make_cifar10(arguments.data / "cifar-10-batches-py")
    np.savez_compressed(arguments.output, allow_pickle=False, **sample)
    print(f"{arguments.output}: {arguments.output.stat().st_size:,} bytes")
    for name, array in sample.items():
        print(f"  {name} {array.shape} {array.dtype}")


if __name__ == "__main__":
    main()
