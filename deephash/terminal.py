"""What the command line draws: progress, tables, lists of skipped files. Results go to stdout, the rest to stderr."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .progress import OnProgress, Progress

if TYPE_CHECKING:
    from index import Skipped

__all__ = ["note", "path_fields", "print_json", "print_skipped", "print_table", "progress_bar", "size_text"]

_STAGES = {"fit": "fitting the model", "compare": "comparing files", "encode": "indexing"}
_LOG_SECONDS = 10
_MAX_SKIPPED_SHOWN = 20


def note(text: str) -> None:
    """Prints a line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Prints a value as one line of JSON on stdout."""
    print(json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode("utf-8"))


def path_fields(path: str) -> dict[str, str]:
    """Returns ``path`` for JSON; a path that is not UTF-8 also has its bytes, as ``path_hex``."""
    from .paths import display_path

    shown = display_path(path)
    return {"path": shown} if shown == path else {"path": shown, "path_hex": os.fsencode(path).hex()}


def size_text(n_bytes: int) -> str:
    """Returns a size as people read it: ``1.3 MiB``."""
    size = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "", right: str = "") -> None:
    """Prints a table on stdout: drawn on a terminal, tab-separated in a pipe; ``right`` names columns of numbers."""
    if not sys.stdout.isatty():
        print("\t".join(columns))
        for row in rows:
            print("\t".join(str(cell) for cell in row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for name in columns:
        table.add_column(name, justify="right" if name in right.split() else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    Console().print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Prints names and values in two columns on stdout."""
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")


def print_skipped(skipped: "Sequence[Skipped]") -> None:
    """Lists files that could not be read, with their reasons, on stderr."""
    from .paths import display_path

    if not skipped:
        return
    note(f"{len(skipped)} skipped:")
    for item in skipped[:_MAX_SKIPPED_SHOWN]:
        note(f"  {display_path(item.path)}: {item.reason}")
    if len(skipped) > _MAX_SKIPPED_SHOWN:
        note(f"  ... and {len(skipped) - _MAX_SKIPPED_SHOWN} more: --json lists them all")


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[OnProgress]:
    """Yields a callback that draws progress with rate and time left on stderr.

    Without a terminal it writes a line every ten seconds instead.
    """
    if quiet:
        yield lambda progress: None
    elif sys.stderr.isatty():
        with _rich_progress() as draw:
            yield draw
    else:
        yield _LogLines()


@contextmanager
def _rich_progress() -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:>12}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}
        started: dict[str, float] = {}

        def draw(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bars.add_task(_STAGES[progress.stage], total=progress.total, rate="")
                started[progress.stage] = time.monotonic()
            seconds = time.monotonic() - started[progress.stage]
            rate = f"{progress.done / seconds:.0f} images/s" if seconds > 1 else ""
            bars.update(tasks[progress.stage], completed=progress.done, total=progress.total, rate=rate)

        yield draw


class _LogLines:
    def __init__(self) -> None:
        self._stage = ""
        self._started = self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._started, self._last = progress.stage, now, now
        if now - self._last < _LOG_SECONDS and progress.done < progress.total:
            return
        self._last = now
        seconds = now - self._started
        rate = progress.done / seconds if seconds > 0.1 else 0.0
        left = (
            f", {(progress.total - progress.done) / rate:.0f} s left" if rate and progress.done < progress.total else ""
        )
        speed = f" ({rate:.0f} images/s{left})" if rate else ""
        note(f"{_STAGES[self._stage]}: {progress.done} of {progress.total}{speed}")
