"""What a job does: bring the index in step with folders, or take in images that were uploaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from index import FileStat, Store

from ..annotations import folder_labels
from ..image_batches import Decode
from ..image_files import find_images
from ..progress import OnProgress
from ..sync import Annotate, SyncReport, SyncTask, find_collection
from .uploads import annotations_of_uploads, forget_annotations

if TYPE_CHECKING:
    from ..model import HashModel

__all__ = ["SyncJob"]

_FEW = 64
_CHUNK = 1_024


@dataclass(frozen=True)
class SyncJob:
    """Folders to sync with or, with ``uploads``, files in the folder of uploads."""

    folders: Sequence[str]
    prune: bool = False
    with_folder_labels: bool = False
    uploads: Sequence[str] | None = None

    def is_small(self, store: Store) -> bool:
        """Returns whether few files are new or have changed; looks no further when there are more."""
        files, n_changed = self._files(), 0
        while n_changed <= _FEW and (chunk := list(islice(files, _CHUNK))):
            n_changed += len(store.changed(chunk))
        return n_changed <= _FEW

    def run(
        self, store: Store, load_model: Callable[[], HashModel], *, decode: Decode, on_progress: OnProgress
    ) -> SyncReport:
        """Does it, as ``SyncTask.run``."""
        task = SyncTask(store, load_model, annotate=self._annotate, on_progress=on_progress, decode=decode)
        if self.uploads is None:
            return task.run(self.folders, *find_collection(self.folders), prune=self.prune)
        report = task.run(self.folders, list(self._files()), [])
        for path in store.by_path(self.uploads):
            forget_annotations(path)
        return report

    def _files(self) -> Iterator[FileStat]:
        if self.uploads is None:
            return find_images(self.folders)
        return find_images([path for path in self.uploads if os.path.exists(path)])

    @property
    def _annotate(self) -> Annotate | None:
        if self.uploads is not None:
            return annotations_of_uploads
        return folder_labels if self.with_folder_labels else None
