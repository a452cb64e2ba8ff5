"""Store: a folder with a catalogue of images, their codes, and the search over them, kept in step. The front door.

The catalogue is the truth. The search structure is made from it (or from the cache) when something is first searched,
and follows it commit by commit.
"""

from __future__ import annotations

import glob
import json
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import EllipsisType, TracebackType

import filelock
import numpy as np
import numpy.typing as npt

from index import duplicates, snapshot
from index.array_files import sync_folder, write_file
from index.catalogue import NAME, Catalogue
from index.code_file import CodeFileWriter
from index.codes import Codes, check_codes, check_n_bits, n_code_bytes
from index.copy_codes import CopyCodes
from index.copy_codes import mirrored as mirrored_code
from index.errors import ModelMismatch, NotAStore, StoreDamaged, StoreError, StoreFull, StoreLocked
from index.groups import Distances, Ids
from index.live import LiveIndex
from index.records import (
    DuplicateCluster,
    Entry,
    FileStat,
    Filter,
    Match,
    Metadata,
    Problem,
    Record,
    Row,
    SearchStats,
    Skipped,
    StoreStats,
    matches_of,
)
from index.reranking import OVERSAMPLING
from index.rows import encode_metadata, encode_text
from index.schema import full_disk
from index.search import HammingIndex, check_k, check_radius
from index.trials import Trial, parameters_of

LOCK = "writer.lock"
_OWN_PREFIXES = (NAME, LOCK, *snapshot.PREFIXES)
_DEAD_AFTER_SECONDS = 3600.0


class Store:
    """Images and their codes in one folder, which can be copied whole; results are ordered by (distance, id).

    One process may have it open for writing, any number for reading; a reader sees every commit whole, with its next
    search or `refresh`. Threads may share a store. Ids ascend in the order of insertion and are never used again. Paths
    are str as os.fsdecode makes them, unique within the store.
    """

    def __init__(self, folder: Path, catalogue: Catalogue, lock: filelock.BaseFileLock | None) -> None:
        self.folder = folder
        self.n_bits = catalogue.n_bits
        self.fingerprint = catalogue.fingerprint
        self.writable = lock is not None
        self._catalogue = catalogue
        self._live = LiveIndex(folder, catalogue)
        self._lock = lock
        self._closed = False

    # -- making, opening, closing --

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike[str],
        *,
        n_bits: int,
        fingerprint: str,
        files: Mapping[str, bytes | Path] | None = None,
    ) -> Store:
        """Make an empty store, with the given files in it (the model), and open it for writing.

        It appears whole or not at all: a kill half-way leaves a hidden `.<name>.*.tmp` folder, which does no harm.

        Raises:
            ValueError: an n_bits out of range, or a file name that the store uses itself.
            StoreError: the folder exists already, or cannot be made.
            StoreFull: the disk is full.
        """
        folder = Path(folder).absolute()
        given = dict(files or {})
        check_n_bits(n_bits)
        for name in given:
            if name != Path(name).name or name.startswith((*_OWN_PREFIXES, ".")):
                raise ValueError(f"{name!r} cannot be a file of the index: use a plain name of its own")
        if folder.is_symlink() or folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise StoreError(f"{folder} exists already: open it, or choose another name")
        unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.tmp")
        try:
            _clear_dead(folder)
            unfinished.mkdir(parents=True)
            sums = {}
            for name, content in given.items():
                data = content.read_bytes() if isinstance(content, Path) else bytes(content)
                write_file(unfinished / name, data)
                sums[name] = [len(data), zlib.crc32(data)]
            created = datetime.now(UTC).isoformat(timespec="seconds")
            Catalogue.create(
                unfinished / NAME, n_bits=n_bits, fingerprint=fingerprint, created=created, files=json.dumps(sums)
            )
            sync_folder(unfinished)
            unfinished.rename(folder)
            sync_folder(folder.parent)
        except (OSError, StoreFull) as error:
            if isinstance(error, StoreFull) or full_disk(error):
                raise StoreFull(f"{folder} cannot be created: the disk is full; free space and run again") from error
            if folder.exists():
                raise StoreError(f"{folder} exists already: open it, or choose another name") from error
            raise StoreError(f"{folder} cannot be created ({error}): choose another place") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return cls.open(folder, writable=True)

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        writable: bool = False,
        timeout: float = 0.0,
        fingerprint: str | None = None,
    ) -> Store:
        """Open a store. For writing, wait up to `timeout` seconds while another process writes (-1: for ever).

        Raises:
            NotAStore: there is no store.
            StoreDamaged: its catalogue cannot be read.
            StoreTooNew: it was written by a newer program.
            StoreLocked: another process is still writing.
            ModelMismatch: its codes were made by another model than the one with this fingerprint.
        """
        folder = Path(folder).absolute()
        if not folder.exists():
            raise NotAStore(f"{folder} does not exist: name an existing index, or create one")
        if not folder.is_dir():
            raise NotAStore(f"{folder} is a file, and an index is a folder: name another one")
        if not (folder / NAME).is_file():
            raise NotAStore(f"{folder} is not an index: it has no {NAME}; name another folder, or create an index")
        lock = _locked(folder, timeout) if writable else None
        try:
            catalogue = Catalogue.open(folder / NAME, writable=writable)
            if fingerprint is not None and fingerprint != catalogue.fingerprint:
                catalogue.close()
                raise ModelMismatch(
                    f"{folder} was built with another model (fingerprint {catalogue.fingerprint}, not {fingerprint}): "
                    "use the model it was built with, or index again into a new folder"
                )
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        return cls(folder, catalogue, lock)

    def close(self) -> None:
        """Close the store; one open for writing brings its cache up to date first. Calling it twice is fine."""
        self._close(write_cache=True)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error or Ctrl-C: away at once. The cache can wait.
        self._close(write_cache=kind is None)

    def _close(self, *, write_cache: bool) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self.writable and write_cache:
                # Only a cache: what is damaged or full is said by whatever needs it, not by close().
                with suppress(StoreError):
                    self._live.write_cache()
        finally:
            try:
                self._catalogue.close()
            finally:
                if self._lock is not None:
                    self._lock.release()

    def __len__(self) -> int:
        return self._catalogue.n_images

    def __contains__(self, id: object) -> bool:
        return id in self._catalogue

    @property
    def epoch(self) -> int:
        """The number of commits that touched images."""
        return self._catalogue.epoch

    # -- images in and out --

    def put(self, entries: Sequence[Entry], codes: npt.ArrayLike, copy_codes: Codes | None = None) -> Ids:
        """Add images with their codes, or update those whose path is known; return their ids (N,) int64.

        One transaction: when this returns, all of them are safe on disk; when it raises, none is. A known path keeps
        its id. Where a path comes twice, its last entry counts. `copy_codes` as in `use_copy_codes`.

        Raises:
            ValueError: codes that do not fit the store or the entries, or an entry that cannot be stored.
            StoreFull: the disk is full.
        """
        array = self._check(codes, "codes")
        if len(array) != len(entries):
            raise ValueError(f"{len(entries)} entries came with {len(array)} codes: pass one code for each entry")
        copies = None if copy_codes is None else self._check_copy_codes(copy_codes, len(entries))
        return np.array(self._catalogue.put(entries, array, copies) if len(array) else [], dtype=np.int64)

    def relocate(self, moves: Sequence[tuple[int, FileStat]]) -> None:
        """Give images (ids) a new path, size and time: files that were moved or touched. One transaction.

        Raises:
            UnknownId: an id that is not here.
            ValueError: a path that belongs to another image.
        """
        if moves:
            self._catalogue.relocate(moves)

    def annotate(
        self,
        ids: Iterable[int],
        *,
        label: str | EllipsisType | None = ...,
        metadata: Metadata | EllipsisType = ...,
    ) -> None:
        """Set the label, the metadata (all of it), or both, of images; what is not given stays. One transaction.

        Raises:
            UnknownId: an id that is not here.
            ValueError: metadata that cannot be stored.
        """
        changes: dict[str, str | bytes | None] = {}
        if not isinstance(label, EllipsisType):
            changes["label"] = encode_text(label)
        if not isinstance(metadata, EllipsisType):
            changes["metadata"] = encode_metadata(metadata)
        wanted = _plain(ids)
        if changes and wanted:
            self._catalogue.annotate(wanted, changes)

    def remove(self, ids: Iterable[int]) -> int:
        """Remove images; return how many there were. Ids that are not here are passed over. One transaction."""
        return self._catalogue.remove(_plain(ids))

    def records(self, ids: Iterable[int]) -> list[Record]:
        """Return the images with these ids, in this order.

        Raises:
            UnknownId: an id that is not here.
        """
        return self._catalogue.records(_plain(ids))

    def rows(self, ids: Iterable[int]) -> list[Row]:
        """Return the images with these ids as `records` does, as rows: for who shows thousands a second."""
        return self._catalogue.rows(_plain(ids))

    def by_path(self, paths: Iterable[str]) -> dict[str, Record]:
        """Return the images at these paths; paths that are not here are left out."""
        return self._catalogue.by_path(paths)

    def by_content(self, hashes: Iterable[bytes]) -> dict[bytes, list[Record]]:
        """Return the images with these content hashes, ids ascending; hashes that are not here are left out."""
        return self._catalogue.by_content(hashes)

    def file_sizes(self) -> set[int]:
        """Return the distinct sizes of the files, bytes: a file of another size has a content that is not here."""
        return self._catalogue.file_sizes()

    def paths(self, under: str | None = None) -> Iterator[tuple[int, str]]:
        """Yield (id, path) of all images, or of those in a folder and the folders in it, by id."""
        return self._catalogue.paths(under)

    def ids(self, where: Filter | None = None) -> Ids:
        """Return the ids of the images that a filter lets through, int64, ascending."""
        return self._catalogue.ids(where)

    def iterate(self, where: Filter | None = None) -> Iterator[Record]:
        """Yield the images that a filter lets through, by id, in bounded memory."""
        return self._catalogue.iterate(where)

    def codes(self, ids: Iterable[int]) -> Codes:
        """Return the codes of images, (N, n_bytes) uint8, in the order of ids.

        Raises:
            UnknownId: an id that is not here.
        """
        data = self._catalogue.codes(_plain(ids))
        return np.frombuffer(data, np.uint8).reshape(-1, n_code_bytes(self.n_bits))

    def export_codes(self, path: str | os.PathLike[str]) -> Ids:
        """Write all codes to a new `CodeFile`; return the ids (N,) int64, ascending, of the codes at its positions.

        Raises:
            StoreError: the file is there already.
            StoreDamaged: a row is not what was written.
        """
        if os.path.lexists(path):
            raise StoreError(f"{path} exists already: choose another name")
        ids = [np.empty(0, np.int64)]
        with self._catalogue.reading(), CodeFileWriter(path, self.n_bits) as writer:
            for page, codes in self._catalogue.code_pages():
                writer.append(codes)
                ids.append(page)
        return np.concatenate(ids)

    def reading(self) -> AbstractContextManager[None]:
        """Return a context in which all that is read belongs to one commit; other threads wait for its end."""
        return self._catalogue.reading()

    # -- files --

    def changed(self, files: Iterable[FileStat]) -> list[FileStat]:
        """Return the files that are neither indexed nor skipped with the same size and mtime_ns, in their order."""
        return self._catalogue.changed(files)

    def remember_skipped(self, files: Sequence[tuple[FileStat, str]]) -> None:
        """Note files that could not be read, with the reason, so that they are tried again only when they change."""
        if files:
            self._catalogue.remember_skipped(files)

    def skipped(self) -> list[Skipped]:
        """Return the files that could not be read, by path."""
        return self._catalogue.skipped()

    def forget_skipped(self, paths: Iterable[str]) -> None:
        """Have these files tried again."""
        self._catalogue.forget_skipped(paths)

    def add_root(self, path: str) -> None:
        """Remember a folder that was indexed."""
        self._catalogue.add_root(path)

    def roots(self) -> list[str]:
        """Return the folders that were indexed, by path."""
        return self._catalogue.roots()

    # -- searching --

    def search(
        self,
        codes: npt.ArrayLike,
        k: int | None = 10,
        *,
        radius: int | None = None,
        where: Filter | None = None,
        exclude: Iterable[int] = (),
    ) -> list[list[Match]]:
        """Return for each code its nearest images, by (distance, id).

        The k nearest; with a radius (inclusive) too, only those within it; with k None, all within the radius. `where`
        lets only some images take part, `exclude` keeps ids out (of a query that is indexed itself).

        Raises:
            ValueError: codes that are not of this store, k below 1, a negative radius, or neither k nor radius.
            StoreDamaged: the catalogue is not what was written.
        """
        queries = self._check(codes, "query codes")
        if k is None and radius is None:
            raise ValueError("neither k nor radius is given: pass one, or both")
        banned = set(_plain(exclude))
        for _ in range(8):
            ids, distances, limits = self._find(queries, k, radius, where, banned)
            faces = self._catalogue.faces(list(set(ids)))
            with suppress(KeyError):
                matches = matches_of(ids, distances, faces)
                return [matches[start:stop] for start, stop in pairwise(limits)]
            # An image was removed between search and look-up: search again, so that k is k.
        rows = [range(start, stop) for start, stop in pairwise(limits)]
        return [[Match(ids[at], distances[at], *faces[ids[at]]) for at in row if ids[at] in faces] for row in rows]

    def _find(
        self, queries: Codes, k: int | None, radius: int | None, where: Filter | None, banned: set[int]
    ) -> tuple[list[int], list[int], list[int]]:
        """Return ids, distances, and where the results of each query start, and the last ones end."""
        index = self._live.considered(where)
        if k is None:
            assert radius is not None
            limits, distances, ids = index.range_search(queries, radius)
        else:
            near, found = index.search(queries, check_k(k) + len(banned), radius=radius)
            real = found >= 0
            limits = np.concatenate(([0], np.cumsum(real.sum(axis=1))))
            distances, ids = near[real], found[real]
        if banned:
            kept = ~np.isin(ids, list(banned))
            limits = np.concatenate(([0], np.cumsum(kept)))[limits]
            distances, ids = distances[kept], ids[kept]
            if k is not None:
                ranks = np.arange(len(ids)) - np.repeat(limits[:-1], np.diff(limits))
                limits = np.concatenate(([0], np.cumsum(np.minimum(np.diff(limits), k))))
                distances, ids = distances[ranks < k], ids[ranks < k]
        return ids.tolist(), distances.tolist(), limits.tolist()

    def search_logits(
        self,
        logits: npt.ArrayLike,
        k: int | None = 10,
        *,
        oversampling: int = OVERSAMPLING,
        radius: int | None = None,
        where: Filter | None = None,
    ) -> list[list[Match]]:
        """Return for each query, by its logits (Q, n_bits) float, the nearest images by (asymmetric distance, id).

        Looked at are those that `search` would find as the k * oversampling nearest, and all others that are as near;
        with k None, all within the radius, which is of Hamming distance. `where` is as in `search`.

        Raises:
            ValueError: wrong logits, k or oversampling below 1, a negative radius, or neither k nor radius.
            StoreDamaged: the catalogue is not what was written.
        """
        for _ in range(8):
            index = self._live.considered(where)
            found = index.search_logits(logits, k, oversampling=oversampling, radius=radius)
            faces = self._catalogue.faces(np.unique(found.ids[found.ids >= 0]).tolist())
            rows = [
                [(id, distance, asymmetric) for asymmetric, distance, id in zip(*row, strict=True) if id >= 0]
                for row in zip(*(table.tolist() for table in found), strict=True)
            ]
            if all(id in faces for row in rows for id, *_ in row):
                break
            # As in `search`: an image was removed in between.
        return [
            [Match(id, distance, *faces[id], asymmetric) for id, distance, asymmetric in row if id in faces]
            for row in rows
        ]

    def search_ids(
        self, codes: npt.ArrayLike, k: int = 10, *, radius: int | None = None, where: Filter | None = None
    ) -> tuple[Distances, Ids]:
        """Return distances and ids of the nearest as arrays, as `HammingIndex.search` does."""
        return self._live.considered(where).search(self._check(codes, "query codes"), k, radius=radius)

    def range_ids(
        self, codes: npt.ArrayLike, radius: int, *, where: Filter | None = None
    ) -> tuple[Ids, Distances, Ids]:
        """Return (limits, distances, ids) of all within the radius, as `HammingIndex.range_search` does."""
        return self._live.considered(where).range_search(self._check(codes, "query codes"), radius)

    def n_behind(self) -> int | None:
        """Return how many images were committed that searches do not know yet; the next one takes them in first.

        None when that has to make, or to load, all that is searched.
        """
        with self._catalogue.reading():
            return self._live.n_behind()

    def refresh(self) -> None:
        """Take in what this or another process has committed; searching does so by itself."""
        self._live.current()

    # -- copies --

    @property
    def copy_codes(self) -> CopyCodes:
        """The codes by which near copies are found; `n_bits` is 0 where it is done by the images' own codes."""
        return self._catalogue.copy_codes

    @property
    def copy_bits(self) -> int:
        """The bits of the codes that near copies are found by, and so the largest distance."""
        return self.copy_codes.n_bits or self.n_bits

    @property
    def copy_radius(self) -> int:
        """The radius to find near copies with: that of the model of copy codes, or a 32nd of the bits without one."""
        return self.copy_codes.radius if self.copy_codes.n_bits else self.n_bits // 32

    def use_copy_codes(self, n_bits: int, fingerprint: str, radius: int) -> None:
        """Find near copies by codes of their own from now on.

        A copy code is one of n_bits whose halves trade places when the image is mirrored; the fingerprint says which
        model makes them, and images within the radius are copies by default. Codes of another fingerprint are dropped.
        """
        self._catalogue.copy_codes.use(check_n_bits(n_bits), fingerprint, check_radius(radius))

    def put_copy_codes(self, ids: Iterable[int], codes: Codes) -> None:
        """Give images (ids) their copy codes (N, n_bytes) uint8; ids that are not here are passed over.

        Raises:
            ValueError: codes that do not fit the ids, or `use_copy_codes`.
        """
        wanted = _plain(ids)
        self._catalogue.put_copy_codes(wanted, self._check_copy_codes(codes, len(wanted)))

    def duplicates(
        self, radius: int | None = None, where: Filter | None = None, *, mirrored: bool = False
    ) -> list[DuplicateCluster]:
        """Return the images that are copies of one: with equal content, or within the radius (inclusive) of it too.

        Distances are between copy codes, if there are any, else between codes. Images without a copy code are copies
        of nothing but equal content. `mirrored`: also what is within the radius once mirrored.

        Kept is the one with most pixels, then most bytes, then the smallest id; each of the others lies within the
        radius of it. Clusters are ordered by the kept id, their others by (distance, id); `identical` means that all
        have equal content. The records' codes are those that were compared: copy codes, of the mirrored image where
        that is the nearer one.

        Raises:
            ValueError: a negative radius, or `mirrored` without copy codes.
        """
        if mirrored and not self.copy_codes.n_bits:
            raise ValueError("mirrored copies are found by copy codes, and there are none: index the folder again")
        if radius is None:
            with self._catalogue.reading():
                found = [self._exact(group) for group in duplicates.exact_groups(self._catalogue.copies(where))]
        else:
            found = self._near(check_radius(radius), where, mirrored=mirrored)
        return sorted(found, key=lambda cluster: cluster.keep.id)

    def _exact(self, group: list[int]) -> DuplicateCluster:
        keep, *drop = sorted(self._catalogue.records(group), key=_preference)
        return DuplicateCluster("identical", keep, tuple((record, 0) for record in drop))

    def _near(self, radius: int, where: Filter | None, *, mirrored: bool) -> list[DuplicateCluster]:
        with self._catalogue.reading():
            if self.copy_codes.n_bits:
                n_bits, (ids, codes), found = self.copy_codes.n_bits, *self._copy_coded(where)
            else:
                n_bits, (ids, codes), found = self.n_bits, self._coded(where), list[DuplicateCluster]()
            sizes = self._catalogue.sizes(ids)
        rank = np.empty(len(ids), dtype=np.int64)
        rank[np.lexsort((ids, -sizes[:, 1], -sizes[:, 0]))] = np.arange(len(ids))
        place: dict[int, int] | None = None
        # This may take minutes: other threads can read and write meanwhile.
        for kept, others in duplicates.near_clusters(codes, ids, radius, rank, n_bits=n_bits, mirrored=mirrored):
            if any(id not in self for id in (kept, *(id for id, _ in others))):
                continue
            keep, *drop = self._catalogue.records([kept, *(id for id, _ in others)])
            same = bool(keep.content_hash) and all(record.content_hash == keep.content_hash for record in drop)
            if self.copy_codes.n_bits:
                place = place or {id: at for at, id in enumerate(ids.tolist())}
                keep = replace(keep, code=codes[place[kept]].tobytes())
                apart = zip(drop, others, strict=True)
                drop = [
                    replace(r, code=_compared(codes[place[r.id]], keep.code, distance)) for r, (_, distance) in apart
                ]
            pairs = tuple(zip(drop, (distance for _, distance in others), strict=True))
            found.append(DuplicateCluster("identical" if same else "near", keep, pairs))
        return found

    def _coded(self, where: Filter | None) -> tuple[Ids, Codes]:
        codes, offsets, members = self._live.considered(where).groups()
        order = np.argsort(members)
        return members[order], np.repeat(codes, np.diff(offsets), axis=0)[order]

    def _copy_coded(self, where: Filter | None) -> tuple[tuple[Ids, Codes], list[DuplicateCluster]]:
        """Return images with their copy codes, and clusters of equal content among those without any."""
        ids, codes = self.copy_codes.all()
        wanted = self._catalogue.ids(where)
        here = np.isin(ids, wanted)
        ids, codes = ids[here], codes[here]
        lacking = set(np.setdiff1d(wanted, ids).tolist())
        twins, clusters = list[tuple[int, int]](), list[DuplicateCluster]()
        for group in duplicates.exact_groups(self._catalogue.copies(where)) if lacking else ():
            coded = next((id for id in group if id not in lacking), None)
            if coded is None:
                clusters.append(self._exact(group))
            else:
                twins += [(id, coded) for id in group if id in lacking]
        if twins:
            of_twins = codes[np.searchsorted(ids, [coded for _, coded in twins])]
            ids, codes = np.concatenate((ids, [id for id, _ in twins])), np.concatenate((codes, of_twins))
        return (ids, codes), clusters

    def _check_copy_codes(self, codes: Codes, n_images: int) -> Codes:
        n_bits = self.copy_codes.n_bits
        if not n_bits:
            raise ValueError("this store has no copy codes: call use_copy_codes first")
        array = check_codes(codes, n_bits, name="copy codes")
        if len(array) != n_images:
            raise ValueError(f"{n_images} images came with {len(array)} copy codes: pass one for each")
        return array

    # -- health --

    def stats(self) -> StoreStats:
        """Return the store in numbers, at once: no code is read."""
        catalogue = self._catalogue
        sizes = {path.name: path.stat().st_size for path in self.folder.iterdir() if path.is_file()}
        by_kind = {"catalogue": 0, "cache": 0, "model": 0}
        for name, size in sizes.items():
            kind = (
                "catalogue"
                if name.startswith((NAME, LOCK))
                else "cache"
                if name.startswith(snapshot.PREFIXES)
                else "model"
            )
            by_kind[kind] += size
        with catalogue.reading():
            return StoreStats(
                n_images=catalogue.n_images,
                n_skipped=catalogue.n_skipped(),
                n_bits=self.n_bits,
                fingerprint=self.fingerprint,
                catalogue_bytes=by_kind["catalogue"],
                cache_bytes=by_kind["cache"],
                model_bytes=by_kind["model"],
                roots=tuple(catalogue.roots()),
                epoch=catalogue.epoch,
                created=str(catalogue.meta("created")),
            )

    def search_stats(self) -> SearchStats:
        """Return what searches, and the memory that it takes; loads it, as the first search does.

        Raises:
            StoreDamaged: the catalogue is not what was written.
        """
        index = self._live.current().index
        base = [segment.structure for segment in index.segments[:1]]
        recall = 1.0 if index.exact else min(float(getattr(structure, "recall", 1.0)) for structure in base)
        found = " ".join([structure.name for structure in base] + _described(index))
        return SearchStats(str(index.choice), found or "flat", index.exact, recall, index.n_bytes)

    def tune(
        self, recall: float = 0.95, *, structures: Iterable[str] = ("flat", "mih", "ivf"), dry_run: bool = False
    ) -> list[Trial]:
        """Try structures and search with the best from now on, as `HammingIndex.tune` does; return the trials.

        The choice is remembered: all who open the store search with it. With `dry_run`, nothing is changed.

        Raises:
            ValueError: no such structure, or a recall that is none.
            StoreError: the store is open for reading only.
        """
        if not (self.writable or dry_run):
            raise StoreError(f"{self.folder} is open for reading only: open it with writable=True")
        index = self._live.current().index.copy()
        trials = index.tune(recall, structures=structures)
        if not dry_run:
            self._live.adopt(index)
        return trials

    def verify(self) -> list[Problem]:
        """Read everything and return what is not as it was written; an empty list is a healthy store."""
        problems = [Problem(kind, where, message) for kind, where, message in self._catalogue.problems()]  # type: ignore[arg-type]
        try:
            given = json.loads(self._catalogue.meta("files") or "{}")
        except (ValueError, StoreDamaged):
            given = {}
        for name, (n_bytes, crc) in given.items():
            path = self.folder / name
            if not path.is_file():
                problems.append(Problem("model", str(path), "the file is missing: restore it from a copy"))
            elif path.stat().st_size != n_bytes or zlib.crc32(path.read_bytes()) != crc:
                problems.append(Problem("model", str(path), "the file was changed: restore it from a copy"))
        return problems + ([] if problems else self._live.problems())

    def _check(self, codes: npt.ArrayLike, name: str) -> Codes:
        array = np.asarray(codes)
        if array.dtype == np.uint8 and array.ndim in (1, 2) and array.shape[-1] != n_code_bytes(self.n_bits):
            raise ModelMismatch(
                f"{name} have {8 * array.shape[-1]} bits, {self.folder} has {self.n_bits}: "
                "encode them with the model that the index was built with"
            )
        return check_codes(array, self.n_bits, name=name)


def _described(index: HammingIndex) -> list[str]:
    return [f"{name}={value}" for segment in index.segments[:1] for name, value in parameters_of(segment).items()]


def _plain(ids: Iterable[int]) -> list[int]:
    return [int(id) for id in ids]


def _compared(code: Codes, kept: bytes, distance: int) -> bytes:
    """Return the code (n_bytes,), or that of the mirrored image: the one at this distance of the kept one."""
    apart = int(np.bitwise_count(code ^ np.frombuffer(kept, np.uint8)).sum())
    return code.tobytes() if apart == distance else mirrored_code(code).tobytes()


def _preference(record: Record) -> tuple[int, int, int]:
    return -record.width * record.height, -record.n_bytes, record.id


def _locked(folder: Path, timeout: float) -> filelock.BaseFileLock:
    lock = filelock.FileLock(folder / LOCK, thread_local=False)
    try:
        lock.acquire(timeout=timeout)
    except filelock.Timeout:
        waited = f" after {timeout:g} s" if timeout > 0 else ""
        raise StoreLocked(
            f"{folder} is being written by another process{waited}: wait until it is done and run again"
        ) from None
    except OSError as error:
        if full_disk(error):
            raise StoreFull(f"{folder / LOCK} cannot be written: the disk is full; free space and run again") from error
        raise StoreError(f"{folder} cannot be written to ({error}): check its permissions, or copy it") from error
    return lock


def _clear_dead(folder: Path) -> None:
    """Delete what killed creations of this store left behind; none takes an hour."""
    for path in folder.parent.glob(f".{glob.escape(folder.name)}.*.tmp"):
        if time.time() - path.stat().st_mtime > _DEAD_AFTER_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
