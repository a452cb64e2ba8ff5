"""``deephash train``; registers ``deephash evaluate`` beside it."""

import inspect
import json as json_module
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from .cli_datasets import Data, Dataset, Download, Protocol, Seed, load_dataset
from .cli_errors import EXIT_FAILED, reports_errors, usage_error
from .cli_evaluation import evaluate, print_quality
from .cli_options import Json, read_numbers
from .paths import display_path
from .terminal import duration_text, note, print_aligned, print_json, progress_bar

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
    loss_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the loss, such as mu=1e3; repeatable.")
    ] = None,
    bits: Annotated[int, typer.Option(metavar="N", help="Length of the codes, 8 to 1024.")] = 48,
    nested: Annotated[
        list[str] | None,
        typer.Option(metavar="N,...", help="Shorter lengths: make the first N bits of a code a code, too."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="timm's or torchvision/NAME.  [default: efficientnet_lite0]")
    ] = None,
    scratch: Annotated[bool, typer.Option("--scratch", help="Begin with random weights.")] = False,
    size: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", min=16, help="Side of the images that the network sees.  [default: 160]"),
    ] = None,
    frozen_stages: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Leave the stem and N stages as they are.  [default: 2]")
    ] = None,
    head_epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Of the hash layer alone, before all else, 150,000 images at most.  [default: 30]"
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Passes over the training set.  [default: 10]")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", min=2, help="Images a step.  [default: 64]")] = None,
    lr: Annotated[
        float | None, typer.Option(metavar="RATE", help="Learning rate of the hash layer.  [default: 0.002]")
    ] = None,
    backbone_lr: Annotated[
        float | None, typer.Option(metavar="RATE", help="Learning rate of the backbone.  [default: 0.00015]")
    ] = None,
    bf16: Annotated[
        bool | None, typer.Option("--bf16/--no-bf16", help="Compute in bfloat16.  [default: where it is fast]")
    ] = None,
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

    A pretrained backbone is fine-tuned: its batch norms and first stages stay as they are, and the hash layer learns
    first; one without stages, such as torchvision's, is trained whole. --scratch trains everything, with defaults of
    its own: those of cifar_resnet are for images of 32 pixels (deephash/recipes.py). bfloat16 is used on GPUs made for
    it; on CPUs with AVX512-BF16 or AMX, too, but for networks without a recipe for it.

    A checkpoint is kept beside the output after each epoch: stop with Ctrl-C, and the same command goes on from there,
    exactly. The queries are looked at once, at the end. Without a protocol of its own, a data set is split at random: a
    tenth are queries. On several GPUs or processors, "torchrun --nproc-per-node N -m deephash train ..." has N
    processes share the work, to the same result.

    --nested 12,24 makes one model for several lengths: the first 12 and the first 24 bits of its codes are about as
    good as codes of models of their own. In Python, load_model("m.safetensors").prefix(12) is the model of 12 bits.

    \b
      deephash train cifar10 --data DIR --loss dsdh --bits 48 -o dsdh.safetensors
      deephash train by-class/ --loss orthohash --epochs 5 -o mine.safetensors
      deephash train labels.csv --epochs 5 -o other.safetensors
      deephash train by-class/ --nested 12,24 --epochs 2 -o nested.safetensors
    """
    from .backbones import DEFAULT_BACKBONE
    from .distributed import AnotherProcessFailed, joined_processes
    from .losses import LOSSES
    from .recipes import choose_recipe

    try:
        with joined_processes() as processes:
            if loss not in LOSSES:
                usage_error(f"--loss {loss!r} is not known: choose one of {', '.join(LOSSES)}")
            loss_options = _loss_options(loss, loss_option or ())
            lengths = _nested_lengths(nested or (), bits, loss)
            if not output.absolute().parent.is_dir():
                usage_error(f"--output {display_path(output)}: the folder does not exist")
            if patience and not validation:
                usage_error("--patience waits for a better mAP on --validation SHARE: give both, 0.1 for example")
            if scratch and (frozen_stages is not None or head_epochs):
                usage_error("--scratch trains everything: leave --frozen-stages and --head-epochs out")
            images, split = load_dataset(dataset, data, download=download, protocol=protocol, seed=seed)
            recipe = choose_recipe(backbone or DEFAULT_BACKBONE, pretrained=not scratch)
            training = _given(epochs=epochs, batch_size=batch_size, lr=lr, backbone_lr=backbone_lr)
            config = replace(
                recipe, loss=loss, n_bits=bits, nested=lengths, validation_share=validation,
                training=replace(recipe.training, patience=patience, seed=seed, **training),
                **_given(image_size=size, frozen_stages=frozen_stages, head_epochs=head_epochs),
            )  # fmt: skip
            config = _suited(config, images, split, strict=frozen_stages is not None, speaks=processes.rank == 0)
            config = replace(
                config, loss_options=config.loss_options | loss_options,
                training=replace(config.training, **_given(bf16=bf16)),
            )  # fmt: skip
            _train(images, split, config, processes, output, log, json=json)
    except AnotherProcessFailed:  # which says why
        raise typer.Exit(EXIT_FAILED) from None


def _given(**options: Any) -> dict[str, Any]:
    """Returns the options that were given; the others are None."""
    return {name: value for name, value in options.items() if value is not None}


def _loss_options(loss: str, texts: Sequence[str]) -> dict[str, Any]:
    """Returns the options of a loss from NAME=VALUE, each of the type of its default: a number where that is None."""
    from .losses import LOSSES

    known = {
        name: parameter.default
        for name, parameter in inspect.signature(LOSSES[loss]).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            usage_error(f"--loss-option {text!r}: write NAME=VALUE; {loss} has {', '.join(known) or 'no options'}")
        default = known[name]
        try:
            if isinstance(default, bool):
                options[name] = {"true": True, "false": False}[value.lower()]
            else:
                options[name] = (float if default is None else type(default))(value)
        except (KeyError, ValueError):
            kind = "true or false" if isinstance(default, bool) else f"a number, such as {default or 1}"
            usage_error(f"--loss-option {text!r}: {name} is {kind}")
    return options


def _nested_lengths(texts: Sequence[str], bits: int, loss: str) -> tuple[int, ...]:
    """Returns the lengths that --nested names."""
    from .losses import LOSSES
    from .supervised import check_lengths

    lengths = tuple(read_numbers("--nested", texts, 1)) if texts else ()
    if lengths and LOSSES[loss].asymmetric:
        usage_error(f"--nested: {loss} has codes of its own for the database; choose another loss")
    try:
        check_lengths(bits, lengths)
    except ValueError as error:
        usage_error(f"{'--nested' if lengths else '--bits'}: {error}")
    return lengths


def _suited(
    config: "RunConfig", images: "LabelledImages", split: "RetrievalSplit", *, strict: bool, speaks: bool
) -> "RunConfig":
    """Returns the config, suited to this backbone, these images and this machine; says what it gave up."""
    from .augmentation import Augmentation
    from .inference import has_fast_bf16
    from .model import best_device
    from .recipes import loss_options, without_frozen_stages

    if not strict:
        config, reason = without_frozen_stages(config)
        if reason and speaks:
            note(f"training everything: {reason}")
    size = config.image_size
    if config.augmentation.shift and images.pixels.shape[1:3] != (size, size):
        config = replace(config, augmentation=Augmentation())  # images are scaled, so crops cost nothing more
    n_train = round(len(split.training) * (1 - config.validation_share))
    # True asks for it where it is fast; None leaves it to the trainer, which takes it on a GPU alone.
    bf16 = config.training.bf16 and has_fast_bf16(best_device())
    return replace(
        config,
        loss_options=loss_options(config, config.loss, n_train),
        training=replace(config.training, bf16=bf16),
    )


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
        nested = {n_bits: quality.to_dict() for n_bits, quality in result.nested.items()}
        told = {"model": str(output), "protocol": split.protocol, "quality": result.quality.to_dict()}
        print_json(told | ({"nested": nested} if nested else {}))
    else:
        _note_best(result)
        print_quality(result.quality, split.protocol)
        if result.nested:
            print("mAP of the first bits:")
            print_aligned([(f"{n_bits} bits", f"{q.map:.4f}") for n_bits, q in result.nested.items()], indent=2)
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
