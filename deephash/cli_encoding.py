"""``deephash encode``, and ``deephash export --onnx``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .cli_errors import EXIT_INCOMPLETE, reports_errors, usage_error
from .cli_options import Format, Output, chosen_format
from .paths import display_path
from .terminal import counted, note, print_skipped, progress_bar, size_text

__all__ = ["register", "write_onnx"]


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command()(encode)


@reports_errors
def encode(
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDER|IMAGE", help="Folders of images, and image files.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME|FILE|INDEX", help="Whose codes; an index has a model in it.")
    ] = "general-128",
    output: Output = None,
    format: Format = None,
    list_file: Annotated[
        Path | None,
        typer.Option("--list", metavar="FILE", help="Encode the files named in it, one a line; - is stdin."),
    ] = None,
) -> None:
    """Write the codes of images, without an index.

    Columns: path, code (hexadecimal), width, height; the arrays of npz: codes, paths, n_bits, fingerprint. Ctrl-C
    leaves what was done.

    \b
      deephash encode photos/ -o codes.npz
      deephash encode cat.jpg --model general-256
      deephash encode photos/ --model photos.dhx --format csv
      deephash encode --list names.txt | head -3
    """
    from .code_writing import encode_files
    from .encoding_model import load_encoding_model
    from .sync import find_collection

    chosen = chosen_format(format, output)
    if not images and list_file is None:
        usage_error("say what to encode: a folder, images, or --list FILE")
    files, skipped = find_collection([*map(str, images or []), *_listed(list_file)])
    with progress_bar() as on_progress:
        report = encode_files(files, load_encoding_model(_file(model)), output, chosen, on_progress=on_progress)
    skipped += report.skipped
    print_skipped(skipped)
    where = f" in {display_path(output)}" if output else ""
    note(f"codes of {counted(report.n_encoded, 'image')}{where}")
    if skipped:
        raise typer.Exit(EXIT_INCOMPLETE)


def write_onnx(model: Path, path: Path) -> None:
    """Writes a model, by name, file or index, as ONNX."""
    from .model import load_model
    from .onnx_export import export_onnx

    export_onnx(load_model(_file(str(model))), path)
    note(f"{display_path(path)}: {size_text(path.stat().st_size)}")


def _file(name: str) -> Path | str:
    """Returns the model file in an index, or the name as it is."""
    from .engine import MODEL_FILE

    inside = Path(name) / MODEL_FILE
    return inside if inside.is_file() else name


def _listed(path: Path | None) -> list[str]:
    if path is None:
        return []
    text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8", errors="surrogateescape")
    return [line for line in text.splitlines() if line.strip()]
