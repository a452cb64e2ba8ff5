"""The index in numbers, its copies, sessions for reading, and what watches the server: health, metrics."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from ... import __version__
from ...errors import ModelError
from ...paths import utf8_path
from ..errors import ApiError
from ..guard import COOKIE, cookie_value
from ..models import Clusters, ErrorAnswer, StatsAnswer, Verified, cluster_dict, problem_dict
from ..service import Service
from ..settings import MAX_IDS, MAX_IMAGES, MAX_K, MAX_LIMIT
from .parameters import ERRORS, READS, Limit, Offset, Where, json_answer, service_of

__all__ = ["router"]

router = APIRouter()

_COMPUTING_SECONDS = 2
_NOT_READY: dict[int | str, Any] = {503: {"model": ErrorAnswer, "description": "Not ready: the sentence says why."}}
_PROMETHEUS: dict[int | str, Any] = {200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}}


@router.get("/v1/stats", response_model=StatsAnswer, responses=ERRORS(), dependencies=READS, tags=["index"])
async def stats(request: Request) -> Response:
    """Returns the index in numbers, its model, and the limits of this server."""
    service = service_of(request)
    return json_answer(await service.quickly(_stats, service))


@router.get("/v1/duplicates", response_model=Clusters, responses=ERRORS(), dependencies=READS, tags=["index"])
async def duplicates(
    request: Request,
    where: Where,
    radius: Annotated[
        int | None, Query(ge=0, le=1024, description="Near copies within this distance; `copy_radius`.")
    ] = None,
    identical: Annotated[bool, Query(description="Files of identical content only; goes without radius.")] = False,
    mirrored: Annotated[bool, Query(description="Mirrored copies too.")] = False,
    kind: Annotated[
        Literal["identical", "near"] | None, Query(description="Only clusters of this kind; near ones may hold both.")
    ] = None,
    offset: Offset = 0,
    limit: Limit = 100,
) -> Response:
    """Returns clusters of copies, each with the one to keep: most pixels, then most bytes, then the oldest.

    The codes are copy codes, those that were compared: of the mirrored image where that is the nearer one.

    While they are worked out the answer is 503, code ``computing``: ask again after the seconds in Retry-After.
    """
    service = service_of(request)
    store = service.stores.quick
    if identical and radius is not None:
        raise ApiError(422, "invalid", "identical and radius exclude each other")
    # In a thread: another one may hold the catalogue while it takes in what has changed.
    codes, usual, epoch = await service.quickly(lambda: (store.copy_codes.n_bits, store.copy_radius, store.epoch))
    n_bits = codes or store.n_bits
    if radius is not None and radius > n_bits:
        raise ApiError(422, "invalid", f"radius: the copy codes of this index have {n_bits} bits")
    if mirrored and not codes:
        raise ApiError(422, "invalid", "mirrored: the index has no copy codes yet, sync it once")
    chosen = None if identical else usual if radius is None else radius
    work = asyncio.wrap_future(service.duplicates.clusters(chosen, where, mirrored, epoch))
    try:
        clusters = await asyncio.wait_for(asyncio.shield(work), _COMPUTING_SECONDS)
    except TimeoutError:
        raise ApiError(503, "computing", "the copies are being worked out: ask again", retry_after=1) from None
    if kind is not None:
        clusters = [cluster for cluster in clusters if cluster.kind == kind]
    page = clusters[offset : offset + limit]
    stop = offset + len(page)
    return json_answer(
        {
            "total": len(clusters), "n_copies": sum(len(cluster.drop) for cluster in clusters), "radius": chosen,
            "offset": offset, "next_offset": stop if page and stop < len(clusters) else None, "epoch": epoch,
            "clusters": [cluster_dict(cluster) for cluster in page],
        }
    )  # fmt: skip


@router.get("/v1/verify", response_model=Verified, responses=ERRORS(), dependencies=READS, tags=["index"])
async def verify(request: Request) -> Response:
    """Reads the whole index and returns what is not as it was written; seconds, where it is large."""
    service = service_of(request)
    problems = await service.patiently(service.verify)
    return json_answer({"problems": [problem_dict(problem) for problem in problems]})


@router.post("/v1/session", status_code=204, responses=ERRORS(), dependencies=READS, tags=["session"])
async def open_session(request: Request) -> Response:
    """Gives the caller, who must send the token, a cookie for reading: an ``<img>`` cannot send a header."""
    answer = Response(status_code=204)
    answer.set_cookie(
        COOKIE, cookie_value(service_of(request).settings.secret), httponly=True, samesite="strict",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return answer


@router.delete("/v1/session", status_code=204, responses=ERRORS(), dependencies=READS, tags=["session"])
async def close_session(request: Request) -> Response:
    """Takes the cookie back."""
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


@router.get("/healthz", tags=["watching"], summary="Alive?")
async def healthz() -> dict[str, str]:
    """Answers while the server runs."""
    return {"status": "alive"}


@router.get("/readyz", tags=["watching"], summary="Ready?", responses=_NOT_READY)
async def readyz(request: Request) -> dict[str, str]:
    """Answers 200 once the model is loaded and the index can be read, 503 before; searches by id work already."""
    service = service_of(request)
    if service.encoder.trouble is not None:
        raise ApiError(503, "no_model", service.encoder.trouble, retry_after=60)
    if not service.encoder.is_ready:
        raise ApiError(503, "not_ready", "the model is being loaded: searches by id and code work", retry_after=1)
    await service.quickly(lambda: service.stores.quick.epoch)
    return {"status": "ready"}


@router.get("/metrics", tags=["watching"], response_class=Response, responses=_PROMETHEUS, summary="Metrics")
async def metrics(request: Request) -> Response:
    """Returns numbers for Prometheus."""
    service = service_of(request)
    return Response(await service.quickly(service.metrics.text), media_type="text/plain; version=0.0.4; charset=utf-8")


def _stats(service: Service) -> dict[str, object]:
    settings, found = service.settings, service.stores.quick.stats()
    try:
        card = service.search.card
        model, trouble = {"name": card.name, "method": card.method, "backbone": card.backbone}, service.encoder.trouble
    except ModelError as error:
        model, trouble = None, str(error)
    return {
        "n_images": found.n_images, "n_skipped": found.n_skipped, "n_bits": found.n_bits,
        "copy_bits": service.stores.quick.copy_bits, "copy_radius": service.stores.quick.copy_radius,
        "fingerprint": found.fingerprint, "epoch": found.epoch, "created": found.created,
        "index": utf8_path(service.search.folder), "roots": [utf8_path(root) for root in found.roots],
        "catalogue_bytes": found.catalogue_bytes, "cache_bytes": found.cache_bytes, "model_bytes": found.model_bytes,
        "model": model, "trouble": trouble, "addable_roots": [utf8_path(root) for root in settings.roots],
        "uploads": settings.uploads is not None, "version": __version__,
        "limits": {
            "max_body_bytes": settings.max_body_bytes, "max_images": MAX_IMAGES, "max_pixels": settings.max_pixels,
            "max_k": MAX_K, "max_limit": MAX_LIMIT, "max_ids": MAX_IDS,
        },
    }  # fmt: skip
