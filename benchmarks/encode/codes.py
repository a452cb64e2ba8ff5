"""Pictures to encode, and how well their codes find others of their kind."""

import numpy as np
from numpy.typing import NDArray

from deephash.evaluation import evaluate_codes
from deephash.image_batches import ImageBatches
from deephash.image_files import Decoded
from deephash.model import HashModel
from index import FileStat

__all__ = ["decoded", "precision_at_10"]


def decoded(files: list[FileStat], model: HashModel) -> tuple[NDArray[np.uint8], list[str]]:
    """Returns the pixels of images, as the model wants them, and their paths."""
    images = [item for batch in ImageBatches(files, model.input_spec) for item in batch if isinstance(item, Decoded)]
    return np.stack([image.pixels for image in images]), [image.file.path for image in images]


def precision_at_10(model: HashModel, features: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Returns P@10 of each image against all; it finds itself first, which is left out of the ten."""
    codes = model.codes_of_features(features)
    report = evaluate_codes(codes, codes, n_bits=model.n_bits, query_labels=labels, database_labels=labels, ks=(11,))
    return (11 * report.precision_at[11] - 1) / 10
