"""From folders to an index: which model it gets, what bad input gets, and who may write."""

import fcntl
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from deephash import (
    CollectionError,
    ImageSearch,
    ModelError,
    builtin_models,
    fitting,
    index_images,
    load_model,
    read_card,
)
from deephash.backbones import Backbone
from deephash.engine import MODEL_FILE
from deephash.errors import BackboneError
from deephash.images import load_image, preprocess
from deephash.model import HashModel
from index import ModelMismatch, NotAStore, Store, StoreDamaged, StoreError, StoreLocked, StoreTooNew
from tests.deephash.photos import ROOT, codes, ids, records, write_photo, write_photos
from tests.deephash.pictures import corners, encoded, noise, png_chunk


@pytest.fixture
def index(tmp_path):
    return tmp_path / "photos.dhx"


@pytest.fixture
def indexed(photos, index, tiny_file):
    """An index of the 40 photographs, made with the tiny model."""
    index_images(photos, index, model=tiny_file)
    return index


@pytest.fixture
def fast_default(monkeypatch, tiny_model):
    """Lets the default model be a tiny one of 64 bits, and fitting begin at 50 images."""
    real = fitting.load_encoding_model
    monkeypatch.setattr(
        fitting, "load_encoding_model", lambda name: tiny_model if name in ("general-128", "general-64") else real(name)
    )
    monkeypatch.setattr(fitting, "MIN_IMAGES", 50)


# --- The model of a new index ---


def test_a_named_model_is_stored_as_it_is(indexed, tiny_file, tiny_model):
    card = read_card(indexed / MODEL_FILE)
    assert card == tiny_model.card
    with Store.open(indexed) as store:
        assert (store.n_bits, store.fingerprint) == (64, card.fingerprint)


def test_few_images_get_the_general_model(photos, index):
    shutil.rmtree(photos)
    write_photos(photos, 0, 5)
    report = index_images(photos, index, n_bits=64)
    assert (report.added, report.decoded, report.fitted_to) == (5, 5, 0)
    assert read_card(index / MODEL_FILE) == read_card(builtin_models()["general-64"])
    with ImageSearch.open(index) as search:
        path = next(iter(records(index)))
        assert search.query(path, 1)[0][0].path == path


def test_many_images_get_a_model_fitted_to_them(tmp_path, fast_default, tiny_model):
    for name, start in (("a", 0), ("b", 600)):
        write_photos(tmp_path / name, start, start + 60)
        report = index_images(tmp_path / name, tmp_path / f"{name}.dhx", n_bits=48)
        assert (report.added, report.decoded, report.fitted_to) == (60, 60, 60)
    cards = [read_card(tmp_path / f"{name}.dhx" / MODEL_FILE) for name in "ab"]
    assert [(card.name, card.n_bits, card.method) for card in cards] == [("a-48", 48, "itq"), ("b-48", 48, "itq")]
    fitted_to = "60 images of a, without labels"
    assert cards[0].training == {"fitted_to": fitted_to, "images": 60, "labels": "none", "base": tiny_model.name}
    assert cards[0].fingerprint != cards[1].fingerprint
    # Every bit splits the collection it was fitted to about in half.
    bits = np.unpackbits(np.frombuffer(b"".join(codes(tmp_path / "a.dhx").values()), np.uint8).reshape(60, 6), axis=1)
    assert 0.2 < bits.mean(axis=0).min() < bits.mean(axis=0).max() < 0.8
    # The same again is the same model, with the same codes.
    index_images(tmp_path / "a", tmp_path / "again.dhx", n_bits=48)
    assert read_card(tmp_path / "again.dhx" / MODEL_FILE).fingerprint == cards[0].fingerprint
    assert codes(tmp_path / "again.dhx") == codes(tmp_path / "a.dhx")
    # The stored model gives the stored codes.
    with ImageSearch.open(tmp_path / "a.dhx") as search:
        for path, code in codes(tmp_path / "a.dhx").items():
            assert search.encode(path).tobytes() == code


def test_a_large_collection_is_fitted_to_a_sample(photos, index, fast_default, monkeypatch, tiny_model):
    monkeypatch.setattr(fitting, "SAMPLE_SIZE", 60)
    monkeypatch.setattr(fitting.sample_files, "__defaults__", (60,))
    write_photos(photos, 40, 150)
    seen = []
    report = index_images(photos, index, on_progress=seen.append)
    assert (report.fitted_to, report.added, report.decoded, report.n_images) == (60, 150, 150, 150)
    assert [item for item in seen if item.stage == "fit"][-1].total == 60
    assert seen[-1].stage == "encode"
    assert read_card(index / MODEL_FILE).n_bits == 128
    model = load_model(index / MODEL_FILE)
    for path, code in codes(index).items():
        pixels = preprocess(load_image(path), model.input_spec)[None]
        assert model.encode(pixels).tobytes() == code


def test_the_sample_is_the_same_at_every_call_and_in_order():
    files = list(range(10_000))
    sample = fitting.sample_files(files, 100)
    assert sample == fitting.sample_files(files, 100) == sorted(set(sample))
    assert len(sample) == 100
    assert min(sample) < 1000
    assert max(sample) > 9000
    assert fitting.sample_files(files[:100], 100) == files[:100]


def test_too_few_to_fit_what_was_asked_says_so(photos, index, fast_default, monkeypatch, tiny_model):
    with pytest.raises(
        CollectionError, match=r"40 readable images are too few to fit a model of 37 bits \(50 are needed\)"
    ):
        index_images(photos, index, n_bits=37)
    monkeypatch.setattr(fitting, "_untrained_model", lambda name: tiny_model)
    with pytest.raises(CollectionError, match="too few to fit a model on the backbone test_resnet"):
        index_images(photos, index, backbone="test_resnet")
    assert not index.exists()


def test_another_backbone_is_fitted_on(photos, index, fast_default, monkeypatch, tiny_model):
    backbone = tiny_model._backbone_info
    zeros = np.zeros((8, backbone.n_features), np.float32)
    blank = HashModel(
        Backbone("test_efficientnet", backbone.module, 256, tiny_model.input_spec, "pretrained"), zeros, zeros[:, 0],
        name="test_efficientnet", method="none",
    )  # fmt: skip
    monkeypatch.setattr(fitting, "_untrained_model", lambda name: blank)
    write_photos(photos, 40, 60)
    report = index_images(photos, index, backbone="test_efficientnet", n_bits=100)
    assert report.fitted_to == 60
    card = read_card(index / MODEL_FILE)
    assert (card.backbone, card.backbone_weights, card.n_bits) == ("test_efficientnet", "file", 100)
    assert index_images(photos, index, backbone="test_efficientnet", n_bits=100).unchanged == 60


def test_impossible_wishes_are_refused_before_anything_is_written(photos, index, tiny_file, tmp_path):
    with pytest.raises(ValueError, match="give either a model or a backbone"):
        index_images(photos, index, model=tiny_file, backbone="test_vit")
    with pytest.raises(ValueError, match="the model tiny-64 has 64 bits, not 32: leave the bits out"):
        index_images(photos, index, model=tiny_file, n_bits=32)
    for n_bits in (0, 7, 1025, -1):
        with pytest.raises(ValueError, match="n_bits"):
            index_images(photos, index, n_bits=n_bits)
    with pytest.raises(ModelError, match="there is no model 'general-65'"):
        index_images(photos, index, model="general-65")
    with pytest.raises(BackboneError, match="no backbone is called 'resnet5000'"):
        index_images(photos, index, backbone="resnet5000")
    with pytest.raises(FileNotFoundError, match=r"the folder .*nowhere does not exist"):
        index_images(photos, tmp_path / "nowhere" / "photos.dhx", model=tiny_file)
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder .*lost: check its spelling"):
        index_images(tmp_path / "lost", index, model=tiny_file)
    (photos / "photo.dhx").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


# --- Another model, no model ---


def test_an_index_keeps_its_model(photos, indexed, tiny_file, tiny_model, tmp_path):
    for wish, said in (
        ({"model": "general-64"}, "leave out the model general-64"),
        ({"n_bits": 128}, "leave out 128 bits"),
        ({"backbone": "resnet18"}, "leave out the backbone resnet18"),
    ):
        with pytest.raises(
            ModelMismatch, match=rf"built with tiny-64 \(64 bits on test_efficientnet\), .*: {said}, or"
        ):
            index_images(photos, indexed, **wish)
    for wish in ({"model": tiny_file}, {"n_bits": 64}, {"backbone": "test_efficientnet"}, {}):
        assert index_images(photos, indexed, **wish).unchanged == 40
    # Another model of the same name and length.
    other = HashModel(
        tiny_model._backbone_info, np.ones((64, 256), np.float32), np.zeros(64, np.float32), name="tiny-64", method="x"
    )
    other.save(tmp_path / "other.safetensors")
    with pytest.raises(ModelMismatch, match=r"leave out the model .*other.safetensors"):
        index_images(photos, indexed, model=tmp_path / "other.safetensors")


def missing(path):
    path.unlink()


def swapped(path):
    shutil.copy(builtin_models()["general-64"], path)


def damaged(path):
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (missing, r"has lost its model file model.safetensors: copy it back from a backup of the index"),
        (swapped, r"model.safetensors \(general-64, 64 bits\) is not the model that this index was built with"),
        (damaged, r"model.safetensors.* (is damaged|copy it again)"),
        (cut, r"model.safetensors is not a model file, or damaged"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_without_its_model_an_index_answers_by_id_and_code(photos, indexed, harm, said):
    harm(indexed / MODEL_FILE)
    new = write_photo(photos / "new.png", 900)
    with ImageSearch.open(indexed) as search:
        assert [match.id for match in search.query_ids([3], 5)[0]] != []
        code = search.store.codes([3])
        assert search.query_codes(code, 1)[0][0].id == 3
        with pytest.raises(ModelError, match=said):
            search.query(new)
        problems = search.verify()
        assert {problem.kind for problem in problems} == {"model"}
        assert len(problems) == 1
    with pytest.raises(ModelError, match=said):
        index_images(photos, indexed)
    assert len(records(indexed)) == 40


# --- Indexes that are none ---


def test_folders_that_are_no_index_are_left_alone(photos, index, tiny_file, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter.txt").write_text("dear")
    (tmp_path / "file.dhx").write_text("dear")
    (tmp_path / "link.dhx").symlink_to(tmp_path / "nowhere")
    for name, said in (("folder", "is not an index"), ("file.dhx", "is a file"), ("link.dhx", "does not exist")):
        with pytest.raises(NotAStore, match=said):
            index_images(photos, tmp_path / name, model=tiny_file)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["letter.txt"]


def test_damaged_and_newer_indexes(photos, indexed):
    catalogue = indexed / "catalogue.db"
    data = catalogue.read_bytes()
    catalogue.write_bytes(b"x" * 5000)
    with pytest.raises((StoreDamaged, NotAStore), match=r"catalogue.db"):
        index_images(photos, indexed)
    catalogue.write_bytes(data[:60] + struct.pack(">I", 99) + data[64:])
    with pytest.raises(StoreTooNew, match="newer"):
        index_images(photos, indexed)
    catalogue.write_bytes(data)
    assert index_images(photos, indexed).unchanged == 40


def test_nothing_to_index(tmp_path, index, tiny_file):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CollectionError, match=r"no images were found under .*empty: give a folder that holds image"):
        index_images(tmp_path / "empty", index, model=tiny_file)
    with pytest.raises(CollectionError, match="no images were found"):
        index_images([], index, model=tiny_file)
    assert not index.exists()


def test_a_folder_of_bad_images_says_why(tmp_path, index, tiny_file, fast_default):
    folder = tmp_path / "bad"
    folder.mkdir()
    for number in range(70):
        (folder / f"{number}.jpg").write_bytes(b"" if number % 2 else b"text")
    with pytest.raises(
        CollectionError, match=r"none of the 70 images tried can be read \(.*0.jpg: is .*; .*1.jpg: is empty"
    ):
        index_images(folder, index)
    assert not index.exists()
    report = index_images(folder, index, model=tiny_file)
    assert (report.n_images, len(report.skipped)) == (0, 70)
    assert {item.reason for item in report.skipped if "empty" in item.reason} == {"is empty"}
    # And with one good one at last.
    write_photo(folder / "good.png", 1)
    report = index_images(folder, index)
    assert (report.n_images, report.decoded, len(report.skipped)) == (1, 1, 70)


# --- What bad input gets: all of it in one folder ---


def lab_tiff():
    lab = ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB")
    return encoded(ImageCms.applyTransform(corners(), transform), "TIFF")


def animation(kind):
    return encoded(corners(), kind, save_all=True, append_images=[noise(80, 60)], duration=100)


def rotated_jpeg():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter to the right
    return encoded(corners().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, subsampling=0, exif=exif)


def sixteen_bit_png():
    grey = np.asarray(corners().convert("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(grey))


def float_tiff():
    return encoded(Image.fromarray(np.asarray(corners().convert("L"), np.float32) / 255), "TIFF")


def bomb_png(width, height):
    """A PNG of one colour: kilobytes on disk, gigabytes in memory."""
    rows = zlib.compressobj()
    body = b"".join(rows.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def bad_input(folder):
    """Writes everything that the world has in its folders; returns (names to be indexed, name -> reason)."""
    folder.mkdir()
    good = {
        "a good one.jpg": encoded(corners(), "JPEG", quality=95),
        "cmyk.jpg": encoded(corners().convert("CMYK"), "JPEG", quality=95),
        "grey.png": encoded(corners().convert("L")),
        "sixteen bits.png": sixteen_bit_png(),
        "palette.png": encoded(corners().convert("P", palette=Image.Palette.ADAPTIVE)),
        "alpha.png": encoded(corners().convert("RGBA")),
        "one bit.png": encoded(corners().convert("1")),
        "lab.tif": lab_tiff(),
        "float.tiff": float_tiff(),
        "animated.gif": animation("GIF"),
        "animated.webp": animation("WEBP"),
        "rotated.jpg": rotated_jpeg(),
        "one pixel wide.png": encoded(noise(1, 700)),
        "one pixel high.png": encoded(noise(700, 1)),
        "one pixel.png": encoded(noise(1, 1)),
        "png inside.jpg": encoded(corners()),
        "UPPER.JPG": encoded(corners(), "JPEG"),
        "new\nline.png": encoded(corners()),
        "'; DROP TABLE images; --.png": encoded(corners()),
        "😀.png": encoded(corners()),
        "n" * 250 + ".png": encoded(corners()),
    }
    whole = encoded(noise(200, 200), "JPEG")
    bad = {
        "truncated.jpg": (whole[: len(whole) // 2], "is truncated"),
        "cut in its head.png": (encoded(corners())[:30], "is a damaged, truncated or unsupported PNG file"),
        "empty.png": (b"", "is empty"),
        "text.jpg": (b"this is no picture", "is not an image, or of a kind that is not read"),
        "page.png": (b"<!doctype html><p>404", "is not an image but"),
        "zeros.jpg": (bytes(5000), "is not an image, or of a kind"),
        "bomb.png": (bomb_png(30_000, 30_000), "has 900 megapixels (30000 x 30000), more than the limit"),
        "flipped.png": (encoded(corners())[:60] + b"\0\0\0\0" + encoded(corners())[64:], "is "),
        "script.gif": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image"),
    }
    for name, content in good.items():
        (folder / name).write_bytes(content)
    for name, (content, _) in bad.items():
        (folder / name).write_bytes(content)
    (folder / "directory.png").mkdir()
    (folder / "directory.png" / "inside.png").write_bytes(encoded(noise()))
    (folder / "loop").symlink_to(folder)
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "broken.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.png")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("not an image, and not said to be one")
    not_utf8 = os.fsdecode(b"gr\xfcn.png")
    (folder / not_utf8).write_bytes(encoded(corners()))
    reasons = {name: reason for name, (_, reason) in bad.items()} | {
        "broken.png": "is a broken symbolic link",
        "loop.png": "",
        "pipe.png": "is not a regular file",
    }
    return {*good, not_utf8, "directory.png/inside.png"}, reasons


def test_all_that_bad_input_gets(tmp_path, index, tiny_file, tiny_model):
    folder = tmp_path / "everything"
    good, bad = bad_input(folder)
    report = index_images(folder, index, model=tiny_file)
    found = {os.path.relpath(path, folder): record for path, record in records(index).items()}
    assert set(found) == good
    reasons = {os.path.relpath(item.path, folder): item.reason for item in report.skipped}
    assert set(reasons) == set(bad)
    for name, reason in bad.items():
        assert reasons[name].startswith(reason), (name, reasons[name])
    assert report.n_images == len(good) == report.added
    # Indexed rightly: each as a person sees it.
    upright = tiny_model.encode(preprocess(corners(), tiny_model.input_spec)[None])

    def distance(name):
        return int(np.unpackbits(np.frombuffer(found[name].code, np.uint8) ^ upright[0]).sum())

    for name in ("alpha.png", "png inside.jpg", "new\nline.png", "😀.png"):
        assert distance(name) == 0, name
    for name in (
        "cmyk.jpg",
        "palette.png",
        "lab.tif",
        "animated.gif",
        "animated.webp",
        "rotated.jpg",
        "a good one.jpg",
    ):
        assert distance(name) <= 8, name
    grey = found["grey.png"].code
    for name in ("sixteen bits.png", "float.tiff"):
        assert found[name].code == grey, name
    assert (found["rotated.jpg"].width, found["rotated.jpg"].height) == (80, 60)
    assert (found["one pixel wide.png"].width, found["one pixel wide.png"].height) == (1, 700)
    # And again: nothing is tried twice, everything is said again.
    again = index_images(folder, index)
    assert (again.decoded, again.unchanged, again.skipped) == (0, len(good), report.skipped)
    with Store.open(index) as store:
        assert store.verify() == []


# --- Who writes, who reads ---

WRITER = """
import sys
import zlib
from index import Store
with Store.open(sys.argv[1], writable=True):
    print("locked", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def other_writer(indexed):
    """Another process that has the index open for writing, until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(indexed)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_second_writer_says_so_and_readers_go_on(photos, indexed, other_writer):
    write_photos(photos, 40, 42)
    with pytest.raises(StoreLocked, match="is being written by another process: wait until it is done and run again"):
        index_images(photos, indexed)
    with pytest.raises(StoreLocked, match=r"after 0.2 s"):
        index_images(photos, indexed, timeout=0.2)
    with ImageSearch.open(indexed) as search:
        assert len(search.query_ids([1], 5)[0]) == 5
        assert search.verify() == []


def test_a_second_writer_waits(photos, indexed, other_writer):
    write_photos(photos, 40, 42)
    released = []
    real = fcntl.flock

    def flock(descriptor, operation):
        # The first look at the lock: from now on the other one may go.
        if not released:
            released.append(other_writer.stdin.close())
        return real(descriptor, operation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        report = index_images(photos, indexed, timeout=30)
    assert (released, report.added) == ([None], 2)


def test_two_processes_that_create_one_index(photos, index, tiny_file, monkeypatch):
    real = Store.create

    def create(folder, **options):
        # Meanwhile another one was faster.
        with monkeypatch.context() as patch:
            patch.setattr(Store, "create", real)
            index_images(photos, index, model=tiny_file)
        return real(folder, **options)

    monkeypatch.setattr(Store, "create", create)
    report = index_images(photos, index, model=tiny_file)
    assert (report.unchanged, report.decoded) == (40, 0)


def test_a_read_only_index_can_be_asked_and_not_written(photos, indexed, monkeypatch):
    with Store.open(indexed) as store, pytest.raises(StoreError, match="open for reading only"):
        store.remove([1])
    real = os.open

    def refuse(path, flags, *args, **options):
        if os.fspath(path).endswith("writer.lock") and flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(13, "Permission denied", path)
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match=r"photos.dhx cannot be written to .*: check its permissions, or copy it"):
        index_images(photos, indexed)
    monkeypatch.undo()
    for path in [*indexed.iterdir(), indexed]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    with ImageSearch.open(indexed) as search:
        assert search.query(next(iter(ids(indexed))), 1)[0][0].distance == 0


def test_an_index_inside_its_folder_is_not_indexed(photos, tiny_file):
    index = photos / "photos.dhx"
    index_images(photos, index, model=tiny_file)
    write_photo(index / "stray.png", 3)
    assert index_images(photos, index).unchanged == 40
    assert len(records(index)) == 40


def test_an_index_is_moved_and_copied_whole(photos, indexed, tmp_path):
    shutil.copytree(indexed, tmp_path / "copy.dhx")
    indexed.rename(tmp_path / "moved.dhx")
    for name in ("copy.dhx", "moved.dhx"):
        assert index_images(photos, tmp_path / name).unchanged == 40


def test_relative_roots_become_absolute(photos, index, tiny_file, monkeypatch):
    monkeypatch.chdir(photos.parent)
    index_images("photos", "photos.dhx", model=tiny_file)
    assert all(Path(path).is_absolute() for path in records(index))
    monkeypatch.chdir("/")
    assert index_images(photos, index).unchanged == 40
