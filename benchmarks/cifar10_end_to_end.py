"""Trains a hashing model on CIFAR-10 end to end: the backbone is fine-tuned, not frozen.

    python -m benchmarks.cifar10_end_to_end --data DIR --method dsdh --bits 48 --protocol cifar10-1 --seed 0

DIR holds cifar-10-batches-py. Goes on from its checkpoint (``benchmarks/cache``) when it was stopped; writes
``results/cifar10-end-to-end/PROTOCOL-METHOD-BITS-SEED.json`` and, with ``--model FILE``, the model in float16. The
queries are looked at once, after the last epoch.
"""

import argparse
import json
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cifar10 import CACHE
from benchmarks.record import RESULTS, conditions
from deephash.datasets import PROTOCOLS, LabelledImages, RetrievalSplit, load_cifar10, split_cifar10
from deephash.inference import has_fast_bf16
from deephash.losses import LOSSES
from deephash.model import best_device
from deephash.recipes import FINE_TUNING, loss_options
from deephash.supervised import hold_out, train_model
from deephash.training import EpochReport

_VALIDATION_HELP = "hold so much of the training set out and judge on it: to choose settings; writes no result"


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    training = FINE_TUNING.training
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--method", choices=sorted(LOSSES), default="dsdh")
    parser.add_argument("--loss-options", type=json.loads, metavar="JSON", help="instead of those of the recipe")
    parser.add_argument("--backbone", default=FINE_TUNING.backbone)
    parser.add_argument("--bits", type=int, default=48)
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="cifar10-1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--size", type=int, default=224, metavar="PIXELS")
    parser.add_argument(
        "--frozen-stages",
        type=int,
        default=FINE_TUNING.frozen_stages,
        metavar="N",
        help="stay as they are, with the stem",
    )
    parser.add_argument(
        "--head-epochs",
        type=int,
        default=FINE_TUNING.head_epochs,
        help="of the hash layer alone, before the backbone's",
    )
    parser.add_argument("--batch-size", type=int, default=training.batch_size)
    parser.add_argument("--lr", type=float, default=training.lr, help="of the hash layer")
    parser.add_argument("--backbone-lr", type=float, default=training.backbone_lr)
    parser.add_argument("--validation", type=float, default=0.0, metavar="SHARE", help=_VALIDATION_HELP)
    parser.add_argument("--mirrored", action="store_true", help="judge the mean of the logits of mirror images, too")
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    network = "" if options.backbone == FINE_TUNING.backbone else f"-{options.backbone}"
    name = f"{options.protocol}-{options.method}-{options.bits}{network}-{options.seed}"
    chosen = options.loss_options
    config = replace(
        FINE_TUNING,
        backbone=options.backbone,
        loss=options.method,
        n_bits=options.bits,
        image_size=options.size,
        frozen_stages=options.frozen_stages,
        head_epochs=options.head_epochs,
        loss_options=loss_options(FINE_TUNING, options.method, 0) if chosen is None else chosen,
        training=replace(
            FINE_TUNING.training,
            epochs=options.epochs,
            batch_size=options.batch_size,
            lr=options.lr,
            backbone_lr=options.backbone_lr,
            seed=options.seed,
            bf16=has_fast_bf16(best_device()),
        ),
    )
    images = load_cifar10(options.data)
    split = split_cifar10(images, options.protocol, seed=options.seed)
    if options.validation:
        split = _validation_split(images, split, options.validation)
        name = f"{options.protocol}-validation{name.removeprefix(options.protocol)}"
    CACHE.mkdir(exist_ok=True)
    checkpoint = CACHE / f"{name}.pt"

    def on_epoch(report: EpochReport) -> None:
        left = report.seconds / report.epoch * (report.epochs - report.epoch) / 60
        print(f"epoch {report.epoch} of {report.epochs}: loss {report.loss:.4f}, about {left:.0f} min left", flush=True)

    result = train_model(
        images, split, config, name=name, checkpoint=checkpoint, mirrored=options.mirrored, on_epoch=on_epoch
    )
    content = {
        "config": asdict(config),
        "protocol": split.protocol,
        "threads": torch.get_num_threads(),
        "seconds": result.epochs[-1].seconds,
        "quality": result.quality.to_dict(),
        "epochs": [asdict(report) for report in result.epochs],
        "conditions": conditions(),
    }
    print(f"{name}: mAP {result.quality.map:.4f}, {content['seconds'] / 60:.0f} min of training")
    if result.mirrored:
        content["quality_mirrored"] = result.mirrored.to_dict()
        print(f"with mirror images: mAP {result.mirrored.map:.4f}")
    if not options.validation:
        path = RESULTS / "cifar10-end-to-end" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if options.model:
        result.model.name = options.model.stem
        result.model.save(options.model, half=True)


def _validation_split(images: LabelledImages, split: RetrievalSplit, share: float) -> RetrievalSplit:
    """Returns a split within the training set: one half of a share held out are the queries, the other the database."""
    learned, held_out = hold_out(images, split.training, share, seed=0)
    order = np.random.default_rng(0).permutation(held_out)
    query, database = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    return replace(split, protocol=f"{split.protocol}-validation", query=query, training=learned, database=database)


def table(results: list[dict[str, Any]]) -> str:
    """Returns one row for each protocol, method, length and start of the training: means over the seeds."""
    runs: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for result in results:
        config = result["config"]
        start = config["backbone"] + (", ImageNet" if config["pretrained"] else ", from scratch")
        size, epochs = config["image_size"], config["training"]["epochs"]
        key = (result["protocol"], start, size, epochs, config["loss"], config["n_bits"])
        runs.setdefault(key, []).append(result)
    lines = [
        "| protocol | method | bits | backbone | pixels | epochs | mAP@all | with mirror images | seeds | training |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (protocol, start, size, epochs, method, n_bits), group in sorted(runs.items()):
        maps = [[run[kind]["map"] for run in group if kind in run] for kind in ("quality", "quality_mirrored")]
        minutes = statistics.mean(run["seconds"] for run in group) / 60
        machines = {run["conditions"].get("gpu") or f"{run['conditions']['cores']} cores" for run in group}
        time = f"{minutes:.0f} min on {' / '.join(sorted(machines))}"
        cells = [f"`{protocol}`", method, n_bits, start, size, epochs, *map(_mean, maps), len(group), time]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


if __name__ == "__main__":
    main()
