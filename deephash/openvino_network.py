"""Converts a network of PyTorch into one of OpenVINO."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from .encoders import largest_chunk
from .openvino_import import import_openvino

__all__ = ["convert"]


def convert(module: nn.Module, size: int) -> Any | None:
    """Returns a network of ``(B, size, size, 3) uint8`` as OpenVINO's, or None where it does what is unknown there.

    B is at most ``largest_chunk(size)``: OpenVINO then plans its memory ahead, which makes it faster.
    """
    openvino = import_openvino()
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer
            network = openvino.convert_model(module, example_input=example)
            n_images = openvino.Dimension(1, largest_chunk(size))
            network.reshape({0: openvino.PartialShape([n_images, size, size, 3])})
            return network
    except Exception:  # whatever a strange network raises in there: PyTorch runs it
        return None
