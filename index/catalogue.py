"""The truth of a store: one SQLite file. Transactions and queries; rows in, rows out. Searches no codes.

Its tables and connections are in schema.py, how values become columns in rows.py.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from index.codes import Codes, n_code_bytes
from index.copy_codes import CopyCodes
from index.errors import NotAStore, StoreDamaged, StoreError, UnknownId
from index.groups import Ids
from index.records import Entry, FileStat, Filter, Metadata, Record, Row, Skipped
from index.rows import condition, decode_text, encode_path, encode_text, entry_columns, show
from index.schema import RESTORE, connect, initialise, migrate, translated_errors

NAME = "catalogue.db"
_BATCH = 1000  # variables of one statement, well below SQLite's limit
_MOST = 30_000  # the same, where many rows are read: SQLite takes 32,766
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
_PAGE = 5000  # rows held at once while iterating
_COLUMNS = "id, path, n_bytes, mtime_ns, content_hash, width, height, label, metadata, code"
_RECORDS = f"SELECT {_COLUMNS} FROM images WHERE id IN ($)"
# In a damaged file a value can have any type: as a BLOB it is wrong bytes, which the checksum tells.
_PATH = "IFNULL(CAST(path AS BLOB), x'')"
_CHECKED = f"id, {_PATH}, IFNULL(CAST(code AS BLOB), x''), crc"
_T = TypeVar("_T")


class Catalogue:
    """The open catalogue of one store.

    May be shared by threads. `meta` keys: n_bits, fingerprint, created, epoch (grows by one with every commit that
    touches images), n_images, changes_from (the change log is complete behind this epoch), snapshot, files, structure
    (what searches), copy_bits, copy_fingerprint and copy_radius (see CopyCodes).
    """

    def __init__(self, path: Path, db: sqlite3.Connection, *, writable: bool) -> None:
        self.path = path
        self.writable = writable
        self._db = db
        self._lock = threading.RLock()
        self._translated = translated_errors(path)
        # Of the commit that is being read: None where nobody has asked, -1 outside of `reading`.
        self._epoch_read: int | None = -1
        self.copy_codes = CopyCodes(self)
        self.n_bits = int(self._meta_of("n_bits"))
        self.fingerprint = str(self._meta_of("fingerprint"))
        self._seed = zlib.crc32(self.fingerprint.encode())

    def _meta_of(self, key: str) -> str | int:
        value = self.meta(key)
        if not isinstance(value, str if key == "fingerprint" else int):
            raise StoreDamaged(f"{self.path} is damaged ({key} is missing): {RESTORE}")
        return value

    # -- opening and closing --

    @classmethod
    def create(cls, path: Path, *, n_bits: int, fingerprint: str, created: str, files: str) -> None:
        """Write an empty catalogue.

        Raises:
            StoreFull: the disk is full.
        """
        with translated_errors(path):
            db = initialise(path)
            try:
                values = {"n_bits": n_bits, "fingerprint": fingerprint, "created": created, "files": files}
                numbers = {"epoch": 0, "n_images": 0, "changes_from": 0, "snapshot": ""}
                db.executemany("INSERT INTO meta VALUES (?, ?)", list((values | numbers).items()))
            finally:
                db.close()

    @classmethod
    def open(cls, path: Path, *, writable: bool) -> Catalogue:
        """Open for reading, or for writing by the process that holds the store's lock; bring the schema up to date.

        Raises:
            NotAStore: there is no catalogue, or the file is another program's.
            StoreDamaged: it is no readable SQLite file.
            StoreTooNew: its schema is newer than this program.
        """
        if not path.is_file():
            raise NotAStore(f"{path.parent} is not an index: it has no {path.name}; name another folder, or create one")
        with translated_errors(path):
            db = connect(path, writable=writable)
            try:
                migrate(path, db, writable=writable)
                return cls(path, db, writable=writable)
            except BaseException:
                db.close()
                raise

    def close(self) -> None:
        """Close the connection; the last writer folds the write-ahead log into the file."""
        with self._lock, self._translated:
            self._db.close()

    # -- transactions --

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Everything read inside belongs to one commit."""
        with self._lock, self._translated:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN")
            self._epoch_read = None
            try:
                yield
            finally:
                self._epoch_read = -1
                if self._db.in_transaction:
                    self._db.execute("COMMIT")

    @contextmanager
    def _writing(self, *, touches_images: bool = True) -> Iterator[int]:
        """One transaction: all or nothing, also on Ctrl-C. Yields the epoch that the commit will have."""
        with self._lock, self._translated:
            if not self.writable:
                raise StoreError(f"{self.path.parent} is open for reading only: open it with writable=True")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                epoch = self.epoch + 1
                yield epoch
                if touches_images:
                    self.set_meta("epoch", epoch)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock, self._translated:
            return self._db.execute(sql, values).fetchall()

    def _change(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run sql for each of the rows, within the transaction that is open."""
        self._db.executemany(sql, rows)

    def _rows_in(self, sql: str, keys: Sequence[Any]) -> Iterator[Any]:
        """Yield the rows of sql, whose `IN ($)` stands for the keys."""
        for batch in _batches(keys):
            yield from self._rows(_with_places(sql, len(batch)), batch)

    # -- facts --

    def meta(self, key: str) -> Any:
        """Return a value of the meta table, or None."""
        rows = self._rows("SELECT value FROM meta WHERE key = ?", (key,))
        return rows[0][0] if rows else None

    def set_meta(self, key: str, value: str | int) -> None:
        """Set a value of the meta table, within the transaction that is open."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @property
    def epoch(self) -> int:
        """The number of commits that touched images."""
        with self._lock:  # in another thread, it is of the commit that `reading` reads there
            if self._epoch_read is None:
                self._epoch_read = int(self._meta_of("epoch"))
                return self._epoch_read
            return int(self._meta_of("epoch")) if self._epoch_read == -1 else self._epoch_read

    @property
    def n_images(self) -> int:
        """The number of images, kept beside them: counting a million rows takes too long for `info`."""
        return int(self._meta_of("n_images"))

    @property
    def last_id(self) -> int:
        """The largest id ever given."""
        rows = self._rows("SELECT seq FROM sqlite_sequence WHERE name = 'images'")
        return int(rows[0][0]) if rows else 0

    # -- images --

    def put(self, entries: Sequence[Entry], codes: Codes, copy_codes: Codes | None = None) -> list[int]:
        """Insert images, or update those whose path is known (they keep their ids), in one transaction; return ids.

        An image whose code changes without a new copy code loses the one it had.
        """
        rows = {}
        for entry, code in zip(entries, codes, strict=True):
            rows[encode_path(entry.path)] = (entry, code.tobytes())
        fields = {path: entry_columns(entry) for path, (entry, _) in rows.items()}
        with self._writing() as epoch:
            present = self._rows_in("SELECT path, id, code FROM images WHERE path IN ($)", list(rows))
            known = {path: (id, code) for path, id, code in present}
            next_id = self.last_id + 1
            ids, new, updated, recoded = {}, [], [], []
            for path, (_, code) in rows.items():
                if path in known:
                    id, old = known[path]
                    updated.append((code, *fields[path], self._crc(id, path, code), id))
                    if old != code:
                        recoded.append((epoch, id))
                else:
                    id, next_id = next_id, next_id + 1
                    new.append((id, path, code, *fields[path], self._crc(id, path, code)))
                ids[path] = id
            self._db.executemany("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", new)
            self._db.executemany(
                "UPDATE images SET code = ?, n_bytes = ?, mtime_ns = ?, content_hash = ?, width = ?, height = ?,"
                " label = ?, metadata = ?, crc = ? WHERE id = ?",
                updated,
            )
            self._db.executemany("INSERT OR IGNORE INTO changes VALUES (?, ?)", recoded)
            self._db.executemany("DELETE FROM skipped WHERE path = ?", ((path,) for path in rows))
            self.set_meta("n_images", self.n_images + len(new))
            put = [ids[encode_path(entry.path)] for entry in entries]
            if copy_codes is not None:
                self.copy_codes.put(put, copy_codes)
            else:
                self.copy_codes.drop(id for _, id in recoded)
        return put

    def put_copy_codes(self, ids: Sequence[int], codes: Codes) -> None:
        """Give images their copy codes, in one transaction; ids that are not here are passed over."""
        with self._writing():
            here = {row[0] for row in self._rows_in("SELECT id FROM images WHERE id IN ($)", ids)}
            places = [place for place, id in enumerate(ids) if id in here]
            self.copy_codes.put([ids[place] for place in places], codes[places])

    def relocate(self, moves: Sequence[tuple[int, FileStat]]) -> None:
        """Give images new paths, sizes and times, in one transaction; paths may be swapped."""
        targets = {int(id): (encode_path(file.path), int(file.n_bytes), int(file.mtime_ns)) for id, file in moves}
        if len({path for path, _, _ in targets.values()}) < len(targets):
            raise ValueError("two images cannot move to one path: move one, remove the other")
        with self._writing():
            codes = dict(self._rows_in("SELECT id, code FROM images WHERE id IN ($)", list(targets)))
            self._check_known(targets, codes)
            paths = [path for path, _, _ in targets.values()]
            for id, path in self._rows_in("SELECT id, path FROM images WHERE path IN ($)", paths):
                if id not in targets:
                    raise ValueError(f"{show(path)} is image {id} already: remove that one first")
            # Paths are unique at every moment: step aside before swapping.
            self._db.executemany("UPDATE images SET path = ? WHERE id = ?", ((b"\0%d" % id, id) for id in targets))
            self._db.executemany(
                "UPDATE images SET path = ?, n_bytes = ?, mtime_ns = ?, crc = ? WHERE id = ?",
                ((path, size, time, self._crc(id, path, codes[id]), id) for id, (path, size, time) in targets.items()),
            )
            self._db.executemany("DELETE FROM skipped WHERE path = ?", ((path,) for path in paths))

    def annotate(self, ids: Sequence[int], changes: Mapping[str, str | bytes | None]) -> None:
        """Set columns (label, metadata) of images, in one transaction."""
        with self._writing():
            self._check_known(ids, {row[0] for row in self._rows_in("SELECT id FROM images WHERE id IN ($)", ids)})
            for column, value in changes.items():
                self._db.executemany(f"UPDATE images SET {column} = ? WHERE id = ?", ((value, id) for id in ids))

    def remove(self, ids: Sequence[int]) -> int:
        """Remove images in one transaction; return how many there were."""
        if not self._rows_present(ids):
            return 0
        with self._writing() as epoch:
            gone = [row[0] for row in self._rows_in("SELECT id FROM images WHERE id IN ($)", ids)]
            self._db.executemany("DELETE FROM images WHERE id = ?", ((id,) for id in gone))
            self._db.executemany("INSERT OR IGNORE INTO changes VALUES (?, ?)", ((epoch, id) for id in gone))
            self.copy_codes.drop(gone)
            self.set_meta("n_images", self.n_images - len(gone))
        return len(gone)

    def _rows_present(self, ids: Sequence[int]) -> bool:
        return next(self._rows_in("SELECT id FROM images WHERE id IN ($)", ids), None) is not None

    def _check_known(self, ids: Iterable[int], known: Any) -> None:
        for id in ids:
            if id not in known:
                raise UnknownId(f"{self.path.parent} has no image {id}: it was removed, or never there")

    def _crc(self, id: int, path: bytes, code: bytes) -> int:
        return zlib.crc32(b"%d:" % id + code + path, self._seed)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, (int, np.integer)) and bool(self._rows("SELECT 1 FROM images WHERE id = ?", (int(id),)))

    def records(self, ids: Sequence[int]) -> list[Record]:
        """Return the images with these ids, in this order.

        Raises:
            UnknownId: one of them is not there.
        """
        return [row.record() for row in self.rows(ids)]

    def rows(self, ids: Sequence[int]) -> list[Row]:
        """Return the images with these ids as `records` does, as rows."""
        found = self._rows_of(_RECORDS, ids)
        return [self._row(found[id]) for id in ids]

    def codes(self, ids: Sequence[int]) -> bytearray:
        """Return the codes of the images with these ids, one behind the other, in this order.

        Raises:
            UnknownId: one of them is not there.
        """
        found = self._rows_of("SELECT id, code FROM images WHERE id IN ($)", ids)
        return bytearray().join([found[id][1] for id in ids])

    def _rows_of(self, sql: str, ids: Sequence[int]) -> dict[int, Any]:
        """Return the rows of sql, whose `IN ($)` stands for the ids, by id, all of one commit."""
        if len(ids) <= _BATCH:
            rows = self._rows(_with_places(sql, len(ids)), ids)
        else:
            with self.reading():
                rows = list(self._rows_in(sql, ids))
        found = {row[0]: row for row in rows}
        self._check_known(ids, found)
        return found

    def faces(self, ids: Sequence[int]) -> dict[int, tuple[str, str | None, Metadata]]:
        """Return path, label and metadata of those images that are there."""
        faces: dict[int, tuple[str, str | None, Metadata]] = {}
        for batch in _batches(ids, _MOST):
            sql = f"SELECT id, path, label, metadata FROM images WHERE id IN ({','.join('?' * len(batch))})"
            for id, path, label, metadata in self._rows(sql, batch):
                if type(path) is bytes and metadata is None and type(label) is not bytes:
                    # What nearly every row is, a thousand times a batch of queries.
                    faces[id] = (path.decode(_ENCODING, _ERRORS), label, {})
                else:
                    faces[id] = self._face(id, path, label, metadata)
        return faces

    def by_path(self, paths: Iterable[str]) -> dict[str, Record]:
        """Return the images at these paths."""
        keys = [encode_path(path) for path in paths]
        rows = self._rows_in(f"SELECT {_COLUMNS} FROM images WHERE path IN ($)", keys)
        return {record.path: record for record in map(self._record, rows)}

    def by_content(self, hashes: Iterable[bytes]) -> dict[bytes, list[Record]]:
        """Return the images with these content hashes, ids ascending."""
        found: dict[bytes, list[Record]] = {}
        keys = list(dict.fromkeys(hashes))
        for row in self._rows_in(f"SELECT {_COLUMNS} FROM images WHERE content_hash IN ($) ORDER BY id", keys):
            record = self._record(row)
            found.setdefault(record.content_hash, []).append(record)
        return found

    def file_sizes(self) -> set[int]:
        """Return the distinct sizes of the files, bytes."""
        return {n_bytes for (n_bytes,) in self._rows("SELECT DISTINCT n_bytes FROM images", ())}

    def iterate(self, where: Filter | None) -> Iterator[Record]:
        """Yield images by id, a page at a time: memory stays bounded, writers are not held up."""
        for row in self._pages(_COLUMNS, *condition(where)):
            yield self._record(row)

    def paths(self, under: str | None) -> Iterator[tuple[int, str]]:
        """Yield (id, path) by id; `under`: of images in this folder and the folders in it."""
        sql, values = "1", []
        if under is not None:
            folder = encode_path(under).rstrip(b"/") + b"/"
            # The unary + keeps SQLite on the order of ids, so that a page ends where the next begins.
            sql, values = "+path >= ? AND +path < ?", [folder, folder[:-1] + b"0"]
        for id, path in self._pages(f"id, {_PATH}", sql, values):
            yield id, os.fsdecode(path)

    def _pages(self, columns: str, where: str, values: Sequence[Any]) -> Iterator[Any]:
        last = 0
        while True:
            sql = f"SELECT {columns} FROM images WHERE id > ? AND ({where}) ORDER BY id LIMIT {_PAGE}"
            rows = self._rows(sql, (last, *values))
            yield from rows
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]

    def ids(self, where: Filter | None) -> Ids:
        """Return the ids of the images that a filter lets through, ascending."""
        sql, values = condition(where)
        rows = self._rows(f"SELECT id FROM images WHERE {sql} ORDER BY id", values)
        return np.array(rows, dtype=np.int64).reshape(-1)

    def copies(self, where: Filter | None) -> list[tuple[bytes, int]]:
        """Return (content hash, id) of the images that share their content hash with another, by both."""
        sql, values = condition(where)
        sql = f"length(content_hash) > 0 AND ({sql})"
        return self._rows(
            f"SELECT content_hash, id FROM images WHERE {sql} AND content_hash IN"
            f" (SELECT content_hash FROM images WHERE {sql} GROUP BY content_hash HAVING count(*) > 1)"
            " ORDER BY content_hash, id",
            (*values, *values),
        )

    def sizes(self, ids: Ids) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return (pixels, bytes) of images, (N, 2), in the order of ids, which ascend."""
        rows = self._rows_in("SELECT id, width * height, n_bytes FROM images WHERE id IN ($)", ids.tolist())
        table = np.array(sorted(rows), dtype=np.int64).reshape(-1, 3)
        self._check_known(ids.tolist(), set(table[:, 0].tolist()))
        return table[:, 1:]

    # -- codes, for the search structure --

    def codes_after(self, id: int) -> tuple[Ids, Codes]:
        """Return (ids, codes) of the images behind an id, ascending; each row is checked against its checksum.

        Raises:
            StoreDamaged: a row is not what was written.
        """
        parts = []
        with self.reading():
            cursor = self._db.execute(f"SELECT {_CHECKED} FROM images WHERE id > ? ORDER BY id", (id,))
            while rows := cursor.fetchmany(50_000):
                parts.append(self._checked(rows))
        return self._joined(parts)

    def code_pages(self) -> Iterator[tuple[Ids, Codes]]:
        """Yield (ids, codes) of all images, ascending, some thousands at a time; checked as by `codes_after`."""
        last = 0
        while rows := self._rows(f"SELECT {_CHECKED} FROM images WHERE id > ? ORDER BY id LIMIT {_PAGE}", (last,)):
            yield self._checked(rows)
            last = rows[-1][0]

    def codes_of(self, ids: Sequence[int]) -> tuple[Ids, Codes]:
        """Return (ids, codes) of those images that are there, ascending, checked."""
        rows = self._rows_in(f"SELECT {_CHECKED} FROM images WHERE id IN ($)", ids)
        return self._joined([self._checked(sorted(rows))])

    def _joined(self, parts: list[tuple[Ids, Codes]]) -> tuple[Ids, Codes]:
        nothing = np.empty(0, np.int64), np.empty((0, n_code_bytes(self.n_bits)), np.uint8)
        ids, codes = zip(nothing, *parts, strict=True)
        return np.concatenate(ids), np.concatenate(codes)

    def _checked(self, rows: list[tuple[int, bytes, bytes, int]]) -> tuple[Ids, Codes]:
        seed, crc32 = self._seed, zlib.crc32
        bad = [row for row in rows if crc32(b"%d:" % row[0] + row[2] + row[1], seed) != row[3]]
        if bad:
            cure = f"remove the images {_some(bad)} and index their files again"
            raise StoreDamaged(f"{self.path} is damaged ({_bad_row(bad[0])}): {cure}")
        ids = np.array([row[0] for row in rows], dtype=np.int64)
        codes = np.frombuffer(b"".join([row[2] for row in rows]), dtype=np.uint8)
        return ids, codes.reshape(len(rows), n_code_bytes(self.n_bits))

    def changed_ids(self, after_epoch: int) -> list[int] | None:
        """Return the ids removed or given another code after an epoch; None: the log does not reach back so far."""
        with self.reading():
            if not int(self._meta_of("changes_from")) <= after_epoch <= self.epoch:
                return None
            rows = self._rows("SELECT DISTINCT id FROM changes WHERE epoch > ? ORDER BY id", (after_epoch,))
        return [row[0] for row in rows]

    def n_changes(self) -> int:
        """Return the length of the change log."""
        return int(self._rows("SELECT count(*) FROM changes")[0][0])

    def forget_changes(self, until_epoch: int, *, snapshot: str | None = None) -> None:
        """Cut the change log off behind an epoch; `snapshot` names the cache that was made there."""
        with self._writing(touches_images=False):
            self._db.execute("DELETE FROM changes WHERE epoch <= ?", (until_epoch,))
            self.set_meta("changes_from", until_epoch)
            if snapshot is not None:
                self.set_meta("snapshot", snapshot)

    def set_structure(self, structure: str, *, snapshot: str | None = None) -> None:
        """Remember what searches; `snapshot` names the cache that was made with it, for the epoch of this commit."""
        with self._writing() as epoch:
            self.set_meta("structure", structure)
            if snapshot is not None:
                self._db.execute("DELETE FROM changes WHERE epoch <= ?", (epoch,))
                self.set_meta("changes_from", epoch)
                self.set_meta("snapshot", snapshot)

    # -- files that were seen --

    def changed(self, files: Iterable[FileStat]) -> list[FileStat]:
        """Return the files that are neither catalogued nor skipped with the same size and time, in their order."""
        new = []
        for batch in _batches(list(files)):
            keys = [encode_path(file.path) for file in batch]
            seen = set(self._rows_in("SELECT path, n_bytes, mtime_ns FROM images WHERE path IN ($)", keys))
            seen.update(self._rows_in("SELECT path, n_bytes, mtime_ns FROM skipped WHERE path IN ($)", keys))
            new += [f for key, f in zip(keys, batch, strict=True) if (key, f.n_bytes, f.mtime_ns) not in seen]
        return new

    def remember_skipped(self, files: Sequence[tuple[FileStat, str]]) -> None:
        """Note files that could not be read, so that they are not tried again until they change."""
        rows = [(encode_path(f.path), int(f.n_bytes), int(f.mtime_ns), encode_text(reason)) for f, reason in files]
        with self._writing(touches_images=False):
            self._db.executemany("INSERT OR REPLACE INTO skipped VALUES (?, ?, ?, ?)", rows)

    def forget_skipped(self, paths: Iterable[str]) -> None:
        """Try these files again next time."""
        with self._writing(touches_images=False):
            self._db.executemany("DELETE FROM skipped WHERE path = ?", ((encode_path(path),) for path in paths))

    def skipped(self) -> list[Skipped]:
        """Return the files that could not be read, by path."""
        rows = self._rows(f"SELECT {_PATH}, reason FROM skipped ORDER BY path")
        return [Skipped(os.fsdecode(path), decode_text(reason) or "") for path, reason in rows]

    def n_skipped(self) -> int:
        """Return the number of files that could not be read."""
        return int(self._rows("SELECT count(*) FROM skipped")[0][0])

    def add_root(self, path: str) -> None:
        """Remember a folder that was indexed."""
        with self._writing(touches_images=False):
            self._db.execute("INSERT OR IGNORE INTO roots VALUES (?)", (encode_path(path),))

    def roots(self) -> list[str]:
        """Return the folders that were indexed, by path."""
        return [os.fsdecode(path) for (path,) in self._rows(f"SELECT {_PATH} FROM roots ORDER BY path")]

    # -- checking --

    def problems(self) -> Iterator[tuple[str, str, str]]:
        """Yield (kind, where, message) for everything that is not as it was written."""
        try:
            for (line,) in self._rows("PRAGMA integrity_check"):
                if line != "ok":
                    yield "catalogue", str(self.path), f"{line}: {RESTORE}"
            n_rows, n_pad = 0, 8 * n_code_bytes(self.n_bits) - self.n_bits
            for row in self._pages(_CHECKED, "1", ()):
                id, path, code, crc = row
                n_rows += 1
                message = None
                if self._crc(id, path, code) != crc:
                    message = _bad_row(row)
                elif len(code) != n_code_bytes(self.n_bits) or code[-1] & ((1 << n_pad) - 1):
                    message = f"image {id} has a code that is not one of {self.n_bits} bits"
                if message:
                    yield "row", show(path), f"{message}: remove image {id} and index its file again"
            for id in self.copy_codes.problems():
                yield "row", f"image {id}", f"its copy code is damaged: remove image {id} and index its file again"
            if n_rows != self.n_images:
                yield "catalogue", str(self.path), f"{n_rows} images, but {self.n_images} were counted: {RESTORE}"
        except StoreDamaged as error:
            yield "catalogue", str(self.path), str(error)

    # -- rows to values --

    def _record(self, row: tuple[Any, ...]) -> Record:
        return self._row(row).record()

    def _row(self, row: tuple[Any, ...]) -> Row:
        id, path, n_bytes, mtime_ns, content_hash, width, height, label, metadata, code = row
        if type(path) is bytes and metadata is None and type(label) is not bytes:
            # What nearly every row is, thousands of times a second.
            return Row(
                id, path.decode(_ENCODING, _ERRORS), n_bytes, mtime_ns, content_hash, width, height, label, {}, code
            )
        path, label, values = self._face(id, path, label, metadata)
        return Row(id, path, n_bytes, mtime_ns, content_hash, width, height, label, values, code)

    def _face(self, id: int, path: Any, label: Any, metadata: Any) -> tuple[str, str | None, Metadata]:
        try:
            return os.fsdecode(path), decode_text(label), {} if metadata is None else json.loads(metadata)
        except (TypeError, ValueError):
            raise StoreDamaged(f"{self.path} is damaged (the row of image {id} cannot be read): {RESTORE}") from None


def _bad_row(row: tuple[Any, ...]) -> str:
    return f"image {row[0]}, {show(row[1])}, does not match its checksum"


@lru_cache(maxsize=64)
def _with_places(sql: str, n: int) -> str:
    return sql.replace("$", ",".join("?" * n))


def _some(rows: list[Any]) -> str:
    listed = ", ".join(str(row[0]) for row in rows[:5])
    return listed + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")


def _batches(items: Sequence[_T], size: int = _BATCH) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
