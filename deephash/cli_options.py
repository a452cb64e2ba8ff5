"""Options that several commands share, and what their texts mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_errors import usage_error
from .paths import display_path
from .terminal import note

if TYPE_CHECKING:
    from index import Filter

    from .report import Sheet

__all__ = [
    "Format",
    "Html",
    "Index",
    "Json",
    "Label",
    "Output",
    "PathGlob",
    "Png",
    "Wait",
    "Where",
    "check_radius",
    "chosen_format",
    "parse_codes",
    "parse_filter",
    "read_numbers",
    "write_sheets",
]

Index = Annotated[Path, typer.Argument(metavar="INDEX", help="The index folder, such as photos.dhx.")]
Json = Annotated[bool, typer.Option("--json", help="JSON lines on stdout.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a contact sheet as an HTML page.")]
Png = Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Write a contact sheet as a PNG picture.")]
PathGlob = Annotated[
    str | None, typer.Option("--path", metavar="GLOB", help="Only paths like '*/2024/*'; * also matches /.")
]
Label = Annotated[str | None, typer.Option("--label", metavar="LABEL", help="Only images with this label.")]
Where = Annotated[
    list[str] | None, typer.Option("--where", metavar="KEY=VALUE", help="Only images with this metadata; repeatable.")
]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here instead of to stdout.")]
Format = Annotated[
    str | None, typer.Option("--format", metavar="jsonl|csv|npz", help="By default as FILE ends, else jsonl.")
]
Wait = Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Wait so long for another writer.")]


def parse_filter(path: str | None, label: str | None, where: Sequence[str] | None) -> "Filter | None":
    """Returns the filter that the options describe, None without any."""
    from index import Filter

    from .annotations import parse_scalar

    metadata = {}
    for condition in where or ():
        key, equals, value = condition.partition("=")
        if not (key and equals):
            usage_error(f"--where {condition!r}: write KEY=VALUE")
        metadata[key] = parse_scalar(value)
    return Filter(path, label, metadata) if path is not None or label is not None or metadata else None


def parse_codes(texts: Sequence[str], n_bits: int) -> Any:
    """Returns codes ``(N, ceil(n_bits / 8)) uint8`` from their hexadecimal digits."""
    import numpy as np

    from index import check_codes, n_code_bytes

    n_digits = 2 * n_code_bytes(n_bits)
    parts = []
    for text in texts:
        try:
            part = bytes.fromhex(text)
        except ValueError:
            part = b""
        if 2 * len(part) != n_digits:
            usage_error(
                f"--code {text!r}: a code of this index ({n_bits} bits) is {n_digits} hexadecimal digits, as "
                f"deephash export writes them"
            )
        parts.append(np.frombuffer(part, np.uint8))
    return check_codes(np.stack(parts), n_bits)


def check_radius(radius: int | None, n_bits: int) -> None:
    """Refuses a radius that no distance reaches: its sender thinks of other codes."""
    if radius is not None and radius > n_bits:
        usage_error(f"--radius {radius}: codes of this index have {n_bits} bits, so that no distance is above {n_bits}")


def chosen_format(format: str | None, output: Path | None) -> str:
    """Returns what --format says, or else the end of --output."""
    from .exporting import FORMATS

    chosen = format or (output.suffix.lstrip(".").lower() if output else "jsonl")
    if chosen not in FORMATS:
        usage_error(f"{chosen!r} is no format: --format takes {', '.join(FORMATS)}")
    if chosen == "npz" and output is None:
        usage_error("npz is written to a file: add --output FILE")
    return chosen


def read_numbers(option: str, texts: Sequence[str], least: int) -> list[int]:
    """Returns the numbers of a repeatable option, each of which is one or several with commas."""
    numbers = []
    for word in ",".join(texts).split(","):
        if not word.strip().isdecimal() or int(word) < least:
            usage_error(f"{option} {word!r}: write whole numbers from {least}, with commas between them")
        numbers.append(int(word))
    return list(dict.fromkeys(numbers))


def write_sheets(sheet: "Sheet", html: Path | None, png: Path | None) -> None:
    """Writes a contact sheet as --html and --png ask for it."""
    from .report import write_html, write_png

    for path, write in ((html, write_html), (png, write_png)):
        if path is not None:
            write(sheet, path)
            note(f"contact sheet: {display_path(path)}")
