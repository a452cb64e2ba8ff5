"""Searches over HTTP give what ImageSearch gives on the index itself, and refuse what is out of bounds."""

import io

import numpy as np
import pytest
from PIL import Image

from deephash import Filter, ImageError, ImageSearch, ServerError
from deephash.server.searching import Question, search_pages
from index import Entry, Store, UnknownId
from tests.deephash.photos import pixels_of, sample
from tests.deephash.server.servers import error_of


@pytest.fixture(scope="module")
def engine(made):
    with ImageSearch.open(made.index) as search:
        yield search


LABEL = str(sample().class_names[int(sample().database_labels[0])])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 3},
        {"k": None, "radius": 24},
        {"k": 4, "radius": 20},
        {"k": 5, "where": Filter(path="*/*1*.png")},
        {"k": 5, "where": Filter(label=LABEL)},
        {"k": 5, "where": Filter(metadata={"year": 1})},
    ],
)
def test_ids_codes_and_images_find_what_the_engine_finds(server, engine, made, options):
    images = [made.cat, pixels_of(50), Image.fromarray(pixels_of(51))]
    codes = engine.encode(images)
    assert np.array_equal(server.client.encode(images), codes)
    assert server.client.query(images, **options) == engine.query_codes(codes, **options)
    assert server.client.query_codes(codes, **options) == engine.query_codes(codes, **options)
    assert server.client.query_ids([5, 1], **options) == engine.query_ids([5, 1], **options)


def test_images_combined_are_one_query(server, engine, made):
    images = [made.cat, pixels_of(50), pixels_of(51)]
    assert server.client.query(images, k=7, combine=True) == engine.query(images, k=7, combine=True)


def test_indexed_images_combine_with_uploaded_ones(server, engine, made):
    record = engine.records([3])[0]
    found = server.http.post(
        "/v1/search", params={"id": 3, "combine": True, "k": 4}, files=[("image", made.cat.read_bytes())]
    ).json()["results"]
    (expected,) = engine.query([record.path, made.cat], k=4, combine=True)
    assert [match["id"] for match in found[0]["matches"]] == [match.id for match in expected]
    assert found[0]["query"]["kind"] == "combined"
    answer = server.http.get("/v1/search", params={"id": [3, 4], "combine": True, "k": 2})
    assert answer.json()["results"][0]["total"] == 2
    code = record.code.hex()
    assert error_of(server.http.get("/v1/search", params={"code": code, "combine": True}))[:2] == (422, "invalid")


def test_several_kinds_of_queries_come_in_order(server, made):
    code = server.http.get("/v1/images/2").json()["code"]
    found = server.http.post(
        "/v1/search", params={"id": [7, 1], "code": code, "k": 1}, files=[("image", made.cat.read_bytes())] * 2
    ).json()
    assert [result["query"]["kind"] for result in found["results"]] == ["id", "id", "code", "image", "image"]
    assert [result["query"]["id"] for result in found["results"]] == [7, 1, None, None, None]
    assert found["results"][2]["matches"][0]["distance"] == 0
    assert found["results"][3] == found["results"][4]


def test_pages_are_the_whole_in_pieces(server):
    (whole,) = server.http.get("/v1/search", params={"id": 1, "k": 25}).json()["results"]
    offset, pieces = 0, []
    while offset is not None:
        (page,) = server.http.get("/v1/search", params={"id": 1, "k": 25, "limit": 10, "offset": offset}).json()[
            "results"
        ]
        assert page["total"] == 25
        pieces += page["matches"]
        offset = page["next_offset"]
    assert pieces == whole["matches"]
    assert len(pieces) == 25
    (beyond,) = server.http.get("/v1/search", params={"id": 1, "offset": 500}).json()["results"]
    assert (beyond["matches"], beyond["next_offset"]) == ([], None)


def test_a_match_says_all_that_is_known(server, engine):
    (found,) = server.http.get("/v1/search", params={"id": 1, "k": 1}).json()["results"][0]["matches"]
    record = engine.records([found["id"]])[0]
    assert found["code"] == record.code.hex()
    assert found["content_hash"] == record.content_hash.hex()
    assert (found["path"], found["label"], found["width"], found["n_bytes"]) == (
        record.path, record.label, record.width, record.n_bytes,
    )  # fmt: skip
    assert server.client.records([found["id"]]) == [record]


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({}, "queries"),
        ({"id": [1] * 17}, "id"),
        ({"id": 0}, "id"),
        ({"id": "x"}, "id"),
        ({"id": 1, "k": 0}, "k"),
        ({"id": 1, "k": 10_001}, "k"),
        ({"id": 1, "radius": 65}, "radius"),
        ({"id": 1, "radius": -1}, "radius"),
        ({"id": 1, "limit": 1_001}, "limit"),
        ({"code": "00"}, "code"),
        ({"code": "zz" * 8}, "code"),
        ({"id": 1, "where": "no-equals-sign"}, "where"),
        ({"id": 1, "path": "*a" * 9}, "path"),
        ({"id": 1, "path": "\0"}, "path"),
    ],
)
def test_what_is_out_of_bounds_is_a_sentence_that_names_it(server, parameters, word):
    status, code, sentence = error_of(server.http.get("/v1/search", params=parameters))
    assert (status, code) == (422, "invalid")
    assert word in sentence


def test_an_unknown_id_is_not_found(server):
    assert error_of(server.http.get("/v1/search", params={"id": 999}))[:2] == (404, "unknown_id")
    with pytest.raises(UnknownId, match="no image 999"):
        server.client.query_ids([1, 999])


def test_the_client_raises_what_the_engine_raises(server, tmp_path):
    with pytest.raises(ImageError, match="image 2 of 2 is not an image"):
        server.client.query([pixels_of(1), b"no image at all"])
    with pytest.raises(ImageError, match="does not exist"):
        server.client.query(tmp_path / "missing.png")
    with pytest.raises(ValueError, match="neither k nor radius"):
        server.client.query(pixels_of(1), k=None)
    with pytest.raises(ServerError, match="radius") as caught:
        server.client.query_ids([1], radius=65)
    assert (caught.value.status, caught.value.code) == (422, "invalid")
    with pytest.raises(ValueError, match="no image was given"):
        server.client.query([])


def test_more_queries_than_one_call_takes_are_several_calls(server, engine):
    images = [pixels_of(number) for number in range(20)]
    assert server.client.query(images, k=2) == engine.query(images, k=2)
    assert server.client.query_ids(list(range(1, 21)), k=2) == engine.query_ids(list(range(1, 21)), k=2)
    buffer = io.BytesIO()
    Image.fromarray(images[0]).save(buffer, "PNG")
    assert np.array_equal(server.client.encode(buffer.getvalue()), engine.encode(images[0]))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """10,050 images of one code and one of another."""
    folder = tmp_path_factory.mktemp("many") / "many.dhx"
    with Store.create(folder, n_bits=16, fingerprint="f" * 32) as store:
        entries = [Entry(f"/p/{number}", 1, 1, b"", 1, 1) for number in range(10_051)]
        store.put(entries, np.array([[0, 0]] * 10_050 + [[255, 255]], np.uint8))
        yield store


def test_a_radius_that_reaches_too_many_is_refused_before_they_are_looked_up(many):
    code = np.zeros(2, np.uint8)
    with pytest.raises(Exception, match="10,050 images are within distance 3") as caught:
        search_pages(many, code[None], Question(None, 3, None, 0, 100), excluded=[None])
    assert (caught.value.status_code, caught.value.code) == (422, "too_many_results")
    (page,) = search_pages(many, code[None], Question(10_000, 3, None, 9_990, 100), excluded=[None])
    assert [record.id for record, _ in page.matches] == list(range(9_991, 10_001))
    (page,) = search_pages(many, ~code[None], Question(None, 0, None, 0, 10), excluded=[None])
    assert page.total == 1
