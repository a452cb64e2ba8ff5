"""Trains a small network with batch norm, in this process or, as a script, in each of torchrun's.

``small_training.py SCENARIO FOLDER``: ``raise`` and ``kill`` fail so in the second process; ``train`` writes
what the process of rank R found to ``R.pt``, leaves the checkpoint ``stopped.pt`` and resumes ``begun.pt``.
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import nn

from deephash.augmentation import Augmentation
from deephash.batch_norm import whole_batch_norm
from deephash.distributed import joined_processes, present_processes
from deephash.input_spec import InputSpec
from deephash.inputs import ImageInputs
from deephash.losses import create_loss
from deephash.training import TrainConfig, train

LOSSES = ("dsdh", "greedyhash", "orthohash")
# The last of the batches holds 2 images: of three processes, one has no share of it.
N, BITS, CLASSES = 34, 12, 3
CONFIG = TrainConfig(epochs=4, batch_size=16, lr=5e-3, backbone_lr=5e-3, averaging=0.8)


class Stop(Exception):
    pass


class SmallNetwork(nn.Module):
    """In float64, so that sums in another order change next to nothing."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2),
            nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(144, 24), nn.BatchNorm1d(24), nn.Linear(24, BITS),
        ).double()  # fmt: skip

    def forward(self, images):
        return self.layers(images.double())


def images_and_labels():
    rng = np.random.default_rng(0)
    labels = np.arange(N) % CLASSES
    pixels = rng.integers(0, 160, (N, 12, 12, 3)) + 80 * np.eye(3, dtype=int)[labels][:, None, None]
    return ImageInputs(pixels.astype(np.uint8), InputSpec(size=16, resize=16), Augmentation()), torch.from_numpy(labels)


def train_small(loss, *, config=CONFIG, inputs=None, stop_after=None, **options):
    """Returns what came of it; the network begins with other weights in each process.

    ``gradients`` are those of the last step: AdamW makes the same of them if all are some times as large.
    """
    torch.manual_seed(present_processes().rank)
    network = SmallNetwork()
    own, targets = images_and_labels()
    criterion = create_loss(loss, n_bits=BITS, n_classes=CLASSES, n_train=N)
    losses = []

    def on_epoch(report):
        losses.append(report.loss)
        if report.epoch == stop_after:
            raise Stop

    averaged = None
    with suppress(Stop):
        averaged = train(
            network, criterion, inputs or own, targets, np.arange(N), config, on_epoch=on_epoch, **options
        ).state_dict()
    learned = [*network.named_parameters(), *criterion.named_parameters()]
    return {
        "losses": losses,
        "weights": averaged,
        "loss_state": criterion.state_dict(),
        "gradients": {name: parameter.grad for name, parameter in learned},
    }


def norm_errors(processes):
    """Returns how far a batch norm over all processes is from torch's on the whole batch, relatively."""
    torch.manual_seed(0)
    errors = {}
    for name, norm, shape in (
        ("2d", nn.BatchNorm2d(5), (7, 5, 4, 3)),
        ("1d", nn.BatchNorm1d(5), (7, 5)),
        ("plain", nn.BatchNorm2d(5, affine=False, track_running_stats=False), (7, 5, 2, 2)),
        ("cumulative", nn.BatchNorm1d(5, momentum=None), (2, 5)),
    ):
        found = []
        x, weights = torch.randn(shape, dtype=torch.float64) * 3 + 100, torch.randn(shape, dtype=torch.float64)
        share = processes.share(len(x))
        for alone in (True, False):
            own = norm.__class__(5, momentum=norm.momentum, affine=norm.affine,
                                 track_running_stats=norm.track_running_stats).double()  # fmt: skip
            leaf = (x if alone else x[share]).clone().requires_grad_()
            if alone:
                y = own(leaf)
            else:
                with whole_batch_norm(processes):
                    y = processes.gather(own(leaf), len(x))
            (y * weights).tanh().sum().backward()
            if not alone:
                processes.add_up_gradients(own.parameters())
            of_x = leaf.grad if alone else processes.gather(leaf.grad, len(x))
            found.append([y.detach(), of_x, *own.buffers(), *(p.grad for p in own.parameters())])
        errors[name] = max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(*found[::-1], strict=True))
    return errors


def fail_in_second(processes, how):
    """Trains until, in its third batch, the process of rank 1 fails in this way."""
    own, _ = images_and_labels()
    calls = []

    def inputs(positions, generator):
        calls.append(len(positions))
        if processes.rank == 1 and len(calls) == 3:
            if how == "raise":
                raise ValueError("the second process has had enough")
            os.kill(os.getpid(), signal.SIGKILL)
        return own(positions, generator)

    train_small("dsdh", inputs=inputs)


def main(scenario, folder):
    with joined_processes() as processes:
        if scenario in ("raise", "kill"):
            fail_in_second(processes, scenario)
        found = {loss: train_small(loss) for loss in LOSSES}
        found["norm errors"] = norm_errors(processes)
        found["stopped"] = train_small("dsdh", stop_after=2, checkpoint=folder / "stopped.pt")
        found["resumed"] = train_small("dsdh", checkpoint=folder / "begun.pt")
        torch.save(found, folder / f"{processes.rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
