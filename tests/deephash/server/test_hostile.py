"""Requests and images that mean harm: each gets its sentence, and the server goes on as if nothing had been."""

import asyncio
import http.client
import io
import os
import socket
import struct
import threading
import time
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image

from deephash.image_errors import ImageError
from deephash.input_spec import InputSpec
from deephash.server import decoding
from deephash.server.decoding import DecodePool
from index import FileStat
from tests.deephash.photos import pixels_of
from tests.deephash.server.bad_decoders import (
    answer,
    crash,
    eat_memory,
    fail,
    hang,
    leave,
    speak_unasked,
    take_over,
    write_much,
)
from tests.deephash.server.servers import CHANGE, error_of


def encoded(format, size=(64, 64), **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels_of(3)).resize(size).save(buffer, format, **options)
    return buffer.getvalue()


def bomb(side=60_000):
    """A PNG of a few kB that says it has 3.6 thousand megapixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def png_with_large_text():
    text = b"zTXta\0\0" + zlib.compress(bytes(200 << 20), 9)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    picture = encoded("PNG")
    return picture[:33] + chunk + picture[33:60]


HOSTILE = {
    "empty": b"",
    "text": b"hello" * 100,
    "page": b"<html><script>alert(1)</script>",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file",
    "pdf": b"%PDF-1.7\n",
    "zip": b"PK\x03\x04" + bytes(100),
    "truncated jpeg": encoded("JPEG", (640, 480))[:700],
    "truncated png": encoded("PNG")[:200],
    "header of a png": encoded("PNG")[:33],
    "bomb": bomb(),
    "zipped text of 200 MB": png_with_large_text(),
    "gif of 65,535 pixels a side": b"GIF89a\xff\xff\xff\xff\x80\0\0"
    + bytes(6)
    + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x01",
    "webp that promises more": encoded("WEBP")[:60],
    "noise behind a jpeg's head": b"\xff\xd8\xff\xe0" + np.random.default_rng(0).bytes(5000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_image_no_harm(server, name):
    answer = server.http.post("/v1/search", files=[("image", ("x.jpg", HOSTILE[name], "image/jpeg"))])
    status, code, sentence = error_of(answer)
    assert (status, code) == (422, "bad_image")
    assert sentence.startswith("image 1 of 1 ")
    assert server.http.get("/v1/search?id=1").status_code == 200


def test_the_corpus_together_leaves_the_server_as_it_was(server):
    def memory():
        return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = memory()
    for name in HOSTILE:
        server.http.post("/v1/encode", files=[("image", HOSTILE[name])])
    assert memory() - before < 64 << 20
    assert len(server.client.encode([pixels_of(1)])) == 1


@pytest.mark.parametrize(
    "body",
    [
        (b"", "multipart/form-data; boundary=x"),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
        (b"--x\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\n", "multipart/form-data; boundary=x"),
        (b"--x\r\nContent-Disposition: form-data; name=image\r\n\r\nnone\r\n--x--", "multipart/form-data; boundary=x"),
        (b"{}", "application/json"),
        (b"image=a", "application/x-www-form-urlencoded"),
        (b"\0" * 1000, "image/jpeg"),
        (b"--x" * 1000, "multipart/form-data"),
        (b"", ""),
    ],
)  # fmt: skip
def test_a_body_that_is_none_is_a_sentence(server, body):
    answer = server.http.post("/v1/search", content=body[0], headers={"Content-Type": body[1]})
    status, code, _ = error_of(answer)
    assert (status, code) in ((400, "malformed"), (422, "invalid"))


def test_too_many_files_and_fields_are_refused(server):
    answer = server.http.post("/v1/search", files=[("image", b"x")] * 17)
    assert error_of(answer)[0] in (400, 422)
    answer = server.http.post("/v1/search", files=[("image", b"x")], data={str(n): "x" for n in range(100)})
    assert error_of(answer)[0] == 400


def test_300_megabytes_are_refused_as_they_come(server):
    piece = bytes(1 << 20)

    def body():
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(300):
            yield piece
        yield b"\r\n--x--\r\n"

    with httpx.Client(timeout=30) as http:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = http.post(server.url + "v1/search", content=body(), headers=headers)
        assert error_of(answer)[:2] == (413, "too_large")
        n_bytes = sum(map(len, body()))
        announced = {**headers, "Content-Length": str(n_bytes)}
        started = time.monotonic()
        answer = http.post(server.url + "v1/search", content=body(), headers=announced)
        assert error_of(answer)[:2] == (413, "too_large")
        assert time.monotonic() - started < 20
    high = Path(f"/proc/{server.process.pid}/status").read_text()
    assert int(high.split("VmHWM:")[1].split()[0]) < 1_500_000  # kB, torch and the model among it
    assert server.http.get("/healthz").status_code == 200


def test_a_body_that_trickles_is_given_up(server):
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    connection.putrequest("POST", "/v1/search")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", "100000")
    connection.endheaders()
    connection.send(b"--x\r\n")
    answer = connection.getresponse()
    assert answer.status == 408
    assert b"slow_body" in answer.read()
    assert answer.headers["Connection"] == "close"
    connection.close()


def test_connections_that_say_nothing_hold_nobody_up(server):
    address = urlsplit(server.url)
    silent = [socket.create_connection((address.hostname, address.port)) for _ in range(100)]
    try:
        for connection in silent[:50]:
            connection.sendall(b"GET /v1/stats HTTP/1.1\r\nHost: loc")
        assert server.http.get("/v1/search?id=1").status_code == 200
    finally:
        for connection in silent:
            connection.close()


@pytest.mark.parametrize(
    "name", ["../../../tmp/evil.jpg", "/etc/evil.jpg", "a\0b.jpg", "..\\..\\evil.jpg", ".", "x" * 5000]
)
def test_names_of_uploaded_files_are_ignored(own, name):
    uploads = own.folder / "uploads"
    before = {path for path in own.folder.parent.rglob("*") if "uploads" not in path.parts}
    body = encoded("PNG", (40 + len(name) % 50, 33))
    answer = own.http.post("/v1/images", files=[("image", (name, body))], headers=CHANGE)
    if answer.status_code == 400:  # a name that multipart itself forbids
        return
    assert answer.status_code == 202
    own.client.wait(own.client.jobs()[0])
    kept = [path for path in uploads.iterdir() if path.read_bytes() == body]
    assert len(kept) == 1
    assert kept[0].suffix == ".png"
    after = {path for path in own.folder.parent.rglob("*") if "uploads" not in path.parts}
    assert {path.name for path in after - before} <= {"catalogue.db-wal", "catalogue.db-shm", "writer.lock"}


def test_no_upload_that_is_no_image_is_kept(own):
    before = sorted((own.folder / "uploads").iterdir())
    answer = own.http.post("/v1/images", files=[("image", HOSTILE["page"])], headers=CHANGE)
    assert error_of(answer)[:2] == (422, "bad_image")
    answer = own.http.post("/v1/images", files=[("image", HOSTILE["bomb"])], headers=CHANGE)
    assert error_of(answer)[:2] == (422, "bad_image")
    assert sorted((own.folder / "uploads").iterdir()) == before
    for text in ("{", "[]", '{"a": {}}', '{"a": NaN}', "[" * 20_000):
        answer = own.http.post("/v1/images", files=[("image", encoded("PNG"))], data={"metadata": text}, headers=CHANGE)
        assert error_of(answer)[:2] == (422, "invalid")


def test_a_server_without_a_folder_for_uploads_takes_none(server):
    answer = server.http.post("/v1/images", files=[("image", encoded("PNG"))], headers=CHANGE)
    assert error_of(answer)[:2] == (403, "forbidden")


@pytest.mark.parametrize(
    "folder", ["/etc", "/", "{own}/../..", "{own}/photos/../../..", "relative", "{own}/link", "{own}/missing", "\0"]
)
def test_no_folder_outside_the_roots_is_indexed(own, folder):
    link = own.folder / "link"
    if not link.is_symlink():
        link.symlink_to("/usr/share")
    wanted = {"folders": [folder.format(own=own.folder)]}
    status, code, _ = error_of(own.http.post("/v1/jobs", json=wanted, headers=CHANGE))
    assert (status, code) in ((403, "forbidden"), (404, "not_found"), (422, "invalid"))


@pytest.fixture(scope="module")
def pool():
    pool = DecodePool(workers=1, seconds=2, max_waiting=2, max_pixels=1_000)
    pool.start()
    yield pool
    pool.close()


def results(pool, *tasks):
    """Runs tasks side by side in the pool's own event loop; returns what they return or raise."""

    async def work():
        return await asyncio.gather(*(pool.run(task) for task in tasks), return_exceptions=True)

    return asyncio.run_coroutine_threadsafe(work(), pool._loop).result(60)


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (hang, "takes longer than 2 s"), (crash, "crash"), (leave, "crash"), (eat_memory, "needs more memory"),
        (fail, "is damaged (a bug)"), (write_much, "crash"), (take_over, "crash"), (speak_unasked, "crash"),
    ],
)  # fmt: skip
def test_a_decoder_that_is_broken_or_taken_over_is_replaced(pool, task, reason):
    (found,) = results(pool, task)
    assert isinstance(found, ImageError)
    assert reason in found.reason
    assert results(pool, answer) == [42]
    assert pool.waiting == 0


def test_a_process_that_dies_while_it_waits_is_replaced(pool):
    assert results(pool, answer) == [42]
    (process,) = pool._processes
    process._process.kill()
    process.join(20)
    while process in pool._processes:
        time.sleep(0.001)
    assert results(pool, answer) == [42]


def test_whoever_gives_up_holds_up_nobody(pool):
    async def work():
        gone = [asyncio.ensure_future(pool.run(task)) for task in (hang, answer)]
        await asyncio.sleep(0.1)
        for task in gone:
            task.cancel()
        await asyncio.wait(gone)
        return await pool.run(answer)

    assert asyncio.run_coroutine_threadsafe(work(), pool._loop).result(60) == 42
    assert pool.waiting == 0


def test_more_than_may_wait_are_sent_away(pool):
    found = results(pool, *[answer] * 4)
    assert found[:2] == [42, 42]
    assert [error.status_code for error in found[2:]] == [429, 429]
    assert [error.headers["Retry-After"] for error in found[2:]] == ["1", "1"]


def test_whoever_waits_for_a_pool_that_is_closed_is_told():
    closing = DecodePool(workers=1, seconds=20, max_waiting=9, max_pixels=1_000)
    closing.start()
    file, found = FileStat("/nothing.png", 1, 1), []
    threads = [threading.Thread(target=lambda: found.append(closing.decode(file, InputSpec()))) for _ in range(8)]
    hanging = asyncio.run_coroutine_threadsafe(closing.run(hang), closing._loop)
    while closing._tasks or not closing._processes:
        time.sleep(0.001)
    for thread in threads:
        thread.start()
    while len(closing._tasks) < 8:
        time.sleep(0.001)
    closing.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    with pytest.raises(ImageError, match="the server is stopping"):
        hanging.result(20)
    assert [failed.reason for failed in found] == ["cannot be decoded now: the server is stopping"] * 8
    assert closing.decode(file, InputSpec()).reason == found[0].reason


def test_where_no_process_can_be_started_images_are_refused(monkeypatch):
    def refuse(**_):
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(decoding, "DecodeProcess", refuse)
    pool = DecodePool(workers=1, seconds=20, max_waiting=9, max_pixels=1_000)
    pool.start()
    (found,) = results(pool, answer)
    pool.close()
    assert found.reason == "cannot be decoded now: the server cannot start a process"
