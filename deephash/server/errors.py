"""Every failure as one JSON shape with a sentence: ``{"error": {"code": ..., "message": ...}}``."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from index.errors import DeepHashError, ModelMismatch, StoreFull, StoreLocked, UnknownId

from ..errors import CollectionError, ModelError
from ..image_errors import ImageError
from ..paths import printable

__all__ = ["ApiError", "busy", "error_response", "handle_errors", "to_api_error"]

_log = logging.getLogger("deephash.server")
_CODES = {400: "malformed", 404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "bad_type"}
_KINDS: tuple[tuple[type[Exception], int, str, int | None], ...] = (
    (UnknownId, 404, "unknown_id", None),
    (StoreLocked, 409, "locked", None),
    (StoreFull, 503, "disk_full", 60),
    (ImageError, 422, "bad_image", None),
    (ModelMismatch, 422, "invalid", None),
    (CollectionError, 422, "invalid", None),
    (ModelError, 503, "no_model", 60),
    (FileNotFoundError, 404, "not_found", None),
    (TimeoutError, 503, "timeout", 5),
    (DeepHashError, 500, "failed", None),
)


class ApiError(HTTPException):
    """An answer that is no success: status, a code for programs, one sentence for people."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None):
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        super().__init__(status, message, headers)
        self.code = code


def busy(what: str, seconds: int = 1) -> ApiError:
    """Returns the error of a queue that is full."""
    return ApiError(429, "busy", f"{what}: try again in {seconds} s", retry_after=seconds)


def to_api_error(error: Exception) -> ApiError:
    """Returns what an error of the engine is to a caller; what nobody foresaw keeps its text from strangers."""
    if isinstance(error, ApiError):
        return error
    for kind, status, code, retry_after in _KINDS:
        if isinstance(error, kind):
            return ApiError(status, code, printable(str(error)) or code, retry_after=retry_after)
    if isinstance(error, OSError):
        return ApiError(500, "failed", f"the server could not use a file: {error.strerror or 'unknown reason'}")
    _log.error("a request failed", exc_info=error)
    return ApiError(500, "failed", "the server failed; its log has the reason")


def error_response(error: ApiError) -> Response:
    """Returns the answer."""
    body = json.dumps({"error": {"code": error.code, "message": error.detail}})
    return Response(body, error.status_code, headers=dict(error.headers or {}), media_type="application/json")


def handle_errors(app: FastAPI) -> None:
    """Has all errors of the app answered in the one shape."""

    async def of_engine(request: Request, error: Exception) -> Response:
        return error_response(to_api_error(error))

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if not isinstance(error, ApiError):
            code = _CODES.get(error.status_code, "invalid")
            answer = ApiError(error.status_code, code, printable(f"{error.detail}: see /v1/openapi.json"))
            answer.headers = error.headers
            error = answer
        return error_response(error)

    async def of_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first: dict[str, Any] = dict(error.errors()[0])
        where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
        return error_response(ApiError(422, "invalid", printable(f"{where}: {first['msg']}; see /v1/openapi.json")))

    async def of_nobody(request: Request, error: Exception) -> Response:
        raise error  # to the guard, which stands before the app

    handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
        HTTPException: of_http,
        RequestValidationError: of_validation,
        DeepHashError: of_engine,
        OSError: of_engine,
        TimeoutError: of_engine,
        Exception: of_nobody,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
