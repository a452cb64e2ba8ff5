"""The door: names, origins, tokens, headers; what a stranger's page can reach, and what every answer says."""

import asyncio

import httpx
import pytest

from deephash.server import ServerSettings
from deephash.server.guard import Guard
from deephash.server.metrics import Metrics
from deephash.server.settings import SettingsError, is_loopback
from tests.deephash.server.servers import CHANGE, TOKEN, error_of, running

BEARER = {"Authorization": f"Bearer {TOKEN}"}
CHANGES = [
    ("POST", "/v1/images"),
    ("POST", "/v1/images/remove"),
    ("PATCH", "/v1/images/999"),
    ("DELETE", "/v1/images/999"),
    ("POST", "/v1/jobs"),
    ("POST", "/v1/jobs/0/cancel"),
]
READS = ["/v1/stats", "/v1/search?id=1", "/v1/images", "/v1/images/1", "/v1/images/1/thumbnail", "/v1/jobs", "/metrics"]


@pytest.fixture(scope="module")
def public(made, tmp_path_factory):
    """A server that other machines can reach."""
    folder = tmp_path_factory.mktemp("public")
    with running(made.index, folder, ready=False, host="0.0.0.0", allow_hosts=["photos.example"]) as server:
        server.http.base_url = server.http.base_url.copy_with(host="127.0.0.1")
        yield server


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "10.0.0.7", "127.0.0.1.evil.example", "", "[::"])
def test_a_name_that_is_not_the_servers_is_refused(server, host):
    for path in ("/", "/healthz", "/v1/stats", "/v1/images/1/file"):
        assert error_of(server.http.get(path, headers={"Host": host}))[:2] == (421, "bad_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "127.0.0.2:80", "[::1]:8000"])
def test_names_of_this_machine_pass(server, host):
    assert server.http.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_changes_need_the_token_and_the_header_also_on_this_machine(server, method, path):
    assert error_of(server.http.request(method, path))[:2] == (401, "unauthorized")
    wrong = {"Authorization": f"Bearer {TOKEN}x", "X-DeepHash": "1"}
    assert error_of(server.http.request(method, path, headers=wrong))[:2] == (401, "unauthorized")
    assert error_of(server.http.request(method, path, headers=BEARER))[:2] == (403, "forbidden")
    passed = server.http.request(method, path, headers=CHANGE, json={"label": 5, "ids": "none", "folders": 5})
    assert passed.status_code not in (401, 421)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_other_origins_get_nothing(server, headers):
    for path in ("/v1/stats", "/v1/images/1/thumbnail"):
        assert error_of(server.http.get(path, headers=headers))[:2] == (403, "forbidden")
    answer = server.http.post("/v1/search", files=[("image", b"x")], headers=headers | CHANGE)
    assert error_of(answer)[:2] == (403, "forbidden")
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_the_servers_own_page_and_links_from_elsewhere_pass(server):
    own = {"Origin": server.url.rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert server.http.get("/v1/stats", headers=own).status_code == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert server.http.get("/v1/images/1/file", headers=link).status_code == 200
    assert server.http.post("/v1/search?id=1", headers=link, files=[("image", b"x")]).status_code == 403


@pytest.mark.parametrize("path", ["/v1/stats", "/nothing", "/v1/nothing", "/v1/images/1/thumbnail", "/metrics"])
def test_every_answer_has_the_headers_that_keep_browsers_safe(server, path):
    headers = server.http.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers


def test_unknown_paths_and_methods_have_the_one_shape(server):
    assert error_of(server.http.get("/v1/nothing"))[:2] == (404, "not_found")
    assert error_of(server.http.put("/v1/images/1", headers=CHANGE))[:2] == (405, "method_not_allowed")
    assert error_of(server.http.get("/page/../settings.py"))[0] == 404


@pytest.mark.parametrize("path", READS)
def test_elsewhere_reading_needs_the_token_too(public, path):
    assert error_of(public.http.get(path))[:2] == (401, "unauthorized")
    assert public.http.get(path, headers={"Authorization": "Basic x"}).status_code == 401
    assert public.http.get(path, headers=BEARER).status_code == 200


def test_health_and_the_page_need_no_token(public):
    assert public.http.get("/healthz").status_code == 200
    assert public.http.get("/readyz").status_code in (200, 503)
    assert public.http.get("/").status_code in (200, 404)


def test_the_cookie_is_for_reading_only(public):
    assert error_of(public.http.post("/v1/session"))[:2] == (401, "unauthorized")
    opened = public.http.post("/v1/session", headers=BEARER)
    assert opened.status_code == 204
    cookie = opened.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    try:
        assert public.http.get("/v1/stats").status_code == 200
        assert public.http.delete("/v1/images/1", headers={"X-DeepHash": "1"}).status_code == 401
        public.http.delete("/v1/session")
        assert public.http.get("/v1/stats").status_code == 401
    finally:
        public.http.cookies.clear()


def test_the_page_is_a_page_or_is_not_there(server):
    answer = server.http.get("/")
    if answer.status_code == 200:
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["cache-control"] == "no-cache"
    else:
        assert error_of(answer)[:2] == (404, "not_found")


def test_elsewhere_addresses_and_allowed_names_pass_and_others_do_not(public):
    for host, status in (("192.168.1.5", 200), ("photos.example", 200), ("evil.example", 421)):
        assert public.http.get("/healthz", headers={"Host": host}).status_code == status


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "::", "photos.example"])
def test_no_server_for_others_starts_without_a_token(host, tmp_path):
    with pytest.raises(SettingsError, match="DEEPHASH_TOKEN"):
        ServerSettings(tmp_path, host=host)
    assert ServerSettings(tmp_path, host=host, token="0123456789abcdef").reading_needs_token


def test_settings_that_cannot_be_are_sentences(tmp_path):
    with pytest.raises(SettingsError, match="5 characters: give at least 16"):
        ServerSettings(tmp_path, token="short")
    with pytest.raises(SettingsError, match="without spaces"):
        ServerSettings(tmp_path, token="a token with spaces")
    with pytest.raises(SettingsError, match="there is no folder"):
        ServerSettings(tmp_path, uploads=tmp_path / "missing")
    first, second = ServerSettings(tmp_path), ServerSettings(tmp_path)
    assert first.secret != second.secret
    assert len(first.secret) >= 32


def test_loopback_addresses():
    assert all(map(is_loopback, ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", ""]))


def test_what_nobody_foresaw_is_logged_and_answered_without_its_text(tmp_path, caplog):
    async def fails(scope, receive, send):
        raise ZeroDivisionError("a secret")

    async def ask():
        guard = Guard(fails, ServerSettings(tmp_path), Metrics())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://localhost") as http:
            return await http.get("/v1/stats")

    answer = asyncio.run(ask())
    assert error_of(answer) == (500, "failed", "the server failed; its log has the reason")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "a secret" in caplog.text
