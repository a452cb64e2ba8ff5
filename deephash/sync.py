"""Brings an index in step with folders: decodes what is new or changed, moves what moved, prunes what is gone."""

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from index import Entry, FileStat, Record, Skipped, Store
from index.records import Metadata

from .copies import COPY_MODEL, copy_spec, use_copy_codes
from .encoding_ahead import encode_ahead
from .errors import CollectionError
from .image_batches import Decode, ImageBatches
from .image_files import Decoded, Failed, find_images, hash_file
from .image_formats import IMAGE_SUFFIXES
from .progress import OnProgress, Progress, ignore_progress

if TYPE_CHECKING:
    from .encoding_model import EncodingModel
    from .fitting import Sample

__all__ = ["Annotate", "SyncInterrupted", "SyncReport", "SyncTask", "find_collection"]

Annotate = Callable[[str], tuple[str | None, Metadata] | None]
"""From a path to its label and metadata, or None for "leave them as they are"."""

_CHUNK = 1_024
_NEVER = -1  # as the time of a skipped file: it never matches, so the file is tried again at every run
_HEIC_HINT = "deephash[heic]"
_T = TypeVar("_T")


@dataclass
class SyncReport:
    """What one run did. Counts are images; ``decoded`` of them were read as pixels and encoded.

    ``unchanged`` have the size and time that the index knows; ``touched`` only a new time; ``moved`` kept their id
    under a new path; ``copies`` have the content of an indexed image, whose code they share; ``vanished`` are indexed
    files that are gone from disk (removed from the index by ``prune`` alone); ``fitted_to``: so many images the new
    index's model was fitted to. ``skipped`` names every file under the folders that could not be read, in this run or
    in an earlier one, with its reason.
    """

    found: int = 0
    added: int = 0
    updated: int = 0
    moved: int = 0
    touched: int = 0
    copies: int = 0
    unchanged: int = 0
    removed: int = 0
    vanished: int = 0
    decoded: int = 0
    fitted_to: int = 0
    seconds: float = 0.0
    n_images: int = 0
    skipped: list[Skipped] = field(default_factory=list)


class SyncInterrupted(KeyboardInterrupt):
    """Ctrl-C during a sync. Every batch counted in ``report`` is kept; the same call again goes on from there."""

    def __init__(self, report: SyncReport):
        # The count of the store: a batch may have been committed and not yet counted.
        done = f"the index holds {report.n_images:,} images" if report.n_images else "nothing was changed"
        super().__init__(f"interrupted: {done}; the same call goes on from there")
        self.report = report


def find_collection(roots: Sequence[str]) -> tuple[list[FileStat], list[Skipped]]:
    """Returns the image files under the folders, in order, and the folders and links that could not be followed.

    Raises:
        FileNotFoundError: a folder does not exist.
    """
    unreadable: list[Skipped] = []
    files = list(find_images(roots, on_skip=lambda path, reason: unreadable.append(Skipped(path, reason))))
    return files, unreadable


class SyncTask:
    """One run over one store; every step commits by itself, so that a kill at any moment loses at most a batch.

    Args:
        store: opened for writing.
        load_model: returns the store's model; called when something must be decoded, and not before.
        annotate: labels and metadata by path.
        on_progress: called about once a batch.
        started: ``time.monotonic()`` of when the run began, when that was earlier.
        decode: decodes one file, as in ``ImageBatches``.
    """

    def __init__(
        self,
        store: Store,
        load_model: "Callable[[], EncodingModel]",
        *,
        annotate: Annotate | None = None,
        on_progress: OnProgress = ignore_progress,
        started: float | None = None,
        decode: Decode | None = None,
    ):
        self.store = store
        self.report = SyncReport()
        self._load_model = load_model
        self._annotate = annotate
        self._on_progress = on_progress
        self._decode = decode
        self._n_done = 0
        self._started = time.monotonic() if started is None else started

    def run(
        self,
        roots: Sequence[str],
        files: Sequence[FileStat],
        unreadable: Sequence[Skipped],
        *,
        sample: "Sample | None" = None,
        prune: bool = False,
    ) -> SyncReport:
        """Syncs the files found under the roots; ``sample`` holds some whose features are known already.

        Raises:
            SyncInterrupted: on Ctrl-C.
            CollectionError: ``prune`` would empty a root that has images in the index but none on disk.
        """
        report = self.report
        report.found = len(files)
        # NumPy's OpenBLAS on one thread: its others would go on spinning after each product, where files are decoded.
        blas = threadpool_limits(1, user_api="blas")
        try:
            use_copy_codes(self.store)
            for root in roots:
                self.store.add_root(root)
            self._forget_mended(files)
            changed = self.store.changed(files)
            not_indexed = {file.path for file in changed} | {skipped.path for skipped in self.store.skipped()}
            report.unchanged = sum(file.path not in not_indexed for file in files)
            if sample is not None:
                self._put_sample(sample)
                changed = self.store.changed(changed)
            self._encode_new(changed)
            self._encode_missing_copies(files)
            if self._annotate is not None:
                self._annotate_rows(files)
            self._reconcile_vanished(roots, {file.path for file in files}, unreadable, prune=prune)
        except KeyboardInterrupt:
            raise SyncInterrupted(self._finish(files, unreadable)) from None
        finally:
            blas.restore_original_limits()
        return self._finish(files, unreadable)

    @functools.cached_property
    def _copy_model(self) -> "EncodingModel":
        from .encoding_model import load_encoding_model

        return load_encoding_model(COPY_MODEL)

    def _put_sample(self, sample: "Sample") -> None:
        model = self._load_model()
        if sample.fitted:
            self.report.fitted_to = len(sample.images)
        encoded = None
        if sample.images:
            encoded = model.codes_of_features(sample.features), self._copy_codes(sample.images)
        self._put_batch(sample.images, encoded, sample.failed)

    def _copy_codes(self, images: Sequence[Decoded]) -> NDArray[np.uint8]:
        return self._copy_model.encode(np.stack([image.copy_pixels for image in images]))

    def _put_batch(
        self,
        images: Sequence[Decoded],
        encoded: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None,
        failed: Sequence[Failed],
    ) -> None:
        """Stores images with their codes and copy codes, and remembers what failed."""
        if encoded is not None:
            codes, copy_codes = encoded
            known = self.store.by_path([image.file.path for image in images])
            self.store.put([self._entry(image, known.get(image.file.path)) for image in images], codes, copy_codes)
            self.report.updated += len(known)
            self.report.added += len(images) - len(known)
            self.report.decoded += len(images)
        if failed:
            self._remember(failed)

    # Files that were skipped are tried again when they change, and at every run while the file itself, not the picture
    # in it, is what cannot be read: permissions and failing drives are mended without a trace in size and time.

    def _remember(self, failed: Sequence[Failed]) -> None:
        self.store.remember_skipped(
            [
                (replace(f.file, mtime_ns=_NEVER) if isinstance(hash_file(f.file), Failed) else f.file, f.reason)
                for f in failed
            ]
        )

    def _forget_mended(self, files: Sequence[FileStat]) -> None:
        """Forgets skipped files that are again as they were indexed, or of a kind that can be read by now."""
        reasons = {skipped.path: skipped.reason for skipped in self.store.skipped()}
        listed = [file for file in files if file.path in reasons]
        known = self.store.by_path([file.path for file in listed])
        mended = [
            file.path
            for file in listed
            if ((record := known.get(file.path)) and (record.n_bytes, record.mtime_ns) == (file.n_bytes, file.mtime_ns))
            or (_HEIC_HINT in reasons[file.path] and ".heic" in IMAGE_SUFFIXES)
        ]
        if mended:
            self.store.forget_skipped(mended)

    def _finish(self, files: Sequence[FileStat], unreadable: Sequence[Skipped]) -> SyncReport:
        paths = {file.path for file in files}
        remembered = [skipped for skipped in self.store.skipped() if skipped.path in paths]
        self.report.skipped = sorted([*unreadable, *remembered], key=lambda skipped: os.fsencode(skipped.path))
        self.report.n_images = len(self.store)
        self.report.seconds = time.monotonic() - self._started
        return self.report

    # Files whose content is in the index already are never decoded: touched, moved and copied ones.

    def _to_decode(self, changed: Sequence[FileStat]) -> Iterator[FileStat]:
        sizes = self.store.file_sizes()
        skipped = {item.path for item in self.store.skipped()}
        for chunk in _chunks(changed):
            # Only a file as large as an indexed one can have its content: the others need no look before decoding. Nor
            # do those need a model that could not be read before: if that is still so, all is said.
            settled = self._settle([file for file in chunk if file.n_bytes in sizes or file.path in skipped])
            self._n_done += len(settled)
            self._on_progress(Progress("encode", self._n_done, len(changed)))
            yield from (file for file in chunk if file.path not in settled)
            sizes.update(file.n_bytes for file in chunk)

    def _settle(self, files: Sequence[FileStat]) -> set[str]:
        """Stores those of the files whose content is known, and returns their paths."""
        if not files:
            return set()
        with ThreadPoolExecutor(thread_name_prefix="deephash-hash") as pool:
            hashes = list(pool.map(hash_file, files))
        unreadable = [found for found in hashes if isinstance(found, Failed)]
        if unreadable:
            self._remember(unreadable)
        hashed = [(file, found) for file, found in zip(files, hashes, strict=True) if not isinstance(found, Failed)]
        known = self.store.by_path([file.path for file, _ in hashed])
        twins_of = self.store.by_content({content for _, content in hashed})
        relocations: list[tuple[int, FileStat]] = []
        copies: list[tuple[FileStat, Record]] = []
        unknown: set[str] = set()
        taken: set[int] = set()
        for file, content in hashed:
            own, twins = known.get(file.path), twins_of.get(content, [])
            if own is not None and own.content_hash == content:
                relocations.append((own.id, file))
                self.report.touched += 1
            elif not twins:
                unknown.add(file.path)
            elif own is None and (gone := next((t for t in twins if t.id not in taken and _is_gone(t.path)), None)):
                taken.add(gone.id)
                relocations.append((gone.id, file))
                self.report.moved += 1
            else:
                copies.append((file, twins[0]))
                self.report.copies += 1
        if relocations:
            self.store.relocate(relocations)
        if copies:
            entries = [self._copied_entry(file, twin, known.get(file.path)) for file, twin in copies]
            # Before the images change: files may have been swapped.
            of_twins = self.store.copy_codes.of([twin.id for _, twin in copies])
            ids = self.store.put(entries, _stacked([twin.code for _, twin in copies])).tolist()
            coded = [(id, of_twins[twin.id]) for id, (_, twin) in zip(ids, copies, strict=True) if twin.id in of_twins]
            if coded:
                self.store.put_copy_codes([id for id, _ in coded], _stacked([code for _, code in coded]))
        return {file.path for file in files} - unknown

    def _encode_new(self, changed: Sequence[FileStat]) -> None:
        files = self._to_decode(changed)
        first = next(files, None)
        if first is None:
            return
        model = self._load_model()

        def encode(images: Sequence[Decoded]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
            return model.encode(np.stack([image.pixels for image in images])), self._copy_codes(images)

        def prepare() -> None:
            model.prepare()
            self._copy_model.prepare()

        batches = ImageBatches(chain([first], files), model.input_spec, decode=self._decode)
        for images, encoded, failed in encode_ahead(batches, encode, prepare):
            self._put_batch(images, encoded, failed)
            self._n_done += len(images) + len(failed)
            self._on_progress(Progress("encode", self._n_done, len(changed)))

    def _encode_missing_copies(self, files: Sequence[FileStat]) -> None:
        """Gives copy codes to those of the files that were indexed by a program without them."""
        lacking = set(self.store.copy_codes.lacking().tolist())
        if not lacking:
            return
        ids: dict[str, int] = {}
        for chunk in _chunks(files):
            known = self.store.by_path([file.path for file in chunk])
            ids |= {path: record.id for path, record in known.items() if record.id in lacking}
        n_done, wanted = 0, [file for file in files if file.path in ids]
        # What has changed since it was indexed was encoded anew, or could not be.
        batches = ImageBatches(self._unchanged(wanted), copy_spec(), decode=self._decode)
        for images, codes, failed in encode_ahead(batches, self._copy_codes, lambda: self._copy_model.prepare()):
            if codes is not None:
                self.store.put_copy_codes([ids[image.file.path] for image in images], codes)
            n_done += len(images) + len(failed)
            self._on_progress(Progress("copies", n_done, len(wanted)))

    def _unchanged(self, files: Sequence[FileStat]) -> Iterator[FileStat]:
        for chunk in _chunks(files):
            changed = {file.path for file in self.store.changed(chunk)}
            yield from (file for file in chunk if file.path not in changed)

    def _reconcile_vanished(
        self, roots: Sequence[str], seen: set[str], unreadable: Sequence[Skipped], *, prune: bool
    ) -> None:
        blocked = tuple(os.path.join(skipped.path, "") for skipped in unreadable)
        vanished: set[int] = set()
        emptied: dict[str, int] = {}
        for root in roots:
            indexed = list(self.store.paths(under=root))
            gone = {id for id, path in indexed if path not in seen and not path.startswith(blocked) and _is_gone(path)}
            if gone and len(gone) == len(indexed):
                emptied[root] = len(gone)
            vanished |= gone
        self.report.vanished = len(vanished)
        if prune and emptied:
            root, n_gone = next(iter(emptied.items()))
            raise CollectionError(
                f"nothing was pruned: all {n_gone} images indexed under {root} are gone from disk; is the drive "
                f"mounted? If they are meant to go: deephash remove INDEX --path '{root}/*'"
            )
        if prune and vanished:
            self.report.removed = self.store.remove(sorted(vanished))
            self.report.vanished = 0
        stale = [s.path for s in self.store.skipped() if s.path not in seen and _is_gone(s.path)]
        if stale:
            self.store.forget_skipped(stale)

    # Labels and metadata.

    def _annotation(self, path: str, known: Record | None) -> tuple[str | None, Metadata]:
        given = self._annotate(path) if self._annotate is not None else None
        if given is not None:
            return given
        return (known.label, known.metadata) if known is not None else (None, {})

    def _entry(self, image: Decoded, known: Record | None) -> Entry:
        label, metadata = self._annotation(image.file.path, known)
        file = image.file
        return Entry(
            file.path, file.n_bytes, file.mtime_ns, image.content_hash, image.width, image.height, label, metadata
        )

    def _copied_entry(self, file: FileStat, twin: Record, known: Record | None) -> Entry:
        label, metadata = self._annotation(file.path, known)
        return Entry(
            file.path, file.n_bytes, file.mtime_ns, twin.content_hash, twin.width, twin.height, label, metadata
        )

    def _annotate_rows(self, files: Sequence[FileStat]) -> None:
        assert self._annotate is not None
        for chunk in _chunks(files):
            # One transaction for all that get the same values: labels of folders are few, their images many.
            changes: dict[str, tuple[tuple[str | None, Metadata], list[int]]] = {}
            for path, record in self.store.by_path([file.path for file in chunk]).items():
                given = self._annotate(path)
                if given is not None and (record.label, dict(record.metadata)) != (given[0], dict(given[1])):
                    changes.setdefault(repr(given), (given, []))[1].append(record.id)
            for (label, metadata), ids in changes.values():
                self.store.annotate(ids, label=label, metadata=metadata)


def _stacked(codes: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.stack([np.frombuffer(code, np.uint8) for code in codes])


def _is_gone(path: str) -> bool:
    """Returns whether there is surely nothing at the path: in a folder that cannot be entered nobody knows."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
