"""Codes by which copies of a picture are found, beside the codes by which similar ones are. One table; no search."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from index.codes import Codes, n_code_bytes
from index.groups import Ids

__all__ = ["CopyCodes", "mirrored"]


def mirrored(codes: Codes) -> Codes:
    """Return the copy codes (N, n_bytes) of the mirrored images: a copy code's two halves trade places."""
    return np.roll(codes, codes.shape[-1] // 2, axis=-1)


class _Rows(Protocol):
    """What is needed of a catalogue."""

    def meta(self, key: str) -> Any: ...
    def set_meta(self, key: str, value: str | int) -> None: ...
    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]: ...
    def _rows_in(self, sql: str, keys: Sequence[Any]) -> Iterator[Any]: ...
    def _change(self, sql: str, rows: Iterable[Sequence[Any]]) -> None: ...
    def _writing(self) -> AbstractContextManager[int]: ...


class CopyCodes:
    """The copy codes in a catalogue. All have `n_bits` bits and come from one model, that of the fingerprint.

    `n_bits` is 0 where the catalogue has none, and was never meant to have any.
    """

    def __init__(self, rows: _Rows) -> None:
        self._catalogue = rows

    @property
    def n_bits(self) -> int:
        """Bits of a code."""
        return int(self._catalogue.meta("copy_bits") or 0)

    @property
    def fingerprint(self) -> str:
        """Whose codes they are."""
        return str(self._catalogue.meta("copy_fingerprint") or "")

    @property
    def radius(self) -> int:
        """The distance up to which two images are copies of one picture, as the model's makers measured it."""
        return int(self._catalogue.meta("copy_radius") or 0)

    def use(self, n_bits: int, fingerprint: str, radius: int) -> None:
        """Have codes of this model; those of another are dropped."""
        wanted: dict[str, str | int] = {"copy_bits": n_bits, "copy_fingerprint": fingerprint, "copy_radius": radius}
        if {key: self._catalogue.meta(key) for key in wanted} == wanted:
            return
        with self._catalogue._writing():
            if fingerprint != self.fingerprint:
                self._catalogue._change("DELETE FROM copy_codes", [()])
            for key, value in wanted.items():
                self._catalogue.set_meta(key, value)

    def put(self, ids: Sequence[int], codes: Codes) -> None:
        """Insert or replace codes, within the transaction that is open."""
        rows = [(id, code.tobytes()) for id, code in zip(ids, codes, strict=True)]
        self._catalogue._change(
            "INSERT OR REPLACE INTO copy_codes VALUES (?, ?, ?)", ((id, code, _crc(id, code)) for id, code in rows)
        )

    def drop(self, ids: Iterable[int]) -> None:
        """Delete the codes of images, within the transaction that is open."""
        self._catalogue._change("DELETE FROM copy_codes WHERE id = ?", ((id,) for id in ids))

    def of(self, ids: Sequence[int]) -> Mapping[int, bytes]:
        """Return the codes of those of the images that have one."""
        if not self.n_bits:
            return {}
        return dict(self._catalogue._rows_in("SELECT id, code FROM copy_codes WHERE id IN ($)", ids))

    def all(self) -> tuple[Ids, Codes]:
        """Return (ids (N,) ascending, codes (N, n_bytes)) of all images that have one."""
        width = n_code_bytes(self.n_bits)
        rows = self._catalogue._rows("SELECT id, code FROM copy_codes WHERE length(code) = ? ORDER BY id", (width,))
        codes = np.frombuffer(b"".join(code for _, code in rows), np.uint8).reshape(-1, width)
        return np.array([id for id, _ in rows], np.int64), codes

    def lacking(self) -> Ids:
        """Return the ids of the images without a code, ascending."""
        sql = "SELECT id FROM images EXCEPT SELECT id FROM copy_codes ORDER BY id"
        return np.array([id for (id,) in self._catalogue._rows(sql)], np.int64)

    def problems(self) -> Iterator[int]:
        """Yield the ids of codes that are not as they were written, or of no image."""
        if not self.n_bits:
            return
        for id, code, crc, present in self._catalogue._rows(
            "SELECT copy_codes.id, IFNULL(CAST(copy_codes.code AS BLOB), x''), copy_codes.crc, images.id IS NOT NULL"
            " FROM copy_codes LEFT JOIN images ON images.id = copy_codes.id"
        ):
            if crc != _crc(id, code) or len(code) != n_code_bytes(self.n_bits) or not present:
                yield id


def _crc(id: int, code: bytes) -> int:
    return zlib.crc32(b"copy %d:" % id + code)
