"""What a running server holds: the stores, the model, the decoding processes, jobs, thumbnails, numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio.to_thread
from anyio import CapacityLimiter

from index import UnknownId

from ..annotations import folder_labels
from ..copies import COPY_MODEL, copy_spec
from ..engine import MODEL_FILE, ImageSearch
from ..image_files import find_images
from ..model_file import find_model
from ..paths import display_path
from ..progress import OnProgress
from ..sync import Annotate, SyncReport, SyncTask, find_collection
from .background import BackgroundModel
from .decode_tasks import BACKGROUND
from .decoding import DecodePool
from .duplicates import DuplicateLists
from .encoding import Encoder
from .errors import ApiError, busy
from .jobs import Job, Jobs
from .listing import Lists
from .metrics import Metrics
from .pictures import Thumbnails, is_under
from .settings import ServerSettings
from .stores import Stores
from .uploads import annotations_of_uploads, forget_annotations

if TYPE_CHECKING:
    from ..input_spec import InputSpec
    from ..model import HashModel

__all__ = ["Service"]

_T = TypeVar("_T")
_UNLIMITED = 1 << 30
_FEW = 64
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
        self.pool = self._decode_pool(settings.max_waiting)
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

    def _decode_pool(self, max_waiting: int, nice: int = 0) -> DecodePool:
        settings = self.settings
        return DecodePool(
            workers=settings.decode_workers, seconds=settings.decode_seconds, max_waiting=max_waiting,
            max_pixels=settings.max_pixels, nice=nice,
        )  # fmt: skip

    def _load_model(self) -> HashModel:
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

    # -- changes --

    def roots(self) -> list[str]:
        """Returns the folders whose images may be shown."""
        uploads = self.settings.uploads
        return [*self.stores.quick.roots(), *([str(uploads)] if uploads else [])]

    def annotate(self, id: int, changes: dict[str, Any]) -> None:
        """Sets label, metadata or both of an image."""
        with self.stores.writing() as store:
            store.annotate([id], **changes)

    def remove(self, ids: Sequence[int]) -> int:
        """Removes images from the index, all of them or, where one is unknown, none."""
        with self.stores.writing() as store:
            wanted = list(dict.fromkeys(ids))
            for id in wanted:
                if id not in store:
                    raise UnknownId(f"{store.folder.name} has no image {id}: it was removed, or never there")
            return store.remove(wanted)

    # -- jobs --

    def check_writable(self) -> None:
        """Raises StoreLocked where another process is writing, StoreError where nobody can."""
        with self.stores.writing():
            pass

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
        annotate = folder_labels if with_folder_labels else None

        def work(on_progress: OnProgress) -> SyncReport:
            files, unreadable = find_collection(chosen)
            few = len(self.stores.quick.changed(files)) <= _FEW
            with self._syncing(annotate, on_progress, pool=self.pool if few else None) as task:
                return task.run(chosen, files, unreadable, prune=prune)

        return self.jobs.add("sync", chosen, work)

    def add_uploads(self, paths: Sequence[str]) -> Job:
        """Queues images in the folder of uploads."""
        folder = str(self.settings.uploads)

        def work(on_progress: OnProgress) -> SyncReport:
            few = len(paths) <= _FEW
            with self._syncing(annotations_of_uploads, on_progress, pool=self.pool if few else None) as task:
                there = [path for path in paths if os.path.exists(path)]
                report = task.run([folder], list(find_images(there)), [])
                indexed = task.store.by_path(paths)
            for path in indexed:
                forget_annotations(path)
            return report

        return self.jobs.add("add", [folder], work)

    @contextmanager
    def _syncing(
        self, annotate: Annotate | None, on_progress: OnProgress, *, pool: DecodePool | None = None
    ) -> Iterator[SyncTask]:
        with ExitStack() as stack:
            load_model, load_copy_model = self.encoder.model, None
            if pool is None:
                # Processes of its own leave the processors to those that answer queries, but take a while to start.
                pool = self._decode_pool(_UNLIMITED, nice=BACKGROUND)
                stack.callback(pool.close)

                def load_model() -> HashModel:
                    card = self.search.card
                    return self._in_background(stack, self.search.folder / MODEL_FILE, card.input_spec)

                def load_copy_model() -> HashModel:
                    return self._in_background(stack, find_model(COPY_MODEL), copy_spec())

            store = stack.enter_context(self.stores.writing())
            yield SyncTask(
                store, load_model, annotate=annotate, on_progress=on_progress, decode=pool.decode,
                load_copy_model=load_copy_model,
            )  # fmt: skip

    @staticmethod
    def _in_background(stack: ExitStack, path: Path, spec: InputSpec) -> HashModel:
        model = BackgroundModel(path, spec)
        stack.callback(model.close)
        return cast("HashModel", model)

    def _uploads_left(self) -> list[str]:
        folder = self.settings.uploads
        if folder is None:
            return []
        return [file.path for file in self.stores.quick.changed(find_images([folder]))]
