"""What a running server holds: the stores, the model, the decoding processes, jobs, thumbnails, numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter

from index import Problem, Store, UnknownId

from ..engine import ImageSearch
from ..image_files import find_images
from ..paths import display_path
from ..progress import OnProgress
from ..sync import SyncReport
from .background import Background, Decoding
from .duplicates import DuplicateLists
from .encoding import Encoder
from .errors import ApiError, busy
from .jobs import Job, Jobs
from .listing import Lists
from .metrics import Metrics
from .pictures import Thumbnails, is_under
from .settings import ServerSettings
from .stores import Stores
from .sync_jobs import SyncJob

if TYPE_CHECKING:
    from ..encoding_model import EncodingModel

__all__ = ["Service"]

_T = TypeVar("_T")
_CLOSE_SECONDS = 30.0


class Service:
    """Opens the index for reading; `start` loads the model and starts the rest, `close` ends it.

    Raises:
        index.StoreError: the index cannot be opened.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.stores = Stores(Path(settings.index))
        self.search = ImageSearch(self.stores.quick)
        self.metrics = Metrics()
        decoding = Decoding(settings.decode_workers, settings.decode_seconds, settings.max_pixels)
        self.pool = decoding.pool(max_waiting=settings.max_waiting)
        self.background = Background(self.stores, decoding)
        self.encoder = Encoder(
            self._load_model, max_batch=settings.max_batch, max_waiting=settings.max_waiting,
            on_batch=self.metrics.count_batch,
        )  # fmt: skip
        self.jobs = Jobs(max_waiting=settings.max_jobs)
        self.thumbnails = Thumbnails(self.pool, n_bytes=settings.thumbnail_cache_bytes)
        self.duplicates = DuplicateLists(self.stores)
        self.lists = Lists(self.stores)
        self.metrics.watch(self)
        self._quick = CapacityLimiter(8)
        self._patient = CapacityLimiter(2)

    def _load_model(self) -> EncodingModel:
        return self.search.model

    async def start(self) -> None:
        """Starts everything, without waiting for the model; queues uploads that a killed server left behind."""
        self.pool.start()
        self.encoder.start()
        self.jobs.start()
        left = await anyio.to_thread.run_sync(self._uploads_left)
        if left:
            self.add_uploads(left)

    def stop_soon(self) -> None:
        """Has jobs stop at their next commit and streams end; does not wait."""
        self.jobs.stop()

    def close(self) -> None:
        """Ends everything; the running job stops at its next commit."""
        self.jobs.close(_CLOSE_SECONDS)
        self.encoder.close()
        self.pool.close()
        self.stores.close()

    # -- threads --

    async def quickly(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """Runs what takes milliseconds in a thread, while few wait."""
        return await self._threaded(self._quick, 64, work, *arguments)

    async def patiently(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """Runs what may take seconds in a thread of its own kind, so that the quick need not wait for it."""
        return await self._threaded(self._patient, 32, work, *arguments)

    async def _threaded(self, limiter: CapacityLimiter, most: int, work: Callable[..., _T], *arguments: Any) -> _T:
        if limiter.statistics().tasks_waiting >= most:
            raise busy(f"{most} calls wait")
        with anyio.fail_after(self.settings.request_seconds):
            return await anyio.to_thread.run_sync(work, *arguments, limiter=limiter, abandon_on_cancel=True)

    def verify(self) -> list[Problem]:
        """Reads the whole index, through a connection of its own: others would wait for its end."""
        with ImageSearch.open(self.search.folder) as search:
            return search.verify()

    # -- changes --

    def roots(self) -> list[str]:
        """Returns the folders whose images may be shown."""
        uploads = self.settings.uploads
        return [*self.stores.quick.roots(), *([str(uploads)] if uploads else [])]

    def annotate(self, id: int, changes: dict[str, Any]) -> None:
        """Sets label, metadata or both of an image."""
        self.background.change(_annotate, id, changes)

    def remove(self, ids: Sequence[int]) -> int:
        """Removes images from the index, all of them or, where one is unknown, none."""
        return self.background.change(_remove, ids)

    # -- jobs --

    def check_writable(self) -> None:
        """Raises StoreLocked where another process is writing, StoreError where nobody can."""
        self.background.change(len)

    def sync(self, folders: Sequence[str] | None, *, prune: bool, with_folder_labels: bool) -> Job:
        """Queues a sync with folders on this machine, or with all that the index was made of.

        Raises:
            ApiError: a folder that is not under a root that was allowed, or no folder at all.
        """
        indexed = self.stores.quick.roots()
        allowed = [*indexed, *map(str, self.settings.roots)]
        chosen = indexed if folders is None else [os.path.abspath(folder) for folder in folders]
        if not chosen:
            raise ApiError(422, "invalid", "the index was made of no folders: name some under a --root of the server")
        for folder in chosen:
            if "\0" in folder:
                raise ApiError(422, "invalid", "folders: a path holds no zero byte")
            if not is_under(folder, allowed):
                raise ApiError(
                    403, "forbidden", "a folder is not under those that this server may index: start it with --root DIR"
                )
            if folders is not None and not os.path.exists(folder):
                raise ApiError(404, "not_found", f"there is no folder {display_path(folder)}: check its spelling")
        return self._start("sync", SyncJob(chosen, prune=prune, with_folder_labels=with_folder_labels))

    def add_uploads(self, paths: Sequence[str]) -> Job:
        """Queues images in the folder of uploads."""
        return self._start("add", SyncJob([str(self.settings.uploads)], uploads=paths))

    def _start(self, kind: Literal["sync", "add"], wanted: SyncJob) -> Job:
        def work(on_progress: OnProgress) -> SyncReport:
            found = wanted.found_if_few(self.stores.quick)
            if found is None:
                return self.background.sync(wanted, on_progress)
            # Where a process would take longer to start than the job takes.
            with self.stores.writing() as store:
                return wanted.run(
                    store, self.encoder.model, decode=self.pool.decode, on_progress=on_progress, found=found
                )

        return self.jobs.add(kind, wanted.folders, work)

    def _uploads_left(self) -> list[str]:
        folder = self.settings.uploads
        if folder is None:
            return []
        return [file.path for file in self.stores.quick.changed(find_images([folder]))]


def _annotate(store: Store, id: int, changes: dict[str, Any]) -> None:
    store.annotate([id], **changes)


def _remove(store: Store, ids: Sequence[int]) -> int:
    wanted = list(dict.fromkeys(ids))
    for id in wanted:
        if id not in store:
            raise UnknownId(f"{store.folder.name} has no image {id}: it was removed, or never there")
    return store.remove(wanted)
