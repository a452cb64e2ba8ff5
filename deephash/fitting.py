"""Chooses the model of a new index; fits its hash layer to a sample of the collection, without labels."""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from index import FileStat

from .encoding_ahead import encode_ahead
from .encoding_model import EncodingModel, load_encoding_model
from .errors import CollectionError
from .image_batches import ImageBatches
from .image_files import Decoded, Failed
from .model_file import DEFAULT_MODEL, builtin_models, find_model, read_card
from .progress import OnProgress, Progress, ignore_progress
from .shallow import ITQ

__all__ = [
    "DEFAULT_BITS",
    "MIN_IMAGES",
    "SAMPLE_SIZE",
    "Sample",
    "choose_model",
    "fit_hash_layer",
    "sample_features",
    "sample_files",
]

DEFAULT_BITS = 128
# Codes fitted to as few as 100 images of a collection beat the general model's (``benchmarks.general``); twice that
# leaves room for a collection that grows. The features of the sample are all that a kill before the first batch loses.
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


def choose_model(
    collection: str,
    files: Sequence[FileStat],
    *,
    model: str | os.PathLike[str] | None = None,
    n_bits: int | None = None,
    backbone: str | None = None,
    on_progress: OnProgress = ignore_progress,
) -> tuple[EncodingModel, Sample | None]:
    """Returns the model for a new index, and the sample of the files whose features were computed on the way.

    The model named, if one is; else one of ``n_bits`` (default 128) fitted to a sample of the files, on ``backbone``
    (default: that of the general model); else, where fewer than ``MIN_IMAGES`` of the sample can be read, the general
    model of that length.

    Raises:
        CollectionError: no file can be read; or they are too few to fit, and there is no general model as asked.
        ModelError, BackboneError: the model or the backbone named is not to be had.
        ValueError: the model named contradicts ``n_bits`` or ``backbone``.
    """
    if model is not None:
        if backbone is not None:
            raise ValueError("a model has its backbone already: give either a model or a backbone, not both")
        named = load_encoding_model(model)
        if n_bits not in (None, named.n_bits):
            raise ValueError(f"the model {named.name} has {named.n_bits} bits, not {n_bits}: leave the bits out")
        return named, None
    general = read_card(find_model(DEFAULT_MODEL)).backbone
    base = load_encoding_model(DEFAULT_MODEL) if backbone in (None, general) else _untrained_model(backbone)
    n_bits = n_bits or DEFAULT_BITS
    sample = sample_features(base, sample_files(files), on_progress=on_progress)
    if not sample.images:
        reasons = "; ".join(f"{item.file.path}: {item.reason}" for item in sample.failed[:3])
        raise CollectionError(f"none of the {len(sample.failed)} images tried can be read ({reasons})")
    if len(sample.images) >= MIN_IMAGES:
        fitted = fit_hash_layer(base, sample.features, n_bits, collection=collection)
        return fitted, replace(sample, fitted=True)
    if backbone not in (None, general):
        raise CollectionError(_too_few(len(sample.images), f"on the backbone {backbone}"))
    # On the same backbone as the base: the features of the sample serve it too.
    if f"general-{n_bits}" not in builtin_models():
        raise CollectionError(_too_few(len(sample.images), f"of {n_bits} bits"))
    return load_encoding_model(f"general-{n_bits}"), sample


def _untrained_model(backbone: str) -> EncodingModel:
    from .model import untrained_model

    return untrained_model(backbone)


def _too_few(n_images: int, what: str) -> str:
    lengths = [name.removeprefix("general-") for name in builtin_models() if name.startswith("general-")]
    return (
        f"{n_images} readable images are too few to fit a model {what} ({MIN_IMAGES} are needed): leave that out, "
        f"or use the general model ({', '.join(lengths)} bits)"
    )


def sample_files(files: Sequence[FileStat], size: int = SAMPLE_SIZE) -> list[FileStat]:
    """Returns ``size`` of the files (all when there are fewer), drawn without replacement, the same at every call."""
    if len(files) <= size:
        return list(files)
    chosen = sorted(random.Random(0).sample(range(len(files)), size))
    return [files[i] for i in chosen]


def sample_features(model: EncodingModel, files: Sequence[FileStat], *, on_progress: OnProgress) -> Sample:
    """Returns the features of the files that can be read; their pixels for the model are let go."""
    images: list[Decoded] = []
    failed: list[Failed] = []
    features: list[NDArray[np.float32]] = [np.empty((0, model.n_features), np.float32)]
    encoded = encode_ahead(
        ImageBatches(files, model.input_spec),
        lambda decoded: model.features(np.stack([image.pixels for image in decoded])),
        model.prepare,
    )
    for decoded, computed, not_decoded in encoded:
        if computed is not None:
            features.append(computed)
        images += [_without_pixels(image) for image in decoded]
        failed += not_decoded
        on_progress(Progress("fit", len(images) + len(failed), len(files)))
    return Sample(images, np.concatenate(features), failed)


def fit_hash_layer(
    model: EncodingModel,
    features: NDArray[np.float32],
    n_bits: int,
    *,
    collection: str,
    blocks: Literal["leading", "following"] = "leading",
    block_width: int = COLLECTION_BLOCK_WIDTH,
) -> EncodingModel:
    """Returns the model with a hash layer fitted to the features by ITQ; ``collection`` is a name for its card.

    ``blocks`` and ``block_width`` as in ``ITQ``: the default is best for the collection that the features come from,
    ``following`` for images of any other kind (``benchmarks.general``).

    Raises:
        ValueError: fewer than 2 features, or not finite.
    """
    itq = ITQ(n_bits, blocks=blocks, block_width=block_width).fit(features)
    return model.with_hash_layer(
        itq.projection.T,
        -itq.mean @ itq.projection,
        name=f"{collection}-{n_bits}",
        method="itq",
        training={
            "fitted_to": f"{len(features):,} images of {collection}, without labels",
            "images": len(features),
            "labels": "none",
            "base": model.name,
        },
        licence=model.licence,
    )


def _without_pixels(item: Decoded) -> Decoded:
    nothing = np.empty((0, 0, 3), np.uint8)
    return Decoded(item.file, item.content_hash, item.width, item.height, nothing, item.copy_pixels)
