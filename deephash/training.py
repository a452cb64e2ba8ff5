"""Trains a network to emit logits under any hashing loss: schedule, averaged weights, checkpoints, exact resume.

The loop never asks which loss it is, nor whether its inputs are images or features.
"""

import copy
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .errors import DeepHashError
from .muon import Muon
from .progress import OnProgress, Progress, ignore_progress
from .writing import replacing

if TYPE_CHECKING:
    from .losses import HashingLoss

__all__ = ["EpochReport", "Inputs", "TrainConfig", "TrainingError", "train"]


class TrainingError(DeepHashError):
    """Training cannot go on: the loss is not finite, or the data make no retrieval task."""


class Inputs(Protocol):
    """What a network is trained on: gives the inputs of a batch, varied at random or as they are."""

    def __call__(self, positions: NDArray[np.int64], generator: torch.Generator | None) -> torch.Tensor:
        """Returns the inputs at these positions; varied when a generator is given."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    ``lr`` is for the hash layer and the loss's own parameters, ``backbone_lr`` for all else of the network. Both rise
    linearly over ``warmup_epochs`` and fall to zero by a cosine. ``averaging`` is the decay of the exponential moving
    average of the weights, which is what is returned; 0 returns the last weights. ``bf16`` computes in bfloat16 where
    that is safe (automatic mixed precision). ``optimizer`` is ``adamw``, or ``muon``: the matrices and convolutions
    outside the head follow ``Muon``, for which ``backbone_lr`` is about 0.2, all else follows AdamW at ``lr``.
    """

    epochs: int = 20
    batch_size: int = 128
    lr: float = 1e-3
    backbone_lr: float = 1e-4
    weight_decay: float = 1e-4
    warmup_epochs: float = 1.0
    averaging: float = 0.998
    clip_norm: float = 5.0
    bf16: bool = False
    seed: int = 0
    optimizer: str = "adamw"


@dataclass(frozen=True)
class EpochReport:
    """One epoch: mean loss, seconds so far, and whatever ``validate`` returned."""

    epoch: int
    epochs: int
    loss: float
    lr: float
    seconds: float
    validation: dict[str, float] | None = None


def train(
    network: nn.Module,
    loss: "HashingLoss",
    inputs: Inputs,
    targets: torch.Tensor,
    positions: NDArray[np.int64],
    config: TrainConfig,
    *,
    head: nn.Module | None = None,
    validate: Callable[[nn.Module, int], dict[str, float] | None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
    on_progress: OnProgress = ignore_progress,
) -> nn.Module:
    """Trains the network in place, and returns the network to use: a copy with averaged weights, in eval mode.

    Args:
        network: from a batch of inputs to logits ``(B, n_bits)``.
        loss: a ``losses.HashingLoss`` for ``len(positions)`` training items.
        inputs: gives the inputs of a batch.
        targets: of the training items, in their order: ``(n_train,) int64`` or ``(n_train, C)`` multi-hot.
        positions: of the training items in ``inputs``.
        config: how to train.
        head: the part of the network that learns at ``lr``; the whole when None.
        validate: called after each epoch with the averaged network and the epoch.
        checkpoint: written after each epoch; training goes on from it, exactly, when it exists.
        on_epoch: told of each epoch.
        on_progress: told of the images seen, after each batch.

    Raises:
        TrainingError: the loss is not finite; or the checkpoint belongs to another configuration or is damaged.
    """
    if len(targets) != len(positions):
        raise ValueError(f"{len(targets)} targets for {len(positions)} training items: give one target each")
    device = next(network.parameters()).device
    loss.to(device)
    targets = targets.to(device)
    optimizer = _optimizer(network, loss, head, config)
    averaged = copy.deepcopy(network)
    state = _State(network, averaged, loss, optimizer)
    first, seconds = state.load(checkpoint, config) if checkpoint and Path(checkpoint).exists() else (0, 0.0)
    n_seen = first * len(positions)
    steps_per_epoch = math.ceil(len(positions) / config.batch_size)
    for epoch in range(first, config.epochs):
        started = time.monotonic()
        network.train()
        loss.start_epoch(epoch, config.epochs)
        # Everything random of an epoch hangs on (seed, epoch): a resumed run repeats what an undisturbed one does.
        generator = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
        total = 0.0
        for step, chosen in enumerate(_batches(len(positions), config.batch_size, generator)):
            share = _learning_rate_share(epoch + step / steps_per_epoch, config)
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * share
            batch = inputs(positions[chosen.numpy()], generator).to(device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.bf16):
                logits = network(batch)
            value = loss(logits.float(), targets[chosen.to(device)], chosen.to(device))
            if not torch.isfinite(value):
                raise TrainingError(
                    f"the loss is {value.item()} in epoch {epoch + 1}, step {step + 1}: lower the learning rate "
                    f"(lr {config.lr}, backbone_lr {config.backbone_lr}) or clip_norm ({config.clip_norm})"
                )
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
            optimizer.step()
            _average(averaged, network, config.averaging, epoch * steps_per_epoch + step)
            total += value.item() * len(chosen)
            n_seen += len(chosen)
            on_progress(Progress("train", n_seen, config.epochs * len(positions)))
        seconds += time.monotonic() - started
        averaged.eval()
        validation = validate(averaged, epoch) if validate else None
        if checkpoint:
            state.save(checkpoint, config, epoch + 1, seconds)
        share = _learning_rate_share(epoch + 1, config)
        report = EpochReport(epoch + 1, config.epochs, total / len(positions), config.lr * share, seconds, validation)
        on_epoch(report)
    return averaged.eval()


def _optimizer(
    network: nn.Module, loss: nn.Module, head: nn.Module | None, config: TrainConfig
) -> torch.optim.Optimizer:
    of_head = {id(p) for p in (head or network).parameters()}
    if config.optimizer == "muon":
        return _muon(network, loss, of_head, config)
    if config.optimizer != "adamw":
        raise ValueError(f"optimizer is {config.optimizer!r}: use adamw or muon")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            peak = config.lr if id(parameter) in of_head else config.backbone_lr
            # Biases and the scales of norms are not decayed.
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((peak, decay), []).append(parameter)
    for parameter in loss.parameters():
        groups.setdefault((config.lr, 0.0), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": peak, "peak_lr": peak, "weight_decay": decay}
            for (peak, decay), parameters in groups.items()
        ],
        fused=True,
    )


def _muon(network: nn.Module, loss: nn.Module, of_head: set[int], config: TrainConfig) -> torch.optim.Optimizer:
    learned = [p for p in network.parameters() if p.requires_grad]
    inner = [p for p in learned if p.ndim > 1 and id(p) not in of_head]
    others = [p for p in learned if p.ndim < 2 or id(p) in of_head] + list(loss.parameters())
    return Muon(
        [
            {"params": inner, "lr": config.backbone_lr, "peak_lr": config.backbone_lr, "orthogonal": True},
            {"params": others, "lr": config.lr, "peak_lr": config.lr},
        ]
    )


def _batches(n: int, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yields random positions below n, all once; a last batch of a single item (no pair in it) joins the one before."""
    order = torch.randperm(n, generator=generator)
    parts = list(order.split(batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return iter(parts)


def _learning_rate_share(epoch: float, config: TrainConfig) -> float:
    if epoch < config.warmup_epochs:
        return (epoch + 0.01) / (config.warmup_epochs + 0.01)
    done = (epoch - config.warmup_epochs) / max(config.epochs - config.warmup_epochs, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    # A short memory at first: the average must forget the untrained weights.
    decay = min(decay, (1 + step) / (10 + step))
    for mine, theirs in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)


@dataclass(frozen=True)
class _State:
    """All that a resumed run needs, in one file: tensors and plain values, read without running code."""

    network: nn.Module
    averaged: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer

    def save(self, path: str | os.PathLike[str], config: TrainConfig, epoch: int, seconds: float) -> None:
        values: dict[str, Any] = {
            "config": json.dumps(asdict(config)),
            "epoch": epoch,
            "seconds": seconds,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with replacing(path) as file:
            torch.save(values, file)

    def load(self, path: str | os.PathLike[str], config: TrainConfig) -> tuple[int, float]:
        try:
            values = torch.load(path, map_location="cpu", weights_only=True)
            theirs = values["config"]
        except Exception as error:  # torch raises many kinds for a damaged file
            raise TrainingError(f"the checkpoint {path} is damaged ({error}): delete it to begin anew") from error
        if theirs != json.dumps(asdict(config)):
            raise TrainingError(f"the checkpoint {path} belongs to another configuration ({theirs}): delete or move it")
        try:
            self.network.load_state_dict(values["network"])
            self.averaged.load_state_dict(values["averaged"])
            self.loss.load_state_dict(values["loss"])
            self.optimizer.load_state_dict(values["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrainingError(f"the checkpoint {path} does not fit this network and loss: {error}") from error
        return int(values["epoch"]), float(values["seconds"])
