"""Hashing methods on CIFAR-10 in a common frame: the same frozen features, the same small head, the same budget.

    python -m benchmarks.cifar10 --data DIR
    python -m benchmarks.cifar10 --data DIR --methods dsdh dpsh --bits 48 --protocols cifar10-1 --seeds 0

DIR holds cifar-10-batches-py. The first run computes the features of EfficientNet-Lite0 (ImageNet weights, 224 pixels)
once and keeps them in ``benchmarks/cache``. Every (protocol, method, bits, seed) is one JSON file below
``results/cifar10``; those that exist are not run again. Losses train one head (1,280 -> 512 -> n_bits) on the features;
shallow methods are fitted to the same training set. Beside them: ``trivial``, a classifier with the same head that
writes the predicted class's code word; ``float``, the ranking by cosine of the features themselves; and chance.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.record import RESULTS, conditions
from deephash.augmentation import normalise
from deephash.datasets import PROTOCOLS, LabelledImages, RetrievalSplit, load_cifar10, split_cifar10
from deephash.evaluation import RetrievalReport, evaluate_codes, evaluate_features
from deephash.inference import inference_copy
from deephash.inputs import FeatureInputs
from deephash.losses import LOSSES, create_loss
from deephash.model import load_model
from deephash.shallow import ITQ, LSH
from deephash.training import TrainConfig, train
from index import pack_bits

CACHE = Path(__file__).parent / "cache"
BITS = (12, 24, 32, 48)
_SHALLOW = {"lsh": LSH, "itq": ITQ}
_REFERENCES = ("float", "trivial")
# An asymmetric method codes the database without the network: its numbers share no column with the others'.
METHODS = [*(name for name, loss in LOSSES.items() if not loss.asymmetric), *_SHALLOW, *_REFERENCES]
HIDDEN = 512
CONFIG = TrainConfig(epochs=30, batch_size=128, lr=1e-3, weight_decay=5e-4, averaging=0.99)
_LARGE_SET_EPOCHS = 6  # 50,000 training images are seen as often as 5,000 in 60 epochs
_Features = NDArray[np.float32]


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--bits", nargs="+", type=int, default=list(BITS))
    parser.add_argument("--protocols", nargs="+", choices=list(PROTOCOLS), default=list(PROTOCOLS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    images = load_cifar10(options.data)
    features = cached_features(images)
    for protocol in options.protocols:
        for seed in options.seeds:
            split = split_cifar10(images, protocol, seed=seed)
            for method in options.methods:
                for n_bits in [0] if method == "float" else options.bits:
                    path = RESULTS / "cifar10" / f"{protocol}-{method}-{n_bits}-{seed}.json"
                    if not path.exists():
                        result = run(features, images, split, method, n_bits, seed)
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
                        print(
                            f"{path.stem}: mAP {result['quality']['map']:.4f} in {result['seconds']:.0f} s", flush=True
                        )
    print(table([json.loads(path.read_text()) for path in sorted((RESULTS / "cifar10").glob("*.json"))]))


def cached_features(images: LabelledImages) -> _Features:
    """Returns the unit-length features ``(60,000, 1,280)`` of all images, computed once."""
    path = CACHE / "cifar10-efficientnet_lite0-224.npy"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        np.save(path, compute_features(images.pixels))
    features = np.load(path, allow_pickle=False).astype(np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def compute_features(pixels: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Returns features ``(N, 1,280) float16`` of the default backbone, in bfloat16 arithmetic, images scaled to 224."""
    model = load_model("general-128")
    backbone = inference_copy(model.backbone, 224).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = np.empty((len(pixels), model.n_features), np.float16)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for start in range(0, len(pixels), 64):
            images = torch.from_numpy(pixels[start : start + 64]).permute(0, 3, 1, 2).float() / 255
            images = nn.functional.interpolate(images, size=224, mode="bicubic").clamp_(0, 1)
            features[start : start + 64] = backbone(normalise(images, model.input_spec)).float().numpy()
            if start % 6_400 == 0:
                print(f"features: {start:,} of {len(pixels):,}", flush=True)
    return features


def run(
    features: _Features, images: LabelledImages, split: RetrievalSplit, method: str, n_bits: int, seed: int
) -> dict[str, Any]:
    """Returns one result: quality, seconds of training, and the conditions."""
    started = time.monotonic()
    torch.manual_seed(seed)
    config = replace(CONFIG, seed=seed)
    if len(split.training) > 10_000:
        config = replace(config, epochs=_LARGE_SET_EPOCHS)
    labels = images.targets
    if method == "float":
        quality = evaluate_features(
            features[split.query], features[split.database],
            query_labels=labels[split.query], database_labels=labels[split.database],
        )  # fmt: skip
        return _result(split, method, None, seed, quality, 0.0, config)
    if method in _SHALLOW:
        fitted = _SHALLOW[method](n_bits, seed=seed).fit(features[split.training])
        bits = fitted.logits(features) > 0
    elif method == "trivial":
        bits = _trivial_bits(features, labels, split, n_bits, config)
    else:
        loss = create_loss(method, n_bits=n_bits, n_classes=10, n_train=len(split.training))
        head = _head(n_bits)
        trained = train(
            head, loss, FeatureInputs(features), torch.from_numpy(labels[split.training]), split.training, config
        )
        bits = _outputs(trained, features) > 0
    seconds = time.monotonic() - started
    codes = pack_bits(bits)
    quality = evaluate_codes(
        codes[split.query], codes[split.database], n_bits=n_bits,
        query_labels=labels[split.query], database_labels=labels[split.database],
    )  # fmt: skip
    return _result(split, method, n_bits, seed, quality, seconds, config)


def _head(n_outputs: int) -> nn.Module:
    # Unit-length features have components of about 1/36: the norm brings them to the size that the layers expect.
    return nn.Sequential(
        nn.BatchNorm1d(1280), nn.Linear(1280, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, n_outputs)
    )


def _outputs(head: nn.Module, features: _Features) -> _Features:
    with torch.inference_mode():
        return np.concatenate([head(torch.from_numpy(part)).numpy() for part in np.array_split(features, 60)])


def _trivial_bits(
    features: _Features, labels: NDArray[np.int64], split: RetrievalSplit, n_bits: int, config: TrainConfig
) -> NDArray[np.bool_]:
    """Bits of the coder that writes the predicted class: its four-bit number, the rest zero."""
    trained = train(
        _head(10), _CrossEntropy(), FeatureInputs(features), torch.from_numpy(labels[split.training]), split.training,
        config,
    )  # fmt: skip
    predicted = _outputs(trained, features).argmax(axis=1)
    bits = np.zeros((len(features), n_bits), np.bool_)
    bits[:, :8] = np.unpackbits(predicted.astype(np.uint8)[:, None], axis=1)
    return bits


class _CrossEntropy(nn.Module):
    """Softmax cross-entropy with the losses' signature."""

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, targets)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Nothing happens between epochs."""


def _result(
    split: RetrievalSplit, method: str, n_bits: int | None, seed: int, quality: RetrievalReport, seconds: float,
    config: TrainConfig,
) -> dict[str, Any]:  # fmt: skip
    return {
        "protocol": split.protocol, "method": method, "n_bits": n_bits, "seed": seed, "seconds": round(seconds, 2),
        "quality": quality.to_dict(), "config": asdict(config) | {"hidden": HIDDEN}, "conditions": conditions(),
    }  # fmt: skip


def table(results: list[dict[str, Any]]) -> str:
    """Returns tie-aware mAP@all as one Markdown table for each protocol: mean ± standard deviation over the seeds."""
    parts = []
    for protocol in PROTOCOLS:
        chosen = [result for result in results if result["protocol"] == protocol]
        if not chosen:
            continue
        n_seeds = len({result["seed"] for result in chosen})
        seeds = "1 seed" if n_seeds == 1 else f"{n_seeds} seeds"
        chance = statistics.mean(result["quality"]["chance"] for result in chosen)
        lines = [
            f"| `{protocol}`, mAP@all, {seeds} | " + " | ".join(f"{n} bits" for n in BITS) + " |",
            "|---" * (len(BITS) + 1) + "|",
        ]
        for method in METHODS:
            cells = []
            for n_bits in BITS:
                values = [
                    result["quality"]["map"]
                    for result in chosen
                    if result["method"] == method and result["n_bits"] in (n_bits, None)
                ]
                deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.3f}{deviation}" if values else "")
            if any(cells):
                lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines.append("| chance |" + f" {chance:.3f} |" * len(BITS))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
