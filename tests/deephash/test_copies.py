"""Copy codes: made when images are indexed, and what duplicates finds by them."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest
import torch
from PIL import Image

from deephash import HashModel, ImageSearch, InputSpec, index_images, load_model
from deephash.copies import COPY_MODEL, copy_card, copy_spec
from deephash.copy_net import CopyNet
from deephash.images import preprocess
from index.copy_codes import mirrored
from tests.deephash.photos import pixels_of

N_PICTURES = 12


@pytest.fixture(scope="module")
def model():
    return load_model(COPY_MODEL)


@pytest.fixture
def folder(tmp_path):
    """Pictures of CIFAR-10 and changed copies of the first two, one of them mirrored."""
    folder = tmp_path / "photos"
    folder.mkdir()
    pictures = [
        Image.fromarray(pixels_of(number)).resize((256, 192), Image.Resampling.BICUBIC) for number in range(N_PICTURES)
    ]
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number:02}.png")
    pictures[0].resize((128, 96)).save(folder / "small.jpg", quality=40)
    pictures[1].rotate(3).crop((6, 5, 250, 187)).save(folder / "turned.jpg")
    pictures[1].transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((200, 150)).save(folder / "flipped.jpg")
    return folder


def names(clusters):
    def name(record):
        return record.path.rpartition("/")[2]

    return {name(cluster.keep): {name(record) for record, _ in cluster.drop} for cluster in clusters}


def test_codes_of_mirrored_pictures_have_their_halves_traded(model):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    codes = model.encode(pixels)
    np.testing.assert_array_equal(model.encode(pixels[:, :, ::-1]), mirrored(codes))
    assert not np.array_equal(codes, mirrored(codes))


def test_brightness_and_contrast_do_not_change_features():
    net = CopyNet().eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        # Contrasts far above the least one.
        torch.testing.assert_close(net(images * 50), net(images * 90 - 7), rtol=1e-2, atol=1e-2)


def test_the_whole_picture_is_seen():
    wide = Image.new("RGB", (300, 100))
    wide.paste("white", (280, 0, 300, 100))
    whole = preprocess(wide, copy_spec())
    assert whole.shape == (64, 64, 3)
    assert (whole[:, -2:] == 255).all()
    assert not preprocess(wide, InputSpec(64, 64)).any()
    with pytest.raises(ValueError, match="squash"):
        InputSpec(64, 70, squash=True)
    assert InputSpec.from_dict(copy_spec().to_dict()) == copy_spec()
    assert "squash" not in InputSpec().to_dict()


def test_changed_copies_are_found_and_nothing_else(folder, tmp_path):
    index_images(folder, tmp_path / "a.dhx", model="general-64")
    with ImageSearch.open(tmp_path / "a.dhx") as search:
        radius = search.store.copy_radius
        assert radius == copy_card().training["radius"]
        assert names(search.duplicates(radius=radius)) == {"00.png": {"small.jpg"}, "01.png": {"turned.jpg"}}
        (_, cluster) = search.duplicates(radius=radius, mirrored=True)
        assert names([cluster]) == {"01.png": {"turned.jpg", "flipped.jpg"}}
        # Codes are those that were compared: plans take distances from them.
        kept = np.frombuffer(cluster.keep.code, np.uint8)
        for record, distance in cluster.drop:
            assert int(np.bitwise_count(np.frombuffer(record.code, np.uint8) ^ kept).sum()) == distance <= radius


def test_an_index_from_before_gets_copy_codes_when_it_is_indexed_again(folder, tmp_path):
    path = tmp_path / "a.dhx"
    index_images(folder, path, model="general-64")
    with closing(sqlite3.connect(path / "catalogue.db")) as db:
        # As the first version of the catalogue was.
        db.executescript("DROP TABLE copy_codes; DELETE FROM meta WHERE key GLOB 'copy_*'; PRAGMA user_version = 1")
    with ImageSearch.open(path) as search:
        assert (search.store.copy_bits, search.store.copy_radius) == (64, 2)
    (folder / "11.png").unlink()
    seen = []
    report = index_images(folder, path, on_progress=seen.append)
    assert (report.decoded, report.vanished) == (0, 1)
    n_images = N_PICTURES + 3 - 1
    assert [(p.done, p.total) for p in seen if p.stage == "copies"] == [(n_images, n_images)]
    with ImageSearch.open(path) as search:
        assert len(search.store.copy_codes.lacking()) == 1  # its file is gone
        assert search.store.copy_codes.fingerprint == copy_card().fingerprint
        found = search.duplicates(radius=search.store.copy_radius)
    assert names(found) == {"00.png": {"small.jpg"}, "01.png": {"turned.jpg"}}


def test_copies_and_moved_files_keep_their_copy_codes(folder, tmp_path):
    path = tmp_path / "a.dhx"
    index_images(folder, path, model="general-64")
    (folder / "00.png").rename(folder / "moved.png")
    (folder / "again.png").write_bytes((folder / "01.png").read_bytes())
    report = index_images(folder, path)
    assert (report.moved, report.copies, report.decoded) == (1, 1, 0)
    with ImageSearch.open(path) as search:
        assert not search.store.copy_codes.lacking().size
        assert names(search.duplicates()) == {"01.png": {"again.png"}}
        found = names(search.duplicates(radius=search.store.copy_radius))
    assert found == {"moved.png": {"small.jpg"}, "01.png": {"again.png", "turned.jpg"}}


def test_the_model_of_copy_codes_makes_an_index_of_its_own_too(folder, tmp_path, model):
    assert isinstance(model, HashModel)
    index_images(folder, tmp_path / "c.dhx", model=COPY_MODEL)
    with ImageSearch.open(tmp_path / "c.dhx") as search:
        matches = search.query(folder / "small.jpg", k=2)[0]
    assert {match.path.rpartition("/")[2] for match in matches} == {"small.jpg", "00.png"}
