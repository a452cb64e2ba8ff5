"""The search structure of a store, kept in step with its catalogue: from the cache, from the rows, from the changes."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index import snapshot
from index.catalogue import NAME, Catalogue
from index.choice import AUTO, Choice
from index.records import Filter, Problem
from index.rows import condition
from index.search import HammingIndex

# Below this the cache saves nothing worth its files; above, it is written when a twentieth of the rows has changed.
_CACHE_ABOVE = 10_000
_CACHE_STALE_SHARE = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """The search structure at one commit. Never changed, only replaced: searches in other threads need no lock."""

    index: HammingIndex
    epoch: int
    last_id: int


class LiveIndex:
    """Follows the catalogue of one store, commit by commit, with a structure that is searched without a lock."""

    def __init__(self, folder: Path, catalogue: Catalogue) -> None:
        self._folder = folder
        self._catalogue = catalogue
        self._view: _View | None = None
        self._cached: snapshot.Stored | None = None
        self._filtered: tuple[str, int, HammingIndex] | None = None

    def considered(self, where: Filter | None) -> HammingIndex:
        """Return the index of the images that a filter lets through; the last filter's is kept."""
        if where is None:
            return self.current().index
        key = repr(condition(where))
        with self._catalogue.reading():
            view = self.current()
            filtered = self._filtered
            if filtered is None or filtered[:2] != (key, view.epoch):
                filtered = (key, view.epoch, view.index.subset(self._catalogue.ids(where)))
                self._filtered = filtered
        return filtered[2]

    def current(self) -> _View:
        """Return the view of the latest commit."""
        view = self._view
        if view is not None and view.epoch == self._catalogue.epoch:
            return view
        view = self._view or self._from_cache()
        with self._catalogue.reading():
            view = self._followed(view)
            self._view = view
        return view

    def n_behind(self) -> int | None:
        """Return how many images the next search takes in first; None if it builds or loads what it searches."""
        view, catalogue = self._view, self._catalogue
        if view is None or view.last_id > catalogue.last_id:
            return None
        if view.epoch == catalogue.epoch:
            return 0
        changed = catalogue.changed_ids(view.epoch)
        if changed is None or view.index.choice != self._choice():
            return None
        return len(changed) + catalogue.last_id - view.last_id

    def _from_cache(self) -> _View | None:
        n_bits, fingerprint = self._catalogue.n_bits, self._catalogue.fingerprint
        token, before = str(self._catalogue.meta("snapshot") or ""), None
        while token != before:
            loaded = snapshot.load(self._folder, token=token, n_bits=n_bits, fingerprint=fingerprint)
            if loaded is not None:
                self._cached, index = loaded
                index = index.restructured(self._choice(), retune=False)
                return _View(index, self._cached.snapshot.epoch, self._cached.snapshot.last_id)
            # A writer may have replaced it just now.
            token, before = str(self._catalogue.meta("snapshot") or ""), token
        return None

    def _choice(self) -> Choice:
        try:
            return Choice.of(str(self._catalogue.meta("structure") or AUTO))
        except ValueError:
            # One that a newer version knows.
            return AUTO

    def _followed(self, view: _View | None, choice: Choice | None = None) -> _View:
        """Return the view of the commit that is being read: the given one with its changes, or a new one."""
        catalogue, choice = self._catalogue, choice or self._choice()
        epoch, last_id = catalogue.epoch, catalogue.last_id
        changed = catalogue.changed_ids(view.epoch) if view is not None else None
        if view is not None and changed is None:
            # The log of changes was cut off where a new cache was made.
            view = self._from_cache()
            changed = catalogue.changed_ids(view.epoch) if view is not None else None
        if view is None or changed is None or view.last_id > last_id:
            index = HammingIndex(self._catalogue.n_bits, choice)
            ids, codes = catalogue.codes_after(0)
            index.add(codes, ids)
            return _View(index, epoch, last_id)
        if view.epoch == epoch:
            return view
        changed = [id for id in changed if id <= view.last_id]
        kept_ids, kept_codes = catalogue.codes_of(changed)
        new_ids, new_codes = catalogue.codes_after(view.last_id)
        index = view.index.copy()
        index.update(np.concatenate((kept_codes, new_codes)), np.concatenate((kept_ids, new_ids)), remove=changed)
        if index.choice != choice:
            index = index.restructured(choice)
        return _View(index, epoch, last_id)

    def adopt(self, index: HammingIndex) -> None:
        """Go on with an index of the same content and another structure, and remember it; the caller is the writer."""
        catalogue, view, stored = self._catalogue, self.current(), None
        epoch = view.epoch + 1
        if catalogue.n_images >= _CACHE_ABOVE:
            token = secrets.token_hex(16)
            made = snapshot.Snapshot(token, epoch, view.last_id, catalogue.n_bits, catalogue.fingerprint)
            with suppress(OSError):
                stored = snapshot.write(self._folder, made, index, self._cached)
        catalogue.set_structure(str(index.choice), snapshot=stored.snapshot.token if stored else None)
        self._view = _View(index, epoch, view.last_id)
        if stored:
            self._cached = stored
            snapshot.tidy(self._folder, stored)

    def write_cache(self) -> None:
        """Bring the cache on disk up to date, if that is worth it; the caller is the one writer."""
        catalogue = self._catalogue
        n_images, last_id = catalogue.n_images, catalogue.last_id
        n_changes = catalogue.n_changes()
        if n_images < _CACHE_ABOVE:
            if n_changes > _CACHE_ABOVE:
                catalogue.forget_changes(catalogue.epoch)
            return
        if self._cached is None:
            view = self._from_cache()
            self._view = self._view or view
        cached = self._cached
        if cached is not None and n_changes + last_id - cached.snapshot.last_id <= _CACHE_STALE_SHARE * n_images:
            snapshot.tidy(self._folder, cached)
            return
        view = self.current()
        view.index.settle()
        token = secrets.token_hex(16)
        made = snapshot.Snapshot(token, view.epoch, view.last_id, catalogue.n_bits, catalogue.fingerprint)
        try:
            # The old cache and the log of changes behind it count until the catalogue names the new one.
            stored = snapshot.write(self._folder, made, view.index, cached)
        except OSError:
            # A full disk costs the next start a second or two, and nothing else.
            return
        catalogue.forget_changes(view.epoch, snapshot=made.token)
        self._cached = stored
        snapshot.tidy(self._folder, stored)

    def problems(self) -> list[Problem]:
        """Return what is wrong with the cache."""
        token = str(self._catalogue.meta("snapshot") or "")
        if not token:
            return []
        manifest = self._folder / snapshot.manifest(token)
        with self._catalogue.reading():
            view, true = self._from_cache(), self._followed(None, AUTO)
            if view is None:
                harmless = "the cache is damaged or missing: it is not used, and made again by the next writer"
                return [Problem("cache", str(manifest), harmless)]
            cached = self._followed(view)
        ours: tuple[npt.NDArray[Any], ...] = true.index.groups()
        theirs: tuple[npt.NDArray[Any], ...] = cached.index.groups()
        if all(np.array_equal(left, right) for left, right in zip(ours, theirs, strict=True)):
            return []
        return [Problem("cache", str(manifest), f"the cache contradicts {NAME}: delete {manifest}")]
