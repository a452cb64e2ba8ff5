"""Searches that are answered without an ASGI call: which ones, in which order, and how their connections go on."""

import asyncio
import json
import os
import socket
from types import SimpleNamespace

import numpy as np
import pytest
import uvicorn
from uvicorn.server import ServerState

from deephash import ImageSearch
from deephash.server import ServerSettings
from deephash.server.app import create_app
from deephash.server.models import image_dict, match_dict
from deephash.server.routes.parameters import json_bytes
from deephash.server.wire import Protocol
from index import Entry, Store
from tests.deephash.server.servers import error_of

SEARCH = b"GET /v1/search?id=%d HTTP/1.1\r\nHost: localhost\r\n"


class Transport:
    """What a protocol has written, and whether it hung up."""

    def __init__(self):
        self.written, self.closed = b"", False

    def write(self, data):
        self.written += data

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def get_extra_info(self, name):
        return None

    def resume_reading(self):
        pass

    pause_reading = resume_reading


class App:
    """Answers every request with its query, by ASGI; ``state.at_once`` takes those of even ids."""

    head = b"x-at-once: 1\r\n"

    def __init__(self, refuses=()):
        self.refuses = refuses
        self.state = SimpleNamespace(at_once=self)

    def takes(self, scope, answer):
        query = scope["query_string"]
        if int(query.removeprefix(b"id=")) % 2:
            return False
        asyncio.get_running_loop().call_soon(answer, None if query in self.refuses else query)
        return True

    async def __call__(self, scope, receive, send):
        query = scope["query_string"]
        await asyncio.sleep(0)
        headers = [(b"content-length", b"%d" % len(query)), (b"x-asgi", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": query})


def answers_of(*pieces, refuses=(), between=lambda protocol: None):
    """Returns the answers to what arrives in these pieces, as (how, body), and the transport."""

    async def work():
        app = App(refuses)
        config = uvicorn.Config(app, http=Protocol, lifespan="off", proxy_headers=False)
        protocol = Protocol(config, ServerState(), {}, asyncio.get_running_loop())
        transport = Transport()
        protocol.connection_made(transport)
        for piece in pieces:
            protocol.data_received(piece)
            between(protocol)
            for _ in range(50):
                await asyncio.sleep(0)
        return transport

    transport = asyncio.run(work())
    found = []
    for answer in transport.written.split(b"HTTP/1.1 200 OK\r\n")[1:]:
        head, _, body = answer.partition(b"\r\n\r\n")
        found.append(("at once" if b"x-at-once" in head else "asgi", body))
    return found, transport


def test_what_is_taken_makes_no_asgi_call():
    found, transport = answers_of(SEARCH % 2 + b"\r\n", SEARCH % 3 + b"\r\n", SEARCH % 4 + b"\r\n")
    assert found == [("at once", b"id=2"), ("asgi", b"id=3"), ("at once", b"id=4")]
    assert not transport.closed


def test_what_has_no_answer_after_all_goes_to_the_app():
    found, _ = answers_of(SEARCH % 2 + b"\r\n", SEARCH % 4 + b"\r\n", refuses=[b"id=2"])
    assert found == [("asgi", b"id=2"), ("at once", b"id=4")]


def test_requests_in_one_packet_are_answered_in_their_order():
    ids = [2, 4, 3, 6, 5, 8, 10]
    found, _ = answers_of(b"".join(SEARCH % id + b"\r\n" for id in ids), refuses=[b"id=8"])
    assert found == [("asgi" if id % 2 or id == 8 else "at once", b"id=%d" % id) for id in ids]


def test_many_requests_in_one_packet_do_not_nest():
    found, _ = answers_of(*[(SEARCH % 3 + b"\r\n") + (SEARCH % 2 + b"\r\n") * 40] * 3)
    assert found == [("asgi", b"id=3"), *[("at once", b"id=2")] * 40] * 3
    found, _ = answers_of((SEARCH % 3 + b"\r\n") + (SEARCH % 2 + b"\r\n") * 4_000, *[b""] * 100)
    assert len(found) == 4_001


@pytest.mark.parametrize("request_", [SEARCH % 2 + b"Connection: close\r\n\r\n", b"GET /?id=2 HTTP/1.0\r\n\r\n"])
def test_a_connection_for_one_request_ends_behind_it(request_):
    found, transport = answers_of(request_)
    assert found == [("at once", b"id=2")]
    assert b"connection: close\r\n" in transport.written
    assert transport.closed


def test_a_server_that_stops_answers_what_it_has_taken_and_hangs_up():
    found, transport = answers_of(SEARCH % 2 + b"\r\n", between=lambda protocol: protocol.shutdown())
    assert found == [("at once", b"id=2")]
    assert b"connection: close\r\n" in transport.written
    assert transport.closed


def test_who_has_hung_up_gets_no_answer():
    found, _ = answers_of(SEARCH % 2 + b"\r\n", between=lambda protocol: protocol.connection_lost(None))
    assert found == []


def test_the_app_takes_plain_searches_by_id_alone(made):
    app = create_app(ServerSettings(made.index))
    app.middleware_stack = app.build_middleware_stack()
    takes = app.state.at_once.takes

    def asked(**changes):
        plain = {
            "path": "/v1/search", "method": "GET", "query_string": b"id=1&k=3", "headers": [(b"host", b"localhost")]
        }  # fmt: skip
        return plain | changes

    async def answers(*scopes):
        found = []
        for scope in scopes:
            assert takes(scope, found.append)
        await asyncio.sleep(0)
        return found

    async def work():
        assert await answers(asked()) == [None]  # nothing is loaded yet
        app.state.service.stores.quick.refresh()
        queries = [b"id=1&k=3", b"id=2&k=3", b"id=3", b"k=3&id=4"]
        found = await answers(*(asked(query_string=query) for query in queries))
        results = [json.loads(body)["results"][0] for body in found]
        totals = {result["query"]["id"]: result["total"] for result in results}
        assert totals == {1: 3, 2: 3, 3: 10, 4: 3}
        rounds = []
        for number in range(80):
            assert takes(asked(), lambda body, of=number: rounds.append((of, body)))
        asyncio.get_running_loop().call_soon(rounds.append, "others")
        for _ in range(4):
            await asyncio.sleep(0)
        assert rounds.index("others") == 32
        assert [number for number, _ in rounds[:32] + rounds[33:]] == list(range(80))
        assert {body for _, body in rounds[:32] + rounds[33:]} == {found[0]}
        # An unknown one is left to the app with those that were asked for beside it.
        assert await answers(asked(query_string=b"id=999"), asked(query_string=b"id=1")) == [None, None]
        for other in (
            {"path": "/v1/images"}, {"method": "POST"}, {"method": "HEAD"}, {"query_string": b"id=1&radius=3"},
            {"query_string": b""}, {"headers": []}, {"headers": [(b"host", b"evil.example")]},
            {"headers": [(b"host", b"localhost"), (b"origin", b"http://evil.example")]},
            {"headers": [(b"host", b"localhost"), (b"content-length", b"3")]},
            {"headers": [(b"host", b"localhost"), (b"transfer-encoding", b"chunked")]},
        ):  # fmt: skip
            assert not takes(asked(**other), print)

    asyncio.run(work())
    counted = app.state.service.metrics.text().decode()
    assert 'deephash_requests_total{method="GET",route="/v1/search",status="200"} 84.0' in counted
    app.state.service.stores.close()


def test_unknown_images_among_many_requests_at_once_are_refused_alone(server):
    address = server.http.base_url
    ids = [1, 999, 2, 3, 998, 4]
    connections = [socket.create_connection((address.host, address.port), timeout=20) for _ in ids]
    for id, connection in zip(ids, connections, strict=True):
        connection.sendall(SEARCH % id + b"Connection: close\r\n\r\n")
    for id, connection in zip(ids, connections, strict=True):
        with connection:
            head, _, body = b"".join(iter(lambda of=connection: of.recv(1 << 16), b"")).partition(b"\r\n\r\n")
        if id > 900:
            assert head.startswith(b"HTTP/1.1 404 ")
            assert f"has no image {id}" in json.loads(body)["error"]["message"]
        else:
            assert head.startswith(b"HTTP/1.1 200 ")
            assert json.loads(body)["results"][0]["query"]["id"] == id


def test_a_search_with_a_body_is_answered_as_one_without(server):
    plain = server.http.get("/v1/search?id=1")
    assert server.http.request("GET", "/v1/search?id=1", content=b"body").json() == plain.json()
    assert error_of(server.http.get("/v1/search?id=1", headers={"Host": "evil.example"}))[:2] == (421, "bad_host")


def test_what_a_change_leaves_is_found_by_all_who_ask_afterwards(own):
    with ImageSearch.open(own.folder / "photos.dhx", writable=True) as search:
        for turn in range(5):
            search.store.annotate([2], label=f"turn {turn}")
            for id in (1, 3):
                found = own.http.get(f"/v1/search?id={id}&k=100").json()["results"][0]["matches"]
                assert [match["label"] for match in found if match["id"] == 2] == [f"turn {turn}"]


@pytest.mark.parametrize(
    "value",
    [{"a": [1, -2.5, 1e22, 10**30, None, True]}, 'caf\xe9 \u2028 \U0001f600 "\\\x00\x7f', {"lone": "\udce9"}, []],
)
def test_json_is_what_it_was(value):
    assert json.loads(json_bytes(value)) == value


def test_paths_that_are_not_ascii_come_as_text_and_as_bytes(tmp_path):
    paths = ["/p/a.jpg", "/p/caf\xe9.jpg", os.fsdecode(b"/p/caf\xe9.jpg")]
    with Store.create(tmp_path / "a.dhx", n_bits=8, fingerprint="f" * 32) as store:
        store.put([Entry(path, 1, 2, b"3", 4, 5) for path in paths], np.zeros((3, 1), np.uint8))
        plain, text, other = map(image_dict, store.rows([1, 2, 3]))
        assert [plain["path"], text["path"], other["path"]] == ["/p/a.jpg", "/p/caf\xe9.jpg", "/p/caf\\xe9.jpg"]
        assert [plain["path_hex"], text["path_hex"]] == [None, None]
        assert bytes.fromhex(other["path_hex"]) == b"/p/caf\xe9.jpg"
        for row, record in zip(store.rows([1, 2, 3]), store.records([1, 2, 3]), strict=True):
            assert match_dict(row, 7) == image_dict(record) | {"distance": 7}
