"""``deephash evaluate``, and how the quality of a model is told."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_datasets import Data, Dataset, Download, Protocol, Seed, load_dataset
from .cli_errors import reports_errors, usage_error
from .cli_options import Json, read_numbers
from .paths import display_path
from .terminal import counted, note, print_aligned, print_json

if TYPE_CHECKING:
    from .evaluation import RetrievalReport

__all__ = ["evaluate", "print_quality"]


@reports_errors
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model file, or a built-in model's name.")],
    dataset: Dataset,
    data: Data = Path(),
    download: Download = False,
    protocol: Protocol = "cifar10-1",
    bits: Annotated[
        int | None, typer.Option("--bits", metavar="N", help="Judge the first N bits of the codes.  [default: all]")
    ] = None,
    k: Annotated[
        list[str] | None, typer.Option("--k", metavar="N,...", help="For each metric @k.  [default: 10,100]")
    ] = None,
    radius: Annotated[
        list[str] | None,
        typer.Option("--radius", metavar="N,...", help="For precision within a Hamming distance.  [default: 2]"),
    ] = None,
    legacy: Annotated[
        str | None,
        typer.Option("--legacy", metavar="NAME", help="mAP as published code has it, too: deephash-pytorch, hashnet."),
    ] = None,
    curve: Annotated[
        Path | None,
        typer.Option("--curve", metavar="FILE", help="Write the precision-recall curve by radius: .png or .csv."),
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Judge a model on labelled images: tie-aware mAP and its kin.

    Means over the queries that have a relevant image in the database; with several labels an image, also by how many
    are shared. Images at equal distance count as the mean over all their orders, and the bounds are those of the worst
    and of the best order. --k and --radius may be repeated. --json has all numbers, with the curve.

    \b
      deephash evaluate dsdh.safetensors cifar10 --data DIR --legacy hashnet
      deephash evaluate general-64 by-class/ --k 5,20 --curve curve.csv
      deephash evaluate general-64 labels.csv --radius 2 --radius 8 --json
      deephash evaluate nested.safetensors by-class/ --bits 12
    """
    from .code_quality import evaluate_model
    from .curves import check_curve_file, write_curve
    from .evaluation import LEGACY_RULES
    from .model import load_model

    ks, radii = read_numbers("--k", k or ["10,100"], 1), read_numbers("--radius", radius or ["2"], 0)
    if legacy is not None and legacy not in LEGACY_RULES:
        usage_error(f"--legacy {legacy!r} is not known: choose one of {', '.join(LEGACY_RULES)}")
    if curve:
        try:
            check_curve_file(curve)
        except (ValueError, ImportError) as error:
            usage_error(f"--curve: {error}")
    loaded = load_model(model)
    if bits is not None:
        try:
            loaded = loaded.prefix(bits)
        except ValueError as error:
            usage_error(f"--bits: {error}")
    if max(radii) > loaded.n_bits:
        usage_error(f"--radius {max(radii)}: no two codes of {loaded.n_bits} bits are so far apart")
    images, split = load_dataset(dataset, data, download=download, protocol=protocol, seed=seed)
    quality = evaluate_model(loaded, images, split, ks=ks, radii=radii, legacy=legacy)
    if curve and quality.pr_by_radius:
        write_curve(quality.pr_by_radius, curve, title=f"{model}, {split.protocol}")
        note(f"curve: {display_path(curve)}")
    if json:
        print_json({"model": model, "protocol": split.protocol, "seed": seed, "quality": quality.to_dict()})
    else:
        print_quality(quality, split.protocol)


def print_quality(quality: "RetrievalReport", protocol: str) -> None:
    """Prints a report: a line for each metric, with bounds where the order of ties decides; then the codes."""
    print(f"{protocol}: {quality.n_queries:,} queries against {quality.n_database:,} images, {quality.n_bits} bits")
    print_aligned(list(_rows(quality)), indent=2)
    health = quality.health
    if health is not None:
        print(
            f"codes: {health.distinct_codes:,} distinct, {health.largest_group:.1%} of the images share the most "
            f"frequent\n"
            f"bits: |share of ones - 0.5| is {health.mean_imbalance:.3f} on average, {health.worst_imbalance:.3f} at "
            f"worst; |correlation| {health.mean_correlation:.3f}, {health.max_correlation:.3f}"
        )
        if health.constant_bits:
            print(f"{counted(health.constant_bits, 'bit has', 'bits have')} the same value in all codes")
    if quality.queries_without_relevant:
        left_out = counted(quality.queries_without_relevant, "query has", "queries have")
        print(f"{left_out} no relevant image, and no part in the means")


def _rows(quality: "RetrievalReport") -> Iterator[tuple[str, str, str]]:
    def row(name: str, value: float | None, remark: str = "") -> tuple[str, str, str]:
        return name, f"{value:.4f}", remark

    def bounds(low: float, high: float) -> str:
        return f"{low:.4f} to {high:.4f} by the order of ties" if f"{low:.4f}" != f"{high:.4f}" else ""

    yield row("mAP", quality.map, bounds(quality.map_pessimistic, quality.map_optimistic))
    yield row("chance", quality.chance)
    if quality.wap is not None:
        yield row("WAP", quality.wap)
    for k in quality.map_at:
        yield row(f"mAP@{k}", quality.map_at[k], bounds(quality.map_at_pessimistic[k], quality.map_at_optimistic[k]))
        yield row(f"P@{k}", quality.precision_at[k])
        yield row(f"R@{k}", quality.recall_at[k])
        for name, values in (("NDCG", quality.ndcg_at), ("ACG", quality.acg_at), ("WAP", quality.wap_at)):
            if values is not None:
                yield row(f"{name}@{k}", values[k])
    for radius, value in (quality.precision_within or {}).items():
        empty = (quality.empty_within or {})[radius]
        yield row(f"P@H≤{radius}", value, f"{empty:.1%} of the balls are empty" if empty else "")
    if quality.legacy_rule is not None:
        yield row("mAP", quality.legacy_map, f"by the rule of {quality.legacy_rule}")
        for k, value in (quality.legacy_map_at or {}).items():
            yield row(f"mAP@{k}", value, f"by the rule of {quality.legacy_rule}")
