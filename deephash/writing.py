"""Writes files that appear whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .paths import display_path

__all__ = ["replacing"]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a temporary file (``wb``, or ``w`` for UTF-8 text) that takes the place of ``path`` when the block ends.

    An error in the block leaves ``path`` as it was, and nothing else behind.

    Raises:
        OSError: the folder does not exist or cannot be written to, or the disk is full; the text names ``path``.
    """
    target = Path(path)
    encoding, errors, newline = (None, None, None) if "b" in mode else ("utf-8", "backslashreplace", "")
    try:
        with _temporary(target, mode, encoding=encoding, errors=errors, newline=newline) as file:
            temporary = Path(file.name)
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                temporary.chmod(0o644)
                temporary.replace(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        ours = error.filename is None or str(error.filename).startswith(str(target.parent / ".replacing-"))
        if error.errno is None or not ours:
            raise
        why = "its folder does not exist" if isinstance(error, FileNotFoundError) else os.strerror(error.errno).lower()
        raise type(error)(f"cannot write {display_path(target)}: {why}") from error


def _temporary(target: Path, mode: str, **options: Any) -> IO[Any]:
    # A name of its own, not the target's with more letters: that could be too long.
    return tempfile.NamedTemporaryFile(mode, dir=target.parent, prefix=".replacing-", delete=False, **options)
