"""What bfloat16 costs the codes, and what rounding the depthwise convolutions' filters well saves; on any processor.

    python -m benchmarks.rounding --objects DIR

bfloat16 is imitated in PyTorch as processors compute in it: weights and inputs of every convolution are rounded, sums
are float32, and what a block gives is rounded again; what follows the last convolution stays in float32.
Shown is which share of the bits of the general models is that of float32, on photographs of objects (51 classes of
Caltech-101), and P@10: weights rounded to the nearest; the same but for the first depthwise convolution, which computes
in float32; depthwise filters rounded as a whole by ``deephash.bf16_rounding``, on the pictures that are included.
Raw numbers: ``results/rounding.json``.
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.encode.codes import decoded, precision_at_10
from benchmarks.record import RESULTS, write_result
from deephash.bf16_rounding import round_depthwise
from deephash.image_files import find_images
from deephash.model import load_model
from deephash.torch_encoders import PixelsToFeatures, probe_pictures

_LENGTHS = (64, 128, 256, 512)
_BATCH = 16
WAYS = ("nearest", "nearest, first depthwise convolution in float32", "depthwise filters as a whole (ours)")


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=Path, required=True)
    options = parser.parse_args()
    model = load_model("general-128")
    pixels, paths = decoded(list(find_images([options.objects])), model)
    labels = np.unique([Path(path).parent.name for path in paths], return_inverse=True)[1]
    network = PixelsToFeatures(model.backbone, model.input_spec).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    exact = features(network, pixels)
    models = {f"general-{n}": load_model(f"general-{n}") for n in _LENGTHS}
    rows = []
    for way in WAYS:
        rounded = features(imitating_bf16(network, way, probe_pictures(model.input_spec)), pixels)
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
    path = write_result("rounding", config={"objects": len(pixels)}, numbers=rows)
    print(table(rows))
    print(f"raw numbers: {path.relative_to(RESULTS.parents[1])}")


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


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the numbers as a Markdown table."""
    lines = [
        "| weights in bfloat16, rounded to | bits kept: general 64 / 128 / 256 / 512 | P@10, general 256 (float32) |",
        "|---|---|---|",
    ]
    for row in rows:
        kept = " / ".join(f"{row[f'general-{n}']['equal_bits']:.2%}" for n in _LENGTHS)
        longest = row["general-256"]
        precision = f"{longest['precision_at_10']:.3f} ({longest['precision_at_10_in_float32']:.3f})"
        lines.append(f"| {row['way']} | {kept} | {precision} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
