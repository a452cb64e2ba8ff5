"""Where files really lie: by what is on the disk, not by how a path is spelled. Reads, changes nothing."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from .paths import display_path

__all__ = ["Place", "Places", "file_key", "real_place"]


def real_place(path: str) -> str:
    """Returns where a file lies, with the links of its folders resolved; the file itself may be a link."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def file_key(path: str, *, follow: bool = True) -> tuple[int, int] | None:
    """Returns what makes a file or folder one on this machine, under however many names; None where nothing is."""
    try:
        status = os.stat(path, follow_symlinks=follow)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


@dataclass(frozen=True, slots=True)
class Place:
    """A file among `Places`: the folder as it was given, and the file's path from there."""

    folder: str
    relative: str


class Places:
    """Folders (or single files) known by what they are: other spellings, links and letter case make no difference.

    Args:
        paths: the folders; those that are gone hold nothing.
        must_exist: a missing one is an error: a misspelt folder would protect nothing.

    Raises:
        FileNotFoundError: ``must_exist``, and one does not.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]], *, must_exist: bool = False):
        self._folders: dict[tuple[int, int], str] = {}
        for path in map(os.fsdecode, paths):
            key = file_key(path)
            if key is not None:
                self._folders.setdefault(key, path)
            elif must_exist:
                raise FileNotFoundError(f"there is no folder {display_path(path)}: check its spelling")

    def find(self, path: str) -> Place | None:
        """Returns where ``path`` lies beneath the outermost of the folders, None beneath none; it need not exist."""
        real, found = real_place(path), None
        place = real
        while self._folders:
            # A link as the last name is not followed: it lies where it lies.
            key = file_key(place, follow=place != real)
            if key in self._folders:
                is_file = place == real and not os.path.isdir(real)
                relative = os.path.basename(real) if is_file else os.path.relpath(real, place)
                found = Place(self._folders[key], relative)
            above = os.path.dirname(place)
            if above == place:
                break
            place = above
        return found

    def __contains__(self, path: str) -> bool:
        return self.find(path) is not None
