"""Values as columns and back: paths as bytes, text that UTF-8 cannot hold, metadata as JSON, filters as SQL."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from typing import Any

from index.records import Entry, Filter, Metadata


def encode_path(path: str) -> bytes:
    """Return a path as the file system has it.

    Raises:
        ValueError: it is empty, or no path at all.
    """
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError(f"{path!r} is not a path: pass a str that is not empty")
    return os.fsencode(path)


def encode_text(text: str | None) -> str | bytes | None:
    """Return text for a TEXT column; what UTF-8 cannot hold (a label from a folder's name) becomes bytes."""
    if text is None:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def decode_text(value: str | bytes | None) -> str | None:
    """Return what `encode_text` was given."""
    return os.fsdecode(value) if isinstance(value, bytes) else value


def encode_metadata(metadata: Metadata) -> str | None:
    """Return metadata as JSON, None when empty.

    Raises:
        ValueError: keys that are no str, or values other than str, int, float, bool and None.
    """
    for key, value in metadata.items():
        if not isinstance(key, str) or not (value is None or isinstance(value, (str, int, float))):
            raise ValueError(f"metadata {key!r}: {value!r} cannot be stored: use str, int, float, bool or None")
    return json.dumps(dict(metadata), allow_nan=False) if metadata else None


def show(path: bytes) -> str:
    """Return a path for people: what is not UTF-8 as backslash escapes."""
    return path.decode("utf-8", "backslashreplace")


def entry_columns(entry: Entry) -> tuple[Any, ...]:
    """Return n_bytes, mtime_ns, content_hash, width, height, label and metadata as columns."""
    return (
        int(entry.n_bytes), int(entry.mtime_ns), bytes(entry.content_hash), int(entry.width), int(entry.height),
        encode_text(entry.label), encode_metadata(entry.metadata),
    )  # fmt: skip


def condition(where: Filter | None) -> tuple[str, list[Any]]:
    """Return a filter as SQL and its values."""
    parts, values = ["1"], list[Any]()
    if where is not None and where.path is not None:
        if len(where.path) > 10_000:
            raise ValueError(f"the path pattern has {len(where.path)} characters: use at most 10,000")
        # Python's [!ab] is SQLite's [^ab]. GLOB never matches BLOBs, so both sides are cast.
        parts.append("CAST(path AS TEXT) GLOB CAST(? AS TEXT)")
        values.append(encode_path(where.path).replace(b"[!", b"[^"))
    if where is not None and where.label is not None:
        parts.append("label = ?")
        values.append(encode_text(where.label))
    for key, value in (where.metadata if where is not None else {}).items():
        wanted = encode_metadata({key: value})
        if value is None:
            parts.append("(metadata IS NULL OR metadata_has(metadata, ?))")
        else:
            # The text was written by json.dumps: what lacks the key needs no parsing.
            parts.append("(metadata IS NOT NULL AND instr(metadata, ?) AND metadata_has(metadata, ?))")
            values.append(json.dumps(key))
        values.append(wanted)
    return " AND ".join(parts), values


def metadata_has(text: str, wanted: str) -> bool:
    """Return whether metadata has the key and value of `wanted`; both are JSON. True and 1 differ, 1 and 1.0 do not."""
    (key, value), found = _single(wanted), json.loads(text)
    if value is None or isinstance(value, bool):
        return found.get(key) is value
    return not isinstance(found.get(key), bool) and bool(found.get(key) == value)


@lru_cache(maxsize=64)
def _single(text: str) -> tuple[str, Any]:
    ((key, value),) = json.loads(text).items()
    return key, value
