"""Images over HTTP: lists, records, files and thumbnails by id; nothing outside the indexed folders, no metadata."""

import io
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from deephash import Filter, index_images
from deephash.engine import MODEL_FILE
from deephash.server.pictures import media_type
from index import Entry, Store, UnknownId
from tests.deephash.photos import pixels_of, write_photos
from tests.deephash.server.servers import error_of, running

GPS = 0x8825


@pytest.fixture(scope="module")
def odd(tmp_path_factory, tiny_file):
    """A server of photographs with EXIF, of links that lead out, of files that went, under names that are no UTF-8."""
    folder = tmp_path_factory.mktemp("odd")
    write_photos(folder / "photos", 0, 4)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a camera", 6
    exif.get_ifd(GPS)[1] = "N"
    exif.get_ifd(GPS)[2] = (52.0, 31.0, 12.0)
    picture = Image.fromarray(pixels_of(5)).resize((300, 200))
    picture.save(folder / "photos" / "with gps.jpg", exif=exif, quality=95)
    (secret,) = write_photos(folder / "secret", 7, 8)
    (folder / "photos" / "link.png").symlink_to(secret)
    shutil.copy(folder / "photos" / "with gps.jpg", os.path.join(os.fsencode(folder), b"photos", b"caf\xe9.jpg"))
    write_photos(folder / "photos" / "gone", 9, 10)
    (fifo,) = write_photos(folder / "photos" / "fifo", 11, 12)
    index_images(folder / "photos", folder / "odd.dhx", model=tiny_file)
    shutil.rmtree(folder / "photos" / "gone")
    fifo.unlink()
    os.mkfifo(fifo)
    with Store.open(folder / "odd.dhx", writable=True) as store:
        store.put([Entry("/etc/passwd", 1, 1, b"", 1, 1)], store.codes([1]))
    with running(folder / "odd.dhx", folder, ready=False) as server:
        yield server


def id_of(server, name):
    (record,) = [record for record in server.client.images() if name in record.path]
    return record.id


def test_thumbnails_have_no_metadata_and_stand_upright(odd):
    id = id_of(odd, "with gps.jpg")
    original = Image.open(io.BytesIO(odd.client.file(id)))
    assert original.getexif().get_ifd(GPS)
    answer = odd.http.get(f"/v1/images/{id}/thumbnail", params={"size": 64})
    assert answer.headers["content-type"] == "image/jpeg"
    thumbnail = Image.open(io.BytesIO(answer.content))
    assert thumbnail.format == "JPEG"
    assert thumbnail.size == (43, 64)  # 300 x 200, turned
    assert dict(thumbnail.getexif()) == {}
    assert b"Exif" not in answer.content
    assert b"camera" not in answer.content


def test_a_file_is_sent_as_it_is_and_only_once(odd):
    id = id_of(odd, "with gps.jpg")
    (record,) = odd.client.records([id])
    answer = odd.http.get(f"/v1/images/{id}/file")
    assert answer.content == Path(record.path).read_bytes()
    assert answer.headers["content-type"] == "image/jpeg"
    assert "sandbox" in answer.headers["content-security-policy"]
    for path in (f"/v1/images/{id}/file", f"/v1/images/{id}/thumbnail"):
        first = odd.http.get(path)
        again = odd.http.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_a_thumbnail_follows_its_file(odd):
    id = id_of(odd, "0001.png")
    (record,) = odd.client.records([id])
    before = odd.client.thumbnail(id)
    Image.fromarray(pixels_of(30)).save(record.path)
    assert odd.client.thumbnail(id) != before


@pytest.mark.parametrize("what", ["thumbnail", "file"])
@pytest.mark.parametrize("name", ["link.png", "/etc/passwd"])
def test_nothing_outside_the_indexed_folders_is_shown(odd, name, what):
    assert error_of(odd.http.get(f"/v1/images/{id_of(odd, name)}/{what}"))[:2] == (403, "forbidden")


@pytest.mark.parametrize("what", ["thumbnail", "file"])
@pytest.mark.parametrize("name", ["/gone/", "/fifo/"])
def test_a_file_that_is_gone_or_no_file_any_more_is_not_found(odd, name, what):
    assert error_of(odd.http.get(f"/v1/images/{id_of(odd, name)}/{what}"))[:2] == (404, "not_found")


def test_names_that_are_not_utf_8_arrive_whole(odd):
    id = id_of(odd, "caf")
    assert odd.client.records([id])[0].path.encode("utf-8", "surrogateescape").endswith(b"caf\xe9.jpg")
    found = odd.http.get(f"/v1/images/{id}").json()
    assert found["path"].endswith("caf\\xe9.jpg")
    assert bytes.fromhex(found["path_hex"]).endswith(b"caf\xe9.jpg")
    assert odd.client.file(id)


@pytest.mark.parametrize("size", ["63", "0", "4096", "x"])
def test_a_thumbnail_has_one_of_five_sizes(odd, size):
    assert error_of(odd.http.get("/v1/images/1/thumbnail", params={"size": size}))[:2] == (422, "invalid")


@pytest.mark.parametrize("path", ["/v1/images/999", "/v1/images/999/file", "/v1/images/999/thumbnail"])
def test_an_unknown_image_is_not_found(server, path):
    assert error_of(server.http.get(path))[:2] == (404, "unknown_id")


def test_lists_are_those_of_the_store(server, made):
    with Store.open(made.index) as store:
        for where in (None, Filter(path="*1*.png"), Filter(label="cat"), Filter(path="nothing")):
            assert list(server.client.images(where)) == list(store.iterate(where))
    page = server.http.get("/v1/images", params={"offset": 25, "limit": 4}).json()
    assert (page["total"], page["next_offset"], [image["id"] for image in page["images"]]) == (31, 29, [26, 27, 28, 29])
    assert server.http.get("/v1/images", params={"offset": 29, "limit": 4}).json()["next_offset"] is None


def test_copies_come_with_the_one_to_keep(server, made):
    with Store.open(made.index) as store:
        for radius, identical in ((None, True), (None, False), (12, False)):
            expected = store.duplicates(None if identical else store.copy_radius if radius is None else radius)
            assert server.client.duplicates(radius=radius, identical=identical) == expected
            assert expected
    for kind in ("identical", "near"):
        answer = server.http.get("/v1/duplicates", params={"radius": 12, "kind": kind}).json()
        wanted = [cluster for cluster in expected if cluster.kind == kind]
        assert answer["total"] == len(wanted)
        assert answer["n_copies"] == sum(len(cluster.drop) for cluster in wanted)
        assert [found["keep"]["id"] for found in answer["clusters"]] == [cluster.keep.id for cluster in wanted]
    answer = server.http.get("/v1/duplicates", params={"radius": 1, "identical": True})
    assert error_of(answer)[:2] == (422, "invalid")


def test_the_index_in_numbers(server, made):
    stats = server.client.stats()
    assert (stats.n_images, stats.n_bits, stats.trouble, stats.uploads) == (made.n_images, 64, None, False)
    assert stats.roots == (str(made.photos),)
    assert len(server.client) == made.n_images


def test_an_image_is_annotated_and_found_by_it(own):
    before = own.client.records([2])[0]
    assert own.client.annotate(2, metadata={"year": 2024, "mine": True}).label == before.label
    record = own.client.annotate(2, label="wombat")
    assert (record.label, record.metadata) == ("wombat", {"year": 2024, "mine": True})
    assert [match.id for match in own.client.query_ids([1], where=Filter(label="wombat"))[0]] == [2]
    assert [found.id for found in own.client.images(Filter(metadata={"year": 2024}))] == [2]
    assert [found.id for found in own.client.images(Filter(metadata={"year": 2024, "mine": True}))] == [2]
    assert [found.id for found in own.client.images(Filter(metadata={"year": "2024"}))] == []
    assert 2 not in [found.id for found in own.client.images(Filter(metadata={"mine": None}))]
    answer = own.http.get("/v1/images", params={"where": "year=2024", "metadata": '{"mine": true}'})
    assert [found["id"] for found in answer.json()["images"]] == [2]
    for wrong in ("{", "[]", '{"mine": []}', '{"mine": NaN}'):
        assert error_of(own.http.get("/v1/images", params={"metadata": wrong}))[:2] == (422, "invalid")
    assert own.client.annotate(2, label=None, metadata={}).label is None
    with pytest.raises(UnknownId):
        own.client.annotate(999, label="x")


def test_the_server_verifies_its_index(own):
    assert own.client.verify() == []
    model = own.folder / "photos.dhx" / MODEL_FILE
    whole = model.read_bytes()
    try:
        model.write_bytes(whole + b"more")
        (problem,) = own.client.verify()
    finally:
        model.write_bytes(whole)
    assert (problem.kind, problem.where) == ("model", str(model))
    assert "was changed" in problem.message


def test_images_are_removed_all_or_none(own):
    with pytest.raises(UnknownId, match="no image 999"):
        own.client.remove([5, 999])
    assert own.client.records([5])[0].id == 5
    assert own.client.remove([5, 6, 5]) == 2
    assert not {5, 6} & {match.id for match in own.client.query_ids([1], k=50)[0]}
    assert own.http.get("/v1/images/5").status_code == 404
    answer = own.http.delete("/v1/images/7", headers={"X-DeepHash": "1", **own.client._http.headers})
    assert answer.json() == {"removed": 1}
    assert own.client.remove([]) == 0


def test_types_are_told_by_the_bytes_and_never_a_page():
    assert media_type(b"\x89PNG\r\n\x1a\n....") == "image/png"
    assert media_type(b"RIFF....WEBPVP8 ") == "image/webp"
    assert media_type(b"....ftypavif....") == "image/avif"
    assert media_type(b"<html><script>") == "application/octet-stream"
    assert media_type(b"<svg xmlns=") == "application/octet-stream"
