"""Labelled images and the named protocols that split them into queries, training set and database.

Knows no model and no loss. Pixels are one uint8 array, so that augmentation and batches are tensor operations.
"""

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import DeepHashError
from .image_errors import ImageError
from .image_files import find_images
from .images import load_image
from .torchvision_import import import_torchvision

__all__ = [
    "PROTOCOLS",
    "DatasetError",
    "LabelledImages",
    "RetrievalSplit",
    "check_split",
    "load_cifar10",
    "load_labelled_folders",
    "load_manifest",
    "random_split",
    "split_cifar10",
]


class DatasetError(DeepHashError, ValueError):
    """A data set is missing, cannot be read, or its labels make no retrieval task."""


@dataclass(frozen=True)
class LabelledImages:
    """Images in memory with their labels.

    ``pixels`` is ``(N, H, W, 3) uint8``; ``targets`` is ``(N,) int64``, or ``(N, n_classes) bool`` where an image may
    have several labels; ``names`` says where each image comes from. ``is_test`` marks the official test set, if any.
    """

    pixels: NDArray[np.uint8]
    targets: NDArray[np.int64] | NDArray[np.bool_]
    class_names: list[str]
    names: list[str]
    is_test: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class RetrievalSplit:
    """Positions of queries, training set and database, each ``(n,) int64`` ascending.

    Queries are in neither of the other two; whether the training set is inside the database is the protocol's matter.
    ``unseen``: classes that the protocol keeps out of the training set.
    """

    protocol: str
    query: NDArray[np.int64]
    training: NDArray[np.int64]
    database: NDArray[np.int64]
    unseen: tuple[int, ...] = ()


def load_cifar10(folder: str | os.PathLike[str], *, download: bool = False) -> LabelledImages:
    """Returns all 60,000 images of CIFAR-10: the 50,000 of the training batches, then the 10,000 of the test batch.

    Args:
        folder: holds ``cifar-10-batches-py`` (the official python version; torchvision checks its MD5 sums).
        download: fetch it there first, if it is not.

    Raises:
        DatasetError: it is not there, or damaged.
    """
    reader = import_torchvision().datasets.CIFAR10
    try:
        parts = [reader(root=os.fspath(folder), train=train, download=download) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        raise DatasetError(
            f"CIFAR-10 cannot be read from {os.fspath(folder)} ({error}): name the folder that holds "
            f"cifar-10-batches-py, or let it be downloaded (--download)"
        ) from error
    return LabelledImages(
        pixels=np.concatenate([part.data for part in parts]),
        targets=np.concatenate([np.asarray(part.targets, np.int64) for part in parts]),
        class_names=list(parts[0].classes),
        names=[f"{'train' if train else 'test'}/{i}" for train, n in ((1, 50_000), (0, 10_000)) for i in range(n)],
        is_test=np.repeat([False, True], [50_000, 10_000]),
    )


def load_labelled_folders(folder: str | os.PathLike[str], *, size: int = 256) -> LabelledImages:
    """Returns the images below a folder; the name of the folder directly below it is an image's label.

    Images are scaled and cropped to ``size`` x ``size``.

    Raises:
        DatasetError: fewer than two classes, an empty class, or an image that cannot be read (named).
    """
    root = os.path.abspath(folder)
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    paths, labels = [], []
    for label, name in enumerate(classes):
        found = [file.path for file in find_images([os.path.join(root, name)])]
        if not found:
            raise DatasetError(f"the class folder {os.path.join(root, name)} holds no image: fill it or remove it")
        paths += found
        labels += [label] * len(found)
    if len(classes) < 2:
        raise DatasetError(f"{root} has {len(classes)} class folders: retrieval needs two or more, one for each label")
    return LabelledImages(_read_pixels(paths, size), np.array(labels, np.int64), classes, paths)


def load_manifest(path: str | os.PathLike[str], *, size: int = 256) -> LabelledImages:
    """Returns the images of a CSV with the columns ``path`` and ``labels``; several labels are separated by ``;``.

    Paths are absolute or relative to the CSV's folder. ``targets`` is ``(N, n_classes) bool`` when any image has
    several labels, else ``(N,) int64``.

    Raises:
        DatasetError: no such file or columns; a row without label, with more cells than columns, of an image that is
            not there or in an earlier row; fewer than two classes; or an unreadable image.
    """
    path = Path(path)
    labels_of: dict[str, set[str]] = {}
    for line, image, names in _rows(path):
        file = os.path.normpath(path.absolute().parent / image)
        if not image or not names:
            raise DatasetError(f"{path}, line {line}: every row needs a path and at least one label")
        if file in labels_of:
            raise DatasetError(f"{path}, line {line}: {image} stands in an earlier row: several labels go in one, a;b")
        if not os.path.isfile(file):
            raise DatasetError(f"{path}, line {line}: there is no image {file}: paths are relative to the CSV's folder")
        labels_of[file] = names
    classes = sorted(set().union(*labels_of.values()))
    if len(classes) < 2:
        raise DatasetError(f"{path} has {len(classes)} labels in all: retrieval needs two or more")
    hot = np.array([[name in names for name in classes] for names in labels_of.values()], np.bool_)
    targets = hot if (hot.sum(axis=1) > 1).any() else hot.argmax(axis=1).astype(np.int64)
    return LabelledImages(_read_pixels(list(labels_of), size), targets, classes, list(labels_of))


def _rows(path: Path) -> Iterator[tuple[int, str, set[str]]]:
    """Yields line, path and labels of each row of a manifest."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            if not {"path", "labels"} <= set(columns):
                found = ", ".join(columns)[:80] or "nothing"
                raise DatasetError(f"{path} needs the columns path and labels in its first line, which has {found}")
            for row in reader:
                if None in row:
                    why = "more cells than columns: separate labels by ; and put commas in quotes"
                    raise DatasetError(f"{path}, line {reader.line_num}: {why}")
                names = {name.strip() for name in (row["labels"] or "").split(";")} - {""}
                yield reader.line_num, row["path"] or "", names
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a CSV file of UTF-8 text: {error}") from error


def _read_pixels(paths: Sequence[str], size: int) -> NDArray[np.uint8]:
    pixels = np.empty((len(paths), size, size, 3), np.uint8)
    for i, path in enumerate(paths):
        try:
            image = load_image(path, at_least=size)
        except ImageError as error:
            raise DatasetError(f"{error}: replace it or leave it out of the data set") from error
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        pixels[i] = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0))
    return pixels


# Protocols of CIFAR-10. Their numbers never share a column.

_Positions = NDArray[np.int64]
_Parts = tuple[_Positions, _Positions, _Positions]  # queries, training set, database


def _draw(labels: NDArray[Any], pool: _Positions, per_class: int, rng: np.random.Generator) -> _Positions:
    """Returns ``per_class`` positions of each class, drawn from the pool without replacement, ascending."""
    chosen = []
    for label in np.unique(labels[pool]):
        members = pool[labels[pool] == label]
        if len(members) < per_class:
            raise DatasetError(f"class {label} has {len(members)} images where the protocol draws {per_class}")
        chosen.append(rng.choice(members, per_class, replace=False))
    return np.sort(np.concatenate(chosen))


def _rest(n: int, *taken: _Positions) -> _Positions:
    return np.setdiff1d(np.arange(n), np.concatenate(taken))


def _cifar10_1(images: LabelledImages, rng: np.random.Generator) -> _Parts:
    labels = images.targets
    query = _draw(labels, np.arange(len(images)), 100, rng)
    rest = _rest(len(images), query)
    return query, _draw(labels, rest, 500, rng), rest


def _cifar10(images: LabelledImages, rng: np.random.Generator) -> _Parts:
    query, training, database = _cifar10_1(images, rng)
    return query, training, np.setdiff1d(database, training)


def _cifar10_2(images: LabelledImages, rng: np.random.Generator) -> _Parts:
    if images.is_test is None:
        raise DatasetError("cifar10-2 needs the official test set")
    training = np.flatnonzero(~images.is_test)
    return np.flatnonzero(images.is_test), training, training


def _cifar10_unseen(images: LabelledImages, rng: np.random.Generator) -> _Parts:
    """100 queries of each of 3 held-out classes; training: the other 7 classes; database: all but the queries."""
    labels = images.targets
    held_out = rng.choice(10, 3, replace=False)
    of_held_out = np.isin(labels, held_out)
    query = _draw(labels, np.flatnonzero(of_held_out), 100, rng)
    training = _draw(labels, np.flatnonzero(~of_held_out), 500, rng)
    return query, training, _rest(len(images), query)


PROTOCOLS: dict[str, Callable[[LabelledImages, np.random.Generator], _Parts]] = {
    "cifar10-1": _cifar10_1,
    "cifar10": _cifar10,
    "cifar10-2": _cifar10_2,
    "cifar10-unseen": _cifar10_unseen,
}


def split_cifar10(images: LabelledImages, protocol: str, *, seed: int = 0) -> RetrievalSplit:
    """Returns the split of a named protocol; the same seed gives the same split.

    ``cifar10-1``: 1,000 queries (100 a class of all 60,000), 5,000 for training, database the other 59,000, training
    images inside. ``cifar10``: the same with the training images outside. ``cifar10-2``: the official test set against
    the 50,000 training images. ``cifar10-unseen``: queries of 3 classes that the training (500 of each of the other 7)
    never saw, against everything else.

    Raises:
        DatasetError: unknown protocol, or images that do not fit it.

    Source: Xia et al. 2014 for the first; Cao et al. 2017 (HashNet) for the second; Li et al. 2017 (DSDH, second
    setting) for the third; Sablayrolles et al. 2017 for the critique that the fourth answers.
    """
    if protocol not in PROTOCOLS:
        raise DatasetError(f"there is no protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    query, training, database = PROTOCOLS[protocol](images, np.random.default_rng(seed))
    kept_out = np.setdiff1d(images.targets[query], images.targets[training])
    return RetrievalSplit(protocol, query, training, database, unseen=tuple(kept_out.tolist()))


def random_split(images: LabelledImages, *, query_share: float = 0.1, seed: int = 0) -> RetrievalSplit:
    """Returns queries drawn at random, and the rest as training set and database: for data without a protocol."""
    if not 0 < query_share < 1:
        raise ValueError(f"query_share is {query_share}: a share lies between 0 and 1")
    order = np.random.default_rng(seed).permutation(len(images))
    n_queries = max(1, round(query_share * len(images)))
    rest = np.sort(order[n_queries:])
    return RetrievalSplit("random", np.sort(order[:n_queries]), rest, rest)


def check_split(images: LabelledImages, split: RetrievalSplit, *, mend: str = "add images or use another seed") -> None:
    """Sees to it that a model can be trained and judged by a split; ``mend`` ends the message when it cannot.

    Raises:
        DatasetError: a class without a training image that the protocol does not keep out, or no query with a relevant
            image in the database.
    """
    learned, asked, found = (_has_images(images, part) for part in (split.training, split.query, split.database))
    learned[list(split.unseen)] = True
    if not learned.all():
        names = ", ".join(repr(images.class_names[label]) for label in np.flatnonzero(~learned)[:5])
        sizes = f"{len(split.training)} training images, {len(split.query)} queries"
        raise DatasetError(f"no training image is left of class {names} ({sizes}): {mend}")
    if not (asked & found).any():
        sizes = f"{len(split.query)} queries, {len(split.database)} images in the database"
        raise DatasetError(f"no query shares a label with an image of the database ({sizes}): {mend}")


def _has_images(images: LabelledImages, positions: _Positions) -> NDArray[np.bool_]:
    """(n_classes,): which classes have images among these."""
    targets = images.targets[positions]
    if targets.ndim == 2:
        return np.asarray(targets.any(axis=0))
    return np.isin(np.arange(len(images.class_names)), targets)
