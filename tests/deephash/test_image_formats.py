"""Every kind of image file that is read, and every kind of file that is none or is damaged."""

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deephash.image_errors import ImageError
from deephash.image_files import Failed, decode_file, find_images
from deephash.images import load_image
from index import DeepHashError
from tests.deephash.pictures import (
    BLUE,
    RED,
    SPEC,
    assert_corners,
    corners,
    encoded,
    file_stat,
    found,
    near,
    noise,
    png_chunk,
    reason_of,
    written,
)


def png_with_chunk(image: Image.Image, chunk: bytes, *, before=b"IDAT") -> bytes:
    plain = encoded(image)
    at = plain.index(before) - 4
    return plain[:at] + chunk + plain[at:]


@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [
        (".jpg", {"quality": 95, "subsampling": 0}, 6),
        (".jpg", {"quality": 95, "progressive": True}, 6),
        (".png", {}, 0),
        (".webp", {"lossless": True}, 0),
        (".bmp", {}, 0),
        (".tif", {"compression": "tiff_lzw"}, 0),
        (".gif", {}, 0),
        (".ppm", {}, 0),
        (".avif", {"quality": 95}, 12),
        (".jp2", {}, 0),
    ],
)
def test_every_format_keeps_its_colours_and_corners(tmp_path, suffix, options, tolerance):
    path = written(tmp_path / f"a{suffix}", corners(), **options)
    assert [file.path for file in find_images([tmp_path])] == [path]
    assert_corners(load_image(path), tolerance=tolerance)


def test_heic_is_read_when_the_extra_is_installed(tmp_path):
    pytest.importorskip("pillow_heif")
    path = written(tmp_path / "a.heic", corners(), quality=95)
    assert [file.path for file in find_images([tmp_path])] == [path]
    assert_corners(load_image(path), tolerance=16)


def test_heic_without_the_extra_names_the_extra(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    program = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from deephash.image_errors import *\nfrom deephash.image_files import *\nfrom deephash.images import *\n"
        "skipped = []\n"
        f"assert list(find_images([{str(tmp_path)!r}])) == []\n"
        f"list(find_images([{str(tmp_path / 'a.heic')!r}], on_skip=lambda path, reason: skipped.append(reason)))\n"
        f"try: load_image({str(tmp_path / 'a.heic')!r})\nexcept ImageError as error: skipped.append(error.reason)\n"
        "assert len(skipped) == 2 and all('deephash[heic]' in reason for reason in skipped), skipped\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_first_picture_of_an_mpo_is_read_whatever_its_list_of_pictures_says(tmp_path):
    path = written(tmp_path / "a.mpo", corners(), save_all=True, append_images=[Image.new("RGB", (80, 60))], quality=95)
    assert found(tmp_path) == [path]
    assert_corners(load_image(path, at_least=10), tolerance=30)
    plain = encoded(corners(), "JPEG", quality=95)
    segment = b"MPF\0II*\0\x08\0\0\0\x01\0" + b"\xff" * 30
    broken = plain[:2] + b"\xff\xe2" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_corners(load_image(broken), tolerance=16)


def test_first_frame_of_an_animation(tmp_path):
    red, blue = Image.new("RGB", (20, 20), RED), Image.new("RGB", (20, 20), BLUE)
    for name in ("a.gif", "a.webp", "a.png", "a.tif", "a.avif"):
        options = {"lossless": True} if name == "a.webp" else {"quality": 100} if name == "a.avif" else {}
        path = written(tmp_path / name, red, save_all=True, append_images=[blue], **options)
        with Image.open(path) as opened:
            assert opened.n_frames == 2
        assert near(load_image(path).getpixel((10, 10)), RED, 3)


@pytest.mark.parametrize("kind", ["zTXt", "tEXt", "iTXt"])
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_a_huge_comment_does_not_lose_a_png(kind, before):
    text = b"x" * (80 << 20 if kind == "tEXt" else 2 << 20)
    body = {
        "zTXt": lambda: b"k\0\0" + zlib.compress(text),
        "tEXt": lambda: b"k\0" + text,
        "iTXt": lambda: b"k\0\1\0\0\0" + zlib.compress(text),
    }[kind]()
    data = png_with_chunk(corners(), png_chunk(kind.encode(), body), before=before)
    if kind != "tEXt":
        with pytest.raises(ValueError, match="too large"):  # What Pillow alone makes of it.
            Image.open(io.BytesIO(data)).load()
    assert_corners(load_image(data), tolerance=0)


def test_truncated_files_are_refused_in_every_format(tmp_path):
    for suffix in (".jpg", ".png", ".webp", ".gif", ".bmp", ".tif", ".avif", ".ppm"):
        whole = Path(written(tmp_path / f"a{suffix}", noise(200, 150))).read_bytes()
        for part in (0.9, 0.5):
            path = tmp_path / f"cut{suffix}"
            path.write_bytes(whole[: int(len(whole) * part)])
            # Of an AVIF Pillow does not say what is wrong with it.
            expected = "is a damaged, truncated or unsupported AVIF file" if suffix == ".avif" else "is truncated"
            assert reason_of(path) == expected, (suffix, part)
        path.write_bytes(whole[:20])
        assert isinstance(decode_file(file_stat(path), SPEC), Failed)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"just some text, not a picture\n" * 9, "is not an image"),
        (b"Python is a language, P6 is not", "is not an image"),
        (b"P6 is the beginning of a portable pixmap", "PPM"),
        (b"\0" * 500, "is not an image"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript file"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "is truncated"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 30, "PNG"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, data, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert reason in reason_of(path)
    with pytest.raises(ImageError) as caught:
        load_image(data)
    assert caught.value.reason == reason_of(path)
    with pytest.raises(ImageError) as caught:
        load_image(path)
    assert str(caught.value) == f"{path}: {reason_of(path)}"
    assert isinstance(caught.value, DeepHashError)
    assert isinstance(caught.value, ValueError)


def test_a_flipped_byte_in_a_png_is_damage(tmp_path):
    data = bytearray(encoded(noise()))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(data)
    assert "damaged" in reason_of(tmp_path / "a.png")


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_damage_gives_an_image_or_a_reason(data):
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]))
    body = bytearray(encoded(noise(24, 18), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    try:
        image = load_image(bytes(body[:cut] if data.draw(st.booleans()) else body), max_pixels=1_000_000)
    except ImageError as error:
        outcome = error.reason
    else:
        outcome = image.mode
        assert outcome == "RGB"
    assert outcome
    assert "\n" not in outcome
