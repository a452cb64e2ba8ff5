"""How paths are written for people."""

import os

__all__ = ["display_path"]


def display_path(path: str | os.PathLike[str]) -> str:
    """Returns a path as text that prints everywhere: bytes that are not UTF-8 are shown as ``\\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
