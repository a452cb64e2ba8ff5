"""Finding files, hashing them, and the reason of every one that cannot be read."""

import hashlib
import inspect
import io
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from deephash.image_errors import ImageError
from deephash.image_files import Decoded, content_hash, decode_file, find_images, hash_file
from deephash.images import load_image
from index import FileStat
from tests.deephash.pictures import (
    SPEC,
    Skips,
    corners,
    encoded,
    file_stat,
    found,
    noise,
    reason_of,
    touch,
    without_root,
    written,
)


def test_folders_fifos_sockets_and_missing_files_have_reasons(tmp_path):
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "fifo.png")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s.png"))
    started = time.monotonic()
    try:
        assert reason_of(tmp_path / "folder.png") == "is a folder"
        assert reason_of(tmp_path / "fifo.png") == "is not a regular file"
        assert reason_of(tmp_path / "s.png").startswith("cannot be read: ")
        assert reason_of(tmp_path / "none.png") == "does not exist"
        assert reason_of("/dev/zero") == "is not a regular file"
        assert "null" in reason_of("a\0.png")
        assert hash_file(FileStat(str(tmp_path / "fifo.png"), 0, 0)).reason == "is not a regular file"
    finally:
        server.close()
    assert time.monotonic() - started < 5


def test_files_and_folders_without_permission_are_named_and_the_walk_goes_on():
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        closed = Path(written(root / "1.png", noise()))
        inner = touch(root / "2" / "a.png")
        readable = written(root / "3.png", noise())
        closed.chmod(0)
        (root / "2").chmod(0)
        skips = Skips()
        with without_root():
            assert reason_of(closed) == "cannot be read: permission denied"
            assert reason_of(inner) == "cannot be read: permission denied"
            assert isinstance(decode_file(file_stat(readable), SPEC), Decoded)
            assert found(root, skips=skips) == [str(closed), readable]
        (root / "2").chmod(0o755)
        assert skips == [(str(root / "2"), "cannot be read: permission denied")]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied"), "cannot be read: permission denied"),
        (OSError(5, "Input/output error"), "cannot be read: input/output error"),
        (MemoryError(), "needs more memory than there is"),
        (RecursionError("maximum recursion depth exceeded"), "is damaged (maximum recursion depth exceeded)"),
        (SystemError("tile cannot\nextend"), "is damaged (tile cannot extend)"),
        (Image.DecompressionBombError("bomb"), "has more pixels than Pillow decodes in this format"),
        (OSError("-2"), "is damaged or truncated"),
        (EOFError("no more"), "is truncated"),
        (ValueError("Invalid input: Unexpected end of file"), "is truncated"),
    ],
)
def test_no_error_of_a_file_gets_out_of_decode_file(tmp_path, monkeypatch, error, reason):
    path = written(tmp_path / "a.png", noise())

    def fail(self):
        raise error

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    assert reason_of(path) == reason


def test_ctrl_c_does_get_out_of_decode_file(tmp_path, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decode_file(file_stat(written(tmp_path / "a.png", noise())), SPEC)


def test_images_are_found_in_order_with_their_stat(tmp_path):
    expected = [touch(tmp_path / name) for name in ["B.JPG", "a/z.png", "a.jpeg", "b/c/d.webp", "b.gif", "é.png"]]
    for name in ["notes.txt", "noext", ".hidden.png", ".hidden/a.png", "photos.dhx/a.png", "a.eps", "a.pdf"]:
        touch(tmp_path / name)
    skips = Skips()
    files = list(find_images([tmp_path], on_skip=skips))
    assert [file.path for file in files] == expected
    assert skips == []
    os.utime(expected[0], ns=(1, 123_456_789_012_345_678))
    first = next(find_images([tmp_path]))
    assert first == FileStat(expected[0], 1, os.stat(expected[0]).st_mtime_ns)
    assert first.mtime_ns == 123_456_789_012_345_678


def test_relative_roots_give_absolute_paths(tmp_path, monkeypatch):
    path = touch(tmp_path / "in" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert found("in") == [path]
    assert found("in/../in/a.png") == [path]
    assert [file.path for file in find_images("in")] == [path]


def test_names_that_are_not_utf8(tmp_path):
    name = os.path.join(os.fsencode(tmp_path), b"caf\xe9\xff.png")
    try:
        with open(name, "wb") as stream:
            stream.write(encoded(corners()))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (file,) = find_images([tmp_path])
    assert os.fsencode(file.path) == name
    assert isinstance(decode_file(file, SPEC), Decoded)
    with open(name, "wb"):
        pass
    with pytest.raises(ImageError) as caught:
        load_image(file.path)
    str(caught.value).encode("utf-8")
    assert r"caf\xe9\xff.png: is empty" in str(caught.value)


def test_folders_with_image_names_are_walked_and_special_files_are_not_opened(tmp_path):
    inner = touch(tmp_path / "x.png" / "a.jpg")
    os.mkfifo(tmp_path / "y.png")
    skips = Skips()
    assert found(tmp_path, skips=skips) == [inner]
    assert skips == [(str(tmp_path / "y.png"), "is not a regular file")]


def test_links_are_followed_once_and_loops_end(tmp_path):
    real = touch(tmp_path / "photos" / "m" / "a.png")
    other = touch(tmp_path / "other" / "b.png")
    root = tmp_path / "photos"
    (root / "a-link-to-m").symlink_to(root / "m")
    (root / "loop").symlink_to(root)
    (root / "m" / "up").symlink_to("..")
    (root / "self").symlink_to("self")
    (root / "outside").symlink_to(tmp_path / "other")
    (root / "again").symlink_to(tmp_path / "other")
    (root / "z.png").symlink_to(real)
    (root / "gone.png").symlink_to("nowhere")
    skips = Skips()
    result = found(root, skips=skips)
    assert result == [real, str(root / "z.png"), str(root / "again" / "b.png")]
    assert other not in result
    assert skips == [
        (str(root / "gone.png"), "is a broken symbolic link"),
        (str(root / "self"), "cannot be read: too many levels of symbolic links"),
    ]


def test_roots_that_overlap_give_each_image_once(tmp_path):
    a, b = touch(tmp_path / "a.png"), touch(tmp_path / "in" / "b.png")
    assert found(tmp_path, tmp_path / "in", b, a, tmp_path) == [b, a]
    assert found(tmp_path / "in", tmp_path) == [b, a]


def test_roots_that_are_files(tmp_path):
    a, text = touch(tmp_path / "a.png"), touch(tmp_path / "a.txt")
    skips = Skips()
    assert found(a, text, skips=skips) == [a]
    assert skips[0][0] == text
    assert "has no suffix of an image (.txt)" in skips[0][1]


def test_a_missing_root_is_an_error_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="check its spelling"):
        find_images([tmp_path, tmp_path / "none"])
    assert found(tmp_path) == []


def test_a_folder_that_cannot_be_listed_is_reported_and_the_walk_goes_on(tmp_path, monkeypatch):
    a, b = touch(tmp_path / "1" / "a.png"), touch(tmp_path / "3" / "b.png")
    touch(tmp_path / "2" / "c.png")
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("/2"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    skips = Skips()
    assert found(tmp_path, skips=skips) == [a, b]
    assert skips == [(str(tmp_path / "2"), "cannot be read: permission denied")]


def test_a_tree_deeper_than_pythons_stack(tmp_path):
    folder = tmp_path
    for _ in range(300):
        folder /= "d"
        folder.mkdir()
    path = touch(folder / "a.png")
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(len(inspect.stack()) + 100)
        result = found(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert result == [path]


def test_5000_files_are_found_quickly_and_lazily(tmp_path):
    for i in range(50):
        folder = tmp_path / f"{i:03}"
        folder.mkdir()
        for j in range(100):
            os.close(os.open(folder / f"{j:03}.jpg", os.O_CREAT | os.O_WRONLY))
    started = time.perf_counter()
    files = list(find_images([tmp_path]))
    assert time.perf_counter() - started < 1
    assert len(files) == 5000
    assert [file.path for file in files] == sorted(file.path for file in files)
    lazily = find_images([tmp_path])
    next(lazily)
    touch(tmp_path / "049" / "new.jpg")
    assert sum(1 for _ in lazily) == 5000


def test_content_hash_is_blake2b_of_the_bytes(tmp_path):
    data = os.urandom(3_000_001)
    path = touch(tmp_path / "a.png", data)
    expected = hashlib.blake2b(data, digest_size=16).digest()
    assert content_hash(io.BytesIO(data)) == hash_file(file_stat(path)) == expected
    assert hash_file(file_stat(touch(tmp_path / "empty.png", b""))) == hashlib.blake2b(digest_size=16).digest()
    image = written(tmp_path / "b.png", corners())
    decoded = decode_file(file_stat(image), SPEC)
    assert isinstance(decoded, Decoded)
    assert decoded.content_hash == hashlib.blake2b(Path(image).read_bytes(), digest_size=16).digest()
    assert hash_file(FileStat(str(tmp_path / "none.png"), 0, 0)).reason == "does not exist"
