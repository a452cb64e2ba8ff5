"""Searches that pass by the framework answer as the framework would, also while the index changes."""

import asyncio
import io
import socket

import pytest
from PIL import Image

from deephash import ImageSearch
from deephash.server.quick import _SmallBody, parsed
from deephash.server.searching import Question
from tests.deephash.photos import pixels_of
from tests.deephash.server.servers import error_of

PLAIN = ["id=1", "id=7&k=3", "k=100&id=31&limit=5", "id=2&offset=4&limit=3", "id=2&offset=99", "limit=1000&id=4&k=30"]
OTHERS = [
    "id", "id=", "id=0", "id=x", "id=1&id=2", "id=1&k=0", "id=1&k=101", "id=1&limit=0", "id=1&limit=1001",
    "id=1&radius=3", "id=-1", "id=1&offset=-1", "id=1&k=5&", "id=%31", "id=1&k=3&k=4", "id=1" + "0" * 18, "id=1&more=1",
]  # fmt: skip


@pytest.mark.parametrize("query", PLAIN)
def test_answers_are_those_of_the_route(server, query):
    assert parsed(query.encode()) is not None
    quick = server.http.get(f"/v1/search?{query}")
    slow = server.http.get(f"/v1/search?{query}&combine=false")
    assert quick.status_code == slow.status_code == 200
    assert quick.json() == slow.json()
    assert set(quick.headers.items()) - set(slow.headers.items()) <= {("date", quick.headers["date"])}


@pytest.mark.parametrize("query", OTHERS)
def test_all_else_is_left_to_the_framework(query):
    assert parsed(query.encode()) is None


def test_defaults_are_those_of_the_route():
    assert parsed(b"id=5") == (5, Question(10, None, None, 0, 100))
    assert parsed(b"") == (None, Question(10, None, None, 0, 100))


def test_unknown_images_are_refused_alike(server):
    quick, slow = (server.http.get(f"/v1/search?id=999{rest}") for rest in ("", "&combine=false"))
    assert error_of(quick) == error_of(slow)
    assert error_of(quick)[:2] == (404, "unknown_id")


def test_other_methods_go_to_the_framework(server):
    assert error_of(server.http.post("/v1/search?id=1"))[:2] == (422, "invalid")
    assert error_of(server.http.post("/v1/search"))[:2] == (422, "invalid")
    assert error_of(server.http.get("/v1/search"))[:2] == (422, "invalid")
    assert server.http.head("/v1/search?id=1").status_code == 405


def png(number=5):
    buffer = io.BytesIO()
    Image.fromarray(pixels_of(number)).save(buffer, "PNG")
    return buffer.getvalue()


def form_of(head, image=b"pixels", *, before=b"--x", after=b"\r\n--x--\r\n"):
    return before + b"\r\n" + head + b"\r\n\r\n" + image + after


FILE = b'Content-Disposition: form-data; name="image"; filename="a.png"'


def small_body(body, kind=b"multipart/form-data; boundary=x", *, n_pieces=1, n_bytes=None):
    """Returns what is found of a body, and the body as it is handed on."""
    size = -(-len(body) // n_pieces)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    messages = [{"type": "http.request", "body": piece, "more_body": piece is not pieces[-1]} for piece in pieces]

    async def receive():
        return messages.pop(0)

    async def work():
        length = b"%d" % len(body) if n_bytes is None else n_bytes
        small = _SmallBody({"headers": [(b"content-type", kind), (b"content-length", length)]}, receive)
        found, again = await small.only_image(), b""
        while True:
            message = await small.receive()
            again += message["body"]
            if not message["more_body"]:
                return found, again

    return asyncio.run(work())


@pytest.mark.parametrize("n_pieces", [1, 2, 7, 60])
@pytest.mark.parametrize(
    "body",
    [
        form_of(FILE), form_of(FILE, after=b"\r\n--x--"), form_of(FILE + b"\r\nContent-Type: image/png"),
        form_of(b"X-More: 1\r\ncontent-disposition:form-data; filename=a; name=image"),
    ],
)  # fmt: skip
def test_the_only_image_of_a_form_is_found(body, n_pieces):
    assert small_body(body, n_pieces=n_pieces) == (b"pixels", body)


@pytest.mark.parametrize(
    "body",
    [
        b" ", b"--x--\r\n", form_of(FILE, after=b""), form_of(FILE, after=b"\r\n--x"), form_of(FILE, before=b"--y"),
        form_of(FILE, before=b"--xy"),
        form_of(FILE, before=b"before\r\n--x"), form_of(FILE, after=b"\r\n--x--\r\nafter"), form_of(b"X-More: 1"),
        form_of(b'Content-Disposition: form-data; name="image"'), form_of(FILE.replace(b"image", b"id")),
        form_of(FILE.replace(b"form-data", b"attachment")), form_of(FILE + b"\r\n" + FILE),
        form_of(FILE, b"a\r\n--x\r\n" + FILE + b"\r\n\r\nb"),
    ],
)  # fmt: skip
def test_any_other_form_is_left_to_the_framework_as_it_came(body):
    for n_pieces in (1, 3):
        assert small_body(body, n_pieces=n_pieces) == (None, body)


@pytest.mark.parametrize("kind", [b"", b"image/png", b"multipart/form-data", b"multipart/mixed; boundary=x", b"\xff"])
def test_what_is_no_form_is_not_looked_at(kind):
    assert small_body(form_of(FILE), kind) == (None, form_of(FILE))


@pytest.mark.parametrize("n_bytes", [b"", b"-1", b"%d" % ((1 << 20) + 1)])
def test_large_bodies_and_those_of_unknown_size_are_not_looked_at(n_bytes):
    assert small_body(form_of(FILE), n_bytes=n_bytes) == (None, form_of(FILE))


@pytest.mark.parametrize("query", ["", "k=3", "k=100&limit=5", "offset=4&limit=3"])
def test_answers_to_an_image_are_those_of_the_route(server, query):
    files = [("image", ("x.png", png(), "image/png"))]
    quick = server.http.post(f"/v1/search?{query}", files=files)
    slow = server.http.post(f"/v1/search?{query}&combine=false", files=files)
    assert quick.status_code == slow.status_code == 200
    assert quick.json() == slow.json()
    assert quick.json()["results"][0]["query"]["kind"] == "image"
    assert set(quick.headers.items()) - set(slow.headers.items()) <= {("date", quick.headers["date"])}


def test_forms_of_more_than_an_image_reach_the_framework_whole(server):
    two = server.http.post("/v1/search", files=[("image", png(1)), ("image", png(2))])
    assert [result["query"]["kind"] for result in two.json()["results"]] == ["image"] * 2
    both = server.http.post("/v1/search?id=1", files=[("image", png(1))])
    assert [result["query"]["kind"] for result in both.json()["results"]] == ["id", "image"]
    assert error_of(server.http.post("/v1/search", files=[("picture", png(1))]))[:2] == (422, "invalid")


def test_what_is_no_image_is_refused_alike(server):
    quick, slow = (server.http.post(f"/v1/search?{rest}", files=[("image", b"none")]) for rest in ("", "combine=false"))
    assert error_of(quick) == error_of(slow)
    assert error_of(quick)[:2] == (422, "bad_image")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_they_are_counted_as_searches(server, method):
    def count():
        lines = server.http.get("/metrics").text.splitlines()
        wanted = f'deephash_requests_total{{method="{method}",route="/v1/search",status="200"}} '
        return sum(float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted))

    before = count()
    if method == "GET":
        server.http.get("/v1/search?id=1")
    else:
        server.http.post("/v1/search", files=[("image", png())])
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
