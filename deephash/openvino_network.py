"""Converts a network of PyTorch into one of OpenVINO."""

from __future__ import annotations

import tempfile
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .openvino_import import import_openvino

__all__ = ["convert"]


def convert(module: nn.Module, size: int) -> Any | None:
    """Returns a network of ``(B, size, size, 3) uint8`` as OpenVINO's, or None where it has an operation unknown there.

    Its first depthwise convolution stays in float32 where the rest computes in bfloat16. Its few weights, with batch
    norm folded in, differ much in size: of all layers, rounding it changes the codes of EfficientNet-Lite0 most.
    """
    openvino = import_openvino()
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer
            network = openvino.convert_model(module, example_input=example)
            network.reshape({0: openvino.PartialShape([-1, size, size, 3])})
    except Exception:  # whatever a strange network raises in there: PyTorch runs it
        return None
    with tempfile.TemporaryDirectory(prefix="deephash-", ignore_cleanup_errors=True) as folder:
        path = Path(folder, "network.xml")
        openvino.save_model(network, path, compress_to_fp16=False)
        tree = ET.parse(path)
        depthwise = tree.find("layers/layer[@type='GroupConvolution']")
        if depthwise is None:
            return network
        # Python cannot say it of a network in memory; its file can.
        ET.SubElement(ET.SubElement(depthwise, "rt_info"), "attribute", {"name": "precise", "version": "0"})
        tree.write(path)
        return openvino.Core().read_model(path)
