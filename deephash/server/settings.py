"""What a server is told when it starts, and what is refused there: an open door without a token."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DeepHashError
from ..image_limits import MAX_PIXELS

__all__ = [
    "MAX_IDS",
    "MAX_IMAGES",
    "MAX_K",
    "MAX_LIMIT",
    "THUMBNAIL_SIZES",
    "ServerSettings",
    "SettingsError",
    "is_loopback",
]

MAX_IMAGES = 16  # queries in one call
MAX_K = 10_000  # matches of one query, by k or by radius
MAX_LIMIT = 1_000  # images on one page of an answer
MAX_IDS = 10_000  # images removed by one call
THUMBNAIL_SIZES = (64, 128, 256, 512, 1024)
_SHORTEST_TOKEN = 16


class SettingsError(DeepHashError, ValueError):
    """A server cannot start as asked; the text has the fix."""


@dataclass(frozen=True)
class ServerSettings:
    """What a server serves, to whom, and at what cost.

    Args:
        index: the index folder.
        host: address to listen on. Every address but a loopback one needs a token for reading, too.
        port: 0 for any free one.
        token: what changes need, and reading from elsewhere; on a loopback address one is made when None.
        allow_hosts: further names that requests may address this server by, such as those of a reverse proxy.
        roots: folders under which calls may index images, besides those that are indexed already.
        uploads: folder that keeps uploaded images; None: none are taken.
        max_body_bytes: of one request.
        max_pixels: of one image, as in ``load_image``.
        body_seconds: for all of a request's body to arrive.
        decode_seconds: for one image.
        request_seconds: for an answer.
        max_waiting: images that wait to be decoded, and again to be encoded, before callers are sent away.
        max_batch: images that are encoded together.
        decode_workers: processes that decode; None: one for each processor, four at most.
        thumbnail_cache_bytes: thumbnails kept in memory.
        max_jobs: jobs that wait.

    Raises:
        SettingsError: no token where one is needed, one that is too short, or a folder that does not exist.
    """

    index: Path
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    allow_hosts: Sequence[str] = ()
    roots: Sequence[Path] = ()
    uploads: Path | None = None
    max_body_bytes: int = 64 << 20
    max_pixels: int = MAX_PIXELS
    body_seconds: float = 60.0
    decode_seconds: float = 20.0
    request_seconds: float = 30.0
    max_waiting: int = 128
    max_batch: int = 32
    decode_workers: int | None = None
    thumbnail_cache_bytes: int = 64 << 20
    max_jobs: int = 16

    def __post_init__(self) -> None:
        if self.token is None:
            if not is_loopback(self.host):
                raise SettingsError(
                    f"{self.host} can be reached from other machines, so that a token is needed: set DEEPHASH_TOKEN "
                    f"or --token to at least {_SHORTEST_TOKEN} characters that nobody can guess"
                )
            object.__setattr__(self, "token", secrets.token_urlsafe(24))
        if len(self.secret) < _SHORTEST_TOKEN or not all("!" <= character <= "~" for character in self.secret):
            raise SettingsError(
                f"the token has {len(self.secret)} characters: give at least {_SHORTEST_TOKEN} letters, digits or "
                f"signs of ASCII, without spaces"
            )
        for folder in (*self.roots, *([self.uploads] if self.uploads else [])):
            if not folder.is_dir():
                raise SettingsError(f"there is no folder {folder}: create it, or name another")
        object.__setattr__(self, "roots", tuple(Path(os.path.abspath(root)) for root in self.roots))
        if self.uploads is not None:
            object.__setattr__(self, "uploads", Path(os.path.abspath(self.uploads)))

    @property
    def secret(self) -> str:
        """The token, given or made."""
        assert self.token is not None
        return self.token

    @property
    def reading_needs_token(self) -> bool:
        """Whether others than this machine can reach the server."""
        return not is_loopback(self.host)

    def accepts_host(self, host: str) -> bool:
        """Returns whether requests may address the server by this name, without a port.

        A web page of a stranger can make its own name stand for this machine (DNS rebinding), but never an address:
        so known names pass, and addresses where the server is not for this machine alone.
        """
        name = host.lower().rstrip(".")
        if name in ("localhost", *(allowed.lower() for allowed in self.allow_hosts)):
            return True
        if is_loopback(self.host):
            return is_loopback(name)
        return _is_address(name) or name in (self.host.lower(), socket.gethostname().lower())


def is_loopback(host: str) -> bool:
    """Returns whether only this machine can reach an address; of names, localhost alone."""
    if host.lower() == "localhost":
        return True
    return _is_address(host) and ipaddress.ip_address(host.strip("[]")).is_loopback


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
