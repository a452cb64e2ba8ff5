"""The door of the server: who may ask what, how large and how slow a request may be, and what every answer says."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Mapping
from functools import lru_cache
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError, error_response, to_api_error
from .metrics import Metrics
from .settings import ServerSettings

__all__ = ["CONTENT_SECURITY_POLICY", "COOKIE", "CUSTOM_HEADER", "HEADERS", "Guard", "cookie_value"]

COOKIE = "deephash"
CUSTOM_HEADER = "X-DeepHash"
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
)
# Calls that send something but change nothing.
_HARMLESS = {("POST", "/v1/search"), ("POST", "/v1/encode"), ("POST", "/v1/session"), ("DELETE", "/v1/session")}
_READING = ("GET", "HEAD", "OPTIONS")
_HEADERS_OF_BODIES = ("content-length", "transfer-encoding")
# How long a refused body is read and thrown away: a client that still sends would not see the answer.
_DRAIN_SECONDS = 2.0
_LONGEST_HOST = 300


def cookie_value(token: str) -> str:
    """Returns what the cookie for reading holds: it shows that the token was known, and cannot be used as one."""
    return hashlib.sha256(b"deephash reading " + token.encode()).hexdigest()


class Guard:
    """ASGI middleware around the whole app; every request pays for it, so that it is plain.

    Refuses a Host that is not the server's (421), calls from pages of other origins (403), a missing or wrong token
    (401), changes without the custom header (403), bodies that are too large (413) or too slow (408). What
    fails unforeseen is logged and answered 500.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._cookie = cookie_value(settings.secret)
        self._reading_needs_token = settings.reading_needs_token
        self._is_own_host = lru_cache(maxsize=64)(self._accepts_host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = _by_name(scope)
        body = _Body(receive, send, self._settings, expected=not headers.keys().isdisjoint(_HEADERS_OF_BODIES))
        try:
            try:
                self._check(scope["method"], scope["path"], headers)
                body.check_announced(headers)
            except ApiError as refusal:
                await error_response(refusal)(scope, body.receive, body.send)
            else:
                await self._app(scope, body.receive, body.send)
        except Exception as error:
            failure = to_api_error(error)  # logs what nobody foresaw
            if not body.is_answered:
                await error_response(failure)(scope, body.receive, body.send)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in ("GET", "POST", "PATCH", "DELETE", "HEAD") else "other"
            self._metrics.count_request(method, route, body.status, time.perf_counter() - started)

    def lets_in(self, scope: Scope) -> bool:
        """Returns whether a request has no body, and nothing to be refused for."""
        headers = _by_name(scope)
        if not headers.keys().isdisjoint(_HEADERS_OF_BODIES):
            return False
        try:
            self._check(scope["method"], scope["path"], headers)
        except ApiError:
            return False
        return True

    def _accepts_host(self, header: str) -> bool:
        host = _host_name(header)
        return host is not None and self._settings.accepts_host(host)

    def _check(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        if len(host) > _LONGEST_HOST or not self._is_own_host(host):
            raise ApiError(421, "bad_host", "the Host header is not a name of this server: --allow-host adds one")
        is_api = path.startswith("/v1/")
        changes = is_api and method not in _READING and (method, path) not in _HARMLESS
        if is_api or method not in _READING:
            self._check_origin(method, headers)
        if changes or path == "/v1/session":
            if (changes or method == "POST") and not self._has_token(headers):
                raise ApiError(401, "unauthorized", "this call needs the header Authorization: Bearer TOKEN")
            if changes and CUSTOM_HEADER.lower() not in headers:
                raise ApiError(403, "forbidden", f"a call that changes something needs the header {CUSTOM_HEADER}: 1")
        elif (
            self._reading_needs_token
            and (is_api or path == "/metrics")
            and not self._has_token(headers)
            and not self._has_cookie(headers)
        ):
            raise ApiError(401, "unauthorized", "this server needs the header Authorization: Bearer TOKEN")

    @staticmethod
    def _check_origin(method: str, headers: Mapping[str, str]) -> None:
        origin = headers.get("origin")
        own = origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
        # Another site may link to an image, not show it, and never send anything.
        site = headers.get("sec-fetch-site", "none")
        link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if not own or (site not in ("none", "same-origin") and not link):
            raise ApiError(403, "forbidden", "pages of other origins may not use this server")

    def _has_token(self, headers: Mapping[str, str]) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given, expected = token.strip().encode("utf-8", "replace"), self._settings.secret.encode()
        return scheme.lower() == "bearer" and hmac.compare_digest(given, expected)

    def _has_cookie(self, headers: Mapping[str, str]) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._cookie.encode())


class _Body:
    """Counts and times a request's body on its way in; on the way out adds the headers that every answer has."""

    def __init__(self, receive: Receive, send: Send, settings: ServerSettings, *, expected: bool) -> None:
        self._receive = receive
        self._send = send
        self._settings = settings
        self._n_bytes = 0
        self._deadline: float | None = None
        self._whole = not expected
        self.is_answered = False
        self.status = 500

    def check_announced(self, headers: Mapping[str, str]) -> None:
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._settings.max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> ApiError:
        limit = self._settings.max_body_bytes / (1 << 20)
        return ApiError(413, "too_large", f"the request has more than {limit:.3g} MiB: send fewer or smaller images")

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        now = asyncio.get_running_loop().time()
        self._deadline = self._deadline or now + self._settings.body_seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            seconds = self._settings.body_seconds
            raise ApiError(408, "slow_body", f"the request took longer than {seconds:g} s to arrive") from None
        self._note(message)
        if self._n_bytes > self._settings.max_body_bytes:
            raise self._too_large()
        return message

    def _note(self, message: Message) -> None:
        self._n_bytes += len(message.get("body", b""))
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_answered = True
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            given = {name.lower() for name, _ in headers}
            headers += [header for header in HEADERS if header[0] not in given]
            if not self._whole:
                await self._peek()
            if not self._whole:
                headers = [header for header in headers if header[0].lower() != b"connection"]
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body" and not message.get("more_body", False) and not self._whole:
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _peek(self) -> None:
        """Takes in what is there already."""
        try:
            async with asyncio.timeout(0.001):
                self._note(await self._receive())
        except TimeoutError:
            pass

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self._whole:
                    self._note(await self._receive())
        except TimeoutError:
            pass


def _by_name(scope: Scope) -> dict[str, str]:
    # Of a header that comes twice the first counts.
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


def _host_name(header: str) -> str | None:
    """Returns the name or address in a Host header, without its port; None where it is none."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None
