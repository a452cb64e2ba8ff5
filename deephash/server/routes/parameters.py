"""Parameters that several calls share, what they mean, and how answers are written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Query, Request, UploadFile
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json
from starlette.responses import Response

from index import Filter

from ...annotations import parse_scalar
from ..errors import ApiError
from ..guard import CUSTOM_HEADER
from ..models import Annotation, ErrorAnswer
from ..service import Service
from ..settings import MAX_IMAGES, MAX_LIMIT

__all__ = [
    "CHANGES", "ERRORS", "READS", "ImageId", "Limit", "Offset", "Where", "json_answer", "json_bytes",
    "parsed_metadata", "read_images", "service_of",
]  # fmt: skip

_MAX_WILDCARDS = 8
_MAX_ID = 2**63 - 1


def service_of(request: Request) -> Service:
    """Returns the service behind the app."""
    service: Service = request.app.state.service
    return service


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Returns a value as JSON, as it is: its shape is that of the model that the route names."""
    return Response(json_bytes(value), status, headers, "application/json")


def json_bytes(value: Any) -> bytes:
    """Returns a value as JSON in UTF-8."""
    try:
        return to_json(value)
    except PydanticSerializationError:  # text that UTF-8 cannot hold, which JSON's escapes can
        return json.dumps(value, separators=(",", ":")).encode()


# The guard has checked both before a route is called; here they are for the documentation.

_bearer = HTTPBearer(auto_error=False, description="The token; for reading, only where others can reach the server.")


async def _read(token: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None) -> None:
    pass


async def _change(
    token: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None,
    custom: Annotated[
        str, Header(alias=CUSTOM_HEADER, description="Anything: pages of other origins cannot send it.")
    ] = "1",
) -> None:
    pass


READS = [Depends(_read)]
CHANGES = [Depends(_change)]


def ERRORS(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the failures of a call, for the documentation."""
    texts = {
        400: "The body cannot be read.", 401: "No token, or a wrong one.", 403: "Not allowed.",
        404: "There is no such thing.", 408: "The body took too long to arrive.",
        409: "Another process is writing to the index.", 413: "The body is too large.",
        421: "Not a name of this server.", 422: "A parameter or an image is not acceptable.",
        429: "Too much is waiting: Retry-After says how long.", 500: "The server failed.",
        503: "Not now: Retry-After says when.",
    }  # fmt: skip
    every = (401, 403, 421, 422, 429, 503)
    # Not as a model: FastAPI would describe it in the media type of the route's success.
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{ErrorAnswer.__name__}"}}}
    return {status: {"content": content, "description": texts[status]} for status in sorted({*every, *statuses})}


ImageId = Annotated[int, Path(ge=1, le=_MAX_ID, description="Id of an indexed image.", examples=[1])]
Offset = Annotated[int, Query(ge=0, le=_MAX_ID, description="Results before this one are left out.")]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Results on this page at most.")]


async def _filter(
    path: Annotated[
        str | None,
        Query(
            min_length=1, max_length=1000, description="Glob over the whole path; * also matches /.", examples=["*.jpg"]
        ),
    ] = None,
    label: Annotated[str | None, Query(max_length=1000, description="Only images with this label.")] = None,
    where: Annotated[
        list[Annotated[str, Query(max_length=1000, pattern="^[^=]+=")]] | None,
        Query(max_length=16, description="KEY=VALUE: only images with this metadata.", examples=[["year=2024"]]),
    ] = None,
    metadata: Annotated[
        str | None,
        Query(
            max_length=4000,
            description="A JSON object: only images with these values, true, false and null among them.",
            examples=['{"kept": true}'],
        ),
    ] = None,
) -> Filter | None:
    wanted = {}
    for condition in where or ():
        key, _, value = condition.partition("=")
        wanted[key] = parse_scalar(value)
    wanted |= parsed_metadata(metadata) or {}
    if path is not None and ("\0" in path or path.count("*") > _MAX_WILDCARDS):
        raise ApiError(422, "invalid", f"path: give a glob with at most {_MAX_WILDCARDS} asterisks")
    return Filter(path, label, wanted) if path is not None or label is not None or wanted else None


Where = Annotated[Filter | None, Depends(_filter)]


def parsed_metadata(text: str | None) -> dict[str, Any] | None:
    """Returns metadata of its JSON; raises ApiError where it is none."""
    if text is None:
        return None
    try:
        return Annotation(metadata=json.loads(text)).metadata
    except (ValueError, ValidationError, RecursionError):
        raise ApiError(422, "invalid", "metadata: give a JSON object of text, numbers, true, false and null") from None


async def read_images(files: Sequence[UploadFile], n_others: int = 0) -> list[bytes]:
    """Returns the bytes of uploaded files; the names that clients give them are ignored."""
    if not 1 <= len(files) + n_others <= MAX_IMAGES:
        raise ApiError(422, "invalid", f"{len(files) + n_others} queries: give 1 to {MAX_IMAGES}")
    return [await file.read() for file in files]
