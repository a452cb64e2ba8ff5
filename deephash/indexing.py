"""From folders of images to an index: opens it or, the first time, chooses a model and creates it."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from index import FileStat, ModelMismatch, Skipped, Store, StoreError, check_n_bits

from .engine import MODEL_FILE, ImageSearch
from .errors import CollectionError
from .model_file import find_model, read_card
from .progress import OnProgress, ignore_progress
from .sync import Annotate, SyncInterrupted, SyncReport, SyncTask, find_collection

if TYPE_CHECKING:
    from .fitting import Sample

__all__ = ["index_images"]


def index_images(
    roots: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    index: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    n_bits: int | None = None,
    backbone: str | None = None,
    prune: bool = False,
    annotate: Annotate | None = None,
    timeout: float = 0.0,
    on_progress: OnProgress = ignore_progress,
) -> SyncReport:
    """Indexes every image under the folders, or brings an existing index in step with them.

    The first time, unless a model is named, a hash layer of ``n_bits`` is fitted without labels to a sample of the
    collection and stored in the index; collections of fewer than ``fitting.MIN_IMAGES`` images get the general model.
    Afterwards only new and changed files are decoded.

    Args:
        roots: folders (searched through) and image files.
        index: the index folder, by custom ``*.dhx``.
        model: built-in name or .safetensors file; nothing is fitted then.
        n_bits: length of the codes, 8 to 1024 (default 128).
        backbone: a timm name, or ``torchvision/NAME``, to fit on instead of the default backbone.
        prune: remove indexed images of these folders that are gone from disk.
        annotate: labels and metadata by path.
        timeout: seconds to wait for another process that writes to the index.
        on_progress: called about once a batch.

    Raises:
        FileNotFoundError: a folder does not exist.
        CollectionError: no image can be read, or too few to fit what was asked.
        ModelMismatch: the index exists and was built with another model, backbone or n_bits.
        SyncInterrupted: Ctrl-C; what was committed is kept.
        index.StoreError: the index is damaged, locked, from a newer version, or the disk is full.
    """
    if isinstance(roots, str | os.PathLike):
        roots = [roots]
    folders = [os.path.abspath(os.fspath(root)) for root in roots]
    started = time.monotonic()
    wish = _Wish(model, n_bits if n_bits is None else check_n_bits(n_bits), backbone)
    index = Path(index)
    try:
        if os.path.lexists(index):
            search, sample = ImageSearch.open(index, writable=True, timeout=timeout), None
        else:
            search, sample = _create(index, _find(folders)[0], wish, timeout, on_progress)
        with search:
            _check_same_model(search, wish)
            # Also after the fit, which takes a while: what has come and gone meanwhile is seen.
            files, unreadable = _find(folders)
            task = SyncTask(
                search.store, lambda: search.model, annotate=annotate, on_progress=on_progress, started=started
            )
            return task.run(folders, files, unreadable, sample=sample, prune=prune)
    except SyncInterrupted:
        raise
    except KeyboardInterrupt:
        raise SyncInterrupted(SyncReport()) from None


@dataclass(frozen=True)
class _Wish:
    """What the caller asked of the model; None stands for "as you like"."""

    model: str | os.PathLike[str] | None
    n_bits: int | None
    backbone: str | None


def _find(folders: Sequence[str]) -> tuple[list[FileStat], list[Skipped]]:
    files, unreadable = find_collection(folders)
    if not files:
        raise CollectionError(f"no images were found under {', '.join(folders)}: give a folder that holds image files")
    return files, unreadable


def _create(
    index: Path, files: Sequence[FileStat], wish: _Wish, timeout: float, on_progress: OnProgress
) -> "tuple[ImageSearch, Sample | None]":
    if not index.absolute().parent.is_dir():
        raise FileNotFoundError(f"cannot create {index}: the folder {index.absolute().parent} does not exist")
    from .fitting import choose_model  # not needed where an index exists

    model, sample = choose_model(
        index.stem, files, model=wish.model, n_bits=wish.n_bits, backbone=wish.backbone, on_progress=on_progress
    )
    card = model.card
    contents = {MODEL_FILE: model.to_bytes()}
    try:
        store = Store.create(index, n_bits=card.n_bits, fingerprint=card.fingerprint, files=contents)
    except StoreError:
        if not (index / MODEL_FILE).is_file():
            raise
        # Another process has created it meanwhile: what it has done counts.
        return ImageSearch.open(index, writable=True, timeout=timeout), None
    return ImageSearch(store, model), sample


def _check_same_model(search: ImageSearch, wish: _Wish) -> None:
    card = search.card
    asked = None
    if wish.model is not None and read_card(find_model(wish.model)).fingerprint != card.fingerprint:
        asked = f"the model {os.fspath(wish.model)}"
    elif wish.backbone is not None and wish.backbone != card.backbone:
        asked = f"the backbone {wish.backbone}"
    elif wish.n_bits is not None and wish.n_bits != card.n_bits:
        asked = f"{wish.n_bits} bits"
    if asked:
        raise ModelMismatch(
            f"{search.folder} was built with {card.name} ({card.n_bits} bits on {card.backbone}), and codes of two "
            f"models cannot be compared: leave out {asked}, or name another index"
        )
