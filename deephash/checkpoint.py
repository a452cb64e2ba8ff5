"""TrainingState: all that training has come to after an epoch, and the one file from which it goes on, exactly."""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .errors import TrainingError
from .writing import replacing

if TYPE_CHECKING:
    from .training import TrainConfig

__all__ = ["BestEpoch", "EpochReport", "TrainingState"]


@dataclass(frozen=True)
class EpochReport:
    """One epoch: mean loss, seconds so far, and whatever ``validate`` returned; the best epoch if there is patience."""

    epoch: int
    epochs: int
    loss: float
    lr: float
    seconds: float
    validation: dict[str, float] | None = None
    best_epoch: int | None = None


@dataclass(frozen=True)
class BestEpoch:
    """The epoch of the highest validation mAP, counted from 1, and the averaged weights after it."""

    epoch: int
    map: float
    weights: dict[str, torch.Tensor]


@dataclass
class TrainingState:
    """What changes while a network is trained; ``best`` is kept when training may stop early.

    ``history`` has a report of each epoch done; a checkpoint of a version that kept none has none of its epochs.
    """

    network: nn.Module
    averaged: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    epochs_done: int = 0
    seconds: float = 0.0
    best: BestEpoch | None = None
    history: list[EpochReport] = field(default_factory=list)

    def keep_if_best(self, validation_map: float) -> None:
        """Keeps a copy of the averaged weights if no epoch before had as high an mAP."""
        if self.best is None or validation_map > self.best.map:
            weights = {name: tensor.clone() for name, tensor in self.averaged.state_dict().items()}
            self.best = BestEpoch(self.epochs_done, validation_map, weights)

    def save(self, path: str | os.PathLike[str], config: "TrainConfig", task: Mapping[str, Any]) -> None:
        """Writes the checkpoint: tensors and plain values, which are read without running code.

        ``task`` has JSON values only: what else tells this run from others.
        """
        values: dict[str, Any] = {
            "config": json.dumps(asdict(config)),
            "task": json.dumps(dict(task)),
            "history": json.dumps([asdict(report) for report in self.history]),
            "epoch": self.epochs_done,
            "seconds": self.seconds,
            "best": self.best and vars(self.best),
        }
        for name, part in self._parts().items():
            values[name] = part.state_dict()
        with replacing(path) as file:
            torch.save(values, file)

    def restore(
        self, content: bytes, path: str | os.PathLike[str], config: "TrainConfig", task: Mapping[str, Any]
    ) -> None:
        """Takes over the state in the bytes of a checkpoint; ``path`` is for the error messages.

        Raises:
            TrainingError: it is damaged, of another config or task, or of another network or loss.
        """
        try:
            values = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            their_config, their_task = json.loads(values["config"]), json.loads(values.get("task", "{}"))
            history = [EpochReport(**report) for report in json.loads(values.get("history", "[]"))]
        except Exception as error:  # torch raises many kinds for a damaged file
            raise TrainingError(f"the checkpoint {path} is damaged ({error}): delete it to begin anew") from error
        # What an older version did not know was at its default; what it did not write of the task is anybody's.
        others = _differences(asdict(type(config)()) | their_config, asdict(config))
        others += _differences(their_task, json.loads(json.dumps(dict(task))))
        if others:
            raise TrainingError(
                f"the checkpoint {path} belongs to another configuration ({'; '.join(others)}): repeat that, or delete "
                "or move the checkpoint"
            )
        try:
            for name, part in self._parts().items():
                part.load_state_dict(values[name])
            self.epochs_done, self.seconds = int(values["epoch"]), float(values["seconds"])
            best = values.get("best")
            self.best = best and BestEpoch(**best)
            self.history = history
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise TrainingError(f"the checkpoint {path} does not fit this network and loss: {error}") from error

    def _parts(self) -> dict[str, Any]:
        return {"network": self.network, "averaged": self.averaged, "loss": self.loss, "optimizer": self.optimizer}


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    return [f"{name} was {value}, is {ours.get(name)}" for name, value in theirs.items() if value != ours.get(name)]
