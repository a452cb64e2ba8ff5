"""The command line: parse, call, print. What a command does is the engine's; heavy imports happen inside commands."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import __version__, cli_duplicates, cli_encoding, cli_search, cli_server, cli_training
from .cli_errors import (
    EXIT_CODES_HELP,
    EXIT_INCOMPLETE,
    interrupts_end_the_program,
    press_dropped_ctrl_c_again,
    reports_errors,
    usage_error,
)
from .cli_options import (
    Format,
    Html,
    Index,
    Json,
    Label,
    Output,
    PathGlob,
    Png,
    Wait,
    Where,
    check_radius,
    chosen_format,
    parse_codes,
    parse_filter,
    write_sheets,
)
from .json_lines import path_fields
from .paths import display_path, printable, utf8_path
from .terminal import counted, note, print_facts, print_json, print_skipped, print_table, progress_bar, size_text

if TYPE_CHECKING:
    from index import Filter

    from .answers import Answer
    from .engine import ImageSearch
    from .sync import SyncReport

app = typer.Typer(
    name="deephash",
    help="Finds similar images by short binary codes.\n\n\b\n"
    "  deephash index photos/                index a folder into photos.dhx\n"
    "  deephash query photos.dhx cat.jpg     find images like this one\n"
    "  deephash demo                         see it work on 1,200 images that are included",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Runs the command line; the console script ``deephash``."""
    # torch's threads sleep while they wait instead of spinning: beside any other busy process, a spinning thread keeps
    # the processor from the one that it waits for. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    press_dropped_ctrl_c_again()
    with interrupts_end_the_program():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError):  # a replaced stream, in tests and notebooks
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        app()


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"deephash {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
@reports_errors
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where to write.")] = Path(
        "deephash-demo"
    ),
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A model file or name, instead of one fitted without labels.")
    ] = None,
    json: Json = False,
) -> None:
    """Index, query and judge 1,200 real images that are included.

    Takes half a minute and no network; writes images, an index and contact sheets into one folder.

    \b
      deephash demo
      deephash demo -o /tmp/demo --json
    """
    from .demo import run_demo

    with progress_bar(quiet=json) as on_progress:
        result = run_demo(output, model=model, on_progress=on_progress)
    quality, k = result.quality, next(iter(result.quality.precision_at))
    if json:
        print_json(
            {
                "folder": str(result.folder), "index": str(result.index), "html": str(result.html),
                "png": str(result.png), "model": result.model, "images": result.sync.n_images,
                "quality": quality.to_dict(), "seconds": round(result.seconds, 2),
            }
        )  # fmt: skip
        return
    rows = []
    for path, matches in result.shown:
        label = Path(path).parent.name
        right = sum(match.label == label for match in matches)
        nearest = ", ".join(f"{match.label} {match.distance}" for match in matches[:4])
        rows.append((label, f"{right} of {len(matches)}", nearest))
    print_table(("query", "same class", "nearest, with Hamming distance"), rows, title=f"{len(rows)} of the queries")
    origin = "no labels used" if result.fitted else f"model {result.model}"
    print(
        f"{quality.n_queries} queries against {quality.n_database} images, {quality.n_bits} bits, {origin}:\n"
        f"  mAP   {quality.map:.3f}   (chance {quality.chance:.3f}; between {quality.map_pessimistic:.3f} and "
        f"{quality.map_optimistic:.3f} by the order of ties)\n"
        f"  P@{k}  {quality.precision_at[k]:.3f}   (chance {quality.chance:.3f})\n"
        f"contact sheet: {display_path(result.html)}\n"
        f"as a picture:  {display_path(result.png)}"
    )
    note(
        f"\ndone in {result.seconds:.0f} s. Next, on your own images:\n"
        f"  deephash index FOLDER                      writes FOLDER.dhx here\n"
        f"  deephash query FOLDER.dhx IMAGE --html results.html\n"
        f"  deephash query {display_path(result.index)} --id 1      (an image of the demo)"
    )


@app.command()
@reports_errors
def index(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="Folders of images, or image files.")],
    index: Annotated[
        Path | None, typer.Option("--index", "-i", metavar="INDEX", help="Index folder; by default FOLDER.dhx here.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Use this model as it is, and fit none (deephash models lists them)."),
    ] = None,
    bits: Annotated[
        int | None, typer.Option(metavar="N", help="Length of the codes, 8 to 1024.  [default: 128]")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Fit on this timm (or torchvision/NAME) backbone instead.")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove indexed images that are gone from disk.")] = False,
    folder_labels: Annotated[
        bool, typer.Option("--folder-labels", help="The name of an image's folder is its label.")
    ] = False,
    metadata: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV or JSON lines with columns path, label, and any others as metadata."),
    ] = None,
    wait: Wait = 0.0,
    json: Json = False,
) -> None:
    """Index images, or bring an index in step with its folders.

    A new index of 200 images or more first fits its own codes to a sample of them, without labels, because codes fitted
    to a collection tell its images apart better than general ones; --model switches that off. Later runs decode
    only what is new or changed; a file that moved keeps its id. Stop with Ctrl-C at any time: the same command goes on.

    \b
      deephash index photos/
      deephash index photos/ more/ --index all.dhx --bits 64
      deephash index photos/ --prune --folder-labels
    """
    from .annotations import folder_labels as label_by_folder
    from .annotations import read_annotations
    from .indexing import index_images

    if folder_labels and metadata:
        usage_error("--folder-labels and --metadata exclude each other")
    if index is None:
        if len(folders) > 1:
            usage_error("several folders need --index NAME.dhx")
        index = Path(f"{folders[0].resolve().name or 'images'}.dhx")
    annotate = read_annotations(metadata) if metadata else label_by_folder if folder_labels else None
    with progress_bar(quiet=json) as on_progress:
        report = index_images(
            folders, index, model=model, n_bits=bits, backbone=backbone, prune=prune, annotate=annotate, timeout=wait,
            on_progress=on_progress,
        )  # fmt: skip
    if json:
        skipped = [path_fields(item.path) | {"reason": item.reason} for item in report.skipped]
        print_json({"index": str(index)} | vars(report) | {"skipped": skipped})
    else:
        _print_sync(report, index)
    if report.skipped:
        raise typer.Exit(EXIT_INCOMPLETE)


def _print_sync(report: "SyncReport", index: Path) -> None:
    print_skipped(report.skipped)
    counts = {
        "added": report.added, "updated": report.updated, "copies of indexed images": report.copies,
        "moved": report.moved, "touched": report.touched, "removed": report.removed, "unchanged": report.unchanged,
    }  # fmt: skip
    done = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing to do"
    # Of a few images it would be the time to load the model.
    rate = f" ({report.decoded / report.seconds:,.0f} images/s)" if report.decoded >= 100 else ""
    decoded = f"{report.decoded:,} decoded in {report.seconds:.1f} s{rate}"
    print(f"{display_path(index)}: {counted(report.n_images, 'image')}; {done}; {decoded}")
    if report.fitted_to:
        note(
            f"its codes were fitted to {report.fitted_to:,} images of the collection, without labels "
            f"(--model switches that off)"
        )
    if report.vanished:
        gone = counted(report.vanished, "indexed image is", "indexed images are")
        note(f"{gone} gone from disk: --prune removes them from the index")


@app.command()
@reports_errors
def query(
    index: Index,
    images: Annotated[list[Path] | None, typer.Argument(metavar="IMAGE", help="Images to search with.")] = None,
    id: Annotated[
        list[int] | None, typer.Option("--id", metavar="ID", help="Search with this indexed image; repeatable.")
    ] = None,
    code: Annotated[list[str] | None, typer.Option(metavar="HEX", help="Search with this code; repeatable.")] = None,
    k: Annotated[
        int | None, typer.Option("-k", metavar="N", min=1, help="At most so many matches.  [default: 10; with -r all]")
    ] = None,
    radius: Annotated[
        int | None,
        typer.Option("--radius", "-r", metavar="N", min=0, help="Only within this Hamming distance, inclusive."),
    ] = None,
    together: Annotated[bool, typer.Option("--together", help="All images are one query, their mean.")] = False,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Order by asymmetric distance: better matches, for images only.")
    ] = False,
    oversampling: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="With --rerank: look at the N x k nearest by Hamming.  [default: 10]"),
    ] = None,
    path: PathGlob = None,
    label: Label = None,
    where: Where = None,
    json: Json = False,
    html: Html = None,
    png: Png = None,
) -> None:
    """Find the indexed images most like an image, nearest first.

    A line of --json is a query: query, query_id or query_code, and matches, a list of id, distance, path, label,
    metadata. A path that is not UTF-8 has its bytes beside it, as path_hex.

    --rerank weighs each bit by how decided the query image is about it (asymmetric distance, with --json
    asymmetric_distance), among the nearest by Hamming distance.

    \b
      deephash query photos.dhx cat.jpg
      deephash query photos.dhx cat.jpg dog.jpg -k 5 --html results.html
      deephash query photos.dhx cat.jpg --rerank
      deephash query photos.dhx --id 17 --radius 20 --json
      deephash query photos.dhx cat.jpg --path '*/2024/*' --label cat
    """
    if not (images or id or code):
        usage_error("give an image, --id or --code to search with")
    if together and (id or code or not images):
        usage_error("--together takes images, not --id or --code")
    if rerank and (id or code):
        usage_error("--rerank takes images, not --id or --code: an id or a code has no logits to re-rank by")
    if oversampling is not None and not rerank:
        usage_error("--oversampling goes with --rerank")
    if k is None and radius is None:
        k = 10
    chosen = parse_filter(path, label, where)
    with _open(index) as search:
        check_radius(radius, search.store.n_bits)
        answers = _answers(
            search, images or [], id or [], code or [], k, radius, chosen, together=together, rerank=rerank,
            oversampling=oversampling,
        )  # fmt: skip
        if html or png:
            from .answer_sheets import query_sheet

            write_sheets(query_sheet(index, answers), html, png)
    for answer in answers:
        _print_answer(answer, radius, json=json, headed=len(answers) > 1, rerank=rerank)


def _answers(
    search: "ImageSearch", images: list[Path], ids: list[int], codes: list[str], k: int | None, radius: int | None,
    where: "Filter | None", *, together: bool, rerank: bool, oversampling: int | None,
) -> "list[Answer]":  # fmt: skip
    from .answers import Answer

    answers = []
    if images:
        asked = [", ".join(map(utf8_path, images))] if together else [utf8_path(image) for image in images]
        given = {} if oversampling is None else {"oversampling": oversampling}
        found = search.query(images, k, radius=radius, where=where, combine=together, rerank=rerank, **given)
        for text, image, matches in zip(asked, images, found, strict=False):
            answers.append(Answer({"query": text}, text, str(image), matches))
    if ids:
        found = search.query_ids(ids, k, radius=radius, where=where)
        for record, matches in zip(search.records(ids), found, strict=True):
            answers.append(Answer({"query_id": record.id}, f"id {record.id}", record.path, matches))
    if codes:
        found = search.query_codes(parse_codes(codes, search.store.n_bits), k, radius=radius, where=where)
        for text, matches in zip(codes, found, strict=True):
            answers.append(Answer({"query_code": text}, f"code {text}", None, matches))
    return answers


def _print_answer(answer: "Answer", radius: int | None, *, json: bool, headed: bool, rerank: bool) -> None:
    from .answers import answer_fields

    name = printable(answer.name)
    if json:
        print_json(answer_fields(answer))
        return
    if headed and not sys.stdout.isatty():
        print(f"# {name}")
    rows: list[tuple[object, ...]]
    rows = [(match.distance, match.id, match.label or "", display_path(match.path)) for match in answer.matches]
    columns: tuple[str, ...] = ("distance", "id", "label", "path")
    if rerank:
        columns = ("asymmetric", *columns)
        rows = [(f"{m.asymmetric_distance:.3f}", *row) for m, row in zip(answer.matches, rows, strict=True)]
    print_table(columns, rows, title=name, right="asymmetric distance id")
    if not rows:
        note(f"{name}: no match" + (f" within distance {radius}" if radius is not None else ""))


@app.command()
@reports_errors
def info(index: Index, json: Json = False) -> None:
    """Show what an index holds and which model made it.

    \b
      deephash info photos.dhx
    """
    from index import StoreError

    from .cli_search import memory_text, search_text
    from .errors import ModelError

    with _open(index) as search:
        stats = search.store.stats()
        try:
            searching = search.store.search_stats()
        except StoreError:  # verify says what is damaged
            searching = None
        try:
            card, trouble = search.card, None
        except ModelError as error:
            card, trouble = None, str(error)
    n_total = stats.catalogue_bytes + stats.cache_bytes + stats.model_bytes
    if json:
        facts = {name: getattr(stats, name) for name in stats.__dataclass_fields__}
        model = None
        if card is not None:
            model = {"name": card.name, "method": card.method, "backbone": card.backbone, "training": card.training}
        roots = [path_fields(root) for root in stats.roots]
        found = (
            None if searching is None else {name: getattr(searching, name) for name in searching.__dataclass_fields__}
        )
        print_json(facts | {"roots": roots, "model": model, "search": found, "trouble": trouble})
    else:
        skipped = f" ({counted(stats.n_skipped, 'file')} skipped)" if stats.n_skipped else ""
        print_facts(
            {
                "index": display_path(index),
                "images": f"{stats.n_images:,}{skipped}",
                "codes": f"{stats.n_bits} bits",
                "model": f"{card.name} ({card.method} on {card.backbone})" if card else "missing",
                "fitted to": card.training.get("fitted_to", "unknown") if card else "unknown",
                "fingerprint": stats.fingerprint,
                "folders": ", ".join(map(display_path, stats.roots)) or "none",
                "on disk": f"{size_text(n_total)} (catalogue {size_text(stats.catalogue_bytes)}, cache "
                f"{size_text(stats.cache_bytes)}, model {size_text(stats.model_bytes)})",
                "search": search_text(searching),
                "memory": memory_text(searching, stats.n_images),
                "created": stats.created,
            }
        )
    if trouble:
        note(f"deephash: {trouble}")
        raise typer.Exit(EXIT_INCOMPLETE)


@app.command()
@reports_errors
def remove(
    index: Index,
    id: Annotated[list[int] | None, typer.Option("--id", metavar="ID", help="Remove this image; repeatable.")] = None,
    path: PathGlob = None,
    label: Label = None,
    where: Where = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
    wait: Wait = 0.0,
    json: Json = False,
) -> None:
    """Remove images from an index; the files on disk are left alone. Ids are never used again.

    \b
      deephash remove photos.dhx --id 17 --id 18
      deephash remove photos.dhx --path '*/private/*' --dry-run
    """
    chosen = parse_filter(path, label, where)
    if not id and chosen is None:
        usage_error("say what to remove: --id, --path, --label or --where")
    if id and chosen is not None:
        usage_error("--id does not go with --path, --label and --where")
    with _open(index, writable=not dry_run, wait=wait) as search:
        ids = list(dict.fromkeys(id)) if id else search.store.ids(chosen).tolist()
        search.records(id or [])  # an unknown id is an error, and then nothing is removed
        n_removed = len(ids) if dry_run else search.remove(ids)
    if json:
        print_json({"removed": 0 if dry_run else n_removed, "ids": ids, "dry_run": dry_run})
    else:
        print(f"{counted(n_removed, 'image')} {'would be ' if dry_run else ''}removed from {display_path(index)}")


@app.command()
@reports_errors
def verify(index: Index, json: Json = False) -> None:
    """Check an index: every row, code and file against its checksum.

    A line of --json is a problem: kind, where, message.

    \b
      deephash verify photos.dhx
    """
    with _open(index) as search:
        n_images, problems = len(search), search.verify()
    for problem in problems:
        if json:
            print_json({"kind": problem.kind, "where": display_path(problem.where), "message": problem.message})
        else:
            print(f"{problem.kind}: {display_path(problem.where)}: {problem.message}")
    if problems:
        note(f"{counted(len(problems), 'problem')} in {display_path(index)}")
        raise typer.Exit(EXIT_INCOMPLETE)
    note(f"{display_path(index)}: {counted(n_images, 'image')}, no problem found")


@app.command()
@reports_errors
def export(
    index: Index,
    output: Output = None,
    format: Format = None,
    path: PathGlob = None,
    label: Label = None,
    where: Where = None,
    onnx: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the model as ONNX; INDEX may be a model, too.")
    ] = None,
) -> None:
    """Write images as JSON lines, CSV or NumPy, or the model as ONNX.

    Columns: id, path, label, code (hexadecimal), width, height, n_bytes, mtime_ns, content_hash, metadata; the arrays
    of npz: ids, codes, paths, labels, n_bits, fingerprint.

    --onnx, with deephash[onnx], writes the whole way from pixels (B, size, size, 3) uint8 to codes and logits as one
    file, for ONNX Runtime; its metadata says how pixels are prepared.

    \b
      deephash export photos.dhx | head -3
      deephash export photos.dhx -o photos.csv
      deephash export photos.dhx -o codes.npz
      deephash export general-64 --onnx general-64.onnx
    """
    from .exporting import export_records

    if onnx is not None:
        if output or format or path or label or where:
            usage_error("--onnx writes the model alone: leave the other options out")
        cli_encoding.write_onnx(index, onnx)
        return
    chosen = chosen_format(format, output)
    with _open(index) as search:
        n_images = export_records(search.store, output, chosen, where=parse_filter(path, label, where))
    if output is not None:
        note(f"{display_path(output)}: {counted(n_images, 'image')}")


@app.command()
@reports_errors
def models(json: Json = False) -> None:
    """List the models that come with deephash, for index --model.

    \b
      deephash models
    """
    from .model_file import builtin_models, read_card

    cards = {name: (read_card(path), path.stat().st_size) for name, path in builtin_models().items()}
    if json:
        for name, (card, n_bytes) in cards.items():
            facts = {"n_bits": card.n_bits, "method": card.method, "backbone": card.backbone, "licence": card.licence}
            print_json({"name": name} | facts | {"bytes": n_bytes, "training": card.training})
        return
    rows = [
        (name, card.n_bits, card.method, card.backbone, card.training.get("fitted_to", ""), card.licence, size_text(n))
        for name, (card, n) in cards.items()
    ]
    print_table(("name", "bits", "method", "backbone", "fitted to", "licence", "size"), rows, right="bits size")


cli_duplicates.register(app)
cli_encoding.register(app)
cli_search.register(app)
cli_training.register(app)
cli_server.register(app)


@contextlib.contextmanager
def _open(index: Path, *, writable: bool = False, wait: float = 0.0) -> "Iterator[ImageSearch]":
    from .engine import ImageSearch

    with ImageSearch.open(index, writable=writable, timeout=wait) as search:
        yield search
