"""Trains a hashing model on CIFAR-10 from random weights on a CPU: the residual network for 32 x 32 pixels.

    python -m benchmarks.cifar10_from_scratch --data DIR

DIR holds cifar-10-batches-py. Protocol cifar10-2: the 50,000 training images are the database, the 10,000 test images
the queries, looked at once, after the last epoch. Goes on from its checkpoint (``benchmarks/cache``) when it was
stopped; writes ``results/cifar10-end-to-end/cifar10-2-METHOD-BITS-SEED-scratch.json`` and, with ``--model FILE``, the
model in float16. ``quality`` is that of the model as it is saved; ``quality_mirrored`` that of codes from the mean of
the logits of an image and of its mirror image, for queries and database alike.

To choose settings, ``--validation 0.1 --no-queries`` holds images of the training set out, reports their mAP after each
epoch against the rest, and never reads the test images; ``--share`` trains on a part.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.cifar10 import CACHE
from benchmarks.record import RESULTS, conditions
from deephash.datasets import RetrievalSplit, load_cifar10, split_cifar10
from deephash.inference import has_fast_bf16
from deephash.losses import LOSSES
from deephash.model import best_device
from deephash.recipes import CIFAR_RESNET, loss_options
from deephash.supervised import RunConfig, train_model
from deephash.training import EpochReport


def main() -> None:
    """Runs the script."""
    options = _parser().parse_args()
    config = _config(options)
    images = load_cifar10(options.data)
    split = _part(split_cifar10(images, "cifar10-2", seed=options.seed), options)
    name = f"{split.protocol}-{options.method}-{options.bits}-{options.seed}-scratch{options.tag}"
    CACHE.mkdir(exist_ok=True)
    checkpoint = CACHE / f"{name}.pt"
    if checkpoint.exists():
        print(f"going on from {checkpoint}", flush=True)
    result = train_model(images, split, config, name=name, checkpoint=checkpoint, mirrored=True, on_epoch=_print_epoch)
    assert result.mirrored
    content = {
        "config": asdict(config),
        "protocol": split.protocol,
        "database_is_training_set": True,
        "training_images": len(split.training),
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in result.model.parameters()),
        "seconds": result.epochs[-1].seconds,
        "seconds_of_each_epoch": np.diff([0.0, *(report.seconds for report in result.epochs)]).round(1).tolist(),
        "quality": result.quality.to_dict(),
        "quality_mirrored": result.mirrored.to_dict(),
        "epochs": [asdict(report) for report in result.epochs],
        "conditions": conditions(),
    }
    path = RESULTS / "cifar10-end-to-end" / f"{name}.json"
    if not options.no_queries:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"{path}: {content['seconds'] / 60:.1f} min of training")
    print(f"{name}: mAP {result.quality.map:.4f}, with mirror images {result.mirrored.map:.4f}")
    if options.model:
        result.model.name = options.model.stem
        result.model.save(options.model, half=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    training = CIFAR_RESNET.training
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--method", choices=sorted(LOSSES), default="dsdh")
    parser.add_argument("--loss-options", type=json.loads, metavar="JSON", help="instead of those of the recipe")
    parser.add_argument("--bits", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=training.epochs)
    parser.add_argument("--batch-size", type=int, default=training.batch_size)
    parser.add_argument("--lr", type=float, default=training.lr, help="of AdamW: the hash layer and all biases")
    parser.add_argument("--backbone-lr", type=float, default=training.backbone_lr, help="of Muon: the convolutions")
    parser.add_argument("--shift", type=int, default=CIFAR_RESNET.augmentation.shift, metavar="PIXELS")
    parser.add_argument("--cutout", type=float, default=CIFAR_RESNET.augmentation.cutout, metavar="SHARE")
    parser.add_argument(
        "--share", type=float, default=1.0, help="train on so much of the training set, drawn at random"
    )
    parser.add_argument("--validation", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--no-queries", action="store_true", help="judge on images held out of the training set")
    parser.add_argument("--tag", default="", help="ends the name of the result")
    parser.add_argument("--model", type=Path)
    return parser


def _config(options: argparse.Namespace) -> RunConfig:
    chosen = options.loss_options
    return replace(
        CIFAR_RESNET,
        loss=options.method,
        n_bits=options.bits,
        validation_share=options.validation,
        # As for the whole training set, whatever part of it is trained on.
        loss_options=loss_options(CIFAR_RESNET, options.method, 50_000) if chosen is None else chosen,
        augmentation=replace(CIFAR_RESNET.augmentation, cutout=options.cutout, shift=options.shift),
        training=replace(
            CIFAR_RESNET.training,
            epochs=options.epochs,
            batch_size=options.batch_size,
            lr=options.lr,
            backbone_lr=options.backbone_lr,
            seed=options.seed,
            bf16=has_fast_bf16(best_device()),
        ),
    )


def _part(split: RetrievalSplit, options: argparse.Namespace) -> RetrievalSplit:
    """The split to run: all of it, or a part of the training set, with 2,000 other training images for queries."""
    if options.share == 1 and not options.no_queries:
        return split
    order = np.random.default_rng(1).permutation(split.training)
    query, rest = np.sort(order[:2_000]), order[2_000:]
    training = np.sort(rest[: round(options.share * len(rest))])
    return replace(split, protocol="cifar10-2-part", query=query, training=training, database=training)


def _print_epoch(report: EpochReport) -> None:
    left = report.seconds / report.epoch * (report.epochs - report.epoch)
    quality = "".join(f", validation {key} {value:.4f}" for key, value in (report.validation or {}).items())
    print(
        f"epoch {report.epoch} of {report.epochs}: loss {report.loss:.4f}{quality}, {report.seconds:.0f} s, "
        f"about {left / 60:.0f} min left",
        flush=True,
    )


if __name__ == "__main__":
    main()
