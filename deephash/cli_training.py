"""``deephash train``; registers ``deephash evaluate`` beside it."""

import json as json_module
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from .cli_datasets import Data, Dataset, Download, Protocol, Seed, load_dataset
from .cli_errors import EXIT_FAILED, reports_errors, usage_error
from .cli_evaluation import evaluate, print_quality
from .cli_options import Json
from .paths import display_path
from .terminal import duration_text, note, print_json, progress_bar

if TYPE_CHECKING:
    from .datasets import LabelledImages, RetrievalSplit
    from .distributed import Processes
    from .supervised import RunConfig, RunResult
    from .training import EpochReport

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the commands to the app."""
    app.command()(train)
    app.command()(evaluate)


@reports_errors
def train(
    dataset: Dataset,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The model file to write.")],
    data: Data = Path(),
    download: Download = False,
    protocol: Protocol = "cifar10-1",
    loss: Annotated[str, typer.Option(metavar="NAME", help="Any of deephash.losses.LOSSES.")] = "dsdh",
    bits: Annotated[int, typer.Option(metavar="N", help="Length of the codes, 8 to 1024.")] = 48,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="timm's or torchvision/NAME.  [default: efficientnet_lite0]")
    ] = None,
    scratch: Annotated[bool, typer.Option("--scratch", help="Begin with random weights.")] = False,
    size: Annotated[int, typer.Option(metavar="PIXELS", min=16, help="Side of the images that the network sees.")] = 96,
    epochs: Annotated[int, typer.Option(metavar="N", min=1)] = 20,
    batch_size: Annotated[int, typer.Option(metavar="N", min=2)] = 64,
    lr: Annotated[float, typer.Option(metavar="RATE", help="Learning rate of the hash layer.")] = 2e-3,
    backbone_lr: Annotated[float, typer.Option(metavar="RATE", help="Learning rate of the backbone.")] = 5e-4,
    validation: Annotated[
        float, typer.Option(metavar="SHARE", help="Hold out this share of the training set, and report its mAP.")
    ] = 0.0,
    patience: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Stop after N epochs without a better mAP in validation; keep the best."),
    ] = None,
    seed: Seed = 0,
    # torchrun takes --log for its own, wherever it stands (argparse before Python 3.12.5).
    log: Annotated[
        Path | None, typer.Option("--log", "--log-file", metavar="FILE", help="Append a JSON line for each epoch.")
    ] = None,
    json: Json = False,
) -> None:
    """Train a hashing model on labelled images, and judge it.

    A checkpoint is kept beside the output after each epoch: stop with Ctrl-C, and the same command goes on from there,
    exactly. The queries are looked at once, at the end. Without a protocol of its own, a data set is split at random: a
    tenth are queries. On several GPUs or processors, "torchrun --nproc-per-node N -m deephash train ..." has N
    processes share the work, to the same result.

    \b
      deephash train cifar10 --data DIR --loss dsdh --bits 48 -o dsdh.safetensors
      deephash train by-class/ --loss orthohash --epochs 5 -o mine.safetensors
      deephash train labels.csv --epochs 5 -o other.safetensors
    """
    from .backbones import DEFAULT_BACKBONE
    from .distributed import AnotherProcessFailed, joined_processes
    from .losses import LOSSES
    from .supervised import RunConfig
    from .training import TrainConfig

    try:
        with joined_processes() as processes:
            if loss not in LOSSES:
                usage_error(f"--loss {loss!r} is not known: choose one of {', '.join(LOSSES)}")
            if not output.absolute().parent.is_dir():
                usage_error(f"--output {display_path(output)}: the folder does not exist")
            if patience and not validation:
                usage_error("--patience waits for a better mAP on --validation SHARE: give both, 0.1 for example")
            images, split = load_dataset(dataset, data, download=download, protocol=protocol, seed=seed)
            config = RunConfig(
                loss=loss, n_bits=bits, backbone=backbone or DEFAULT_BACKBONE, pretrained=not scratch, image_size=size,
                validation_share=validation,
                training=TrainConfig(
                    epochs=epochs, batch_size=batch_size, lr=lr, backbone_lr=backbone_lr, weight_decay=1e-2,
                    averaging=0.995, patience=patience, seed=seed,
                ),
            )  # fmt: skip
            _train(images, split, config, processes, output, log, json=json)
    except AnotherProcessFailed:  # which says why
        raise typer.Exit(EXIT_FAILED) from None


def _train(
    images: "LabelledImages", split: "RetrievalSplit", config: "RunConfig", processes: "Processes", output: Path,
    log: Path | None, *, json: bool,
) -> None:  # fmt: skip
    """Trains, and writes the model; of several processes the first alone writes and speaks."""
    from .supervised import train_model

    checkpoint = output.with_name(f".{output.name}.checkpoint")
    first = processes.rank == 0
    quiet = json or not first
    if checkpoint.exists() and first:
        note(f"going on from {display_path(checkpoint)}")
    with progress_bar(quiet=quiet) as on_progress, _epoch_log(log if first else None) as write_epoch:
        started = time.monotonic()
        n_done = 0

        def on_epoch(report: "EpochReport") -> None:
            nonlocal n_done
            n_done += 1
            write_epoch(report)
            if not quiet:
                note(_epoch_text(report, (time.monotonic() - started) / n_done))

        try:
            result = train_model(
                images, split, config, name=output.stem, checkpoint=checkpoint, on_epoch=on_epoch,
                on_progress=on_progress,
            )  # fmt: skip
        except KeyboardInterrupt:
            kept = "the epochs done are kept; " if checkpoint.exists() else ""
            raise KeyboardInterrupt(f"interrupted: {kept}the same command goes on") from None
    if not first:
        return
    result.model.save(output)
    checkpoint.unlink(missing_ok=True)
    if json:
        print_json({"model": str(output), "protocol": split.protocol, "quality": result.quality.to_dict()})
    else:
        _note_best(result)
        print_quality(result.quality, split.protocol)
        print(f"model: {display_path(output)}")
        note(f"index with it: deephash index FOLDER --model {display_path(output)}")


def _epoch_text(report: "EpochReport", seconds_an_epoch: float) -> str:
    quality = "".join(f", validation {name} {value:.4f}" for name, value in (report.validation or {}).items())
    n_left = report.epochs - report.epoch
    left = f", {duration_text(n_left * seconds_an_epoch)} left" if n_left else ""
    return f"epoch {report.epoch} of {report.epochs}: loss {report.loss:.4f}{quality}{left}"


def _note_best(result: "RunResult") -> None:
    last = result.epochs[-1] if result.epochs else None
    if last and last.best_epoch:
        stopped = "" if last.epoch == last.epochs else f"stopped after epoch {last.epoch} of {last.epochs}; "
        note(f"{stopped}the model is that of epoch {last.best_epoch}, of the best validation mAP")


@contextmanager
def _epoch_log(path: Path | None) -> "Iterator[Any]":
    """Yields a function that appends a report to the log, and does nothing without one."""
    if path is None:
        yield lambda report: None
        return
    with path.open("a", encoding="utf-8") as file:
        yield lambda report: _append(file, report)


def _append(file: IO[str], report: "EpochReport") -> None:
    file.write(json_module.dumps(asdict(report)) + "\n")
    file.flush()
