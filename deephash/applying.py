"""Carries a plan out: drops copies to the trash or into a folder, one by one, each checked again first; takes it back.

Nothing is ever deleted here. What is about to happen stands in the journal beside the plan before it does, so that the
same call goes on after a kill.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import filelock

from index import Store, StoreError

from .errors import PlanError
from .moving import free_names, has_content, is_empty, move_file, trash_mover
from .paths import display_path
from .places import Places
from .plan_checks import Changed, DropChecks
from .plan_journal import Event, Journal, journal_path
from .plans import Plan, PlannedDrop, PlannedFile, read_plan
from .progress import OnProgress, Progress, ignore_progress

__all__ = ["ApplyReport", "FileOutcome", "apply_plan", "undo_plan"]


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What became of one file. ``to``: where it is now (or would be), None for the trash.

    ``planned``: a dry run would do it; ``moved``; ``moved before``: by an earlier run; ``restored``; ``skipped``, then
    ``reason`` continues a sentence ("is gone"). ``keep`` and ``drop`` are the plan's, None when a move is taken back.
    """

    outcome: Literal["planned", "moved", "moved before", "restored", "skipped"]
    path: str
    n_bytes: int
    to: str | None = None
    reason: str = ""
    keep: PlannedFile | None = None
    drop: PlannedDrop | None = None


@dataclass
class ApplyReport:
    """What a run did, file by file in the order of the plan; ``left_in_index`` says why files are still in it."""

    dry_run: bool
    files: list[FileOutcome] = field(default_factory=list)
    left_in_index: str | None = None

    def count(self, *outcomes: str) -> int:
        """Returns how many files had one of the outcomes."""
        return sum(item.outcome in outcomes for item in self.files)

    def n_bytes(self, *outcomes: str) -> int:
        """Returns how large the files that had one of the outcomes are together."""
        return sum(item.n_bytes for item in self.files if item.outcome in outcomes)


def apply_plan(
    path: str | os.PathLike[str],
    *,
    trash: bool = False,
    move_to: str | os.PathLike[str] | None = None,
    protect: Iterable[str | os.PathLike[str]] = (),
    timeout: float = 0.0,
    on_progress: OnProgress = ignore_progress,
) -> ApplyReport:
    """Drops the copies of a plan; without ``trash`` and ``move_to``, says only what would be done.

    A copy goes only when it and the file kept for it are, at that moment, two regular files of the planned contents, in
    the index and in its folders; everything else is skipped with its reason. A later call with the same plan goes on.

    Args:
        path: the plan. Its journal is written beside it, with ``.log`` behind its name.
        trash: drop to the desktop's trash.
        move_to: drop into this folder instead, where every file keeps its path from the indexed folder on.
        protect: folders beneath which nothing is dropped.
        timeout: seconds to wait for another writer of the index.
        on_progress: called after every file.

    Raises:
        PlanError: the plan is not to be trusted or contradicts itself, another call is carrying out a plan of this
            index, the trash cannot be used, or ``move_to`` lies where the next run over the folders would index it.
        index.StoreError: the plan's index cannot be opened.
        OSError: the plan or the journal cannot be read or written, or a protected folder does not exist.
    """
    if trash and move_to is not None:
        raise ValueError("files go to the trash or into a folder: pass trash or move_to")
    plan = read_plan(path)
    dry_run = not trash and move_to is None
    to_trash = trash_mover() if trash else None
    folder = None if move_to is None else os.path.realpath(os.fsdecode(move_to))
    with contextlib.nullcontext() if dry_run else _alone(plan, path):
        journal = Journal(journal_path(path))
        with Store.open(plan.index) as store:
            roots, indexed = store.roots(), set(store.by_path(_paths(plan)))
        if folder is not None:
            _check_folder(folder, roots, plan.index)
            Path(folder).mkdir(parents=True, exist_ok=True)
        checks = DropChecks(plan, roots=roots, known=indexed | set(journal.last), protect=protect, outside=folder)
        report = ApplyReport(dry_run)
        pairs = [(action.keep, drop) for action in plan.actions for drop in action.drop]
        run = _Run(journal, checks, folder, to_trash)
        try:
            for number, (keep, drop) in enumerate(pairs, 1):
                report.files.append(run.file(keep, drop))
                on_progress(Progress("apply", number, len(pairs)))
        except KeyboardInterrupt:
            done = f"{report.count('moved'):,} files were moved" if not dry_run else "nothing was changed"
            raise KeyboardInterrupt(f"interrupted: {done}; the same call goes on from there") from None
        if not dry_run:
            gone = [item.path for item in report.files if item.outcome in ("moved", "moved before")]
            report.left_in_index = _forget(plan.index, [path for path in gone if path in indexed], timeout)
    return report


class _Run:
    """One run over the files of a plan; neither a folder nor the trash: a dry one."""

    def __init__(self, journal: Journal, checks: DropChecks, folder: str | None, trash: Callable[[str], None] | None):
        self._journal = journal
        self._checks = checks
        self._folder = folder
        self._trash = trash

    def file(self, keep: PlannedFile, drop: PlannedDrop) -> FileOutcome:
        last = self._journal.last.get(drop.path)
        try:
            if last is not None and last.event != "restored" and not os.path.lexists(drop.path):
                return self._gone(last, keep, drop)
            seen = self._checks.check(keep, drop)
            to = None
            if self._folder is not None:
                to = self._move(last, keep, drop, lambda: self._checks.check_unchanged(keep, drop, seen))
            elif self._trash is not None:
                event = Event("moving", drop.path, None, drop.content_hash, drop.n_bytes)
                self._journal.write(event)
                self._checks.check_unchanged(keep, drop, seen)
                self._trash(drop.path)
                self._journal.finish(event)
        except Changed as changed:
            return FileOutcome("skipped", drop.path, drop.n_bytes, reason=str(changed), keep=keep, drop=drop)
        except OSError as error:
            return FileOutcome("skipped", drop.path, drop.n_bytes, reason=_why(error), keep=keep, drop=drop)
        dry_run = self._folder is None and self._trash is None
        return FileOutcome("planned" if dry_run else "moved", drop.path, drop.n_bytes, to, keep=keep, drop=drop)

    def _gone(self, last: Event, keep: PlannedFile, drop: PlannedDrop) -> FileOutcome:
        """What an earlier run did to a file that is not there any more."""
        is_here = last.to is None or has_content(last.to, last.content_hash, last.n_bytes)
        if last.event in ("moving", "restoring") and not is_here:
            raise Changed("is gone, and it is not where an earlier run was moving it")
        if last.event == "moving" and (self._folder is not None or self._trash is not None):
            self._journal.finish(last)
        return FileOutcome("moved before", drop.path, drop.n_bytes, last.to, keep=keep, drop=drop)

    def _move(self, last: Event | None, keep: PlannedFile, drop: PlannedDrop, still_right: Callable[[], None]) -> str:
        assert self._folder is not None
        place = self._checks.roots.find(drop.path)
        assert place is not None  # checked
        wanted = os.path.join(self._folder, place.relative)
        names = free_names(wanted)
        # A move that was killed has left an empty file at most, or the whole one: go on with that name.
        begun = last.to if last is not None and last.event == "moving" else None
        reuse = begun is not None and begun in Places([self._folder]) and _is_free(begun, drop)
        while True:
            to = begun if reuse and begun is not None else next(names)
            event = Event("moving", drop.path, to, drop.content_hash, drop.n_bytes)
            self._journal.write(event)
            try:
                move_file(drop.path, to, drop.content_hash, reuse=reuse, still_right=still_right)
            except FileExistsError as error:
                if not reuse and os.fsdecode(error.filename or "") != to:
                    raise  # a file is where a folder is needed
                reuse = False
                continue
            self._journal.finish(event)
            return to


def _is_free(path: str, drop: PlannedDrop) -> bool:
    return not os.path.lexists(path) or is_empty(path) or has_content(path, drop.content_hash, drop.n_bytes)


def undo_plan(path: str | os.PathLike[str], *, on_progress: OnProgress = ignore_progress) -> ApplyReport:
    """Moves back what ``apply_plan`` has moved into a folder; what is in the trash, the desktop restores.

    A file is skipped with its reason where there is one at its place again, or where the moved one has changed. The
    files are in the index again after the next ``index_images`` over their folders.

    Raises:
        PlanError: the plan has no journal, it is damaged, or the plan is being carried out.
        OSError: the plan or its journal cannot be read.
    """
    plan = read_plan(path)
    if not journal_path(path).exists():
        raise PlanError(f"{display_path(journal_path(path))} does not exist: nothing of this plan was carried out")
    report = ApplyReport(dry_run=False)
    with _alone(plan, path):
        journal = Journal(journal_path(path))
        events = [event for event in journal.last.values() if event.event != "restored"]
        for number, event in enumerate(events, 1):
            outcome = _undo(journal, event)
            report.files += [] if outcome is None else [outcome]
            on_progress(Progress("apply", number, len(events)))
    return report


def _undo(journal: Journal, event: Event) -> FileOutcome | None:
    is_there = os.path.lexists(event.path)
    skipped = ""
    if event.to is None:
        if is_there:
            return None
        skipped = "is in the desktop's trash: restore it there"
    elif not has_content(event.to, event.content_hash, event.n_bytes):
        if is_there and event.event != "moved":
            if event.event == "restoring" and has_content(event.path, event.content_hash, event.n_bytes):
                journal.finish(event)
            return None  # it was never moved, or it is back
        skipped = f"cannot be moved back: {display_path(event.to)} is gone or has changed"
    if not skipped:
        assert event.to is not None
        back = Event("restoring", event.path, event.to, event.content_hash, event.n_bytes)
        try:
            if is_there and event.event != "restoring":
                raise FileExistsError
            journal.write(back)
            reuse = event.event == "restoring"
            move_file(event.to, event.path, event.content_hash, reuse=reuse, still_right=lambda: None)
            journal.finish(back)
            return FileOutcome("restored", event.path, event.n_bytes, event.path)
        except FileExistsError:
            skipped = f"exists again; what was moved is still {display_path(event.to)}"
        except OSError as error:
            skipped = _why(error)
    return FileOutcome("skipped", event.path, event.n_bytes, event.to, reason=skipped)


def _paths(plan: Plan) -> set[str]:
    return {file.path for action in plan.actions for file in (action.keep, *action.drop)}


@contextlib.contextmanager
def _alone(plan: Plan, path: str | os.PathLike[str]) -> Iterator[None]:
    """Holds the lock of whoever acts on files of this index: two plans could each drop what the other one keeps."""
    folder = Path(plan.index)
    place = folder if folder.is_dir() and os.access(folder, os.W_OK) else Path(path).absolute().parent
    lock = filelock.FileLock(place / "apply.lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise PlanError(
            f"another process is carrying out a plan of {display_path(folder)}: wait until it is done"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _check_folder(folder: str, roots: Iterable[str], index: str) -> None:
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise PlanError(f"{display_path(folder)} is a file, and dropped files go into a folder: name another one")
    inside = Places(roots).find(folder)
    is_hidden = inside is not None and any(part.startswith(".") for part in Path(inside.relative).parts)
    if folder in Places([index]) or (inside is not None and not is_hidden):
        raise PlanError(
            f"{display_path(folder)} lies in the indexed folders, and the next deephash index would find the dropped "
            f"files there: name a folder elsewhere, or one whose name starts with a dot"
        )


def _forget(index: str, paths: list[str], timeout: float) -> str | None:
    """Removes files that are gone from the index; returns why not, if that cannot be done now."""
    if not paths:
        return None
    try:
        with Store.open(index, writable=True, timeout=timeout) as store:
            gone = [record.id for path, record in store.by_path(paths).items() if not os.path.lexists(path)]
            store.remove(gone)
    except (StoreError, OSError) as error:
        return str(error)
    return None


def _why(error: OSError) -> str:
    return f"cannot be moved: {os.strerror(error.errno).lower() if error.errno else error}"
