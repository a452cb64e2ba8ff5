"""The file of a catalogue as SQLite sees it: tables, migrations, connections, and errors that say what to do."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from index.errors import NotAStore, StoreDamaged, StoreError, StoreFull, StoreLocked, StoreTooNew
from index.rows import metadata_has

_APPLICATION_ID = 0x64687831  # "dhx1"
_WRITER = ("synchronous = FULL", "cache_size = -65536", "journal_size_limit = 67108864", "wal_autocheckpoint = 8000")
_FULL = {"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_SHMSIZE"}
RESTORE = "restore the folder from a copy, or delete it and index again"
"""What to do about a catalogue that cannot be trusted."""


def full_disk(error: OSError) -> bool:
    """Return whether this is a full disk, a quota, or a file size limit."""
    return error.errno in {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


class translated_errors:
    """A context that turns SQLite's errors into errors that name the file and say what to do.

    A class, for searches enter it several times each, and a generator takes longer.
    """

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            _raise_translated(self._path, error)


def _raise_translated(path: Path, error: BaseException) -> None:
    if isinstance(error, sqlite3.ProgrammingError):
        if "closed database" in str(error):
            raise StoreError(f"{path.parent} is closed: open it again") from None
    elif isinstance(error, UnicodeDecodeError):
        # SQLite's own message quotes a damaged schema.
        raise StoreDamaged(f"{path} is damaged (it holds text that is none): {RESTORE}") from error
    elif isinstance(error, sqlite3.Error):
        # Codes, not texts: a full disk is FULL, a file size limit or a quota is a failed write.
        name = getattr(error, "sqlite_errorname", None) or ""
        if name in _FULL:
            raise StoreFull(
                f"{path} cannot grow ({error}): the disk is full; nothing committed is lost, free space and run again"
            ) from error
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise StoreLocked(f"{path} is in use by another process: wait for it and run again") from error
        if name.startswith("SQLITE_READONLY"):
            raise StoreError(f"{path} cannot be written ({error}): check its permissions, or copy the index") from error
        if name.startswith("SQLITE_CANTOPEN"):
            raise StoreError(f"{path} cannot be opened ({error}): check its permissions, or copy the index") from error
        raise StoreDamaged(f"{path} is damaged or cannot be read ({error}): {RESTORE}") from error


def _create_tables(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID")
    db.execute(
        "CREATE TABLE images (id INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB NOT NULL UNIQUE, code BLOB NOT NULL,"
        " n_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, content_hash BLOB NOT NULL, width INTEGER NOT NULL,"
        " height INTEGER NOT NULL, label TEXT, metadata TEXT, crc INTEGER NOT NULL)"
    )
    db.execute("CREATE INDEX images_by_content ON images (content_hash)")
    db.execute(
        "CREATE TABLE skipped (path BLOB PRIMARY KEY, n_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,"
        " reason TEXT NOT NULL)"
    )
    db.execute("CREATE TABLE roots (path BLOB PRIMARY KEY)")
    # Ids whose code changed or that were removed, by epoch; new images are found by their larger ids.
    db.execute("CREATE TABLE changes (epoch INTEGER, id INTEGER, PRIMARY KEY (epoch, id)) WITHOUT ROWID")


def _create_copy_codes(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE copy_codes (id INTEGER PRIMARY KEY, code BLOB NOT NULL, crc INTEGER NOT NULL)")


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [_create_tables, _create_copy_codes]
"""Each brings the schema one version further, in one transaction; append, never change."""

_READABLE_FROM = 1
"""The oldest version that can be read as it is; what came later only adds tables that may be missing."""


def connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    """Open an existing file. Only the one that writes may checkpoint: with two, SQLite 3.40 can lose commits."""
    uri = path.absolute().as_uri()
    if writable:
        return _configured(f"{uri}?mode=rw", *_WRITER)
    try:
        return _configured(f"{uri}?mode=ro")
    except sqlite3.OperationalError:
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size:
            raise
        # Read-only media: SQLite cannot make the files beside it that readers share, and nobody can write either.
        return _configured(f"{uri}?mode=ro&immutable=1")


def _configured(uri: str, *pragmas: str) -> sqlite3.Connection:
    db = sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        for pragma in pragmas:
            db.execute(f"PRAGMA {pragma}")
        db.create_function("metadata_has", 2, metadata_has, deterministic=True)
        # The first read is what opens the file.
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except BaseException:
        db.close()
        raise
    return db


def initialise(path: Path) -> sqlite3.Connection:
    """Return a connection to a new file with all tables in it."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    migrate(path, db, writable=True)
    return db


def migrate(path: Path, db: sqlite3.Connection, *, writable: bool) -> None:
    """Bring the schema up to date.

    Raises:
        NotAStore: the file is another program's.
        StoreDamaged: the file is empty.
        StoreTooNew: the schema is newer than this program.
        StoreError: it is older, and the connection may not write.
    """
    if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
        if path.stat().st_size == 0:
            raise StoreDamaged(f"{path} is damaged (it is empty): {RESTORE}")
        raise NotAStore(f"{path.parent} is not an index: {path.name} belongs to another program; name another folder")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StoreTooNew(
            f"{path} has format {version}, this program knows {len(MIGRATIONS)}:"
            " update the program (pip install -U deephash)"
        )
    if not writable and version < len(MIGRATIONS):
        if version >= _READABLE_FROM:
            return
        raise StoreError(f"{path} has the older format {version}: open it once for writing to bring it up to date")
    for number, migration in enumerate(MIGRATIONS[version:], start=version + 1):
        db.execute("BEGIN IMMEDIATE")
        try:
            migration(db)
            db.execute(f"PRAGMA user_version = {number}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
