"""The index as a service: HTTP API and page. ``create_app`` for any ASGI server, ``serve`` for the command.

Needs the extra: ``pip install 'deephash[serve]'``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import create_app
    from .run import serve
    from .settings import ServerSettings

_HOMES = {"ServerSettings": ".settings", "create_app": ".app", "serve": ".run"}

__all__ = ["ServerSettings", "create_app", "serve"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'deephash.server' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
