"""Small real photographs as files, a tiny model for them, and what an index holds, for the tests of the engine."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from deephash.samples import load_cifar10_sample
from index import Store

ROOT = Path(__file__).parents[2]


@cache
def sample():
    return load_cifar10_sample()


def pixels_of(number):
    return sample().database_images[number]


def write_photo(path, number):
    """Writes photograph number 0 ... 1199 of the sample as a file, of the kind that its name says."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels_of(number)).save(path)
    return path


def write_photos(folder, start, stop):
    """Writes photographs as ``folder/<class>/<number>.png`` and returns their paths in the order of their numbers."""
    names, labels = sample().class_names, sample().database_labels
    return [write_photo(Path(folder) / names[labels[n]] / f"{n:04}.png", n) for n in range(start, stop)]


def records(index):
    """Path -> record of everything in an index."""
    with Store.open(index) as store:
        return {record.path: record for record in store.iterate()}


def codes(index):
    """Path -> code of everything in an index."""
    return {path: record.code for path, record in records(index).items()}


def ids(index):
    """Path -> id of everything in an index."""
    return {path: record.id for path, record in records(index).items()}


def share_of_equal_bits(left, right):
    left, right = np.frombuffer(bytes(left), np.uint8), np.frombuffer(bytes(right), np.uint8)
    return 1 - np.unpackbits(left ^ right).mean()


def set_mtime(path, seconds):
    os.utime(path, (seconds, seconds))


def python(code, *arguments, **environment):
    """Runs code in a fresh interpreter; returns its completed process, with text output."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def deephash(*arguments, **options):
    """Runs the command line as a process; returns it completed, with text output."""
    return subprocess.run(
        command(*arguments), cwd=options.pop("cwd", ROOT), capture_output=True, text=True, check=False, timeout=120,
        **options,
    )  # fmt: skip


def command(*arguments):
    return [sys.executable, "-m", "deephash", *map(str, arguments)]
