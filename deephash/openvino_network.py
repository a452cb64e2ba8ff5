"""Converts a network of PyTorch into one of OpenVINO."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from .openvino_import import import_openvino

__all__ = ["convert"]


def convert(module: nn.Module, size: int) -> Any | None:
    """Returns a network of ``(B, size, size, 3) uint8`` as OpenVINO's, or None where it does what is unknown there."""
    openvino = import_openvino()
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer
            network = openvino.convert_model(module, example_input=example)
            network.reshape({0: openvino.PartialShape([-1, size, size, 3])})
            return network
    except Exception:  # whatever a strange network raises in there: PyTorch runs it
        return None
