"""What a job does: bring the index in step with folders, or take in images that were uploaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from index import FileStat, Skipped, Store

from ..annotations import folder_labels
from ..image_batches import Decode
from ..image_files import find_images
from ..progress import OnProgress
from ..sync import Annotate, SyncReport, SyncTask
from .uploads import annotations_of_uploads, forget_annotations

if TYPE_CHECKING:
    from ..encoding_model import EncodingModel

__all__ = ["SyncJob"]

Found: TypeAlias = tuple[list[FileStat], list[Skipped]]

_FEW = 64
_CHUNK = 1_024


@dataclass(frozen=True)
class SyncJob:
    """Folders to sync with or, with ``uploads``, files in the folder of uploads."""

    folders: Sequence[str]
    prune: bool = False
    with_folder_labels: bool = False
    uploads: Sequence[str] | None = None

    def found_if_few(self, store: Store) -> Found | None:
        """Returns what there is, or None if more than a few files are new or have changed: it looks no further then."""
        unreadable: list[Skipped] = []
        listed, files, n_changed = self._listed(unreadable), [], 0
        while chunk := list(islice(listed, _CHUNK)):
            n_changed += len(store.changed(chunk))
            if n_changed > _FEW:
                return None
            files += chunk
        return files, unreadable

    def run(
        self,
        store: Store,
        load_model: Callable[[], EncodingModel],
        *,
        decode: Decode,
        on_progress: OnProgress,
        found: Found | None = None,
    ) -> SyncReport:
        """Does it, as ``SyncTask.run``; ``found`` is what `found_if_few` returned."""
        if found is None:
            unreadable: list[Skipped] = []
            found = list(self._listed(unreadable)), unreadable
        task = SyncTask(store, load_model, annotate=self._annotate, on_progress=on_progress, decode=decode)
        report = task.run(self.folders, *found, prune=self.prune)
        for path in store.by_path(self.uploads or ()):
            forget_annotations(path)
        return report

    def _listed(self, unreadable: list[Skipped]) -> Iterator[FileStat]:
        paths = self.folders if self.uploads is None else [path for path in self.uploads if os.path.exists(path)]
        return find_images(paths, on_skip=lambda path, reason: unreadable.append(Skipped(path, reason)))

    @property
    def _annotate(self) -> Annotate | None:
        if self.uploads is not None:
            return annotations_of_uploads
        return folder_labels if self.with_folder_labels else None
