"""``deephash duplicates`` and ``deephash apply``: copies, and what to do with them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_errors import EXIT_INCOMPLETE, reports_errors, usage_error
from .cli_options import Html, Index, Json, Label, PathGlob, Png, Wait, Where, check_radius, parse_filter, write_sheets
from .json_lines import path_fields
from .paths import display_path
from .terminal import counted, note, print_json, print_table, progress_bar, size_text

if TYPE_CHECKING:
    from index import Store

    from .applying import ApplyReport, FileOutcome

__all__ = ["register"]

Protect = Annotated[
    list[Path] | None, typer.Option("--protect", metavar="DIR", help="Drop nothing in this folder; repeatable.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands to the app."""
    app.command()(duplicates)
    app.command()(apply)


@reports_errors
def duplicates(
    index: Index,
    radius: Annotated[
        int | None,
        typer.Option(
            "--radius", "-r", metavar="N", min=0, help="Near copies within this distance.  [default: as measured]"
        ),
    ] = None,
    identical: Annotated[bool, typer.Option("--identical", help="Files of identical content only.")] = False,
    mirror: Annotated[bool, typer.Option("--mirror", help="Mirrored copies too.")] = False,
    path: PathGlob = None,
    label: Label = None,
    where: Where = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help="Write a plan that deephash apply carries out.")
    ] = None,
    protect: Protect = None,
    json: Json = False,
    html: Html = None,
    png: Png = None,
) -> None:
    """List copies of the same picture, and which one to keep.

    That is the one of most pixels, then most bytes, then the oldest id; every copy in its cluster is within the radius
    of it. Near copies are scaled, recompressed, cropped, turned or recoloured ones; their distances are between copy
    codes of 256 bits, which are not the codes of a search. Nothing is deleted. A line of --json is a cluster: kind
    (identical or near), keep (id, path), drop (a list of id, distance, path).

    --plan writes the same down for deephash apply. What is in a folder of --protect is never dropped by the plan, and
    kept rather than copies elsewhere.

    \b
      deephash duplicates photos.dhx
      deephash duplicates photos.dhx --identical --json
      deephash duplicates photos.dhx --radius 60 --mirror --html copies.html
      deephash duplicates photos.dhx --plan copies.json --protect photos/best
    """
    from .engine import ImageSearch

    if identical and (radius is not None or mirror):
        usage_error("--identical and --radius or --mirror exclude each other")
    if protect and plan is None:
        usage_error("--protect goes with --plan")
    with ImageSearch.open(index) as search:
        check_radius(radius, search.store.copy_bits)
        if radius is None and not identical:
            radius = search.store.copy_radius
        if not identical:
            _note_lacking(search.store)
        clusters = search.duplicates(radius=radius, where=parse_filter(path, label, where), mirrored=mirror)
        if html or png:
            from .answer_sheets import cluster_sheet

            write_sheets(cluster_sheet(index, clusters), html, png)
    if plan is not None:
        from .plans import make_plan, write_plan

        made = make_plan(index, clusters, radius=radius, protect=protect or ())
        write_plan(made, plan)
    if json:
        from .answers import cluster_fields

        for cluster in clusters:
            print_json(cluster_fields(cluster))
    else:
        rows = []
        for number, cluster in enumerate(clusters, 1):
            rows.append((number, cluster.kind, "keep", 0, cluster.keep.id, display_path(cluster.keep.path)))
            rows += [(number, cluster.kind, "drop", d, r.id, display_path(r.path)) for r, d in cluster.drop]
        print_table(("cluster", "kind", "copy", "distance", "id", "path"), rows, right="cluster distance id")
        n_copies = sum(len(cluster.drop) for cluster in clusters)
        copies = f"{counted(n_copies, 'copy', 'copies')} in {counted(len(clusters), 'cluster')}"
        note(copies if radius is None else f"{copies}, radius {radius}")
    if plan is not None:
        n_drop = sum(len(action.drop) for action in made.actions)
        note(f"plan: {display_path(plan)}, {counted(n_drop, 'file')} to drop; look at it: deephash apply {plan}")


def _note_lacking(store: "Store") -> None:
    if not store.copy_codes.n_bits:
        note("by the codes of the model, which finds similar pictures too: index the folder again to get copy codes")
    elif n_lacking := len(store.copy_codes.lacking()):
        images = counted(n_lacking, "image")
        note(f"{images} without a copy code, whose near copies are not found: index the folder again")


@reports_errors
def apply(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="As deephash duplicates --plan or the page writes it.")],
    trash: Annotated[bool, typer.Option("--trash", help="Drop files to the desktop's trash.")] = False,
    move: Annotated[
        Path | None, typer.Option("--move", metavar="DIR", help="Drop files into this folder, their folders kept.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it: to the trash, unless --move says where.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Move back what --move has moved.")] = False,
    protect: Protect = None,
    wait: Wait = 0.0,
    json: Json = False,
) -> None:
    """Drop the copies that a plan lists, checked once more.

    Without --trash, --move or --yes it only says what it would do. A file is dropped when it and the one that is kept
    for it have, at that moment, the contents of the plan; all others are skipped with their reason. Stop with Ctrl-C at
    any time: the same command goes on. PLAN.log says what was moved where.

    A line of --json is a file: outcome (planned, moved, moved before, restored, skipped), path, n_bytes, to, reason,
    and kind, distance and keep as in the plan.

    \b
      deephash apply copies.json
      deephash apply copies.json --move dropped/
      deephash apply copies.json --trash --protect photos/best
      deephash apply --undo copies.json
    """
    from .applying import apply_plan, undo_plan

    if trash and move is not None:
        usage_error("--trash and --move exclude each other")
    if undo and (trash or move is not None or yes or protect):
        usage_error("--undo takes the plan alone")
    with progress_bar(quiet=json) as on_progress:
        if undo:
            report = undo_plan(plan, on_progress=on_progress)
        else:
            report = apply_plan(
                plan, trash=trash or (yes and move is None), move_to=move, protect=protect or (), timeout=wait,
                on_progress=on_progress,
            )  # fmt: skip
    if json:
        for item in report.files:
            print_json(_fields(item))
    else:
        _print_report(report)
    _print_summary(report, plan, undo=undo)
    if report.count("skipped"):
        raise typer.Exit(EXIT_INCOMPLETE)


def _fields(item: "FileOutcome") -> dict[str, Any]:
    fields: dict[str, Any] = {"outcome": item.outcome, **path_fields(item.path), "n_bytes": item.n_bytes}
    if item.to is not None:
        fields |= {name.replace("path", "to"): value for name, value in path_fields(item.to).items()}
    if item.reason:
        fields["reason"] = item.reason
    if item.drop is not None and item.keep is not None:
        fields |= {"kind": item.drop.kind, "distance": item.drop.distance, "keep": path_fields(item.keep.path)}
    return fields


def _print_report(report: "ApplyReport") -> None:
    rows = []
    for item in report.files:
        kind, distance = (item.drop.kind, item.drop.distance) if item.drop is not None else ("", "")
        where = display_path(item.to) if item.to is not None else ""
        keep = display_path(item.keep.path) if item.keep is not None else ""
        row = (item.outcome, kind, distance, size_text(item.n_bytes), display_path(item.path), keep, where, item.reason)
        rows.append(row)
    columns = ("outcome", "kind", "distance", "size", "path", "kept", "now at", "reason")
    print_table(columns, rows, right="distance size")


def _print_summary(report: "ApplyReport", plan: Path, *, undo: bool) -> None:
    name = display_path(plan)
    done = "restored" if undo else "planned" if report.dry_run else "moved"
    told = f"{counted(report.count(done), 'file')}, {size_text(report.n_bytes(done))}"
    parts = [f"{told} {'would be dropped' if done == 'planned' else 'restored' if undo else 'dropped'}"]
    if n_before := report.count("moved before"):
        parts.append(f"{n_before:,} dropped before")
    if n_skipped := report.count("skipped"):
        parts.append(f"{n_skipped:,} skipped")
    note(", ".join(parts))
    if done == "planned" and report.count(done):
        note(f"nothing was changed: deephash apply {name} --trash (or --move DIR) does it")
    if done == "moved" and report.count(done):
        note(f"the journal: {name}.log; deephash apply --undo {name} takes back what was moved into a folder")
    if undo and report.count(done):
        note("deephash index over their folders brings them into the index again")
    if report.left_in_index is not None:
        note(f"they are still in the index ({report.left_in_index}): later, deephash index with --prune removes them")
