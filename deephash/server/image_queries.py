"""From images to codes: decoded in the processes of the pool, encoded with what else waits, in a request's time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..image_errors import ImageError
from .decode_tasks import prepare, prepare_file
from .errors import ApiError
from .service import Service

__all__ = ["image_codes", "image_features"]


async def image_codes(service: Service, files: Sequence[bytes]) -> NDArray[np.uint8]:
    """Returns the codes (N, n_bytes) uint8 of N files of images; raises what `image_features` does."""
    features = await image_features(service, files)
    return service.encoder.model().codes_of_features(features)


async def image_features(service: Service, files: Sequence[bytes], paths: Sequence[str] = ()) -> NDArray[np.float32]:
    """Returns the features (N, n_features) float32 of files at paths, then of uploaded ones.

    Raises:
        ApiError: one is no image, too many wait, or it takes too long.
        ModelError: the model cannot be loaded.
    """
    pixels = await _decoded(service, files, paths)
    try:
        async with asyncio.timeout(service.settings.request_seconds):
            return await service.encoder.features(pixels)
    except TimeoutError:
        raise ApiError(503, "timeout", "encoding took too long: try again", retry_after=5) from None


async def _decoded(service: Service, files: Sequence[bytes], paths: Sequence[str]) -> list[Any]:
    """Returns what the model wants to see of images, decoded side by side."""
    async with asyncio.timeout(service.settings.request_seconds):
        model = await service.encoder.loaded()
    spec, most = model.input_spec, service.settings.max_pixels
    tasks = [service.pool.run(prepare_file, path, spec, most) for path in paths]
    tasks += [service.pool.run(prepare, data, spec, most) for data in files]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    for number, item in enumerate(found):
        if isinstance(item, ImageError):
            raise ApiError(422, "bad_image", f"image {number + 1} of {len(found)} {item.reason}") from item
        if isinstance(item, BaseException):
            raise item
    return found
