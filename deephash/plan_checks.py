"""Whether a copy may be dropped, asked again of the disk just before it happens. Reads only."""

import os
import stat
from collections.abc import Collection, Iterable

from index import FileStat

from .image_files import Failed, hash_file
from .paths import display_path
from .places import Places, file_key
from .plans import Plan, PlannedDrop, PlannedFile

__all__ = ["Changed", "DropChecks", "Seen"]

Seen = tuple[int, int, int, int]
"""What a file looks like without reading it: device, inode, size and mtime_ns."""


class Changed(Exception):
    """A file must not be dropped; the text is why, and continues a sentence."""


class DropChecks:
    """The rules by which a copy may go.

    Args:
        plan: what is to be done; what any of its actions keeps is never dropped, under whichever name.
        roots: the folders of the index.
        known: paths that are (or, before a file was dropped, were) in the index.
        protect: folders beneath which nothing is dropped.
        outside: a folder in which nothing is kept or dropped: the one that files are moved to.

    Raises:
        FileNotFoundError: a protected folder does not exist.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        roots: Iterable[str],
        known: Collection[str],
        protect: Iterable[str | os.PathLike[str]] = (),
        outside: str | None = None,
    ):
        self.roots = Places(roots)
        self._known = known
        self._protected = Places(protect, must_exist=True)
        self._outside = Places([outside] if outside is not None else [])
        keys = (file_key(action.keep.path, follow=False) for action in plan.actions)
        self._kept = {key for key in keys if key is not None}

    def check(self, keep: PlannedFile, drop: PlannedDrop) -> tuple[Seen, Seen]:
        """Returns what both files look like, after reading them; `check_unchanged` takes it.

        Raises:
            Changed: the copy must not be dropped.
        """
        if (place := self._protected.find(drop.path)) is not None:
            raise Changed(f"is protected: it lies beneath {display_path(place.folder)}")
        self._check_place(drop, "")
        self._check_place(keep, "the kept file ")
        dropped = _look(drop, "")
        if dropped[:2] in self._kept:
            raise Changed("is another name of a file that the plan keeps")
        kept = _look(keep, "the kept file ")
        _check_content(keep, "the kept file ")
        _check_content(drop, "")
        self.check_unchanged(keep, drop, (kept, dropped))
        return kept, dropped

    def check_unchanged(self, keep: PlannedFile, drop: PlannedDrop, seen: tuple[Seen, Seen]) -> None:
        """Raises Changed where one of the files is not what was seen; reads neither."""
        if (_look(keep, "the kept file "), _look(drop, "")) != seen:
            raise Changed("changed, or the file that is kept for it did, while they were compared")

    def _check_place(self, file: PlannedFile, who: str) -> None:
        if file.path not in self._known:
            raise Changed(f"{who}is not in the index: bring it up to date (deephash index), and make the plan again")
        if file.path not in self.roots:
            raise Changed(f"{who}lies outside the folders of the index")
        if file.path in self._outside:
            raise Changed(f"{who}lies in the folder that dropped files are moved to")


def _look(file: PlannedFile, who: str) -> Seen:
    try:
        status = os.lstat(file.path)
    except (FileNotFoundError, NotADirectoryError):
        raise Changed(f"{who}is gone") from None
    except OSError as error:
        raise Changed(f"{who}cannot be reached: {os.strerror(error.errno or 0).lower()}") from None
    if stat.S_ISLNK(status.st_mode):
        raise Changed(f"{who}is a symbolic link")
    if not stat.S_ISREG(status.st_mode):
        raise Changed(f"{who}is not a regular file")
    if status.st_size != file.n_bytes:
        raise Changed(f"{who}has changed since the plan was made")
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _check_content(file: PlannedFile, who: str) -> None:
    found = hash_file(FileStat(file.path, file.n_bytes, 0))
    if isinstance(found, Failed):
        raise Changed(f"{who}{found.reason}")
    if found != file.content_hash:
        raise Changed(f"{who}has changed since the plan was made")
