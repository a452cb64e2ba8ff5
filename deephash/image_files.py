"""Finds image files, hashes and decodes them; every failure comes back with its reason."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from index import FileStat

from .copies import copy_spec
from .image_errors import failure_reason
from .image_formats import IMAGE_SUFFIXES
from .image_limits import MAX_PIXELS
from .images import decode, open_regular, preprocess
from .input_spec import InputSpec
from .paths import display_path

__all__ = ["Decoded", "Failed", "content_hash", "decode_file", "find_images", "hash_file"]


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """An image ready for a model.

    ``width`` and ``height`` are those of the whole picture as a person sees it (after EXIF rotation);
    ``pixels`` is (size, size, 3) uint8, ``copy_pixels`` the same for the model of copy codes (``copies``);
    ``content_hash`` is that of the file's bytes.
    """

    file: FileStat
    content_hash: bytes
    width: int
    height: int
    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    copy_pixels: np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that gave no image, and why: one line that continues a sentence ("is empty")."""

    file: FileStat
    reason: str


def find_images(
    roots: Iterable[str | os.PathLike[str]], *, on_skip: Callable[[str, str], None] | None = None
) -> Iterator[FileStat]:
    """Returns an iterator over the image files at and under ``roots``, known by their suffix; no file is opened.

    Depth first, each folder in the order of the bytes of its names. Paths are absolute, symbolic links unresolved. A
    linked folder is walked after everything else, and no folder twice: loops end, and an image keeps the path of its
    real folder. Names that start with a dot and ``*.dhx`` folders are passed over in silence; what should have been an
    image or a folder and is not (broken links, FIFOs, unreadable folders) goes to ``on_skip(path, reason)``.

    Raises:
        FileNotFoundError: A root is missing (at the call, before anything is walked).
    """
    roots = [roots] if isinstance(roots, (str, os.PathLike)) else roots
    paths = [os.path.abspath(os.fsdecode(root)) for root in roots]
    for path in paths:
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(
                f"there is no file or folder {display_path(path)}: check its spelling, and that its drive is mounted"
            ) from None
        except OSError:
            pass  # It is there; why it cannot be read is said when the walk gets to it.
    return _walk(paths, on_skip if on_skip is not None else lambda path, reason: None)


def _walk(roots: list[str], skip: Callable[[str, str], None]) -> Iterator[FileStat]:
    walked: set[tuple[int, int]] = set()
    root_files = {path for path in roots if not os.path.isdir(path)}

    def entries(folder: str) -> Iterator[os.DirEntry[str]]:
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in walked:
                return iter(())
            with os.scandir(folder) as listing:
                found = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            skip(folder, failure_reason(error))
            return iter(())
        walked.add((status.st_dev, status.st_ino))
        return iter(found)

    pending = deque(dict.fromkeys(roots))
    while pending:
        path = pending.popleft()
        if not os.path.isdir(path):
            if _suffix(path) not in IMAGE_SUFFIXES:
                skip(path, _not_an_image_name(path))
            elif (file := _file_stat(path, path, skip)) is not None:
                yield file
            continue
        # Iterators instead of recursion: folders may be nested deeper than Python's stack.
        stack = [entries(path)]
        while stack:
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop()
                continue
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
                is_broken = entry.is_symlink() and not is_folder and not os.path.exists(entry.path)
            except OSError as error:
                skip(entry.path, failure_reason(error))
                continue
            if is_folder:
                if entry.name.lower().endswith(".dhx"):
                    continue
                if entry.is_symlink():
                    pending.append(entry.path)
                else:
                    stack.append(entries(entry.path))
            elif is_broken:
                skip(entry.path, "is a broken symbolic link")
            elif (
                _suffix(entry.name) in IMAGE_SUFFIXES
                and entry.path not in root_files
                and (file := _file_stat(entry.path, entry, skip)) is not None
            ):
                yield file


def _file_stat(path: str, source: str | os.DirEntry[str], skip: Callable[[str, str], None]) -> FileStat | None:
    try:
        status = os.stat(source) if isinstance(source, str) else source.stat()
    except OSError as error:
        skip(path, failure_reason(error))
        return None
    if not stat.S_ISREG(status.st_mode):
        skip(path, "is not a regular file")
        return None
    return FileStat(path, status.st_size, status.st_mtime_ns)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _not_an_image_name(path: str) -> str:
    if _suffix(path) in (".heic", ".heif", ".hif"):
        return "is a HEIC photo: pip install 'deephash[heic]' to read it"
    return f"has no suffix of an image ({_suffix(path) or 'none'}); known are {' '.join(sorted(IMAGE_SUFFIXES))}"


def content_hash(file: BinaryIO) -> bytes:
    """Returns the 16-byte BLAKE2b of what is left to read in ``file``, read in pieces."""
    digest = hashlib.blake2b(digest_size=16)
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.digest()


def hash_file(file: FileStat) -> bytes | Failed:
    """Returns the `content_hash` of a whole file, or why it cannot be read; an empty file has one too."""
    try:
        with open_regular(file.path) as stream:
            return content_hash(stream)
    except Exception as error:
        return Failed(file, failure_reason(error))


def decode_file(file: FileStat, spec: InputSpec, *, max_pixels: int = MAX_PIXELS) -> Decoded | Failed:
    """Hashes, decodes and prepares one file, opened once. Whatever is wrong with it comes back as `Failed`."""
    try:
        with open_regular(file.path) as stream:
            digest = content_hash(stream)
            at_least = max(spec.resize, copy_spec().resize)
            image, (width, height) = decode(stream, max_pixels=max_pixels, at_least=at_least)
        return Decoded(file, digest, width, height, preprocess(image, spec), preprocess(image, copy_spec()))
    except Exception as error:
        return Failed(file, failure_reason(error))
