"""Why an image cannot be read, in one line that its owner understands."""

from __future__ import annotations

import os

from PIL import Image

from index.errors import DeepHashError

from .paths import display_path

__all__ = ["ImageError", "failure_reason", "says_truncated"]


class ImageError(DeepHashError, ValueError):
    """One image cannot be read. ``reason`` is one line that continues a sentence: "is empty", "is truncated"."""

    def __init__(self, reason: str, *, path: str | None = None) -> None:
        super().__init__(reason if path is None else f"{display_path(path)}: {reason}")
        self.reason = reason


def failure_reason(error: BaseException) -> str:
    """Says in one line what an exception means to the owner of the file; it continues the sentence "photo.jpg …"."""
    if isinstance(error, ImageError):
        return error.reason
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if isinstance(error, Image.DecompressionBombError):
        return "has more pixels than Pillow decodes in this format"
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, PermissionError):
        return "cannot be read: permission denied"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {os.strerror(error.errno).lower()}"
    text = " ".join(str(error).split())[:160]
    if isinstance(error, EOFError) or says_truncated(text):
        return "is truncated"
    return f"is damaged ({text})" if any(character.isalpha() for character in text) else "is damaged or truncated"


def says_truncated(text: str) -> bool:
    """Returns whether a message of Pillow means that the file ends too early."""
    return "truncated" in text.lower() or "end of file" in text.lower()
