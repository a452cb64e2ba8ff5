"""Indexed images: lists, records, files, thumbnails; adding, annotating and removing them."""

from __future__ import annotations

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, File, Form, Header, Query, Request, UploadFile
from starlette.responses import FileResponse, Response

from ...image_errors import ImageError
from ..decode_tasks import identify
from ..errors import ApiError
from ..models import Annotation, ImageList, ImageRecord, JobAnswer, Removal, Removed, image_dict
from ..pictures import PictureFile, find_picture
from ..service import Service
from ..settings import THUMBNAIL_SIZES
from ..uploads import keep_upload
from .parameters import (
    CHANGES,
    ERRORS,
    READS,
    ImageId,
    Limit,
    Offset,
    Where,
    json_answer,
    parsed_metadata,
    read_images,
    service_of,
)

__all__ = ["router"]

router = APIRouter(prefix="/v1/images", tags=["images"])

_IfNoneMatch = Annotated[str | None, Header(include_in_schema=False)]
_JPEG: dict[int | str, Any] = {200: {"content": {"image/jpeg": {}}, "description": "A JPEG."}}
_FILE: dict[int | str, Any] = {
    200: {"content": {"image/*": {}, "application/octet-stream": {}}, "description": "The file."}
}


@router.get("", response_model=ImageList, responses=ERRORS(), dependencies=READS, summary="List images")
async def list_images(request: Request, where: Where, offset: Offset = 0, limit: Limit = 100) -> Response:
    """Lists the images that a filter lets through, by id."""
    service = service_of(request)
    return json_answer(await service.patiently(service.lists.page, where, offset, limit))


@router.post(
    "", response_model=JobAnswer, status_code=202, responses=ERRORS(400, 408, 409, 413), dependencies=CHANGES,
    summary="Add images",
)  # fmt: skip
async def add_images(
    request: Request,
    image: Annotated[list[UploadFile], File(description="Files of images; their names are ignored.")],
    label: Annotated[str | None, Form(max_length=1000, description="Of all of them.")] = None,
    metadata: Annotated[str | None, Form(max_length=20_000, description="Of all of them: a JSON object.")] = None,
) -> Response:
    """Keeps images in the folder of uploads and queues a job that indexes them; the same image is kept once."""
    service = service_of(request)
    folder = service.settings.uploads
    if folder is None:
        raise ApiError(403, "forbidden", "this server takes no images: start it with --uploads DIR")
    values = parsed_metadata(metadata)
    files = await read_images(image)
    await anyio.to_thread.run_sync(service.check_writable)
    paths = []
    for number, data in enumerate(files):
        try:
            format = await service.pool.run(identify, data, service.settings.max_pixels)
        except ImageError as error:
            raise ApiError(422, "bad_image", f"image {number + 1} of {len(files)} {error.reason}") from error
        paths.append(await anyio.to_thread.run_sync(keep_upload, folder, data, format, label, values))
    return json_answer(service.add_uploads(list(dict.fromkeys(paths))).to_dict(), 202)


@router.post(
    "/remove", response_model=Removed, responses=ERRORS(400, 404, 409), dependencies=CHANGES, summary="Remove images"
)
async def remove_images(request: Request, removal: Removal) -> Response:
    """Removes images from the index, never from disk: all of them or, where one is unknown, none."""
    n_removed = await anyio.to_thread.run_sync(service_of(request).remove, removal.ids)
    return json_answer({"removed": n_removed})


@router.get("/{id}", response_model=ImageRecord, responses=ERRORS(404), dependencies=READS, summary="One image")
async def image(request: Request, id: ImageId) -> Response:
    """Returns what is known of an image."""
    service = service_of(request)
    (record,) = await service.quickly(service.stores.quick.records, [id])
    return json_answer(image_dict(record))


@router.patch(
    "/{id}", response_model=ImageRecord, responses=ERRORS(400, 404, 409), dependencies=CHANGES, summary="Annotate one"
)
async def annotate(request: Request, id: ImageId, annotation: Annotation) -> Response:
    """Sets the label, the metadata (all of it), or both; what is left out stays."""
    service = service_of(request)
    changes = {name: getattr(annotation, name) for name in annotation.model_fields_set}
    await anyio.to_thread.run_sync(service.annotate, id, changes)
    return await image(request, id)


@router.delete(
    "/{id}", response_model=Removed, responses=ERRORS(404, 409), dependencies=CHANGES, summary="Remove one image"
)
async def remove_image(request: Request, id: ImageId) -> Response:
    """Removes an image from the index, never from disk."""
    return json_answer({"removed": await anyio.to_thread.run_sync(service_of(request).remove, [id])})


@router.get(
    "/{id}/thumbnail", response_class=Response, responses={**ERRORS(404), **_JPEG}, dependencies=READS,
    summary="Thumbnail",
)  # fmt: skip
async def thumbnail(
    request: Request,
    id: ImageId,
    size: Annotated[int, Query(description="Longest side.", json_schema_extra={"enum": [*THUMBNAIL_SIZES]})] = 256,
    if_none_match: _IfNoneMatch = None,
) -> Response:
    """Returns a JPEG of the image, upright, without metadata."""
    if size not in THUMBNAIL_SIZES:
        raise ApiError(422, "invalid", f"size: give one of {', '.join(map(str, THUMBNAIL_SIZES))}")
    service = service_of(request)
    picture = await service.quickly(_picture, service, id)
    headers = _cached(f"{picture.etag}-{size}")
    if if_none_match == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    try:
        data = await service.thumbnails.thumbnail(picture, size)
    except ImageError as error:
        raise ApiError(422, "bad_image", f"the file of image {id} {error.reason}") from error
    return Response(data, headers=headers, media_type="image/jpeg")


@router.get(
    "/{id}/file", response_class=Response, responses={**ERRORS(404), **_FILE}, dependencies=READS, summary="File"
)
async def file(request: Request, id: ImageId, if_none_match: _IfNoneMatch = None) -> Response:
    """Returns the file of the image as it is, with all that its camera wrote into it."""
    service = service_of(request)
    picture = await service.quickly(_picture, service, id)
    headers = _cached(picture.etag) | {"Content-Security-Policy": "default-src 'none'; sandbox"}
    if if_none_match == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return FileResponse(picture.path, media_type=picture.media_type, headers=headers)


def _picture(service: Service, id: int) -> PictureFile:
    (record,) = service.stores.quick.records([id])
    return find_picture(record, service.roots())


def _cached(etag: str) -> dict[str, str]:
    return {"ETag": f'"{etag}"', "Cache-Control": "private, no-cache"}
