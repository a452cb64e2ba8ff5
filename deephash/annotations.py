"""Labels and metadata of images: from the names of their folders, or from a CSV or JSON-lines file."""

import csv
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from index.records import Metadata, Scalar

from .errors import DeepHashError

if TYPE_CHECKING:
    from .sync import Annotate

__all__ = ["AnnotationError", "folder_labels", "parse_scalar", "read_annotations"]


_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_LARGEST = {int: 2**63 - 1, float: sys.float_info.max}


class AnnotationError(DeepHashError, ValueError):
    """A file of labels and metadata cannot be read; the text names the line."""


def folder_labels(path: str) -> tuple[str | None, Metadata]:
    """Returns the name of the image's folder as its label, and no metadata."""
    return os.path.basename(os.path.dirname(path)), {}


def read_annotations(path: str | os.PathLike[str]) -> "Annotate":
    """Returns the labels and metadata of a ``.csv`` or ``.jsonl`` file, by image path.

    Each row has a ``path`` (absolute, or relative to the file's own folder); ``label`` is the label, every other column
    or key becomes metadata. Numbers are kept as numbers; empty CSV cells are left out. Images that the file does not
    name stay as they are.

    Raises:
        AnnotationError: the file is missing, not UTF-8, has no ``path`` column, or a row is not readable.
    """
    path = Path(path)
    rows = _jsonl_rows(path) if path.suffix.lower() in (".jsonl", ".ndjson") else _csv_rows(path)
    base = path.absolute().parent
    known: dict[str, tuple[str | None, Metadata]] = {}
    try:
        for line, row in rows:
            image = row.pop("path", None)
            if not isinstance(image, str) or not image:
                raise AnnotationError(f"{path}, line {line}: there is no 'path': every row needs the path of an image")
            label = row.pop("label", None)
            if any(isinstance(value, dict | list) for value in row.values()):
                raise AnnotationError(f"{path}, line {line}: metadata must be text, numbers, true, false or null")
            known[os.path.normpath(base / image)] = (None if label is None else str(label), row)
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path} is not UTF-8 text: save it as UTF-8 CSV or JSON lines") from error
    return known.get


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if "path" not in (reader.fieldnames or ()):
            raise AnnotationError(f"{path} has no column 'path' in its first line: add one with the images' paths")
        for row in reader:
            if None in row:
                raise AnnotationError(f"{path}, line {reader.line_num}: more cells than columns; put commas in quotes")
            cells = {name: value for name, value in row.items() if value not in (None, "")}
            yield (
                reader.line_num,
                {name: value if name in ("path", "label") else parse_scalar(value) for name, value in cells.items()},
            )


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, parse_constant=_no_number)
            except ValueError as error:
                raise AnnotationError(f"{path}, line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise AnnotationError(f"{path}, line {number}: give one JSON object a line")
            yield number, row


def parse_scalar(text: str) -> Scalar:
    """Returns the number that a text spells, or the text: ``007``, ``nan``, ``1_000`` and ``+49`` are texts."""
    if not _NUMBER.fullmatch(text) or len(text) > 40:
        return text
    number = float(text) if set(text) & set(".eE") else int(text)
    return number if abs(number) <= _LARGEST[type(number)] else text


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")
