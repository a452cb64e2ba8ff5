"""ImageSearch: every kind of query, against brute force over the codes."""

import numpy as np
import pytest
from PIL import Image

from deephash import Filter, ImageError, ImageSearch, index_images
from deephash.annotations import folder_labels
from index import ModelMismatch, NotAStore, Store, StoreError, UnknownId
from tests.deephash.photos import pixels_of, sample, write_photo, write_photos


@pytest.fixture(scope="module")
def index(tmp_path_factory, tiny_file):
    """An index of 120 photographs with their classes as labels, three of them copies of the first."""
    folder = tmp_path_factory.mktemp("engine")
    write_photos(folder / "photos", 0, 120)
    for number in range(3):
        write_photo(folder / "photos" / "zzz" / f"{number}.png", 0)
    index_images(folder / "photos", folder / "photos.dhx", model=tiny_file, annotate=folder_labels)
    return folder / "photos.dhx"


@pytest.fixture
def search(index, tiny_model):
    with ImageSearch(Store.open(index), tiny_model) as search:
        yield search


def brute(search, code, k=None, *, radius=None, keep=lambda record: True, exclude=()):
    """(id, distance) of the nearest, by distance, then id."""
    found = []
    for record in search.store.iterate():
        distance = int(np.unpackbits(np.frombuffer(record.code, np.uint8) ^ code).sum())
        if (radius is None or distance <= radius) and keep(record) and record.id not in exclude:
            found.append((distance, record.id))
    return [(id, distance) for distance, id in sorted(found)[:k]]


def pairs(matches):
    return [(match.id, match.distance) for match in matches]


def query_images(n):
    return [Image.fromarray(pixels) for pixels in sample().query_images[:n]]


# --- By image ---


def test_a_path_an_image_and_an_array_are_the_same_query(search, tmp_path):
    pixels = sample().query_images[0]
    path = tmp_path / "query.png"
    Image.fromarray(pixels).save(path)
    answers = [search.query(query, 7) for query in (path, str(path), Image.fromarray(pixels), pixels, pixels.copy())]
    assert all(answer == answers[0] for answer in answers)
    assert [len(answer) for answer in answers] == [1] * 5
    assert pairs(answers[0][0]) == brute(search, search.encode(pixels)[0], 7)


def test_an_indexed_image_finds_itself_first(search):
    for record in search.records([1, 20, 77]):
        match = search.query(record.path, 1)[0][0]
        assert (match.distance, match.label) == (0, record.label)
        assert search.records([match.id])[0].content_hash == record.content_hash


@pytest.mark.parametrize("sequence", [list, tuple])
def test_several_images_get_an_answer_each(search, sequence):
    images = query_images(40)
    answers = search.query(sequence(images), 3)
    assert len(answers) == 40
    for image, answer in zip(images, answers, strict=True):
        assert answer == search.query(image, 3)[0]


def test_reranked_matches_come_by_the_logits_of_the_image(search):
    image = query_images(1)[0]
    logits = search.model.logits_of_features(search._features([image]))
    (found,) = search.query(image, 5, rerank=True, oversampling=4)
    assert found == search.store.search_logits(logits, 5, oversampling=4)[0]
    assert [match.asymmetric_distance for match in found] == sorted(match.asymmetric_distance for match in found)
    # Of a code and its own logits, both distances are 0 together.
    record = search.records([20])[0]
    assert search.query(record.path, 1, rerank=True)[0][0].asymmetric_distance == 0
    together = search.query(query_images(3), 5, combine=True, rerank=True)
    assert len(together) == 1
    assert search.query(image, None, radius=64, rerank=True)[0] != search.query(image, None, radius=64)[0]


def test_images_together_are_one_query(search):
    images = query_images(3)
    answers = search.query(images, 5, combine=True)
    assert len(answers) == 1
    mean = np.mean([search.model.features(np.asarray(image)[None])[0] for image in images], axis=0)
    code = search.model.codes_of_features((mean / np.linalg.norm(mean))[None])
    assert pairs(answers[0]) == brute(search, code[0], 5)
    assert search.query(images[:1] * 4, 5, combine=True) == search.query(images[0], 5)


def test_no_image_and_bad_images_are_refused(search, tmp_path):
    with pytest.raises(ValueError, match="no query image was given"):
        search.query([])
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ImageError, match=r"text.jpg: is not an image"):
        search.query(tmp_path / "text.jpg")
    with pytest.raises(ImageError, match=r"lost.jpg: does not exist"):
        search.query(["lost.jpg", pixels_of(0)])
    with pytest.raises(ImageError, match=r"array of shape \(2, 2, 2, 2\)"):
        search.query(np.zeros((2, 2, 2, 2)))
    with pytest.raises(TypeError, match="an image must be a path"):
        search.query(5)


# --- By id ---


def test_an_indexed_image_by_its_id_is_not_its_own_match(search):
    for id, answer in zip([5, 1, 9], search.query_ids([5, 1, 9], 6), strict=True):
        assert pairs(answer) == brute(search, search.store.codes([id])[0], 6, exclude={id})
    # Copies are other images: they are found, at distance 0.
    original = next(record.id for record in search.store.iterate() if record.path.endswith("/0000.png"))
    copies = [record.id for record in search.store.iterate() if "/zzz/" in record.path]
    assert [(match.id, match.distance) for match in search.query_ids([original], 3)[0]] == [(id, 0) for id in copies]
    assert pairs(search.query_ids([copies[0]], None, radius=0)[0]) == [(id, 0) for id in (original, *copies[1:])]


def test_ids_that_are_not_there(search):
    for ids in ([1000], [1, 1000], [0], [-1]):
        with pytest.raises(UnknownId, match=rf"has no image {ids[-1]}"):
            search.query_ids(ids)
        with pytest.raises(UnknownId):
            search.records(ids)
    assert search.query_ids([]) == []
    assert len(search.query_ids(iter([1, 2]))) == 2


# --- By code ---


def test_codes_are_answered_as_by_brute_force(search):
    queries = search.encode(query_images(20))
    for k, radius in ((1, None), (10, None), (1000, None), (None, 0), (None, 20), (5, 24), (None, 64)):
        for code, answer in zip(queries, search.query_codes(queries, k, radius=radius), strict=True):
            assert pairs(answer) == brute(search, code, k, radius=radius)


def test_a_radius_is_inclusive(search):
    code = search.encode(query_images(1))
    nearest = search.query_codes(code, 1)[0][0]
    assert nearest in search.query_codes(code, None, radius=nearest.distance)[0]
    assert search.query_codes(code, None, radius=nearest.distance - 1) == [[]]
    far = search.query_codes(code, None, radius=64)[0]
    assert len(far) == len(search) == 123


def test_codes_of_another_width_are_refused(search):
    for width in (7, 9, 16):
        with pytest.raises(
            ModelMismatch, match=rf"query codes have {8 * width} bits, .*photos.dhx has 64: encode them"
        ):
            search.query_codes(np.zeros((1, width), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        search.query_codes(np.zeros((1, 8), np.int64))


def test_impossible_limits_are_refused(search):
    code = search.store.codes([1])
    for query in (search.query_codes, lambda _, *a, **o: search.query_ids([1], *a, **o)):
        with pytest.raises(ValueError, match="neither k nor radius"):
            query(code, None)
        with pytest.raises(ValueError, match="k "):
            query(code, 0)
        with pytest.raises(ValueError, match="radius"):
            query(code, None, radius=-1)


# --- Filters ---


def test_filters_apply_to_every_kind_of_query(search):
    image = query_images(1)[0]
    code, bird = search.encode(image), Filter(label="bird")
    expected = brute(search, code[0], 4, keep=lambda record: record.label == "bird")
    assert len(expected) == 4
    assert pairs(search.query(image, 4, where=bird)[0]) == expected
    assert pairs(search.query_codes(code, 4, where=bird)[0]) == expected
    assert {match.label for match in search.query_ids([1], 5, where=bird)[0]} == {"bird"}
    globbed = search.query(image, None, radius=64, where=Filter(path="*/zzz/*"))[0]
    assert [match.path.rpartition("/")[2] for match in globbed] == ["0.png", "1.png", "2.png"]
    assert search.query(image, where=Filter(label="unicorn")) == [[]]


def test_metadata_filters(index, tmp_path, tiny_file, tiny_model):
    photos = write_photos(tmp_path / "photos", 0, 6)
    years = {str(path): (None, {"year": 2020 + number % 2}) for number, path in enumerate(photos)}
    index_images(tmp_path / "photos", tmp_path / "a.dhx", model=tiny_file, annotate=years.get)
    with ImageSearch(Store.open(tmp_path / "a.dhx"), tiny_model) as search:
        found = search.query(pixels_of(0), 10, where=Filter(metadata={"year": 2021}))[0]
        assert {match.path for match in found} == {path for path, (_, facts) in years.items() if facts["year"] == 2021}
        assert {match.metadata["year"] for match in found} == {2021}


# --- Housekeeping ---


def test_the_model_is_loaded_when_an_image_has_to_be_encoded_and_not_before(index, monkeypatch):
    import deephash.model

    calls = []
    real = deephash.model.load_model
    monkeypatch.setattr(deephash.model, "load_model", lambda path: calls.append(path) or real(path))
    with ImageSearch.open(index) as search:
        assert (search.card.name, search.card.n_bits, len(search)) == ("tiny-64", 64, 123)
        search.query_ids([1])
        search.query_codes(search.store.codes([1]))
        search.duplicates(radius=2)
        assert search.verify() == []
        assert calls == []
        for _ in range(2):
            search.query(pixels_of(3))
        assert len(calls) == 1


def test_duplicates_name_the_copy_to_keep(search):
    (cluster,) = search.duplicates()
    assert cluster.kind == "identical"
    assert cluster.keep.path.endswith("/0000.png")
    assert [(record.path.rpartition("/")[2], distance) for record, distance in cluster.drop] == [
        ("0.png", 0), ("1.png", 0), ("2.png", 0)
    ]  # fmt: skip
    assert search.duplicates(where=Filter(path="*/bird/*")) == []
    for cluster in search.duplicates(radius=12):
        code = np.frombuffer(cluster.keep.code, np.uint8)
        for record, distance in cluster.drop:
            assert distance == np.unpackbits(np.frombuffer(record.code, np.uint8) ^ code).sum() <= 12


def test_removed_images_are_found_no_more_and_come_back_under_new_ids(tmp_path, tiny_file, tiny_model):
    write_photos(tmp_path / "photos", 0, 8)
    index = tmp_path / "a.dhx"
    index_images(tmp_path / "photos", index, model=tiny_file)
    with ImageSearch(Store.open(index, writable=True), tiny_model) as search:
        path = search.records([3])[0].path
        with pytest.raises(UnknownId, match="has no image 99"):
            search.remove([2, 99])
        assert len(search) == 8
        assert search.remove([3, 3, 5]) == 2
        assert search.query(path, 100)[0][0].distance > 0
        assert len(search.query(path, 100)[0]) == 6
        with pytest.raises(UnknownId):
            search.remove([3])
        assert search.remove([]) == 0
    report = index_images(tmp_path / "photos", index)
    assert report.added == 2
    with ImageSearch(Store.open(index), tiny_model) as search:
        assert sorted(search.store.ids().tolist()) == [1, 2, 4, 6, 7, 8, 9, 10]
        assert search.query(path, 1)[0][0].id > 8


def test_a_reader_sees_what_a_writer_commits(tmp_path, tiny_file, tiny_model):
    write_photos(tmp_path / "photos", 0, 8)
    index = tmp_path / "a.dhx"
    index_images(tmp_path / "photos", index, model=tiny_file)
    with ImageSearch(Store.open(index), tiny_model) as search:
        assert len(search.query(pixels_of(0), 100)[0]) == 8
        write_photos(tmp_path / "photos", 8, 12)
        index_images(tmp_path / "photos", index)
        assert len(search.query(pixels_of(0), 100)[0]) == 12
        assert search.query(pixels_of(11), 1)[0][0].distance == 0


def test_a_closed_search_says_so(index, tiny_model):
    search = ImageSearch(Store.open(index), tiny_model)
    search.close()
    search.close()
    for use in (lambda: search.query_ids([1]), lambda: search.query(pixels_of(0)), lambda: len(search)):
        with pytest.raises(StoreError, match=r"photos.dhx is closed: open it again"):
            use()


def test_opening_what_is_no_index(tmp_path):
    with pytest.raises(NotAStore, match="does not exist"):
        ImageSearch.open(tmp_path / "lost.dhx")
    with pytest.raises(NotAStore, match="is not an index"):
        ImageSearch.open(str(tmp_path))
