"""Codes of images without an index: encoded in a stream, written as JSON lines, CSV or NumPy arrays."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from index import FileStat, Skipped

from .encoding_ahead import encode_ahead
from .exporting import check_format, write_rows
from .image_batches import ImageBatches
from .image_files import Decoded
from .progress import OnProgress, Progress, ignore_progress
from .writing import replacing

if TYPE_CHECKING:
    from .encoding_model import EncodingModel

__all__ = ["EncodeInterrupted", "EncodeReport", "encode_files"]

_COLUMNS = ("path", "code", "width", "height")


@dataclass
class EncodeReport:
    """How many images were encoded, and which files were not, with the reason."""

    n_encoded: int = 0
    skipped: list[Skipped] = field(default_factory=list)


class EncodeInterrupted(KeyboardInterrupt):
    """Ctrl-C. The codes of ``report.n_encoded`` images were written."""

    def __init__(self, report: EncodeReport) -> None:
        super().__init__(f"interrupted: the codes of {report.n_encoded:,} images were written")
        self.report = report


def encode_files(
    files: Sequence[FileStat],
    model: "EncodingModel",
    path: str | os.PathLike[str] | None,
    format: str,
    *,
    on_progress: OnProgress = ignore_progress,
) -> EncodeReport:
    """Encodes image files and writes their codes, in the order of the files.

    ``jsonl`` and ``csv`` have path, code (hexadecimal), width, height, and go to stdout, batch by batch, where ``path``
    is None; a path that is not UTF-8 is written with ``\\xNN``, and in jsonl its bytes stand beside it as ``path_hex``.
    ``npz`` holds the arrays ``codes (N, ceil(n_bits / 8)) uint8``, ``paths (N,) bytes``, ``n_bits`` and
    ``fingerprint``. A file appears whole, or with what was done when Ctrl-C came, or not at all.

    Raises:
        EncodeInterrupted: on Ctrl-C, once what is done was written.
        ModelError: as ``EncodingModel.encoder``.
        ValueError: an unknown format, or npz without a path.
    """
    check_format(format, path)
    run = _Run(files, model, on_progress)
    if path is None:
        run.write_text(sys.stdout, format)
    elif format == "npz":
        with replacing(path, "wb") as binary:
            run.write_arrays(binary)
    else:
        with replacing(path, "w") as text:
            run.write_text(text, format)
    if run.interrupted:
        raise EncodeInterrupted(run.report)
    return run.report


class _Run:
    def __init__(self, files: Sequence[FileStat], model: "EncodingModel", on_progress: OnProgress) -> None:
        self.report = EncodeReport()
        self.interrupted = False
        self._files = files
        self._model = model
        self._on_progress = on_progress

    def _batches(self) -> Iterator[tuple[list[Decoded], NDArray[np.uint8]]]:
        n_done, model = 0, self._model
        try:
            batches = ImageBatches(self._files, model.input_spec)
            for images, codes, failed in encode_ahead(batches, self._encode, self._model.prepare):
                if codes is not None:
                    yield images, codes
                    self.report.n_encoded += len(images)
                self.report.skipped += [Skipped(item.file.path, item.reason) for item in failed]
                n_done += len(images) + len(failed)
                self._on_progress(Progress("codes", n_done, len(self._files)))
        except KeyboardInterrupt:
            self.interrupted = True

    def _encode(self, images: Sequence[Decoded]) -> NDArray[np.uint8]:
        return self._model.encode(np.stack([image.pixels for image in images]))

    def write_text(self, file: IO[str], format: str) -> None:
        write_rows(self._rows(file), _COLUMNS, file, format)

    def _rows(self, file: IO[str]) -> Iterator[dict[str, Any]]:
        for images, codes in self._batches():
            for image, code in zip(images, codes, strict=True):
                yield {
                    "path": image.file.path, "code": code.tobytes().hex(), "width": image.width, "height": image.height,
                }  # fmt: skip
            file.flush()

    def write_arrays(self, file: IO[bytes]) -> None:
        card = self._model.card
        parts = [np.empty((0, (card.n_bits + 7) // 8), np.uint8)]
        paths: list[bytes] = []
        for images, codes in self._batches():
            parts.append(codes)
            paths += [os.fsencode(image.file.path) for image in images]
        np.savez_compressed(
            file,
            codes=np.concatenate(parts),
            paths=np.array(paths, dtype=np.bytes_),
            n_bits=card.n_bits,
            fingerprint=card.fingerprint,
        )
