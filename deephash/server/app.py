"""The app: service, door, calls and the page's files, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from .. import __version__
from .at_once import AtOnce
from .errors import handle_errors
from .guard import Guard
from .quick import PATH, QuickSearch
from .routes import about, images, jobs, search
from .service import Service
from .settings import MAX_IMAGES, ServerSettings

__all__ = ["create_app"]

_PAGE = Path(__file__).parent / "page"
_DESCRIPTION = """Finds similar images by short binary codes.

Failures answer `{"error": {"code", "message"}}`. Calls that change something need the token (`Authorization: Bearer
TOKEN`) and the header `X-DeepHash`; where other machines can reach the server, reading needs the token, too. Results
come by (distance, id); distances are Hamming distances."""


def create_app(settings: ServerSettings) -> FastAPI:
    """Returns the app that serves an index; ``app.state.service`` is what it holds.

    Raises:
        index.StoreError: the index cannot be opened.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(service.close)

    app = _App(
        title="deephash",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        openapi_url="/v1/openapi.json",
        # The pages of FastAPI fetch scripts from elsewhere, which the content security policy forbids.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        form_limits={"max_files": MAX_IMAGES, "max_fields": 16, "max_part_size": 64 << 10},
    )
    app.state.service = service
    for topic in (search, images, about, jobs):
        app.include_router(topic.router)
    _serve_page(app)
    handle_errors(app)
    return app


class _App(FastAPI):
    """The door stands before all else, and simple searches pass by the framework: it takes longer than they do."""

    def build_middleware_stack(self) -> ASGIApp:
        service: Service = self.state.service
        routes = {
            method: route
            for route in search.router.routes
            if isinstance(route, APIRoute) and route.path == PATH
            for method in route.methods or ()
        }
        quick = QuickSearch(super().build_middleware_stack(), service, routes=routes)
        guard = Guard(quick, settings=service.settings, metrics=service.metrics)
        self.state.at_once = AtOnce(guard, quick, service.metrics)
        return guard


def _operation_id(route: APIRoute) -> str:
    return route.name


def _serve_page(app: FastAPI) -> None:
    files = _PageFiles(directory=_PAGE, check_dir=False)

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    app.mount("/page", files, name="page")


class _PageFiles(StaticFiles):
    """Browsers ask each time whether a file has changed."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        response = super().file_response(*arguments, **options)
        response.headers["Cache-Control"] = "no-cache"
        return response
