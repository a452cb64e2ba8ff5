"""Real data shipped with deephash, for the demo and for tests; README.md beside it says where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["CIFAR10_FILE", "CIFAR10Sample", "load_cifar10_sample"]

CIFAR10_FILE = Path(__file__).parent / "cifar10.npz"


@dataclass(frozen=True)
class CIFAR10Sample:
    """A balanced sample of CIFAR-10: 1,200 training images to search in and 200 test images to ask with.

    Images are (N, 32, 32, 3) uint8 RGB, labels (N,) int64, 0 ... 9, positions in `class_names` (10,) of str.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    database_images: NDArray[np.uint8]
    database_labels: NDArray[np.int64]
    query_images: NDArray[np.uint8]
    query_labels: NDArray[np.int64]
    class_names: NDArray[np.str_]


def load_cifar10_sample() -> CIFAR10Sample:
    """Read the sample from the package: no network, no pickle.

    Raises:
        FileNotFoundError: the package was installed without its data.
    """
    if not CIFAR10_FILE.is_file():
        raise FileNotFoundError(f"{CIFAR10_FILE} is missing: reinstall deephash, its sample data was left out")
    with np.load(CIFAR10_FILE, allow_pickle=False) as arrays:
        return CIFAR10Sample(**{name: arrays[name] for name in arrays.files})
