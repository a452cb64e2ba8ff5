"""Searches by id, code and uploaded image, and codes of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, File, Query, Request, UploadFile
from numpy.typing import NDArray
from starlette.responses import Response

from ..errors import ApiError
from ..image_queries import image_codes, image_features
from ..models import Codes, SearchAnswer
from ..pictures import find_picture
from ..searching import Question, parsed_code, search_answer
from ..service import Service
from ..settings import MAX_IMAGES, MAX_K
from .parameters import ERRORS, READS, Limit, Offset, Where, json_answer, read_images, service_of

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["search"], dependencies=READS)

_Code = NDArray[np.uint8]
_Ids = Annotated[
    list[Annotated[int, Query(ge=1, le=2**63 - 1)]],
    Query(alias="id", max_length=MAX_IMAGES, description="Search with these indexed images."),
]
_Hex = Annotated[
    list[Annotated[str, Query(max_length=256, pattern="^[0-9a-fA-F]+$")]],
    Query(alias="code", max_length=MAX_IMAGES, description="Search with these codes, in hexadecimal."),
]
_K = Annotated[int | None, Query(ge=1, le=MAX_K, description="At most so many; 10 where no radius is given.")]
_Radius = Annotated[
    int | None, Query(ge=0, le=1024, description="Only within this Hamming distance, inclusive.", examples=[8])
]
_Combine = Annotated[bool, Query(description="All images, ids' files too, are one query: the mean of their features.")]


@router.get("/search", response_model=SearchAnswer, responses=ERRORS(404), summary="Search by ids and codes")
async def search(
    request: Request,
    where: Where,
    id: _Ids = [],  # noqa: B006 - FastAPI copies defaults
    code: _Hex = [],  # noqa: B006
    k: _K = None,
    radius: _Radius = None,
    combine: _Combine = False,
    offset: Offset = 0,
    limit: Limit = 100,
) -> Response:
    """Finds the images nearest to indexed images and to codes, by (distance, id).

    An indexed image is not among its own matches. Without k and radius the ten nearest are found; with a radius alone
    all within it, up to 10,000.
    """
    service = service_of(request)
    question = _question(service, k, radius, where, offset, limit)
    if not 1 <= len(id) + len(code) <= MAX_IMAGES:
        raise ApiError(422, "invalid", f"{len(id) + len(code)} queries: give 1 to {MAX_IMAGES} of id and code")
    if combine:
        return json_answer(await _combined(service, id, code, [], question))
    run = service.quickly if where is None else service.patiently
    return json_answer(await run(_search, service, id, code, None, question))


@router.post("/search", response_model=SearchAnswer, responses=ERRORS(400, 404, 408, 413), summary="Search by images")
async def search_by_images(
    request: Request,
    where: Where,
    image: Annotated[list[UploadFile], File(description="Files of images; their names are ignored.")],
    id: _Ids = [],  # noqa: B006
    code: _Hex = [],  # noqa: B006
    k: _K = None,
    radius: _Radius = None,
    combine: _Combine = False,
    offset: Offset = 0,
    limit: Limit = 100,
) -> Response:
    """Finds the images nearest to uploaded ones, which are not kept; ids and codes may be asked for beside them."""
    service = service_of(request)
    question = _question(service, k, radius, where, offset, limit)
    files = await read_images(image, len(id) + len(code))
    if combine:
        return json_answer(await _combined(service, id, code, files, question))
    codes = await image_codes(service, files)
    run = service.quickly if where is None else service.patiently
    return json_answer(await run(_search, service, id, code, codes, question))


@router.post("/encode", response_model=Codes, responses=ERRORS(400, 408, 413), summary="Codes of images")
async def encode(
    request: Request, image: Annotated[list[UploadFile], File(description="Files of images; their names are ignored.")]
) -> Response:
    """Returns the codes of uploaded images, which are not kept."""
    service = service_of(request)
    codes = await image_codes(service, await read_images(image))
    return json_answer({"n_bits": service.stores.quick.n_bits, "codes": [code.tobytes().hex() for code in codes]})


def _question(service: Service, k: int | None, radius: int | None, where: Any, offset: int, limit: int) -> Question:
    n_bits = service.stores.quick.n_bits
    if radius is not None and radius > n_bits:
        raise ApiError(422, "invalid", f"radius: codes of this index have {n_bits} bits, no distance is above that")
    return Question(10 if k is None and radius is None else k, radius, where, offset, limit)


async def _combined(
    service: Service, ids: Sequence[int], codes: Sequence[str], files: Sequence[bytes], question: Question
) -> dict[str, Any]:
    if codes:
        raise ApiError(422, "invalid", "codes cannot be combined: combine takes images and ids")
    records = await service.quickly(service.stores.quick.records, ids)
    roots = service.roots()
    paths = [find_picture(record, roots).path for record in records]
    features = await image_features(service, files, paths)
    mean = features.mean(axis=0, keepdims=True)
    mean /= max(float(np.linalg.norm(mean)), 1e-12)
    code = service.encoder.model().codes_of_features(mean)
    run = service.quickly if question.where is None else service.patiently
    return await run(_search, service, [], [], code, question, "combined")


def _search(
    service: Service, ids: Sequence[int], texts: Sequence[str], images: _Code | None, question: Question,
    kind: str = "image",
) -> dict[str, Any]:  # fmt: skip
    store = service.stores.quick if question.where is None else service.stores.patient
    asked: list[tuple[str, int | None, _Code]] = []
    if ids:
        asked += [("id", id, code) for id, code in zip(ids, store.codes(ids), strict=True)]
    asked += [("code", None, parsed_code(text, store.n_bits)) for text in texts]
    asked += [(kind, None, code) for code in (images if images is not None else ())]
    return search_answer(store, asked, question)
