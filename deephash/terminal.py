"""What the command line draws: progress, tables, lists of skipped files. Results go to stdout, the rest to stderr."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .json_lines import write_json_line
from .paths import display_path, printable
from .progress import OnProgress, Progress

if TYPE_CHECKING:
    from index import Skipped

__all__ = [
    "counted",
    "duration_text",
    "note",
    "print_aligned",
    "print_facts",
    "print_json",
    "print_skipped",
    "print_table",
    "progress_bar",
    "size_text",
]

_STAGES = {
    "fit": "reading a sample",
    "encode": "indexing",
    "codes": "encoding",
    "copies": "making copy codes",
    "train": "training",
    "apply": "comparing",
}
_LOG_SECONDS = 10
_MAX_SKIPPED_SHOWN = 20


def note(text: str) -> None:
    """Prints a line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Prints a value as one line of JSON on stdout."""
    write_json_line(sys.stdout, value)


def size_text(n_bytes: int) -> str:
    """Returns a size as people read it: ``1.3 MiB``."""
    size = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def duration_text(seconds: float) -> str:
    """Returns a time as people read it: ``50 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def counted(n: int, singular: str, plural: str = "") -> str:
    """Returns a number with its noun: ``1 image``, ``1,200 images``."""
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "", right: str = "") -> None:
    """Prints a table on stdout: drawn on a terminal, tab-separated in a pipe; ``right`` names columns of numbers.

    A row is a line, whatever control characters are in its cells. A terminal sees no columns without content, and
    nothing where there are no rows.
    """
    lines = [[printable(str(cell)) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for cells in [columns, *lines]:
            print("\t".join(cells))
        return
    if not lines:
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    filled = [i for i in range(len(columns)) if any(cells[i] for cells in lines)]
    table = Table(title=Text(printable(title)) if title else None, box=box.SIMPLE_HEAD, title_justify="left")
    for i in filled:
        table.add_column(columns[i], justify="right" if columns[i] in right.split() else "left", overflow="fold")
    for cells in lines:
        table.add_row(*(Text(cells[i]) for i in filled))
    Console().print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Prints names and values in two columns on stdout."""
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {printable(str(value))}")


def print_aligned(rows: Sequence[Sequence[str]], *, indent: int = 0) -> None:
    """Prints cells in aligned columns on stdout, the same on a terminal and in a pipe."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        line = "  ".join(f"{printable(cell):<{width}}" for cell, width in zip(cells, widths, strict=True))
        print((" " * indent + line).rstrip())


def print_skipped(skipped: "Sequence[Skipped]") -> None:
    """Lists files that could not be read, with their reasons, on stderr."""
    if not skipped:
        return
    note(f"{counted(len(skipped), 'file')} skipped:")
    for item in skipped[:_MAX_SKIPPED_SHOWN]:
        note(f"  {display_path(item.path)}: {item.reason}")
    if len(skipped) > _MAX_SKIPPED_SHOWN:
        note(f"  ... and {len(skipped) - _MAX_SKIPPED_SHOWN:,} more: --json lists them all")


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
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[rate]:>12}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}
        speed = _Speed()
        # Until the first images are through, libraries and the model are loaded, which takes seconds.
        starting = bars.add_task("starting", total=None, count="", rate="")

        def draw(progress: Progress) -> None:
            if progress.stage not in tasks:
                bars.update(starting, visible=False)
                tasks[progress.stage] = bars.add_task(_STAGES[progress.stage], count="", rate="")
            rate = speed.images_per_second(progress)
            bars.update(
                tasks[progress.stage],
                completed=progress.done,
                total=progress.total,
                count=f"{progress.done:,}/{progress.total:,}",
                rate=f"{_number(rate)} images/s" if rate else "",
            )

        try:
            yield draw
        finally:
            bars.update(starting, visible=False)


class _LogLines:
    def __init__(self) -> None:
        self._stage = ""
        self._last = 0.0
        self._speed = _Speed()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._last = progress.stage, now
        rate = self._speed.images_per_second(progress)
        n_left = progress.total - progress.done
        if now - self._last < _LOG_SECONDS and n_left:
            return
        self._last = now
        left = f", {duration_text(n_left / rate)} left" if rate and n_left else ""
        speed = f" ({_number(rate)} images/s{left})" if rate else ""
        note(f"{_STAGES[self._stage]}: {progress.done:,} of {progress.total:,}{speed}")


class _Speed:
    """Images a second in the current stage, counted from its first report: what came before it took unknown time."""

    def __init__(self) -> None:
        self._stage = ""
        self._started = 0.0
        self._done = 0

    def images_per_second(self, progress: Progress) -> float | None:
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._started, self._done = progress.stage, now, progress.done
        seconds, done = now - self._started, progress.done - self._done
        return done / seconds if done and seconds > 0.5 else None


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 9.5 else f"{value:.1f}"
