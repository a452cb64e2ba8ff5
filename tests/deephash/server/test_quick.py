"""Searches that pass by the framework answer as the framework would, also while the index changes."""

import socket

import pytest

from deephash import ImageSearch
from deephash.server.quick import _parsed
from deephash.server.searching import Question
from tests.deephash.server.servers import error_of

PLAIN = ["id=1", "id=7&k=3", "k=100&id=31&limit=5", "id=2&offset=4&limit=3", "id=2&offset=99", "limit=1000&id=4&k=30"]
OTHERS = [
    "", "id", "id=", "id=0", "id=x", "id=1&id=2", "id=1&k=0", "id=1&k=101", "id=1&limit=0", "id=1&limit=1001",
    "id=1&radius=3", "id=-1", "id=1&offset=-1", "id=1&k=5&", "id=%31", "id=1&k=3&k=4", "id=1" + "0" * 18, "id=1&more=1",
]  # fmt: skip


@pytest.mark.parametrize("query", PLAIN)
def test_answers_are_those_of_the_route(server, query):
    assert _parsed(query.encode()) is not None
    quick = server.http.get(f"/v1/search?{query}")
    slow = server.http.get(f"/v1/search?{query}&combine=false")
    assert quick.status_code == slow.status_code == 200
    assert quick.json() == slow.json()
    assert set(quick.headers.items()) - set(slow.headers.items()) <= {("date", quick.headers["date"])}


@pytest.mark.parametrize("query", OTHERS)
def test_all_else_is_left_to_the_framework(query):
    assert _parsed(query.encode()) is None


def test_defaults_are_those_of_the_route():
    assert _parsed(b"id=5") == (5, Question(10, None, None, 0, 100))


def test_unknown_images_are_refused_alike(server):
    quick, slow = (server.http.get(f"/v1/search?id=999{rest}") for rest in ("", "&combine=false"))
    assert error_of(quick) == error_of(slow)
    assert error_of(quick)[:2] == (404, "unknown_id")


def test_other_methods_go_to_the_framework(server):
    assert error_of(server.http.post("/v1/search?id=1"))[:2] == (422, "invalid")
    assert server.http.head("/v1/search?id=1").status_code == 405


def test_they_are_counted_as_searches(server):
    def count():
        lines = server.http.get("/metrics").text.splitlines()
        wanted = 'deephash_requests_total{method="GET",route="/v1/search",status="200"} '
        return sum(float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted))

    before = count()
    server.http.get("/v1/search?id=1")
    assert count() == before + 1


def test_what_another_process_commits_is_found_at_once(own):
    url = "/v1/search?id=1&k=100"
    before = own.http.get(url).json()["results"][0]["matches"]
    with ImageSearch.open(own.folder / "photos.dhx", writable=True) as search:
        gone = next(match["id"] for match in before if match["id"] > 4)
        search.remove([gone])
        now = own.http.get(url).json()["results"][0]["matches"]
    assert now == [match for match in before if match["id"] != gone]


def test_requests_that_come_together_are_answered_in_their_order(server):
    address = server.http.base_url
    request = b"GET /v1/search?id=%d&k=30 HTTP/1.1\r\nHost: localhost\r\n"
    with socket.create_connection((address.host, address.port), timeout=20) as connection:
        requests = [request % id for id in range(1, 9)]
        connection.sendall(b"\r\n".join(requests) + b"Connection: close\r\n\r\n")
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    answers = received.split(b"HTTP/1.1 200 OK\r\n")[1:]
    bodies = [answer.partition(b"\r\n\r\n")[2] for answer in answers]
    assert [body.startswith(b'{"n_bits":64') for body in bodies] == [True] * 8
    assert [f'"kind":"id","id":{id},'.encode() in body for id, body in enumerate(bodies, 1)] == [True] * 8
