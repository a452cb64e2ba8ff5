"""Images that are sent to be kept: named by their content, whole or not at all, with their label beside them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from index.records import Metadata

from ..writing import replacing

__all__ = ["annotations_of_uploads", "forget_annotations", "keep_upload"]

_SUFFIXES: Mapping[str, str] = {
    "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif",
    "AVIF": ".avif", "PPM": ".ppm", "JPEG2000": ".jp2", "HEIF": ".heic",
}  # fmt: skip


def keep_upload(folder: Path, data: bytes, format: str, label: str | None, metadata: Metadata | None) -> str:
    """Writes an image into the folder and returns its path; the same image again is the same file.

    A label or metadata are kept in a JSON file beside it until the image is indexed: a server that is killed before
    finds both.

    Args:
        folder: where.
        data: the file.
        format: as Pillow calls it.
        label: of the image; None: not said.
        metadata: of the image; None: not said.
    """
    path = folder / (hashlib.blake2b(data, digest_size=16).hexdigest() + _SUFFIXES.get(format, ".img"))
    if label is not None or metadata is not None:
        with replacing(_note_of(path), "w") as file:
            json.dump({"label": label, "metadata": dict(metadata or {})}, file)
    if not path.exists():
        with replacing(path) as file:
            file.write(data)
    return str(path)


def annotations_of_uploads(path: str) -> tuple[str | None, Metadata] | None:
    """Returns the label and metadata that came with an uploaded image, or None."""
    try:
        with open(_note_of(Path(path)), encoding="utf-8") as file:
            values = json.load(file)
        return values["label"], values["metadata"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget_annotations(path: str) -> None:
    """Deletes the label and metadata beside an image that is indexed: from then on the index has them."""
    Path(_note_of(Path(path))).unlink(missing_ok=True)


def _note_of(path: Path) -> str:
    return os.fspath(path.with_suffix(".json"))
