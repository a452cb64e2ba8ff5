"""Trains a network to emit logits under any hashing loss: schedule, averaged weights, early stop, several processes.

The loop never asks which loss it is, nor whether its inputs are images or features.
"""

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .batch_norm import whole_batch_norm
from .checkpoint import EpochReport, TrainingState
from .distributed import Processes, present_processes
from .errors import TrainingError
from .inference import has_fast_bf16, run_in_parts
from .muon import Muon
from .progress import OnProgress, Progress, ignore_progress

if TYPE_CHECKING:
    from .losses import HashingLoss

__all__ = ["EpochReport", "Inputs", "TrainConfig", "TrainingError", "train"]


class Inputs(Protocol):
    """What a network is trained on: gives the inputs of a batch, varied at random or as they are."""

    def __call__(self, positions: NDArray[np.int64], generator: torch.Generator | None) -> torch.Tensor:
        """Returns the inputs at these positions; varied when a generator is given."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    ``lr`` is for the hash layer and the loss's own parameters, ``backbone_lr`` for all else of the network. Both rise
    linearly over ``warmup_epochs`` and fall to zero by a cosine. ``averaging`` is the decay of the exponential moving
    average of the weights, which is what is returned; 0 returns the last weights. ``optimizer`` is ``adamw``, or
    ``muon``: the matrices and convolutions outside the head follow ``Muon``, for which ``backbone_lr`` is about 0.2,
    all else follows AdamW at ``lr``.

    ``patience``: stop after so many epochs without a higher validation mAP, and return the averaged weights of the best
    epoch, however the run ends; None runs through and returns those of the last.

    ``bf16``: let torch's autocast compute the network in bfloat16 where that is safe. Weights, loss and their gradients
    stay float32, and no loss is scaled: bfloat16 has their exponents. None: on a GPU made for it, not on a CPU, where
    it slows some layers down (``fine_tuning``); ``deephash train`` asks ``has_fast_bf16``.
    """

    epochs: int = 20
    batch_size: int = 128
    lr: float = 1e-3
    backbone_lr: float = 1e-4
    weight_decay: float = 1e-4
    warmup_epochs: float = 1.0
    averaging: float = 0.998
    clip_norm: float = 5.0
    patience: int | None = None
    bf16: bool | None = None
    seed: int = 0
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience is {self.patience}: use 1 epoch or more, or None to run through")


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
    task: Mapping[str, Any] | None = None,
    on_resume: Callable[[list[EpochReport]], None] = lambda reports: None,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
    on_progress: OnProgress = ignore_progress,
) -> nn.Module:
    """Trains the network in place, and returns the network to use: a copy with averaged weights, in eval mode.

    In each of several joined processes (``distributed``), called alike, it does what it does in one: ``batch_size`` is
    that of all together, each runs the network on its share of the same batches, and all compute the same loss on the
    gathered logits. The results agree to rounding, but for networks with dropout, which draw other numbers. Each
    process varies the inputs of the whole batch and uses its share, so that part does not get faster. A checkpoint
    fits any number of processes; the first one reads and writes it.

    Args:
        network: from a batch of inputs to logits ``(B, n_bits)``.
        loss: a ``losses.HashingLoss`` for ``len(positions)`` training items.
        inputs: gives the inputs of a batch.
        targets: of the training items, in their order: ``(n_train,) int64`` or ``(n_train, C)`` multi-hot.
        positions: of the training items in ``inputs``.
        config: how to train.
        head: the part of the network that learns at ``lr``; the whole when None.
        validate: called after each epoch with the averaged network and the epoch; for ``config.patience`` it returns
            ``map``, which of several processes counts in the first.
        checkpoint: written after each epoch; training goes on from it, exactly, when it exists.
        task: what else tells this run from others, JSON values only; a checkpoint of another task is refused.
        on_resume: told, in every process, of the epochs that a checkpoint has behind it.
        on_epoch: told of each new epoch, in every process.
        on_progress: told of the images seen, after each batch.

    Raises:
        TrainingError: the loss is not finite; the checkpoint belongs to another configuration or task, or is damaged;
            or another process ended.
        ValueError: targets and positions differ in number, or there is patience and nothing to validate by.
    """
    if len(targets) != len(positions):
        raise ValueError(f"{len(targets)} targets for {len(positions)} training items: give one target each")
    if config.patience is not None and validate is None:
        raise ValueError(f"patience is {config.patience}, but nothing is validated: hold images out, or use None")
    processes = present_processes()
    device = next(network.parameters()).device
    config = replace(config, bf16=_uses_bf16(config, device))
    loss.to(device)
    targets = targets.to(device)
    processes.copy_from_first(network)
    state = TrainingState(network, copy.deepcopy(network), loss, _optimizer(network, loss, head, config))
    task = task or {}
    if checkpoint and _resume(state, Path(checkpoint), config, task, processes):
        on_resume(list(state.history))
    n_seen = state.epochs_done * len(positions)
    steps_per_epoch = math.ceil(len(positions) / config.batch_size)
    while state.epochs_done < config.epochs and not _is_out_of_patience(state, config):
        epoch = state.epochs_done
        started = time.monotonic()
        network.train()
        processes.copy_from_first(loss)  # GPUs may round its memory differently, which must not add up
        loss.start_epoch(epoch, config.epochs)
        # Everything random of an epoch hangs on (seed, epoch): a resumed run repeats what an undisturbed one does.
        seed = config.seed * 100_003 + epoch
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(~seed - 1_000_003 * processes.rank)  # for dropout
        total = 0.0
        for step, chosen in enumerate(_batches(len(positions), config.batch_size, generator)):
            share = _learning_rate_share(epoch + step / steps_per_epoch, config)
            for group in state.optimizer.param_groups:
                group["lr"] = group["peak_lr"] * share
            batch = inputs(positions[chosen.numpy()], generator)[processes.share(len(chosen))].to(device)
            with torch.autocast(device.type, torch.bfloat16, bool(config.bf16)), whole_batch_norm(processes):
                logits = run_in_parts(network, batch)
            logits = processes.gather(logits.float(), len(chosen))
            value = loss(logits, targets[chosen.to(device)], chosen.to(device))
            state.optimizer.zero_grad(set_to_none=True)
            value.backward()
            processes.add_up_gradients(network.parameters())  # each has the whole gradient of the loss's own
            nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
            state.optimizer.step()
            _average(state.averaged, network, config.averaging, epoch * steps_per_epoch + step)
            number = value.item()  # a GPU is waited for here, once it has all of the step to do
            if not math.isfinite(number):
                raise TrainingError(
                    f"the loss is {number} in epoch {epoch + 1}, step {step + 1}: lower the learning rate "
                    f"(lr {config.lr}, backbone_lr {config.backbone_lr}) or clip_norm ({config.clip_norm})"
                )
            total += number * len(chosen)
            n_seen += len(chosen)
            on_progress(Progress("train", n_seen, config.epochs * len(positions)))
        state.epochs_done += 1
        state.seconds += time.monotonic() - started
        state.averaged.eval()
        validation = validate(state.averaged, epoch) if validate else None
        if config.patience is not None:
            if validation is None or "map" not in validation:
                raise ValueError(f"patience is {config.patience}, but validate returned no map: {validation}")
            state.keep_if_best(processes.of_first(validation["map"]))
        report = EpochReport(
            state.epochs_done,
            config.epochs,
            total / len(positions),
            config.lr * _learning_rate_share(state.epochs_done, config),
            state.seconds,
            validation,
            state.best.epoch if state.best else None,
        )
        state.history.append(report)
        if checkpoint and processes.rank == 0:
            state.save(checkpoint, config, task)
        on_epoch(report)
    if state.best:
        state.averaged.load_state_dict(state.best.weights)
    return state.averaged.eval()


def _uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    if config.bf16 is not None:
        return config.bf16
    return device.type == "cuda" and has_fast_bf16(device)


def _resume(
    state: TrainingState, path: Path, config: TrainConfig, task: Mapping[str, Any], processes: Processes
) -> bool:
    content = path.read_bytes() if processes.rank == 0 and path.exists() else None
    content = processes.of_first(content)
    if content is not None:
        state.restore(content, path, config, task)
    return content is not None


def _is_out_of_patience(state: TrainingState, config: TrainConfig) -> bool:
    if state.best is None or config.patience is None:
        return False
    return state.epochs_done - state.best.epoch >= config.patience


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
    floats: tuple[list[torch.Tensor], list[torch.Tensor]] = [], []
    for mine, theirs in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
        if mine.is_floating_point():
            floats[0].append(mine)
            floats[1].append(theirs)
        else:
            mine.copy_(theirs)
    get_ema_multi_avg_fn(decay)(*floats, 0)
