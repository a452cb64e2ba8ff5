"""How good the codes of a network are on a split; its logits, encoded once, serve to judge shorter lengths, too."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from index import pack_bits

from .augmentation import Augmentation
from .datasets import LabelledImages, RetrievalSplit
from .distributed import present_processes
from .evaluation import RetrievalReport, evaluate_codes
from .inference import inference_copy
from .inputs import ImageInputs, compute_logits
from .model import HashModel, best_device

__all__ = ["encode_split", "evaluate_logits", "evaluate_model", "evaluate_network"]

_KS = (10, 100)


def evaluate_model(
    model: HashModel,
    images: LabelledImages,
    split: RetrievalSplit,
    *,
    ks: Sequence[int] = _KS,
    radii: Sequence[int] = (2,),
    legacy: str | None = None,
) -> RetrievalReport:
    """Returns the quality of a model on a split, of its queries against its database; the rest as `evaluate_codes`."""
    inputs = ImageInputs(images.pixels, model.input_spec, Augmentation(), best_device())
    return evaluate_network(model, inputs, images, split.query, split.database, ks=ks, radii=radii, legacy=legacy)


def evaluate_network(
    network: nn.Module,
    inputs: ImageInputs,
    images: LabelledImages,
    query: NDArray[np.int64],
    database: NDArray[np.int64],
    *,
    bf16: bool | None = None,
    ks: Sequence[int] = _KS,
    radii: Sequence[int] = (2,),
    legacy: str | None = None,
) -> RetrievalReport:
    """Returns the quality of a network's codes, of the images at some positions.

    Of several joined processes each encodes a share of the images, and all return the same.
    """
    logits = encode_split(network, inputs, query, database, bf16=bf16)
    return evaluate_logits(logits, images, query, database, ks=ks, radii=radii, legacy=legacy)


def encode_split(
    network: nn.Module,
    inputs: ImageInputs,
    query: NDArray[np.int64],
    database: NDArray[np.int64],
    *,
    bf16: bool | None = None,
) -> NDArray[np.float32]:
    """Returns a network's logits ``(Q + N, n_bits)`` of the queries and of the database behind them.

    Of several joined processes each encodes a share of the images, and all return the same.
    """
    both = np.concatenate([query, database])
    network = inference_copy(network, inputs.spec.size).to(best_device())
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    # Several processes encode their shares, unless there is less than an image for each.
    processes = present_processes()
    own = both[processes.share(len(both))] if len(both) >= processes.size else both
    logits = torch.from_numpy(compute_logits(network, inputs, own, bf16=bf16))
    if len(own) < len(both):
        logits = processes.gather(logits.to(next(network.parameters()).device), len(both)).cpu()
    return logits.numpy()


def evaluate_logits(
    logits: NDArray[np.float32],
    images: LabelledImages,
    query: NDArray[np.int64],
    database: NDArray[np.int64],
    *,
    ks: Sequence[int] = _KS,
    radii: Sequence[int] = (2,),
    legacy: str | None = None,
) -> RetrievalReport:
    """Returns the quality of the signs of logits that ``encode_split`` returned."""
    codes = pack_bits(logits > 0)
    return evaluate_codes(
        codes[: len(query)],
        codes[len(query) :],
        n_bits=logits.shape[1],
        query_labels=images.targets[query],
        database_labels=images.targets[database],
        ks=ks,
        radii=radii,
        legacy=legacy,
    )
