"""The benchmark of the server: all its phases for a second, what its clients count, table and plot of its numbers."""

import asyncio

import numpy as np

from benchmarks.serve import collection
from benchmarks.serve.__main__ import measure
from benchmarks.serve.load import KINDS, Load, ask, requests_of
from benchmarks.serve.measuring import Budget, _summary
from benchmarks.serve.report import draw_serve, table
from index import Store

SHORT = Budget(
    seconds=0.5, soak_seconds=2.0, soak_clients=6, clients=2, upload_clients=4, rounds=1, round_seconds=0.5, n_new=70,
    adding_seconds=1.0,
)  # fmt: skip


def test_all_phases_run_and_give_a_table_and_a_plot(tmp_path, monkeypatch):
    monkeypatch.setattr(collection, "CACHE", tmp_path)
    photos = collection.find_photos(None)
    assert len(list(photos.iterdir())) == 1200
    numbers = measure(photos, 500, 40, SHORT)
    [index] = tmp_path.glob("*.dhx")
    with Store.open(index) as store:
        assert len(store) == 500
        assert sum(record.path.startswith(str(photos)) for record in store.iterate()) == 40
    assert collection.make_index(photos, 500, 40) == (index, 40)

    soak, adding = numbers["soak"], numbers["adding"]
    assert [kind["errors"] for kind in soak["kinds"].values()] == [0, 0, 0, 0]
    assert soak["answers"] == sum(kind["answers"] for kind in soak["kinds"].values()) > 0
    assert all(sample[1] > sample[2] > 10 for sample in soak["memory_mib"])
    assert adding["to_add"] == 70 >= adding["added"]
    # Where a job ends before the first answer, its turn has none.
    assert 1 <= len(adding["p99_of_turns"]["while_adding"]) <= len(adding["p99_of_turns"]["before"]) <= 3
    assert numbers["client"]["lean_us"] > 0
    assert numbers["uploads"]["one_client"]["answers"] > 0
    for found in (numbers["by_id"], adding["before"], adding["while_adding"]):
        assert found["answers"] > 0
        assert found["errors"] == 0
        assert list(found["ms"].values()) == sorted(found["ms"].values())
    lines = table(numbers).splitlines()
    assert lines[0].startswith("| 500 images, 2 cores")
    assert len(lines) == 10
    assert set(numbers["uploads"]["core_ms"]) == {"server", "encoder", "decoding", "clients", "waiting"}
    assert all(ms >= 0 for ms in numbers["uploads"]["core_ms"].values())
    assert numbers["uploads"]["core_ms"]["server"] > 0 < numbers["uploads"]["encoder_core_ms"]
    figure = draw_serve(numbers)
    assert [len(panel.get_lines()) for panel in figure.axes] == [4, 3]
    assert len(figure.axes[1].get_lines()[0].get_xdata()) == len(soak["memory_mib"])


def test_clients_tell_answers_from_errors_and_from_being_sent_away():
    heads = [b"200 OK", b"500 Internal Server Error", b"429 Too Many Requests\r\nRetry-After: 1", b"429 No", b""]
    seen = []

    async def serve(reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            seen.append(head)
            answer = heads[len(seen) % len(heads)]
            if not answer:
                break
            writer.write(b"HTTP/1.1 " + answer + b"\r\nContent-Length: 5\r\n\r\nhe")
            await asyncio.sleep(0.01)  # an answer in parts
            writer.write(b"llo")
        writer.close()

    async def run():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        load = Load(f"http://127.0.0.1:{port}/", 1, 4.0, {"id": 1.0, "stats": 1.0}, 9, 9, [])
        async with server:
            return await ask(load)

    answers = asyncio.run(run())
    assert answers["status"].tolist()[:5] == [500, 429, 429, 0, 200]
    assert len(answers) <= len(seen)
    found = _summary(answers[:5], 4.0)
    assert (found["answers"], found["sent_away"], found["errors"]) == (1, 1, 3)
    assert 0.01 <= answers[4]["seconds"] < 4


def test_requests_are_the_same_every_time_and_of_all_kinds():
    load = Load("http://127.0.0.1:8000/", 1, 1.0, dict.fromkeys(KINDS, 1.0), 100, 10, [])
    upload = b"POST /v1/search HTTP/1.1\r\n\r\n"
    first, again = ([next(requests) for _ in range(100)] for requests in (requests_of(load, 3, [upload]) for _ in "12"))
    assert first == again
    assert {kind for kind, _ in first} == {0, 1, 2, 3}
    assert all((request == upload) == (KINDS[kind] == "upload") for kind, request in first)


def test_new_files_are_small_and_none_is_there_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(collection, "CACHE", tmp_path)
    photos = sorted(collection.find_photos(None).iterdir())[:10]
    collection.make_new_files(photos, tmp_path / "new", 30)
    data = {path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert len(data) == 30
    assert np.mean([len(one) for one in data]) < 20_000
