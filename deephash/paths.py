"""Text of strangers, paths above all, as it is written for people: whatever it holds stays on its line.

A path may hold bytes that are not UTF-8 (Python keeps them as lone surrogates), newlines, and codes that drive a
terminal.
"""

import os

__all__ = ["display_path", "printable", "utf8_path"]

# C0, DEL, C1; line and paragraph separators; marks that turn the direction of what follows them.
_CONTROLS = [*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
_ESCAPES = {code: chr(code).encode("unicode_escape").decode("ascii") for code in _CONTROLS}


def utf8_path(path: str | os.PathLike[str]) -> str:
    """Returns a path as text for files and JSON: as it is, but bytes that are not UTF-8 become ``\\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def display_path(path: str | os.PathLike[str]) -> str:
    """Returns a path as one line that prints everywhere: `utf8_path` with control characters escaped as well."""
    return utf8_path(path).translate(_ESCAPES)


def printable(text: str) -> str:
    """Returns text as one line that prints everywhere: control characters and lone surrogates are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").translate(_ESCAPES)
