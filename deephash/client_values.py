"""What a server sends and takes, as values of the engine; ``client.py`` does the talking."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from index.errors import DeepHashError, StoreLocked, UnknownId
from index.records import DuplicateCluster, Filter, Match, Problem, Record, Skipped

from .errors import ModelError, ServerError
from .image_errors import ImageError, failure_reason
from .sync import SyncReport

__all__ = [
    "RemoteJob", "ServerStats", "conditions", "image_files", "question", "raise_error", "sum_reports", "to_cluster",
    "to_job", "to_match", "to_problem", "to_record",
]  # fmt: skip

_ERRORS: Mapping[str, Callable[[str], DeepHashError]] = {
    "unknown_id": UnknownId,
    "locked": StoreLocked,
    "bad_image": ImageError,
    "no_model": ModelError,
}


@dataclass(frozen=True, slots=True)
class ServerStats:
    """A server's index in numbers; sizes are bytes. ``trouble``: why it cannot encode images, if so."""

    n_images: int
    n_skipped: int
    n_bits: int
    copy_bits: int
    copy_radius: int
    fingerprint: str
    epoch: int
    created: str
    index: str
    roots: tuple[str, ...]
    catalogue_bytes: int
    cache_bytes: int
    model_bytes: int
    trouble: str | None
    uploads: bool
    version: str


@dataclass(frozen=True, slots=True)
class RemoteJob:
    """A job of a server. ``report`` when it is done, and of what was done where it was cancelled."""

    id: str
    kind: str
    state: str
    done: int
    total: int
    report: SyncReport | None
    error: str | None


def raise_error(status: int, body: Any, retry_after: str | None) -> NoReturn:
    """Raises what the server answered as the engine's own error where there is one, else as ServerError."""
    try:
        code, message = str(body["error"]["code"]), str(body["error"]["message"])
    except (TypeError, KeyError):
        code, message = "failed", f"the server answered {status}"
    if code in _ERRORS:
        raise _ERRORS[code](message)
    seconds = int(retry_after) if retry_after and retry_after.isdigit() else None
    raise ServerError(message, status=status, code=code, retry_after=seconds)


def question(k: int | None, radius: int | None, where: Filter | None) -> list[tuple[str, str]]:
    """Returns how to search as parameters.

    Raises:
        ValueError: neither k nor radius is given.
    """
    if k is None and radius is None:
        raise ValueError("neither k nor radius is given: pass one, or both")
    numbers = [("k", k), ("radius", radius)]
    return [*((name, str(value)) for name, value in numbers if value is not None), *conditions(where)]


def conditions(where: Filter | None) -> list[tuple[str, str]]:
    """Returns a filter as parameters."""
    if where is None:
        return []
    found = [("path", where.path), ("label", where.label)]
    found += [("metadata", json.dumps(dict(where.metadata)) if where.metadata else None)]
    return [(name, value) for name, value in found if value is not None]


def image_files(images: Any) -> list[bytes]:
    """Returns images (one, or a sequence: paths, bytes, binary files, PIL images, arrays) as bytes of files.

    Raises:
        ImageError: a file cannot be read.
        ValueError: there is no image.
    """
    files = [_file(image) for image in (images if isinstance(images, list | tuple) else [images])]
    if not files:
        raise ValueError("no image was given")
    return files


def _file(image: Any) -> bytes:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise ImageError(failure_reason(error), path=os.fspath(image)) from error
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    if isinstance(image, Image.Image):
        out = io.BytesIO()
        image.save(out, "PNG", compress_level=1)
        return out.getvalue()
    if hasattr(image, "read"):
        return bytes(image.read())
    raise TypeError(f"an image must be a path, bytes, a file, a Pillow image or an array, not {type(image).__name__}")


def _path(fields: Mapping[str, Any]) -> str:
    return os.fsdecode(bytes.fromhex(fields["path_hex"])) if fields.get("path_hex") else str(fields["path"])


def to_problem(found: Mapping[str, Any]) -> Problem:
    """Returns what `Store.verify` found."""
    return Problem(found["kind"], _path(found), found["message"])


def to_match(found: Mapping[str, Any]) -> Match:
    """Returns a match that a server sent."""
    return Match(found["id"], found["distance"], _path(found), found["label"], found["metadata"])


def to_record(found: Mapping[str, Any]) -> Record:
    """Returns an indexed image that a server sent."""
    return Record(
        _path(found), found["n_bytes"], found["mtime_ns"], bytes.fromhex(found["content_hash"]), found["width"],
        found["height"], found["label"], found["metadata"], id=found["id"], code=bytes.fromhex(found["code"]),
    )  # fmt: skip


def to_cluster(found: Mapping[str, Any]) -> DuplicateCluster:
    """Returns copies that a server sent."""
    drop = tuple((to_record(match), match["distance"]) for match in found["drop"])
    return DuplicateCluster(found["kind"], to_record(found["keep"]), drop)


def to_job(found: Mapping[str, Any]) -> RemoteJob:
    """Returns a job that a server sent."""
    report = None
    if found["report"] is not None:
        counts = {field.name: found["report"][field.name] for field in fields(SyncReport) if field.name != "skipped"}
        report = SyncReport(
            **counts, skipped=[Skipped(_path(item), item["reason"]) for item in found["report"]["skipped"]]
        )
    progress = found["progress"]
    return RemoteJob(
        found["id"], found["kind"], found["state"], progress["done"], progress["total"], report, found["error"]
    )


def sum_reports(reports: Sequence[SyncReport]) -> SyncReport:
    """Returns several reports as one; the number of images is that of the last."""
    names = [field.name for field in fields(SyncReport) if field.name not in ("skipped", "n_images")]
    total = SyncReport(**{name: sum(getattr(report, name) for report in reports) for name in names})
    total.n_images = reports[-1].n_images
    total.skipped = [skipped for report in reports for skipped in report.skipped]
    return total
