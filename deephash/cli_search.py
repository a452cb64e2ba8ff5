"""``deephash tune``, and what ``deephash info`` says of the search."""

from typing import TYPE_CHECKING, Annotated

import typer

from .cli_errors import reports_errors, usage_error
from .cli_options import Index, Json, Wait
from .paths import display_path
from .terminal import note, print_json, print_table, size_text

if TYPE_CHECKING:
    from index import SearchStats, Trial

__all__ = ["memory_text", "register", "search_text"]

_TRIED = ("flat", "mih", "ivf")


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command()(tune)


@reports_errors
def tune(
    index: Index,
    recall: Annotated[
        float, typer.Option(metavar="SHARE", help="The share of the true nearest that must be found.")
    ] = 0.95,
    structure: Annotated[
        list[str] | None,
        typer.Option("--structure", "-s", metavar="NAME", help="Try this one only; repeatable. auto: back to exact."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure, and leave the index as it is.")] = False,
    wait: Wait = 0.0,
    json: Json = False,
) -> None:
    """Measure ways to search an index, and choose the fastest.

    Recall is measured against exact search, on the 10 nearest of a sample of the index's own codes. Later searches use
    what was chosen. Exact: flat compares with every code, mih (tables) looks codes up by their parts; an exact one is
    chosen unless an approximate one is a quarter faster. Approximate: ivf (lists), for long codes; hnsw (a graph), for
    long codes without structure: it takes minutes and much memory for each million; prefix, for nested codes of more
    than 64 bits: their first bits, then what is near by these in full; factory strings of faiss, such as BIVF4096.
    Small indexes are scanned, whatever is chosen.

    A line of --json is a trial, the best first: structure, parameters, exact, recall, reaches (the wanted recall),
    seconds_per_query, bytes_per_image, build_seconds, chosen.

    \b
      deephash tune photos.dhx
      deephash tune photos.dhx --recall 0.99 --dry-run
      deephash tune photos.dhx --structure ivf --recall 0.9
      deephash tune photos.dhx --structure auto
    """
    from index import Choice

    from .engine import ImageSearch

    try:
        tried = [str(Choice.of(name, recall)) for name in structure or _TRIED]
    except ValueError as error:
        usage_error(str(error))
    with ImageSearch.open(index, writable=not dry_run, timeout=wait) as search:
        n_images = max(1, len(search))
        trials = search.store.tune(recall, structures=tried, dry_run=dry_run)
        chosen = search_text(search.store.search_stats())
    if json:
        for number, trial in enumerate(trials):
            print_json(_fields(trial, n_images) | {"chosen": number == 0 and not dry_run})
        return
    rows = [
        (
            trial.structure, _parameters(trial), "exact" if trial.exact else f"{trial.recall:.4f}",
            f"{1000 * trial.seconds_per_query:.3f}", f"{trial.n_bytes / n_images:.0f}", f"{trial.build_seconds:.1f}",
        )
        for trial in trials
    ]  # fmt: skip
    columns = ("structure", "parameters", "recall", "ms/query", "bytes/image", "build_s")
    print_table(columns, rows, right="recall ms/query bytes/image build_s")
    if trials and not trials[0].reaches:
        note(f"none reaches recall {recall:g}")
    note(f"{display_path(index)}: search is {'still ' if dry_run else ''}{chosen}")


def search_text(stats: "SearchStats | None") -> str:
    """Returns how an index is searched, and what that promises."""
    if stats is None:
        return "unknown (damaged: deephash verify)"
    promise = "exact" if stats.exact else f"recall {stats.recall:.4f} of the 10 nearest"
    asked = "" if stats.structure.partition(",")[0] in ("auto", stats.found.partition(" ")[0]) else stats.structure
    return f"{stats.found}, {promise}" + (f" ({asked} from more images on)" if asked else "")


def memory_text(stats: "SearchStats | None", n_images: int) -> str:
    """Returns the memory that the search takes."""
    if stats is None or not n_images:
        return "none" if stats else "unknown"
    return f"{size_text(stats.n_bytes)} ({stats.n_bytes / n_images:.0f} bytes an image)"


def _parameters(trial: "Trial") -> str:
    return " ".join(f"{name}={value}" for name, value in trial.parameters.items())


def _fields(trial: "Trial", n_images: int) -> dict[str, object]:
    return {
        "structure": trial.structure, "parameters": trial.parameters, "exact": trial.exact, "recall": trial.recall,
        "reaches": trial.reaches, "seconds_per_query": trial.seconds_per_query,
        "bytes_per_image": round(trial.n_bytes / n_images, 1), "build_seconds": round(trial.build_seconds, 3),
    }  # fmt: skip
