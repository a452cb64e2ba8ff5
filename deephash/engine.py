"""ImageSearch: one model and one store. Queries by image, id or code; duplicates; what an index is made of."""

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from index import DuplicateCluster, Filter, Match, Problem, Record, Store, UnknownId
from index.reranking import OVERSAMPLING

from .errors import ModelError
from .images import load_image, preprocess
from .model_file import ModelCard, read_card

if TYPE_CHECKING:
    from .encoding_model import EncodingModel

__all__ = ["MODEL_FILE", "ImageSearch"]

MODEL_FILE = "model.safetensors"
_ENCODE_BATCH = 32


class ImageSearch:
    """Finds similar images in one index.

    A context manager; any number may be open for reading at once, in any number of processes. The model is loaded when
    an image has to be encoded: queries by id and by code, and all else, go without.

    Args:
        store: the opened store; closed with this object.
        model: the store's model, when it is at hand; else it is read from the index folder.
    """

    def __init__(self, store: Store, model: "EncodingModel | None" = None):
        self.store = store
        if model is not None:
            self.__dict__["model"] = model

    @classmethod
    def open(cls, index: str | os.PathLike[str], *, writable: bool = False, timeout: float = 0.0) -> Self:
        """Opens the index folder; ``index_images`` creates one.

        Raises:
            index.StoreError: no index there, damaged, of a newer version, or (``writable``) locked by another process.
        """
        return cls(Store.open(Path(index), writable=writable, timeout=timeout))

    @property
    def folder(self) -> Path:
        """The index folder."""
        return self.store.folder

    def __len__(self) -> int:
        return len(self.store)

    @property
    def card(self) -> ModelCard:
        """What the index's model says of itself; read without torch.

        Raises:
            ModelError: the index has lost its model file, or it is not the one that the index was built with.
        """
        path = self.folder / MODEL_FILE
        if not path.is_file():
            raise ModelError(
                f"{self.folder} has lost its model file {MODEL_FILE}: copy it back from a backup of the index; "
                f"queries by id and by code work without it"
            )
        card = read_card(path)
        if card.fingerprint != self.store.fingerprint or card.n_bits != self.store.n_bits:
            raise ModelError(
                f"{path} ({card.name}, {card.n_bits} bits) is not the model that this index was built with: put "
                f"the right file back, or index the images again into a new folder"
            )
        return card

    @cached_property
    def model(self) -> "EncodingModel":
        """The model that the index was built with, loaded at first use, to encode. Raises ModelError as ``card``."""
        self.card  # noqa: B018 - checks that the file is the right one, in milliseconds
        from .encoding_model import load_encoding_model

        return load_encoding_model(self.folder / MODEL_FILE)

    # Queries.

    def query(
        self,
        images: Any,
        k: int | None = 10,
        *,
        radius: int | None = None,
        where: Filter | None = None,
        combine: bool = False,
        rerank: bool = False,
        oversampling: int = OVERSAMPLING,
    ) -> list[list[Match]]:
        """Returns, for each query image, its nearest indexed images, ordered by (distance, id).

        Args:
            images: one image or a sequence: paths, PIL images, ``(H, W, 3) uint8`` arrays.
            k: how many at most; None with a radius: all within it.
            radius: Hamming distance 0 to n_bits, inclusive.
            where: only images that pass the filter.
            combine: all images together are one query, the mean of their features; one list is returned.
            rerank: order by (asymmetric distance, id) instead: how much the query's logits, before they become bits,
                are against the bits of a match. Better matches, from the same index.
            oversampling: of so many times k nearest by Hamming distance the re-ranked k are.

        Raises:
            ImageError: a query image cannot be read.
            ModelError: the index has lost its model.
        """
        features = self._features(images if isinstance(images, list | tuple) else [images])
        if combine:
            mean = features.mean(axis=0, keepdims=True)
            features = mean / max(float(np.linalg.norm(mean)), 1e-12)
        if rerank:
            logits = self.model.logits_of_features(features)
            return self.store.search_logits(logits, k, oversampling=oversampling, radius=radius, where=where)
        return self.query_codes(self.model.codes_of_features(features), k, radius=radius, where=where)

    def query_ids(
        self,
        ids: Iterable[int],
        k: int | None = 10,
        *,
        radius: int | None = None,
        where: Filter | None = None,
    ) -> list[list[Match]]:
        """Returns, for each indexed image, its nearest others, ordered by (distance, id). Raises UnknownId."""
        ids = list(ids)
        codes = self.store.codes(ids)
        return [
            self.store.search(code[None], k, radius=radius, where=where, exclude=[id])[0]
            for id, code in zip(ids, codes, strict=True)
        ]

    def query_codes(
        self,
        codes: NDArray[np.uint8],
        k: int | None = 10,
        *,
        radius: int | None = None,
        where: Filter | None = None,
    ) -> list[list[Match]]:
        """Returns, for each code ``(Q, ceil(n_bits / 8)) uint8``, its nearest images, ordered by (distance, id)."""
        return self.store.search(codes, k, radius=radius, where=where)

    def encode(self, images: Any) -> NDArray[np.uint8]:
        """Returns codes ``(N, ceil(n_bits / 8)) uint8`` of images given as in ``query``; nothing is stored."""
        features = self._features(images if isinstance(images, list | tuple) else [images])
        return self.model.codes_of_features(features)

    def _features(self, images: Sequence[Any]) -> NDArray[np.float32]:
        if not images:
            raise ValueError("no query image was given")
        model, spec = self.model, self.model.input_spec
        parts = []
        for start in range(0, len(images), _ENCODE_BATCH):
            loaded = [load_image(image, at_least=spec.resize) for image in images[start : start + _ENCODE_BATCH]]
            parts.append(model.features(np.stack([preprocess(image, spec) for image in loaded])))
        return np.concatenate(parts)

    # Housekeeping.

    def duplicates(
        self, *, radius: int | None = None, where: Filter | None = None, mirrored: bool = False
    ) -> list[DuplicateCluster]:
        """Returns clusters of copies, each with the copy to keep: most pixels, then most bytes, then oldest id.

        Files of identical content always; with a radius also images whose copy codes (``copies``) are within that
        Hamming distance of the kept one's, or, with ``mirrored``, are once mirrored; ``store.copy_radius`` is the one
        that was measured.
        """
        return self.store.duplicates(radius, where=where, mirrored=mirrored)

    def records(self, ids: Iterable[int]) -> list[Record]:
        """Returns what is stored of these images, in the order of the ids. Raises UnknownId."""
        return self.store.records(list(ids))

    def remove(self, ids: Iterable[int]) -> int:
        """Removes images from the index (not from disk); returns how many. Their ids are never used again.

        A later run of ``index_images`` over their folder adds them again, under new ids.

        Raises:
            UnknownId: one of them is not there; then none is removed.
        """
        ids = [int(id) for id in ids]
        unknown = np.setdiff1d(np.array(ids, np.int64), self.store.ids())
        if len(unknown):
            raise UnknownId(f"{self.folder} has no image {unknown[0]}: it was removed, or never there")
        return self.store.remove(ids)

    def verify(self) -> list[Problem]:
        """Returns what is wrong with the index; nothing is the usual answer."""
        problems = self.store.verify()
        try:
            self.card  # noqa: B018 - raises when the model file is missing, damaged or another one
        except ModelError as error:
            path = str(self.folder / MODEL_FILE)
            if all(problem.where != path for problem in problems):  # the store has seen a missing or changed file
                problems.append(Problem("model", path, str(error)))
        return problems

    def close(self) -> None:
        """Closes the store; calling it twice does no harm."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
