"""Moves one file without ever overwriting another: into a folder, also on another disk, or to the desktop's trash."""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import PlanError
from .image_files import Failed, hash_file
from .plan_journal import sync_folder

__all__ = ["free_names", "has_content", "is_empty", "move_file", "trash_mover"]


def has_content(path: str, content_hash: bytes, n_bytes: int) -> bool:
    """Returns whether a regular file with this content lies at the path; a link to one does not count."""
    from index import FileStat

    try:
        status = os.lstat(path)
    except OSError:
        return False
    if os.path.islink(path) or status.st_size != n_bytes:
        return False
    found = hash_file(FileStat(path, status.st_size, status.st_mtime_ns))
    return not isinstance(found, Failed) and found == content_hash


def free_names(path: str) -> Iterator[str]:
    """Yields the path, then with `` (2)``, `` (3)`` ... before its suffix: those where there is nothing yet."""
    stem, suffix = os.path.splitext(path)
    number = 1
    while True:
        name = path if number == 1 else f"{stem} ({number}){suffix}"
        if not os.path.lexists(name):
            yield name
        number += 1


def move_file(source: str, target: str, content_hash: bytes, *, reuse: bool, still_right: Callable[[], None]) -> None:
    """Moves a file to a name that is free; its content is on the disk there before it is gone here.

    A kill leaves the source whole, and at the target nothing, an empty file, or the whole content.

    Args:
        source: a regular file.
        target: its folder is made where it is missing.
        content_hash: what the file holds.
        reuse: ``target`` may be what an earlier move of this file left there when it was killed.
        still_right: called just before the source goes; an error that it raises leaves the source alone.

    Raises:
        FileExistsError: there is a file at the target.
        OSError: it cannot be moved; the source is untouched.
    """
    folder = os.path.dirname(target)
    Path(folder).mkdir(parents=True, exist_ok=True)
    finished = False
    if reuse and os.path.lexists(target):
        n_bytes = os.lstat(source).st_size
        finished = has_content(target, content_hash, n_bytes)
        if not finished and not is_empty(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    else:
        # Holds the name: os.rename would overwrite whatever appears there meanwhile.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    try:
        if finished:
            still_right()
            Path(source).unlink()
        else:
            _move_over(source, target, content_hash, still_right)
    except BaseException:
        with contextlib.suppress(OSError):
            if os.path.lexists(source) and is_empty(target):
                Path(target).unlink()
        raise
    sync_folder(folder)
    sync_folder(os.path.dirname(source))


def is_empty(path: str) -> bool:
    """Returns whether the path, where something is, is a regular file without content."""
    status = os.lstat(path)
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def _move_over(source: str, target: str, content_hash: bytes, still_right: Callable[[], None]) -> None:
    still_right()
    try:
        Path(source).replace(target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    part = Path(target).with_name(f".moving-{content_hash.hex()}")
    try:
        part.unlink(missing_ok=True)  # what a killed copy left
        shutil.copyfile(source, part, follow_symlinks=False)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        shutil.copystat(source, part)  # last: the file may be read-only
        if not has_content(str(part), content_hash, os.lstat(source).st_size):
            raise OSError(errno.EIO, os.strerror(errno.EIO), target)
        still_right()
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(os.path.dirname(target))
    Path(source).unlink()


def trash_mover() -> Callable[[str], None]:
    """Returns what sends a file to the desktop's trash.

    Raises:
        PlanError: the package for it is not installed.
    """
    try:
        from send2trash import send2trash
    except ImportError as error:
        raise PlanError(
            "the trash needs a package: pip install 'deephash[trash]'; or move the files into a folder: --move DIR"
        ) from error

    def to_trash(path: str) -> None:
        send2trash(path)
        if os.path.lexists(path):
            raise OSError(errno.EIO, "the desktop left it where it is", path)

    return to_trash
