"""Writes what an index knows of its images as JSON lines, CSV or NumPy arrays."""

import csv
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

import numpy as np

from index import Filter, Record, Store

from .json_lines import path_fields, write_json_line
from .paths import utf8_path
from .writing import replacing

__all__ = ["FORMATS", "check_format", "export_records", "write_rows"]

FORMATS = ("jsonl", "csv", "npz")
_COLUMNS = ("id", "path", "label", "code", "width", "height", "n_bytes", "mtime_ns", "content_hash", "metadata")


def export_records(
    store: Store, path: str | os.PathLike[str] | None, format: str, *, where: Filter | None = None
) -> int:
    """Writes the images that pass the filter, by ascending id, and returns how many.

    ``jsonl`` and ``csv`` have the columns id, path, label, code (hexadecimal), width, height, n_bytes, mtime_ns,
    content_hash (hexadecimal), metadata; a path that is not UTF-8 is written with ``\\xNN``, and in jsonl its bytes
    stand beside it as ``path_hex``. ``path`` None is stdout. ``npz`` holds the arrays ``ids (N,) int64``,
    ``codes (N, ceil(n_bits / 8)) uint8``, ``paths (N,) bytes``, ``labels (N,) str``, ``n_bits`` and ``fingerprint``,
    and needs a path. A file appears whole or not at all.

    Raises:
        ValueError: an unknown format, or npz without a path.
    """
    check_format(format, path)
    rows = map(_row, store.iterate(where))
    if path is None:
        return write_rows(rows, _COLUMNS, sys.stdout, format)
    if format == "npz":
        with replacing(path, "wb") as file:
            return _write_npz(store, file, where)
    with replacing(path, "w") as file:
        return write_rows(rows, _COLUMNS, file, format)


def check_format(format: str, path: str | os.PathLike[str] | None) -> None:
    """Raises ValueError for an unknown format, and for npz without a path."""
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}: choose one of {', '.join(FORMATS)}")
    if format == "npz" and path is None:
        raise ValueError("npz needs a file to be written to: give a path")


def write_rows(rows: Iterable[dict[str, Any]], columns: Sequence[str], file: IO[str], format: str) -> int:
    """Writes rows, each with a ``path`` among its values, as ``csv`` or ``jsonl``, and returns how many."""
    n_written = 0
    writer = csv.writer(file, lineterminator="\n") if format == "csv" else None
    if writer:
        writer.writerow(columns)
    for row in rows:
        if writer:
            writer.writerow([_cell(row[name] if name != "path" else utf8_path(row[name])) for name in columns])
        else:
            write_json_line(file, row | path_fields(row["path"]))
        n_written += 1
    return n_written


def _cell(value: Any) -> Any:
    return "" if value is None else json.dumps(value) if isinstance(value, dict) else value


def _row(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "path": record.path,
        "label": record.label,
        "code": record.code.hex(),
        "width": record.width,
        "height": record.height,
        "n_bytes": record.n_bytes,
        "mtime_ns": record.mtime_ns,
        "content_hash": record.content_hash.hex(),
        "metadata": dict(record.metadata),
    }


def _write_npz(store: Store, file: IO[bytes], where: Filter | None) -> int:
    ids, paths, labels, codes = [], [], [], []
    for record in store.iterate(where):
        ids.append(record.id)
        paths.append(os.fsencode(record.path))
        labels.append(record.label or "")
        codes.append(np.frombuffer(record.code, np.uint8))
    np.savez(
        file,
        ids=np.array(ids, np.int64),
        codes=np.stack(codes) if codes else np.empty((0, (store.n_bits + 7) // 8), np.uint8),
        paths=np.array(paths, np.bytes_),
        labels=np.array(labels, np.str_),
        n_bits=np.array(store.n_bits),
        fingerprint=np.array(store.fingerprint),
    )
    return len(ids)
