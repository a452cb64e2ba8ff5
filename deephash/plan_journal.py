"""The journal beside a plan: what is being moved where, on the disk before it happens. JSON lines, one an event."""

import contextlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .errors import PlanError
from .paths import display_path
from .plans import planned_path

__all__ = ["Event", "Journal", "journal_path", "sync_folder"]

_EVENTS = ("moving", "moved", "restoring", "restored")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that is about to be done (``moving``, ``restoring``) or is done (``moved``, ``restored``) to a file.

    ``to``: where it went, None for the desktop's trash.
    """

    event: Literal["moving", "moved", "restoring", "restored"]
    path: str
    to: str | None
    content_hash: bytes
    n_bytes: int


def journal_path(plan: str | os.PathLike[str]) -> Path:
    """Returns where the journal of a plan lies."""
    return Path(f"{os.fsdecode(plan)}.log")


class Journal:
    """The events of a plan; ``last`` has the latest one of each path, in the order of their first ones.

    The end of a line that a kill cut off is passed over, and written over by the next one.

    Raises:
        PlanError: a line before the last is damaged.
        OSError: the journal is there and cannot be read.
    """

    def __init__(self, path: Path):
        self.path = path
        self.last: dict[str, Event] = {}
        self._n_good = 0
        data = path.read_bytes() if path.exists() else b""
        lines = data.splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            try:
                event = _event(json.loads(line)) if line.endswith(b"\n") else None
            except (ValueError, KeyError, TypeError, RecursionError):
                event = None
            if event is not None:
                self.last[event.path] = event
                self._n_good += len(line)
            elif number < len(lines):
                raise PlanError(
                    f"line {number} of {display_path(path)} is damaged: it says what was moved where, so mend or "
                    f"remove that line by hand before going on"
                )

    def write(self, event: Event) -> None:
        """Adds an event; it is on the disk when this returns."""
        fields = {"event": event.event, **planned_path(event.path)}
        fields |= {"to": None} if event.to is None else planned_path(event.to, "to")
        line = json.dumps(fields | {"content_hash": event.content_hash.hex(), "n_bytes": event.n_bytes}) + "\n"
        is_new = not self.path.exists()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.truncate(self._n_good)
            file.seek(self._n_good)
            file.write(line.encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_folder(self.path.parent)
        self._n_good += len(line)
        self.last[event.path] = event

    def finish(self, event: Event) -> None:
        """Adds that what the event was about to do is done."""
        self.write(replace(event, event="moved" if event.event == "moving" else "restored"))


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Has the names in a folder written to the disk, where the file system can do that."""
    with contextlib.suppress(OSError):  # Windows, some network drives, a folder that may not be listed
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _event(fields: Any) -> Event:
    if fields["event"] not in _EVENTS:
        raise ValueError(fields["event"])
    to = None if fields["to"] is None else _path(fields, "to")
    return Event(
        fields["event"], _path(fields, "path"), to, bytes.fromhex(fields["content_hash"]), int(fields["n_bytes"])
    )


def _path(fields: Any, name: str) -> str:
    given = fields.get(f"{name}_hex")
    path = os.fsdecode(fields[name] if given is None else bytes.fromhex(given))
    os.fsencode(path)  # a UnicodeError is a ValueError
    if "\0" in path or not os.path.isabs(path):
        raise ValueError(path)
    return path
