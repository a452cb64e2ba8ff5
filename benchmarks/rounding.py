"""What bfloat16 costs the codes, what rounding the depthwise convolutions' filters well saves, and how fast it is.

    python -m benchmarks.rounding --objects DIR

Shown is which share of the bits of the general models is that of float32, on photographs of objects (51 classes of
Caltech-101), and P@10. Where the processor computes in bfloat16, OpenVINO does, with weights rounded to the nearest and
with depthwise filters rounded as a whole by ``deephash.bf16_rounding``, on the pictures that are included; the bare
forward pass is timed beside that of ONNX Runtime in float32, in turns: ``results/rounding-bf16.json``.

Elsewhere bfloat16 is imitated in PyTorch as processors compute in it: weights and inputs of every convolution are
rounded, sums are float32, and what a block gives is rounded again; what follows the last convolution stays in float32.
There is one way more: to the nearest, but for the first depthwise convolution, which computes in float32. Raw numbers:
``results/rounding.json``.
"""

import argparse
import copy
import statistics
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.encode.back_ends import ONNX_RUNTIME, Encode, onnx_runtime, rates
from benchmarks.encode.codes import decoded, precision_at_10
from benchmarks.record import RESULTS, name_here, write_result
from deephash.bf16_rounding import round_depthwise
from deephash.encoders import OpenVINOEncoder, computes_in_bf16
from deephash.image_files import find_images
from deephash.model import HashModel, load_model
from deephash.openvino_network import convert
from deephash.torch_encoders import PixelsToFeatures, probe_pictures

_LENGTHS = (64, 128, 256, 512)
_BATCH = 16
_TIMED = 256  # images
WAYS = ("nearest", "nearest, first depthwise convolution in float32", "depthwise filters as a whole (ours)")
_FLOAT32, _BF16 = "ours: OpenVINO", f"ours: OpenVINO, bfloat16, {WAYS[2].removesuffix(' (ours)')}"


def main() -> None:
    """Runs the benchmark and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=Path, required=True)
    options = parser.parse_args()
    model = load_model("general-128")
    pixels, paths = decoded(list(find_images([options.objects])), model)
    labels = np.unique([Path(path).parent.name for path in paths], return_inverse=True)[1]
    name, config = name_here("rounding"), {"objects": len(pixels)}
    if computes_in_bf16():
        encoders = _encoders(model)
        timed = {ONNX_RUNTIME: onnx_runtime(model), _FLOAT32: encoders[_FLOAT32], _BF16: encoders[WAYS[2]]}
        exact = encoders.pop(_FLOAT32)(pixels)
        numbers: dict[str, Any] = {"codes": _rows(encoders, pixels, exact, labels)}
        numbers["forward"] = rates(timed, pixels[:_TIMED], batches=(4, 32), rounds=5)
        text = f"{speed_table(numbers)}\n\n{table(numbers)}"
    else:
        network = PixelsToFeatures(model.backbone, model.input_spec).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        pictures = probe_pictures(model.input_spec)
        imitated = {way: partial(features, imitating_bf16(network, way, pictures)) for way in WAYS}
        numbers = {"codes": _rows(imitated, pixels, features(network, pixels), labels)}
        text = table(numbers)
    path = write_result(name, config=config, numbers=numbers)
    print(text)
    print(f"raw numbers: {path.relative_to(RESULTS.parents[1])}")


def _encoders(model: HashModel) -> dict[str, Encode]:
    """Returns OpenVINO's encoders: in float32, and in bfloat16 with weights rounded either way."""
    plain, rounded = (PixelsToFeatures(model.backbone, model.input_spec) for _ in range(2))
    pictures = probe_pictures(model.input_spec)
    round_depthwise(rounded, torch.from_numpy(pictures))
    encoders = {
        name: OpenVINOEncoder(convert(network, model.input_spec.size), bf16=name != _FLOAT32)
        for name, network in ((_FLOAT32, plain), (WAYS[0], plain), (WAYS[2], rounded))
    }
    for encoder in encoders.values():
        encoder.allow_any_batch(pictures)
    return encoders


def _rows(
    ways: Mapping[str, Encode], pixels: NDArray[np.uint8], exact: NDArray[np.float32], labels: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """Returns, for each way, the share of bits that are those of the exact features, and P@10, of each model."""
    models = {f"general-{n}": load_model(f"general-{n}") for n in _LENGTHS}
    rows = []
    for way, encode in ways.items():
        rounded = encode(pixels)
        row: dict[str, Any] = {"way": way}
        for name, hashed in models.items():
            equal = (hashed.logits_of_features(rounded) > 0) == (hashed.logits_of_features(exact) > 0)
            row[name] = {
                "equal_bits": float(equal.mean()),
                "precision_at_10": precision_at_10(hashed, rounded, labels),
                "precision_at_10_in_float32": precision_at_10(hashed, exact, labels),
            }
        rows.append(row)
        print(f"{way}: {row['general-256']['equal_bits']:.2%} of 256 bits", flush=True)
    return rows


def imitating_bf16(network: nn.Module, way: str, pictures: NDArray[np.uint8]) -> nn.Module:
    """Returns a copy of the network that computes as in bfloat16."""
    network = copy.deepcopy(network)
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    if way == WAYS[2]:
        round_depthwise(network, torch.from_numpy(pictures))
    first_depthwise = next(conv for conv in convs if conv.groups > 1)
    for conv in convs:
        conv.register_forward_pre_hook(lambda _, inputs: (_rounded(inputs[0]),))
        if way != WAYS[1] or conv is not first_depthwise:
            conv.weight.data = _rounded(conv.weight.data)
    stages = next(module for name, module in network.named_modules() if name.endswith("blocks"))
    for block in (block for stage in stages.children() for block in stage.children()):
        block.register_forward_hook(lambda _module, _inputs, output: _rounded(output))
    return network


def _rounded(values: Tensor) -> Tensor:
    return values.bfloat16().float()


@torch.inference_mode()
def features(network: nn.Module, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns the features of pixels ``(N, size, size, 3)``."""
    parts = torch.from_numpy(pixels).split(_BATCH)
    return np.concatenate([network(part).numpy() for part in parts])


def speed_table(numbers: dict[str, Any]) -> str:
    """Returns the rates of the bare forward pass as a Markdown table."""
    lines = ["| bare forward pass | images a second, of each round | of ONNX Runtime, median |", "|---|---|---|"]
    base = numbers["forward"][0]["rounds"]
    for row in numbers["forward"]:
        shares = [rate / beside for rate, beside in zip(row["rounds"], base, strict=True)]
        spread = f" ({min(shares):.2f} to {max(shares):.2f})" if row["rounds"] != base else ""
        each = ", ".join(f"{rate:.0f}" for rate in row["rounds"])
        lines.append(f"| {row['name']} | {each} | {statistics.median(shares):.2f}{spread} |")
    return "\n".join(lines)


def table(numbers: dict[str, Any]) -> str:
    """Returns the bits kept as a Markdown table."""
    lines = [
        "| weights in bfloat16, rounded to | bits kept: general 64 / 128 / 256 / 512 | P@10, general 256 (float32) |",
        "|---|---|---|",
    ]
    for row in numbers["codes"]:
        kept = " / ".join(f"{row[f'general-{n}']['equal_bits']:.2%}" for n in _LENGTHS)
        longest = row["general-256"]
        precision = f"{longest['precision_at_10']:.3f} ({longest['precision_at_10_in_float32']:.3f})"
        lines.append(f"| {row['way']} | {kept} | {precision} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
