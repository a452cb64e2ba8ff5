"""Plans: which copies to drop and which to keep in their place, as a JSON file that people can read.

Made from clusters of copies, written, read and checked here; ``applying.py`` carries them out.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from index import DuplicateCluster, Record

from .errors import PlanError
from .paths import display_path, utf8_path
from .places import Places
from .writing import replacing

__all__ = [
    "Plan",
    "PlannedAction",
    "PlannedDrop",
    "PlannedFile",
    "make_plan",
    "planned_path",
    "read_plan",
    "write_plan",
]

VERSION = 1
_HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file as the plan knows it; ``content_hash`` is the one of ``image_files.content_hash``."""

    path: str
    content_hash: bytes
    n_bytes: int


@dataclass(frozen=True, slots=True)
class PlannedDrop(PlannedFile):
    """A file to drop: a copy at this Hamming ``distance`` of the one that is kept for it."""

    distance: int
    kind: Literal["identical", "near"]


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """One file to keep, and its copies to drop."""

    keep: PlannedFile
    drop: tuple[PlannedDrop, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with the copies in an index; ``created`` is an ISO 8601 time. No file is both kept and dropped."""

    index: str
    created: str
    actions: tuple[PlannedAction, ...]


# Making.


def make_plan(
    index: str | os.PathLike[str],
    clusters: Iterable[DuplicateCluster],
    *,
    radius: int | None = None,
    protect: Iterable[str | os.PathLike[str]] = (),
) -> Plan:
    """Returns the plan to keep the best copy of each cluster and to drop the others.

    Files beneath a protected folder are not dropped. Where a cluster has some, they are kept, and one of the others is
    dropped for the best of them that it is a copy of: of equal content, or within the radius. What is a copy of none of
    them stays as well.

    Args:
        index: the index folder that the clusters are of.
        clusters: as ``ImageSearch.duplicates`` returns them.
        radius: the one that the clusters were made with, None for identical files.
        protect: folders.

    Raises:
        FileNotFoundError: a protected folder does not exist.
    """
    protected = Places(protect, must_exist=True)
    actions = [action for cluster in clusters for action in _actions(cluster, radius, protected)]
    return Plan(os.path.abspath(os.fsdecode(index)), datetime.now(UTC).isoformat(timespec="seconds"), tuple(actions))


def _actions(cluster: DuplicateCluster, radius: int | None, protected: Places) -> Iterator[PlannedAction]:
    records = [cluster.keep, *(record for record, _ in cluster.drop)]
    # Without its hash nobody can tell later whether a file is still the one that was planned with.
    records = [record for record in records if len(record.content_hash) == _HASH_BYTES]
    safe = [record for record in records if record.path in protected]
    safe.sort(key=lambda record: (-record.width * record.height, -record.n_bytes, record.id))
    kept = safe or [record for record in records if record is cluster.keep]
    left = [record for record in records if all(record is not other for other in kept)]
    for keep in kept:
        drop = [_planned_drop(record, keep) for record in left]
        drop = [item for item in drop if item.kind == "identical" or (radius is not None and item.distance <= radius)]
        if drop:
            taken = {item.path for item in drop}
            left = [record for record in left if record.path not in taken]
            drop.sort(key=lambda item: item.distance)
            yield PlannedAction(PlannedFile(keep.path, keep.content_hash, keep.n_bytes), tuple(drop))


def _planned_drop(record: Record, keep: Record) -> PlannedDrop:
    distance = (int.from_bytes(record.code) ^ int.from_bytes(keep.code)).bit_count()
    kind: Literal["identical", "near"] = "identical" if record.content_hash == keep.content_hash else "near"
    return PlannedDrop(record.path, record.content_hash, record.n_bytes, distance, kind)


# Writing.


def planned_path(path: str, name: str = "path") -> dict[str, str | None]:
    """Returns a path for JSON: as text, and as ``path_hex`` its bytes where they are not UTF-8, else null."""
    text = utf8_path(path)
    return {name: text, f"{name}_hex": None if text == path else os.fsencode(path).hex()}


def _file_fields(file: PlannedFile) -> dict[str, Any]:
    fields = planned_path(file.path) | {"content_hash": file.content_hash.hex(), "n_bytes": file.n_bytes}
    return fields | ({"distance": file.distance, "kind": file.kind} if isinstance(file, PlannedDrop) else {})


def write_plan(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Writes a plan as JSON; the file appears whole or not at all.

    Raises:
        PlanError: it would take the place of a file that is no plan, or of one that is being carried out.
        OSError: the file cannot be written.
    """
    _check_replaceable(Path(path))
    actions = [{"keep": _file_fields(a.keep), "drop": [_file_fields(d) for d in a.drop]} for a in plan.actions]
    fields = {"deephash_plan": VERSION, **planned_path(plan.index, "index"), "created": plan.created}
    with replacing(path, "w") as file:
        json.dump(fields | {"actions": actions}, file, indent=1, ensure_ascii=False)
        file.write("\n")


def _check_replaceable(path: Path) -> None:
    if Path(f"{path}.log").exists():
        raise PlanError(
            f"{display_path(path)} was carried out already, and {display_path(path)}.log says what was moved where: "
            f"write the new plan under another name"
        )
    if path.exists():
        try:
            read_plan(path)
        except PlanError:
            raise PlanError(f"{display_path(path)} exists and is no plan: write the plan under another name") from None


# Reading.


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Reads a plan and checks all of it.

    Raises:
        PlanError: it is no plan, of another version, incomplete or damaged, or it drops a file that it keeps.
        OSError: the file cannot be read.
    """
    name = display_path(path)
    data = Path(path).read_bytes()
    try:
        fields = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, json.JSONDecodeError) else "it is not JSON in UTF-8"
        raise PlanError(f"{name} is no plan, or a damaged one ({why}): write it again") from error
    if not isinstance(fields, dict) or "deephash_plan" not in fields:
        raise PlanError(f"{name} is not a plan: deephash duplicates INDEX --plan FILE writes one")
    version = fields["deephash_plan"]
    if type(version) is not int or version != VERSION:
        raise PlanError(f"{name} is a plan of version {version!r}, and this program knows {VERSION}: write it again")
    try:
        actions = [_action(item, f"actions[{i}]") for i, item in enumerate(_take(fields, "actions", list, "the plan"))]
        created = _take(fields, "created", str, "the plan")
        try:
            datetime.fromisoformat(created)
        except ValueError:
            raise _Wrong(f"created is no ISO 8601 time: {created!r}") from None
        plan = Plan(_path(fields, "index", "the plan"), created, tuple(actions))
        _check_apart(plan.actions)
    except _Wrong as wrong:
        raise PlanError(f"{name} is no plan that can be trusted: {wrong}; nothing was done") from None
    return plan


class _Wrong(Exception):
    """What is wrong with a plan; the text names the place."""


_KINDS: Mapping[type, str] = {str: "text", int: "a whole number", list: "a list", dict: "an object"}


def _take(fields: Any, name: str, kind: type, where: str) -> Any:
    if not isinstance(fields, dict):
        raise _Wrong(f"{where} is not an object")
    if name not in fields:
        raise _Wrong(f"{where} has no {name}")
    value = fields[name]
    is_right = type(value) is kind  # true is no number
    if not is_right:
        raise _Wrong(f"{name} of {where} is not {_KINDS[kind]}")
    if kind is int and not 0 <= value < 1 << 63:
        raise _Wrong(f"{name} of {where} is out of range: {value}")
    return value


def _path(fields: Any, name: str, where: str) -> str:
    text = _take(fields, name, str, where)
    given = fields.get(f"{name}_hex")
    try:
        path = os.fsdecode(text.encode("utf-8") if given is None else bytes.fromhex(given))
    except (UnicodeError, ValueError, TypeError):
        raise _Wrong(f"{name} of {where} is damaged: {text!r}") from None
    if utf8_path(path) != text:
        raise _Wrong(f"{name} and {name}_hex of {where} are not the same path")
    if "\0" in path or not os.path.isabs(path) or os.path.normpath(path) != path:
        raise _Wrong(f"{name} of {where} is not an absolute path without detours: {text!r}")
    return path


def _file(fields: Any, where: str) -> tuple[str, bytes, int]:
    path, digits = _path(fields, "path", where), _take(fields, "content_hash", str, where)
    try:
        content_hash = bytes.fromhex(digits)
    except ValueError:
        content_hash = b""
    if len(digits) != 2 * _HASH_BYTES or len(content_hash) != _HASH_BYTES:
        raise _Wrong(f"content_hash of {where} is not {2 * _HASH_BYTES} hexadecimal digits")
    return path, content_hash, _take(fields, "n_bytes", int, where)


def _action(fields: Any, where: str) -> PlannedAction:
    keep = PlannedFile(*_file(_take(fields, "keep", dict, where), f"{where}.keep"))
    drop = []
    for number, item in enumerate(_take(fields, "drop", list, where)):
        place = f"{where}.drop[{number}]"
        file, kind = _file(item, place), _take(item, "kind", str, place)
        if kind not in ("identical", "near"):
            raise _Wrong(f"kind of {place} is neither identical nor near: {kind!r}")
        if kind == "identical" and file[1:] != (keep.content_hash, keep.n_bytes):
            raise _Wrong(f"{place} is called identical, but its content_hash or n_bytes is not that of the kept file")
        drop.append(PlannedDrop(*file, distance=_take(item, "distance", int, place), kind=kind))
    return PlannedAction(keep, tuple(drop))


def _check_apart(actions: Sequence[PlannedAction]) -> None:
    """Refuses chains and cycles: what one action keeps, none may drop."""
    kept = {action.keep.path for action in actions}
    dropped: set[str] = set()
    for item in (item for action in actions for item in action.drop):
        if item.path in kept:
            raise _Wrong(f"{display_path(item.path)} is both kept and dropped")
        if item.path in dropped:
            raise _Wrong(f"{display_path(item.path)} is dropped twice")
        dropped.add(item.path)
