"""Trains a hashing model on CIFAR-10 end to end: the backbone is fine-tuned, not frozen.

    python -m benchmarks.cifar10_end_to_end --data DIR --method dsdh --bits 48 --protocol cifar10-1 --seed 0

DIR holds cifar-10-batches-py. Goes on from its checkpoint (``benchmarks/cache``) when it was stopped; writes
``results/cifar10-end-to-end/PROTOCOL-METHOD-BITS-SEED.json`` and, with ``--model FILE``, the model in float16. The
queries are looked at once, after the last epoch.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.cifar10 import CACHE
from benchmarks.record import RESULTS, conditions
from deephash.augmentation import Augmentation
from deephash.datasets import PROTOCOLS, load_cifar10, split_cifar10
from deephash.losses import LOSSES
from deephash.supervised import RunConfig, train_model
from deephash.training import EpochReport, TrainConfig


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--method", choices=sorted(LOSSES), default="dsdh")
    parser.add_argument("--loss-options", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--bits", type=int, default=48)
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="cifar10-1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--backbone-lr", type=float, default=5e-4)
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    name = f"{options.protocol}-{options.method}-{options.bits}-{options.seed}"
    config = RunConfig(
        loss=options.method,
        n_bits=options.bits,
        image_size=options.size,
        loss_options=options.loss_options,
        augmentation=Augmentation(min_area=0.5, colour=0.3, cutout=0.25),
        training=TrainConfig(
            epochs=options.epochs,
            batch_size=options.batch_size,
            lr=options.lr,
            backbone_lr=options.backbone_lr,
            weight_decay=1e-2,
            averaging=0.995,
            seed=options.seed,
        ),
    )
    images = load_cifar10(options.data)
    split = split_cifar10(images, options.protocol, seed=options.seed)
    CACHE.mkdir(exist_ok=True)
    result = train_model(images, split, config, checkpoint=CACHE / f"{name}.pt", on_epoch=_print_epoch)
    path = RESULTS / "cifar10-end-to-end" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "config": asdict(config),
        "quality": result.quality.to_dict(),
        "epochs": [asdict(report) for report in result.epochs],
        "conditions": conditions(),
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{name}: mAP {result.quality.map:.4f}; {path}")
    if options.model:
        result.model.save(options.model, half=True)


def _print_epoch(report: EpochReport) -> None:
    left = report.seconds / report.epoch * (report.epochs - report.epoch)
    print(
        f"epoch {report.epoch} of {report.epochs}: loss {report.loss:.4f}, about {left / 60:.0f} min left", flush=True
    )


if __name__ == "__main__":
    main()
