"""Models to those who encode: pixels -> features -> logits -> bits -> codes, and the model's card. No torch.

There are two kinds: ``HashModel`` (``model.py``), a network of PyTorch, which can learn, and ``CompiledModel``, one
that an earlier run converted for OpenVINO, which cannot. They give the same codes under the same fingerprint.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from index.codes import check_n_bits, pack_bits

from .backbones import PACKAGED
from .encoders import Encoder, OpenVINOEncoder, kept_encoder
from .input_spec import InputSpec
from .model_file import ModelCard, compute_fingerprint, find_model, read_card

__all__ = ["CompiledModel", "EncodingModel", "check_hash_layer", "load_encoding_model"]


class EncodingModel(ABC):
    """Turns images into binary codes.

    A feature vector of the backbone, divided by its L2 norm, goes through one linear hash layer;
    ``bits = logits > 0``. The model carries its preprocessing (``input_spec``) and says who it is (``card``).
    """

    n_bits: int
    n_features: int
    input_spec: InputSpec
    name: str
    method: str
    training_facts: dict[str, Any]
    licence: str

    @property
    @abstractmethod
    def encoder(self) -> Encoder:
        """What computes the features, in the fastest form that keeps the codes (``encoders``)."""

    @property
    @abstractmethod
    def card(self) -> ModelCard:
        """The card of the model as it is now; its fingerprint is computed from the weights."""

    @abstractmethod
    def hash_layer_arrays(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns weight ``(n_bits, n_features) float32`` and bias ``(n_bits,) float32``."""

    @abstractmethod
    def with_hash_layer(
        self,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
        *,
        name: str,
        method: str,
        training: dict[str, Any] | None = None,
        licence: str = "Apache-2.0",
    ) -> EncodingModel:
        """Returns a model on the same backbone and preprocessing with another hash layer; facts as in ``HashModel``."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """Returns the model as the bytes of a .safetensors file.

        The backbone is inside unless its weights are those of an installed package.
        """

    def prepare(self) -> None:
        """Makes now what encoding needs, which its first use makes else: in a thread, while there is other work."""
        self.encoder.prepare()

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns features ``(B, n_features) float32`` of unit length for ``(B, size, size, 3) uint8`` pixels."""
        size = self.input_spec.size
        if pixels.ndim != 4 or pixels.shape[1:] != (size, size, 3) or pixels.dtype != np.uint8:
            raise ValueError(
                f"pixels are {pixels.dtype} {pixels.shape}; {self.name} wants uint8 (B, {size}, {size}, 3): "
                f"images.preprocess(image, model.input_spec) makes them"
            )
        return self.encoder(pixels)

    def logits_of_features(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns logits ``(B, n_bits) float32`` of unit-length features ``(B, n_features) float32``."""
        weight, bias = self.hash_layer_arrays()
        return features @ weight.T + bias

    def codes_of_features(self, features: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Returns codes ``(B, ceil(n_bits / 8)) uint8`` of unit-length features ``(B, n_features) float32``."""
        return pack_bits(self.logits_of_features(features) > 0)

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns codes ``(B, ceil(n_bits / 8)) uint8`` of ``(B, size, size, 3) uint8`` pixels."""
        return self.codes_of_features(self.features(pixels))

    def _card(self, backbone: str, weights: str, digest: str) -> ModelCard:
        return ModelCard(
            name=self.name,
            method=self.method,
            n_bits=self.n_bits,
            backbone=backbone,
            backbone_weights=weights,
            backbone_digest=digest,
            input_spec=self.input_spec,
            fingerprint=compute_fingerprint(backbone, digest, self.input_spec, *self.hash_layer_arrays()),
            licence=self.licence,
            training=self.training_facts,
        )


class CompiledModel(EncodingModel):
    """A model whose network OpenVINO has converted before; only its hash layer comes from the model file.

    Args:
        path: the model file.
        card: its card; of the fingerprint nothing is believed.
        weight: hash layer, ``(n_bits, n_features) float32``.
        bias: hash layer, ``(n_bits,) float32``.
        encoder: the converted network.

    Raises:
        ValueError: weight and bias do not fit each other, or are not finite.
    """

    def __init__(
        self,
        path: Path,
        card: ModelCard,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
        encoder: OpenVINOEncoder,
    ) -> None:
        self.n_bits = check_hash_layer(weight, bias, card.backbone, weight.shape[-1])
        self.n_features = weight.shape[-1]
        self.input_spec = card.input_spec
        self.name, self.method, self.licence = card.name, card.method, card.licence
        self.training_facts = card.training
        self._path = path
        self._backbone = (card.backbone, card.backbone_weights, card.backbone_digest)
        self._hash_layer = np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32)
        self._encoder = encoder

    @property
    def encoder(self) -> OpenVINOEncoder:
        """What computes the features."""
        return self._encoder

    @property
    def card(self) -> ModelCard:
        """The card of the model."""
        return self._card(*self._backbone)

    def hash_layer_arrays(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns weight ``(n_bits, n_features) float32`` and bias ``(n_bits,) float32``."""
        return self._hash_layer

    def with_hash_layer(
        self,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
        *,
        name: str,
        method: str,
        training: dict[str, Any] | None = None,
        licence: str = "Apache-2.0",
    ) -> CompiledModel:
        """Returns a model on the same network and preprocessing with another hash layer; facts as in ``HashModel``."""
        check_hash_layer(weight, bias, self._backbone[0], self.n_features)
        card = replace(self.card, name=name, method=method, training=training or {}, licence=licence)
        return CompiledModel(self._path, card, weight, bias, self._encoder)

    def to_bytes(self) -> bytes:
        """Returns the model as the bytes of a .safetensors file, the same that ``HashModel.to_bytes`` gives.

        Raises:
            ModelError: the weights of the backbone are in the model's own file, and that is damaged.
        """
        card, (weight, bias) = self.card, self._hash_layer
        if card.backbone_weights == "file":
            from .model import load_model  # which reads those weights, and checks them

            model = load_model(self._path).with_hash_layer(
                weight, bias, name=card.name, method=card.method, training=card.training, licence=card.licence
            )
            return model.to_bytes()
        tensors = {"hash_layer.weight": weight, "hash_layer.bias": bias}
        return safetensors.numpy.save(tensors, metadata=card.to_metadata())


def load_encoding_model(name_or_path: str | os.PathLike[str]) -> EncodingModel:
    """Returns the model of that name or file, as ``load_model`` does, to encode with: without torch where that can be.

    It can where the cache has the converted network and may choose it (``kept_encoder``). The weights of a backbone in
    the file are not read then, for the network was made of those with the digest that the fingerprint covers.

    Raises:
        ModelError, BackboneError: as ``load_model``; or ``$DEEPHASH_ENCODER`` names no back-end.
    """
    path = find_model(name_or_path)
    compiled = _load_compiled(path)
    if compiled is not None:
        return compiled
    from .model import load_model

    return load_model(path)


def _load_compiled(path: Path) -> CompiledModel | None:
    card = read_card(path)
    if card.backbone_weights == "package" and card.backbone not in PACKAGED:
        return None
    encoder = kept_encoder(f"{card.backbone} {card.backbone_digest}", card.input_spec)
    if encoder is None:
        return None
    try:
        with safe_open(path, "numpy") as file:  # refuses a file that is not as long as its header says
            weight, bias = (file.get_tensor(f"hash_layer.{name}").astype(np.float32) for name in ("weight", "bias"))
        model = CompiledModel(path, card, weight, bias, encoder)
    except (SafetensorError, OSError, TypeError, ValueError, IndexError):
        return None  # load_model says what is wrong
    return model if (model.card.fingerprint, model.n_bits) == (card.fingerprint, card.n_bits) else None


def check_hash_layer(weight: NDArray[np.float32], bias: NDArray[np.float32], backbone: str, n_features: int) -> int:
    """Returns the n_bits of a hash layer for a backbone.

    Raises:
        ValueError: weight and bias do not fit the backbone or each other, or are not finite.
    """
    n_bits = check_n_bits(len(weight))
    if weight.shape != (n_bits, n_features) or bias.shape != (n_bits,):
        raise ValueError(
            f"the hash layer is {weight.shape} + {bias.shape}, but {backbone} gives {n_features} "
            f"features: weight must be (n_bits, {n_features}) and bias (n_bits,)"
        )
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ValueError("the hash layer has values that are not finite: fit it again")
    return n_bits
