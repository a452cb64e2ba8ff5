"""Fits a model's hash layer to a collection, without labels."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index import FileStat

from .images import Decoded, Failed, ImageBatches
from .model import HashModel
from .progress import OnProgress, Progress
from .shallow import ITQ

__all__ = ["MIN_IMAGES", "SAMPLE_SIZE", "Sample", "fit_hash_layer", "sample_features", "sample_files"]

# Fitted codes beat the general model's from about 100 images on, and gain little after 2,000: `benchmarks/general.py`.
MIN_IMAGES = 200
SAMPLE_SIZE = 2_048
COLLECTION_BLOCK_WIDTH = 64


@dataclass(frozen=True)
class Sample:
    """Images with their features, unit length ``(len(images), n_features) float32``, and the files that failed.

    ``fitted``: whether the index's model was fitted to them.
    """

    images: list[Decoded]
    features: NDArray[np.float32]
    failed: list[Failed]
    fitted: bool = False


def sample_files(files: Sequence[FileStat], size: int = SAMPLE_SIZE) -> list[FileStat]:
    """Returns ``size`` of the files (all when there are fewer), drawn without replacement, the same at every call."""
    if len(files) <= size:
        return list(files)
    chosen = sorted(random.Random(0).sample(range(len(files)), size))
    return [files[i] for i in chosen]


def sample_features(model: HashModel, files: Sequence[FileStat], *, on_progress: OnProgress) -> Sample:
    """Returns the features of the files that can be read; their pixels are let go."""
    images: list[Decoded] = []
    failed: list[Failed] = []
    features: list[NDArray[np.float32]] = [np.empty((0, model.n_features), np.float32)]
    for batch in ImageBatches(files, model.input_spec):
        good = [item for item in batch if isinstance(item, Decoded)]
        failed += [item for item in batch if isinstance(item, Failed)]
        if good:
            features.append(model.features(np.stack([item.pixels for item in good])))
        images += [_without_pixels(item) for item in good]
        on_progress(Progress("fit", len(images) + len(failed), len(files)))
    return Sample(images, np.concatenate(features), failed)


def fit_hash_layer(
    model: HashModel,
    features: NDArray[np.float32],
    n_bits: int,
    *,
    collection: str,
    block_width: int = COLLECTION_BLOCK_WIDTH,
) -> HashModel:
    """Returns the model with a hash layer fitted to the features by ITQ; ``collection`` is a name for its card.

    ``block_width`` as in ``ITQ``: the default is best for the collection that the features come from; codes for images
    of any other kind are better with one block of all bits (``benchmarks.general``).

    Raises:
        ValueError: fewer than 2 features, or not finite.
    """
    itq = ITQ(n_bits, block_width=block_width).fit(features)
    return model.with_hash_layer(
        itq.projection.T,
        -itq.mean @ itq.projection,
        name=f"{collection}-{n_bits}",
        method="itq",
        training={"fitted_to": collection, "images": len(features), "labels": "none", "base": model.name},
        licence=model.licence,
    )


def _without_pixels(item: Decoded) -> Decoded:
    return Decoded(item.file, item.content_hash, item.width, item.height, np.empty((0, 0, 3), np.uint8))
