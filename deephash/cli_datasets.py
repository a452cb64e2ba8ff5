"""The arguments that name labelled images and their split, and how they are loaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_errors import usage_error
from .paths import display_path

if TYPE_CHECKING:
    from .datasets import LabelledImages, RetrievalSplit

__all__ = ["Data", "Dataset", "Download", "Protocol", "Seed", "load_dataset"]

Dataset = Annotated[
    str,
    typer.Argument(
        metavar="DATASET", help="cifar10, a folder with a folder for each class, or a CSV with columns path and labels."
    ),
]
Data = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="For cifar10: the folder that holds cifar-10-batches-py.")
]
Download = Annotated[bool, typer.Option("--download", help="For cifar10: fetch it into --data first.")]
Protocol = Annotated[
    str, typer.Option(metavar="NAME", help="For cifar10: cifar10-1, cifar10, cifar10-2 or cifar10-unseen.")
]
Seed = Annotated[int, typer.Option(metavar="N", help="Decides the split and all that is random in training.")]


def load_dataset(
    dataset: str, data: Path, *, download: bool, protocol: str, seed: int
) -> "tuple[LabelledImages, RetrievalSplit]":
    """Returns the images that DATASET names, and their split: by the protocol for CIFAR-10, else at random."""
    from .datasets import load_cifar10, load_labelled_folders, load_manifest, random_split, split_cifar10

    if dataset == "cifar10":
        images = load_cifar10(data, download=download)
        return images, split_cifar10(images, protocol, seed=seed)
    path = Path(dataset)
    if not path.exists():
        usage_error(f"{display_path(path)} does not exist: DATASET is cifar10, a folder of class folders, or a CSV")
    images = load_labelled_folders(path) if path.is_dir() else load_manifest(path)
    return images, random_split(images, seed=seed)
