"""The files of indexed images, by id: only real files under an indexed folder; thumbnails without metadata, cached."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterable
from pathlib import Path

from cachetools import LRUCache

from index import Record

from ..images import open_regular
from .decode_tasks import shrink
from .decoding import DecodePool
from .errors import ApiError

__all__ = ["PictureFile", "Thumbnails", "find_picture", "is_under", "media_type"]

_MAGIC = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftyphei", "image/heic"),
    (0, b"\0\0\0\x0cjP  ", "image/jp2"),
)


class PictureFile:
    """A regular file under an indexed folder. ``path`` is its real path; ``etag`` changes with the file."""

    def __init__(self, path: str, status: os.stat_result, head: bytes) -> None:
        self.path = path
        self.n_bytes = status.st_size
        version = f"{status.st_ino} {status.st_mtime_ns} {status.st_size} {path}"
        self.etag = hashlib.blake2b(os.fsencode(version), digest_size=12).hexdigest()
        self.media_type = media_type(head)


def find_picture(record: Record, roots: Iterable[str | Path]) -> PictureFile:
    """Returns the file of an indexed image.

    Raises:
        ApiError: it is gone, cannot be read, or links lead it out of the folders that were indexed.
    """
    real = os.path.realpath(record.path)
    if not is_under(real, roots):
        raise ApiError(
            403, "forbidden", f"the file of image {record.id} lies outside the folders of this index: it is not shown"
        )
    try:
        # What is opened may have been swapped since: its own status counts.
        with open_regular(real) as file:
            status, head = os.fstat(file.fileno()), file.read(32)
            if not os.path.samestat(status, os.stat(real, follow_symlinks=False)) or not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError(real)
    except (OSError, ValueError):
        raise ApiError(
            404, "not_found", f"the file of image {record.id} is gone or cannot be read: sync the index with its folder"
        ) from None
    return PictureFile(real, status, head)


def is_under(path: str | Path, roots: Iterable[str | Path]) -> bool:
    """Returns whether a path, links resolved, is one of the roots or lies under one."""
    real = os.path.realpath(path)
    for root in roots:
        top = os.path.realpath(root)
        if real == top or real.startswith(os.path.join(top, "")):
            return True
    return False


def media_type(head: bytes) -> str:
    """Returns the type of an image file by its first bytes; what is none that browsers show is plain bytes."""
    for start, magic, name in _MAGIC:
        if head[start : start + len(magic)] == magic:
            return name
    return "application/octet-stream"


class Thumbnails:
    """Thumbnails as JPEG, in memory up to a limit; each belongs to one state of one file."""

    def __init__(self, pool: DecodePool, *, n_bytes: int) -> None:
        self._pool = pool
        self._cache: LRUCache[tuple[str, int], bytes] = LRUCache(n_bytes, getsizeof=len)
        self._lock = threading.Lock()
        self.n_hits = 0
        self.n_made = 0

    async def thumbnail(self, picture: PictureFile, size: int) -> bytes:
        """Returns a JPEG that fits into size x size. Raises ImageError, and ApiError when too many wait."""
        key = picture.etag, size
        with self._lock:
            found = self._cache.get(key)
        if found is not None:
            self.n_hits += 1
            return found
        made = await self._pool.run(shrink, picture.path, size)
        self.n_made += 1
        with self._lock:
            if len(made) <= self._cache.maxsize:
                self._cache[key] = made
        return made
