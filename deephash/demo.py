"""The demo: real images written to disk, indexed, searched, judged and drawn, with nothing but the package itself."""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from index import Match

from .engine import ImageSearch
from .evaluation import RetrievalReport, evaluate_codes
from .indexing import index_images
from .progress import OnProgress, ignore_progress
from .report import Picture, Row, Sheet, write_html, write_png
from .samples import CIFAR10Sample, load_cifar10_sample
from .sync import SyncReport

__all__ = ["DemoResult", "run_demo"]

_MARKER = ".deephash-demo"
_FOLDERS = ("images", "queries", "images.dhx")
_FILES = ("results.html", "results.png")
_N_SHOWN = 10


@dataclass(frozen=True)
class DemoResult:
    """What the demo did, where it lies and how good it was. ``shown`` pairs query images with their matches."""

    folder: Path
    index: Path
    html: Path
    png: Path
    sync: SyncReport
    quality: RetrievalReport
    shown: list[tuple[str, list[Match]]]
    model: str
    fitted: bool
    seconds: float


def run_demo(
    folder: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    k: int = 10,
    on_progress: OnProgress = ignore_progress,
) -> DemoResult:
    """Writes the CIFAR-10 sample below ``folder`` as image files, indexes and queries them, and draws contact sheets.

    Without a ``model`` one is fitted, and the labels serve for the judgement alone.

    Raises:
        FileExistsError: the folder exists and is not an earlier demo's.
    """
    started = time.monotonic()
    folder = _fresh_folder(Path(folder))
    sample = load_cifar10_sample()
    images = _write_images(folder / "images", sample.database_images, sample.database_labels, sample)
    queries = _write_images(folder / "queries", sample.query_images, sample.query_labels, sample)
    index = folder / "images.dhx"
    sync = index_images(
        folder / "images",
        index,
        model=model,
        annotate=lambda path: (os.path.basename(os.path.dirname(path)), {}),
        on_progress=on_progress,
    )
    label_of = {str(path): int(label) for path, label in zip(images, sample.database_labels, strict=True)}
    with ImageSearch.open(index) as search:
        codes = search.encode([str(path) for path in queries])
        stored = list(search.store.iterate())
        quality = evaluate_codes(
            codes,
            np.stack([np.frombuffer(record.code, np.uint8) for record in stored]),
            n_bits=search.store.n_bits,
            query_labels=sample.query_labels,
            database_labels=np.array([label_of[record.path] for record in stored]),
            ks=(k,),
        )
        # One query of each class, the first of each: not chosen by how well they come out.
        chosen = [int(np.flatnonzero(sample.query_labels == label)[0]) for label in range(len(sample.class_names))]
        found = search.query_codes(codes[chosen[:_N_SHOWN]], k)
        name = search.card.name
    shown = [(str(queries[i]), matches) for i, matches in zip(chosen, found, strict=True)]
    origin = "Fitted without labels." if model is None else f"Model: {name}."
    sheet = _sheet(shown, quality, sync.n_images, k, origin)
    write_html(sheet, folder / "results.html")
    write_png(sheet, folder / "results.png")
    return DemoResult(
        folder, index, folder / "results.html", folder / "results.png", sync, quality, shown, name,
        model is None, time.monotonic() - started,
    )  # fmt: skip


def _fresh_folder(folder: Path) -> Path:
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not (folder / _MARKER).is_file():
            raise FileExistsError(f"{folder} exists and is not an earlier demo's: name another folder with --output")
        # What the demo made, and nothing that somebody has put beside it since.
        for name in _FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in _FILES:
            (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).touch()
    return folder


def _write_images(folder: Path, images: np.ndarray, labels: np.ndarray, sample: CIFAR10Sample) -> list[Path]:
    paths = []
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(sample.class_names[label]) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        paths.append(path)
    return paths


def _sheet(shown: list[tuple[str, list[Match]]], quality: RetrievalReport, n_images: int, k: int, origin: str) -> Sheet:
    rows = []
    for path, matches in shown:
        label = os.path.basename(os.path.dirname(path))
        others = [
            Picture(m.path, f"{m.label} · {m.distance}", "hit" if m.label == label else "miss", m.path) for m in matches
        ]
        rows.append(Row(Picture(path, f"query: {label}", "query", path), others))
    return Sheet(
        f"deephash demo: {k} nearest of {n_images:,} CIFAR-10 images",
        rows,
        (
            f"Under each result: its class and its Hamming distance in {quality.n_bits} bits. "
            f"Green: the query's class; red: another.",
            f"{quality.n_queries} queries: mAP {quality.map:.3f}, P@{k} {quality.precision_at[k]:.3f}; "
            f"chance {quality.chance:.3f}. {origin}",
        ),
    )
