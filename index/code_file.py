"""A file of codes without a catalogue: built in a stream, memory-mapped, searched where it lies. For huge collections.

The id of a code is its position. Layout: a header; from byte 4096 on a record for each block of codes, with the number
of codes up to its end and its XXH3 (little-endian); from byte 2**20 on the codes, each padded with zero bytes to whole
64-bit words. A block counts once its record is on disk: a writer may be killed at any moment and go on behind it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import filelock
import numpy as np
import numpy.typing as npt
import xxhash

from index import kernel
from index.array_files import sync_folder
from index.codes import Codes, check_codes, check_n_bits, n_code_bytes
from index.errors import StoreDamaged, StoreError, StoreLocked, StoreTooNew
from index.groups import Distances, Groups, Ids, Words, to_codes, to_words
from index.search import HammingIndex
from index.segments import Segment
from index.structures import Scan

__all__ = ["CodeFile", "CodeFileWriter"]

_MAGIC, _VERSION = b"deephash", 1
_HEADER = struct.Struct("<8sIIQ")  # magic, version, n_bits, XXH3 of these
_RECORD = struct.Struct("<QQQ8x")  # number of codes up to the end of the block, XXH3 of the block, XXH3 of these two
_RECORDS_AT, _CODES_AT = 1 << 12, 1 << 20
_MAX_BLOCKS = (_CODES_AT - _RECORDS_AT) // _RECORD.size
_BLOCK_BYTES = 1 << 24
_CURE = "restore it from a copy, or make it again"


class CodeFile:
    """The codes of a file, by position, searched exactly without being read into memory first.

    May be shared by threads. A file that a `CodeFileWriter` goes on with can be open: what is appended is seen by those
    who open it afterwards.
    """

    def __init__(self, path: Path, n_bits: int, blocks: list[tuple[range, int]]) -> None:
        self.path = path
        self.n_bits = n_bits
        self._blocks = blocks
        shape = (blocks[-1][0].stop if blocks else 0, _n_words(n_bits))
        mapped = (
            np.memmap(path, np.uint64, "r", offset=_CODES_AT, shape=shape) if blocks else np.empty(shape, np.uint64)
        )
        self._words: Words = np.asarray(mapped)
        self._index = HammingIndex.from_segments(n_bits, [_segment(self._words)], shape[0])

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, check: bool = True) -> CodeFile:
        """Open a file; `check` reads all of it (10 GB/s, from memory) and compares it with its checksums.

        Without, it opens at once, and codes that are not as they were written are at wrong distances.

        Raises:
            StoreError: it is no file of codes.
            StoreDamaged: it is cut off, or not as it was written.
            StoreTooNew: it was written by a newer program.
        """
        path = Path(path).absolute()
        try:
            with path.open("rb") as file:
                n_bits, blocks = _read_header(path, file)
        except OSError as error:
            raise StoreError(f"{path} cannot be opened ({error}): name a file of codes") from error
        codes = cls(path, n_bits, blocks)
        if check and (wrong := codes.verify()):
            raise StoreDamaged(
                f"{path} is damaged (codes {wrong[0].start} to {wrong[0].stop - 1} are not what was written): {_CURE}"
            )
        return codes

    def __len__(self) -> int:
        return len(self._words)

    @property
    def words(self) -> Words:
        """The codes as words (N, n_words), mapped."""
        return self._words

    def codes(self, positions: npt.ArrayLike) -> Codes:
        """Return the codes at these positions, (M, n_bytes) uint8."""
        return to_codes(np.ascontiguousarray(self._words[np.asarray(positions)]), n_code_bytes(self.n_bits))

    def search(self, queries: npt.ArrayLike, k: int, *, radius: int | None = None) -> tuple[Distances, Ids]:
        """Return distances and positions of the nearest, as `HammingIndex.search` does."""
        return self._index.search(queries, k, radius=radius)

    def range_search(self, queries: npt.ArrayLike, radius: int) -> tuple[Ids, Distances, Ids]:
        """Return (limits, distances, positions) of all within the radius, as `HammingIndex.range_search` does."""
        return self._index.range_search(queries, radius)

    def verify(self) -> list[range]:
        """Read all codes and return the positions of the blocks that are not as they were written."""
        tasks = [partial(_digest, self._words[block.start : block.stop]) for block, _ in self._blocks]
        digests = kernel.in_threads(tasks)
        return [block for (block, true), digest in zip(self._blocks, digests, strict=True) if digest != true]


class CodeFileWriter:
    """Appends codes to a file, which it makes where there is none; for one process at a time.

    What was appended is safe once `flush` or `close` returns, and in blocks of 16 MiB before. An error in a `with`
    block leaves what was safe by then.

    Raises:
        StoreError: the file is another one, or was made for another n_bits.
        StoreDamaged: it is cut off.
        StoreLocked: another process is writing.
    """

    def __init__(self, path: str | os.PathLike[str], n_bits: int) -> None:
        self.path = Path(path).absolute()
        self.n_bits = check_n_bits(n_bits)
        self._pending: list[Words] = []
        self._n_pending = 0
        self._lock = filelock.FileLock(f"{self.path}.lock", thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise StoreLocked(f"{self.path} is being written by another process: wait until it is done") from None
        try:
            self._file, self._blocks = self._begun()
        except BaseException:
            self._lock.release()
            raise

    def _begun(self) -> tuple[BinaryIO, list[range]]:
        """Return the file, ready for writing behind its last block."""
        header = _HEADER.pack(_MAGIC, _VERSION, self.n_bits, 0)[:16]
        header += struct.pack("<Q", xxhash.xxh3_64_intdigest(header))
        size = self.path.stat().st_size if self.path.exists() else 0
        if size <= len(header) and (not size or header.startswith(self.path.read_bytes())):
            # The size, set last, tells that the header is whole.
            file = self.path.open("w+b")
            file.write(header)
            file.flush()
            os.fsync(file.fileno())
            file.truncate(_CODES_AT)
            os.fsync(file.fileno())
            sync_folder(self.path.parent)
            return file, []
        file = self.path.open("r+b")
        try:
            n_bits, blocks = _read_header(self.path, file)
            if n_bits != self.n_bits:
                raise StoreError(f"{self.path} has codes of {n_bits} bits, not {self.n_bits}: write to another file")
            n_codes = blocks[-1][0].stop if blocks else 0
            file.truncate(_CODES_AT + 8 * _n_words(n_bits) * n_codes)
            file.seek(0, os.SEEK_END)
        except BaseException:
            file.close()
            raise
        return file, [block for block, _ in blocks]

    def __len__(self) -> int:
        return (self._blocks[-1].stop if self._blocks else 0) + self._n_pending

    def append(self, codes: npt.ArrayLike) -> None:
        """Append codes (N, n_bytes) uint8.

        Raises:
            ValueError: codes that are not of n_bits.
            OSError: the disk is full, for one; what was safe before stays so.
        """
        words = to_words(check_codes(codes, self.n_bits))
        # A copy: the caller may use its array again.
        self._pending.append(words.copy())
        self._n_pending += len(words)
        if 8 * _n_words(self.n_bits) * self._n_pending >= _BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Bring what was appended to disk.

        Raises:
            OSError: as `append`.
            StoreError: the file has no room for another block.
        """
        if not self._n_pending:
            return
        if len(self._blocks) == _MAX_BLOCKS:
            raise StoreError(f"{self.path} has no room for another block: append more codes at once, to a new file")
        words = np.concatenate(self._pending)
        start = self._blocks[-1].stop if self._blocks else 0
        self._file.seek(_CODES_AT + 8 * _n_words(self.n_bits) * start)
        self._file.write(words.data)
        self._file.flush()
        os.fsync(self._file.fileno())
        block = range(start, start + len(words))
        record = _RECORD.pack(block.stop, _digest(words), 0)[:16]
        self._file.seek(_RECORDS_AT + _RECORD.size * len(self._blocks))
        self._file.write(record + struct.pack("<Q", xxhash.xxh3_64_intdigest(record)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._blocks.append(block)
        self._pending, self._n_pending = [], 0

    def close(self) -> None:
        """Bring everything to disk and close the file. Calling it twice is fine."""
        self._close(flush=True)

    def _close(self, *, flush: bool) -> None:
        if self._file.closed:
            return
        try:
            if flush:
                self.flush()
        finally:
            self._file.close()
            self._lock.release()

    def __enter__(self) -> CodeFileWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(flush=kind is None)


def _n_words(n_bits: int) -> int:
    return -(-n_bits // 64)


def _digest(words: Words) -> int:
    return xxhash.xxh3_64_intdigest(words.data)


def _segment(words: Words) -> Segment:
    """Return the segment in which each code has its position as its only id."""
    if kernel.AVAILABLE:
        return Segment(Groups(words, None, None), Scan(words))  # type: ignore[arg-type]
    places = np.arange(len(words) + 1)
    return Segment(Groups(words, places, places[:-1]), Scan(words))


def _read_header(path: Path, file: BinaryIO) -> tuple[int, list[tuple[range, int]]]:
    """Return n_bits and the blocks with their checksums."""
    head, size = file.read(_CODES_AT), os.fstat(file.fileno()).st_size
    if head[:8] != _MAGIC or len(head) < _HEADER.size:
        raise StoreError(f"{path} is not a file of codes: name another one")
    _, version, n_bits, checksum = _HEADER.unpack_from(head)
    if version > _VERSION:
        raise StoreTooNew(f"{path} has format {version}, this program knows {_VERSION}: update the program")
    if xxhash.xxh3_64_intdigest(head[:16]) != checksum or len(head) < _CODES_AT:
        raise StoreDamaged(f"{path} is damaged (its header is not as it was written): {_CURE}")
    blocks = list(_blocks(path, head))
    n_codes = blocks[-1][0].stop if blocks else 0
    if size < _CODES_AT + 8 * _n_words(n_bits) * n_codes:
        n_left = (size - _CODES_AT) // (8 * _n_words(n_bits))
        raise StoreDamaged(f"{path} is cut off (it has {n_left} of {n_codes} codes): {_CURE}")
    return n_bits, blocks


def _blocks(path: Path, head: bytes) -> Iterator[tuple[range, int]]:
    start, ended = 0, False
    for stop, digest, checksum in _RECORD.iter_unpack(head[_RECORDS_AT:]):
        if not (stop or digest or checksum):
            ended = True
        elif ended or stop <= start or xxhash.xxh3_64_intdigest(struct.pack("<QQ", stop, digest)) != checksum:
            raise StoreDamaged(f"{path} is damaged (the record of a block is not as it was written): {_CURE}")
        else:
            yield range(start, stop), digest
            start = stop
