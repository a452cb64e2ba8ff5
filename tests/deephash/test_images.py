"""Every kind of good, odd and bad file, made on the spot; each test looks at pixels or at the reason."""

import gc
import hashlib
import inspect
import io
import itertools
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from deephash import images
from deephash.images import (
    Decoded,
    Failed,
    ImageBatches,
    ImageError,
    InputSpec,
    content_hash,
    decode_file,
    find_images,
    hash_file,
    load_image,
    preprocess,
    thumbnail,
    thumbnail_jpeg,
)
from index import DeepHashError, FileStat

SPEC = InputSpec(size=32, resize=36)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def file_stat(path) -> FileStat:
    status = os.stat(path)
    return FileStat(os.fspath(path), status.st_size, status.st_mtime_ns)


def corners(width=80, height=60) -> Image.Image:
    """Red top left, green top right, blue bottom left, white bottom right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(WHITE, (width // 2, height // 2, width, height))
    return image


def noise(width=64, height=48, seed=0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind="PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def written(path: Path, image: Image.Image, **options) -> str:
    image.save(path, **options)
    return str(path)


def near(pixel, colour, tolerance=12) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, colour, strict=True))


def corner_colours(image: Image.Image):
    right, bottom = image.width - 4, image.height - 4
    return [image.getpixel(xy) for xy in ((3, 3), (right, 3), (3, bottom), (right, bottom))]


def assert_corners(image: Image.Image, expected=(RED, GREEN, BLUE, WHITE), tolerance=12) -> None:
    assert image.mode == "RGB"
    found = corner_colours(image)
    assert all(near(a, b, tolerance) for a, b in zip(found, expected, strict=True)), found


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with_chunk(image: Image.Image, chunk: bytes, *, before=b"IDAT") -> bytes:
    plain = encoded(image)
    at = plain.index(before) - 4
    return plain[:at] + chunk + plain[at:]


def bomb_png(width: int, height: int) -> bytes:
    """A PNG of one colour: kilobytes on disk, gigabytes in memory."""
    rows = zlib.compressobj(1)
    row = b"\0" * (1 + width // 8 + 1)
    body = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def reason_of(path, spec=SPEC, **options) -> str:
    result = decode_file(FileStat(os.fspath(path), 0, 0), spec, **options)
    assert isinstance(result, Failed), result
    assert result.reason == result.reason.strip()
    assert "\n" not in result.reason
    return result.reason


def peak_megabytes(code: str) -> float:
    """Returns by how much a fresh process grows while it runs `code`; imports are not counted."""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("needs Linux to measure memory")
    # Not getrusage: its ru_maxrss starts with the peak of the process that forked this one.
    program = (
        "import re\nimport numpy as np\nfrom deephash.images import *\nfrom index import FileStat\n"
        "def peak(): return int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]) / 1024\n"
        "load_image(thumbnail_jpeg(np.zeros((9, 9)), 9))\n"
        "before = peak()\n" + code + "\nprint(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])


# --- Kinds of pictures ---


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
        "import sys; sys.modules['pillow_heif'] = None\nfrom deephash.images import *\n"
        "skipped = []\n"
        f"assert list(find_images([{str(tmp_path)!r}])) == []\n"
        f"list(find_images([{str(tmp_path / 'a.heic')!r}], on_skip=lambda path, reason: skipped.append(reason)))\n"
        f"try: load_image({str(tmp_path / 'a.heic')!r})\nexcept ImageError as error: skipped.append(error.reason)\n"
        "assert len(skipped) == 2 and all('deephash[heic]' in reason for reason in skipped), skipped\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# Where red, green, blue and white of the file are seen after each of the eight orientations.
SEEN = {
    1: (RED, GREEN, BLUE, WHITE),
    2: (GREEN, RED, WHITE, BLUE),
    3: (WHITE, BLUE, GREEN, RED),
    4: (BLUE, WHITE, RED, GREEN),
    5: (RED, BLUE, GREEN, WHITE),
    6: (BLUE, RED, WHITE, GREEN),
    7: (WHITE, GREEN, BLUE, RED),
    8: (GREEN, WHITE, RED, BLUE),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
def test_exif_orientation_is_applied_before_anything_else(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = written(tmp_path / f"a.{kind}", corners(80, 60), exif=exif, quality=95)
    image = load_image(path)
    assert image.size == ((60, 80) if orientation >= 5 else (80, 60))
    assert_corners(image, SEEN[orientation], tolerance=16)
    assert not image.getexif()
    result = decode_file(file_stat(path), InputSpec(size=32, resize=32))
    assert isinstance(result, Decoded)
    assert (result.width, result.height) == image.size
    assert_corners(Image.fromarray(result.pixels), SEEN[orientation], tolerance=40)


def test_a_large_rotated_jpeg_reports_its_full_size_though_it_is_decoded_smaller(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = written(tmp_path / "a.jpg", corners(1203, 901), exif=exif, quality=90)
    result = decode_file(file_stat(path), SPEC)
    assert isinstance(result, Decoded)
    assert (result.width, result.height) == (901, 1203)
    assert_corners(Image.fromarray(result.pixels), SEEN[6], tolerance=40)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_does_not_lose_the_picture(exif, kind):
    assert_corners(load_image(encoded(corners(), kind, exif=exif, quality=95)), tolerance=16)


def test_exif_that_raises_does_not_lose_the_picture(monkeypatch):
    def broken(self):
        raise ValueError("broken")

    data = encoded(corners(), "PNG")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "getexif", broken)
    assert_corners(load_image(data), tolerance=0)


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


def test_cmyk_is_converted_and_the_red_is_red(tmp_path):
    for suffix, options in ((".tif", {}), (".jpg", {"quality": 95})):
        path = written(tmp_path / f"a{suffix}", corners().convert("CMYK"), **options)
        with Image.open(path) as opened:
            assert opened.mode == "CMYK"
        assert_corners(load_image(path), tolerance=12)


def test_lab_tiff_keeps_its_colours(tmp_path):
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    path = written(tmp_path / "a.tif", ImageCms.applyTransform(corners(), to_lab))
    with Image.open(path) as opened:
        assert opened.mode == "LAB"
    assert_corners(load_image(path), tolerance=24)


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX", "CMYK", "RGBa"])
def test_images_in_memory_of_other_modes_keep_their_colours(mode):
    start = corners().convert("RGBA") if mode == "RGBa" else corners()
    assert_corners(load_image(start.convert(mode)), tolerance=3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "PA", "La"])
def test_grey_images_in_memory_keep_their_greys(mode):
    image = Image.new("L", (40, 40), 0)
    image.paste(255, (20, 0, 40, 40))
    image = image.convert("LA").convert("La") if mode == "La" else image.convert(mode)
    assert_corners(load_image(image), ((0, 0, 0), WHITE, (0, 0, 0), WHITE), tolerance=0)


def test_one_bit_and_palette_files_keep_their_colours(tmp_path):
    bits = Image.new("1", (40, 40), 0)
    bits.paste(1, (0, 20, 40, 40))
    black = (0, 0, 0)
    assert_corners(load_image(written(tmp_path / "bits.png", bits)), (black, black, WHITE, WHITE), tolerance=0)
    palette = written(tmp_path / "palette.png", corners().quantize(8))
    with Image.open(palette) as opened:
        assert opened.mode == "P"
    assert_corners(load_image(palette), tolerance=0)


def test_transparency_of_every_kind_is_put_on_white(tmp_path):
    clear = corners().convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, 40, 30))
    expected = (WHITE, GREEN, BLUE, WHITE)
    for name, image, options in [
        ("rgba.png", clear, {}),
        ("rgba.webp", clear, {"lossless": True}),
        ("palette.png", clear.quantize(8), {}),
        ("index.gif", corners().quantize(8), {"transparency": None}),
        ("key.png", corners(), {"transparency": RED}),
    ]:
        if options.get("transparency", 0) is None:
            options["transparency"] = image.getpixel((3, 3))
        assert_corners(load_image(written(tmp_path / name, image, **options)), expected, tolerance=0)
    half = Image.new("LA", (8, 8), (0, 128))
    assert near(load_image(encoded(half)).getpixel((4, 4)), (127, 127, 127), 1)


def test_16_bit_png_is_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    path = written(tmp_path / "a.png", Image.fromarray(values))
    with Image.open(path) as opened:
        assert opened.mode == "I;16"
    pixels = np.asarray(load_image(path))
    assert np.array_equal(pixels[:, :, 0], np.floor(values / 257 + 0.5))
    assert pixels.mean() == pytest.approx(127.5, abs=0.1)


def test_big_endian_16_bit_tiff_and_12_bits_in_16_are_scaled(tmp_path):
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    path = written(tmp_path / "a.tif", Image.frombytes("I;16B", (64, 64), values.astype(">u2").tobytes()))
    with Image.open(path) as opened:
        assert opened.mode == "I;16B"
    assert np.asarray(load_image(path)).mean() == pytest.approx(127.5, abs=0.1)
    twelve = Image.fromarray((values / 16).astype(np.uint16))
    assert np.asarray(load_image(encoded(twelve))).mean() == pytest.approx(127.5, abs=0.2)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 255), (0, 65535), (-3, 5), (-3e38, 3e38), (0, 1e9), (0, 5), (2, 20)]
)
def test_float_tiff_is_scaled_by_its_range(tmp_path, low, high):
    values = np.linspace(low, high, 64 * 64).reshape(64, 64).astype(np.float32)
    path = written(tmp_path / "a.tif", Image.fromarray(values))
    with Image.open(path) as opened:
        assert opened.mode == "F"
    pixels = np.asarray(load_image(path))
    expected = 127.5 if (low, high) != (2, 20) else 11
    assert pixels.mean() == pytest.approx(expected, abs=0.5)
    assert pixels.min() <= 2


def test_nan_and_infinity_in_a_float_tiff_do_no_harm(tmp_path):
    values = np.full((20, 20), 0.5, np.float32)
    values[0, 0], values[0, 1], values[0, 2] = np.nan, np.inf, -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = np.asarray(load_image(written(tmp_path / "a.tif", Image.fromarray(values))))[:, :, 0]
        assert np.array_equal(pixels, np.asarray(load_image(values))[:, :, 0])
    assert list(pixels[0, :4]) == [0, 255, 0, 128]
    written(tmp_path / "nan.tif", Image.fromarray(np.full((9, 9), np.nan, np.float32)))
    assert reason_of(tmp_path / "nan.tif") == "holds no finite values"


def test_32_bit_integers_and_floats_of_several_strips_use_one_range():
    values = np.zeros((4096, 1024), np.int32)
    values[-1, -1] = 1_000_000
    values[0] = 500_000
    pixels = np.asarray(load_image(Image.fromarray(values, "I")))
    assert pixels[0, 0, 0] == 128
    assert pixels[-1, -1, 0] == 255
    assert pixels[1, 0, 0] == 0


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


# --- What is not an image ---


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


@contextmanager
def without_root():
    """Root may read everything: be somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


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


# --- Size ---


def test_a_decompression_bomb_is_refused_before_it_costs_memory(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb_png(20_000, 20_000))
    assert path.stat().st_size < 1_000_000
    reason = reason_of(path)
    assert reason == (
        "has 400 megapixels (20000 x 20000), more than the limit of 100 megapixels: raise max_pixels to read it"
    )
    grown = peak_megabytes(f"assert isinstance(decode_file(FileStat({str(path)!r}, 0, 0), InputSpec()), Failed)")
    assert grown < 30


def test_max_pixels_can_be_raised_above_pillows_own_limit_and_lowered(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    data = encoded(corners())
    assert_corners(load_image(data, max_pixels=4800), tolerance=0)
    with pytest.raises(ImageError, match=r"80 x 60.*raise max_pixels"):
        load_image(data, max_pixels=4799)
    with pytest.raises(ImageError, match="max_pixels"):
        load_image(corners(), max_pixels=4799)
    with pytest.raises(ImageError, match="max_pixels"):
        load_image(np.zeros((60, 80), np.uint8), max_pixels=4799)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_jpeg_counts_with_the_size_it_is_decoded_to_a_progressive_one_in_full():
    image = corners(1600, 1200)
    baseline, progressive = encoded(image, "JPEG"), encoded(image, "JPEG", progressive=True)
    assert load_image(baseline, at_least=100, max_pixels=480_000).size == (400, 300)
    for data, limit in ((baseline, 479_999), (progressive, 480_000)):
        with pytest.raises(ImageError, match="max_pixels"):
            load_image(data, at_least=100, max_pixels=limit)
    assert load_image(progressive, at_least=100, max_pixels=1_920_000).size == (400, 300)


def test_one_large_image_costs_about_ten_bytes_a_pixel(tmp_path):
    path = written(tmp_path / "a.png", Image.new("RGBA", (4000, 4000), (9, 9, 9, 99)), compress_level=1)
    assert peak_megabytes(f"load_image({path!r})") < 4000 * 4000 * 8 / 2**20 + 48  # 48: strips, buffers


def test_large_images_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_LARGE_PIXELS", 100)
    running, most = 0, 0
    to_rgb = images._to_rgb

    def watched(image):
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.01)
        running -= 1
        return to_rgb(image)

    monkeypatch.setattr(images, "_to_rgb", watched)
    files = [file_stat(written(tmp_path / f"{i}.png", noise())) for i in range(8)]
    list(ImageBatches(files, SPEC, workers=4))
    assert most == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 50_000), (50_000, 1), (2, 9000), (1, 7)])
def test_images_of_extreme_shape_are_prepared(tmp_path, size):
    image = Image.new("RGB", size, (10, 200, 30))
    result = decode_file(file_stat(written(tmp_path / "a.png", image)), InputSpec())
    assert isinstance(result, Decoded)
    assert (result.width, result.height) == size
    assert result.pixels.shape == (224, 224, 3)
    assert (result.pixels == (10, 200, 30)).all()
    small = thumbnail(image, 64)
    assert max(small.size) <= 64
    assert min(small.size) >= 1


def test_one_pixel_by_50_000_costs_no_memory(tmp_path):
    paths = [
        written(tmp_path / "a.png", Image.new("RGB", (1, 50_000))),
        written(tmp_path / "b.png", Image.new("RGB", (50_000, 1))),
    ]
    code = "\n".join(f"assert isinstance(decode_file(FileStat({p!r}, 0, 0), InputSpec()), Decoded)" for p in paths)
    assert peak_megabytes(code) < 20


# --- Pixels ---


def slow_preprocess(image: Image.Image, spec: InputSpec) -> np.ndarray:
    """The obvious way: scale the whole image, then cut the centre out."""
    scale = spec.resize / min(image.size)
    whole = image.resize(
        (round(image.width * scale), round(image.height * scale)), Image.Resampling[spec.interpolation.upper()]
    )
    left, top = (whole.width - spec.size) // 2, (whole.height - spec.size) // 2
    return np.asarray(whole.crop((left, top, left + spec.size, top + spec.size)))


def smooth(width, height) -> Image.Image:
    return noise(12, 9, seed=3).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(256, 256), (512, 512), (1024, 512), (512, 1536), (3072, 1536), (128, 128)])
def test_preprocess_equals_scaling_then_cutting(size, interpolation):
    spec = InputSpec(interpolation=interpolation)
    image = smooth(*size)
    pixels = preprocess(image, spec)
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    difference = np.abs(pixels.astype(int) - slow_preprocess(image, spec))
    assert difference.mean() < 0.5
    assert difference.max() <= 6


@pytest.mark.parametrize("size", [(1024, 1024), (2048, 2048)])
def test_preprocess_of_noise_is_not_visibly_changed_by_its_short_cut(size):
    image = noise(*size)
    difference = np.abs(preprocess(image, InputSpec()).astype(int) - slow_preprocess(image, InputSpec()))
    assert difference.mean() < 1
    assert difference.max() <= 6


def test_preprocess_of_an_image_of_the_right_size_changes_nothing():
    image = noise(32, 32)
    assert np.array_equal(preprocess(image, InputSpec(size=32, resize=32)), np.asarray(image))


def test_preprocess_takes_other_modes():
    assert (preprocess(Image.new("L", (50, 40), 77), SPEC) == 77).all()


def test_a_jpeg_decoded_smaller_gives_nearly_the_same_pixels_and_always_the_same():
    data = encoded(smooth(2400, 1800), "JPEG", quality=90)
    spec = InputSpec()
    small = load_image(data, at_least=spec.resize)
    assert small.size == (1200, 900)
    difference = np.abs(preprocess(small, spec).astype(int) - preprocess(load_image(data), spec))
    assert difference.mean() < 1
    assert difference.max() <= 6


@given(width=st.integers(1, 900), height=st.integers(1, 900), at_least=st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_draft_never_goes_below_the_wanted_short_side(width, height, at_least):
    image = load_image(encoded(Image.new("RGB", (width, height)), "JPEG"), at_least=at_least)
    assert min(image.size) >= min(at_least, width, height)


def test_a_file_gives_the_same_pixels_by_every_road(tmp_path):
    path = written(tmp_path / "a.jpg", smooth(1500, 1000), quality=90)
    spec = InputSpec()
    decoded = decode_file(file_stat(path), spec)
    assert isinstance(decoded, Decoded)
    data = Path(path).read_bytes()
    with open(path, "rb") as stream:
        stream.read(100)
        for source in (path, Path(path), data, io.BytesIO(data), stream):
            assert np.array_equal(preprocess(load_image(source, at_least=spec.resize), spec), decoded.pixels)


def test_a_stream_that_cannot_seek_is_read():
    class Pipe(io.RawIOBase):
        def __init__(self, data):
            self.rest = io.BytesIO(data)

        def readable(self):
            return True

        def readinto(self, buffer):
            return self.rest.readinto(buffer)

    assert_corners(load_image(Pipe(encoded(corners()))), tolerance=0)


def test_arrays():
    array = np.asarray(corners())
    assert_corners(load_image(array), tolerance=0)
    assert_corners(load_image(array / 255.0), tolerance=0)
    assert_corners(load_image(array.astype(np.uint16) * 257), tolerance=0)
    assert_corners(load_image(array[:, ::-1]), SEEN[2], tolerance=0)
    alpha = np.concatenate([array, np.zeros_like(array[:, :, :1])], axis=2)
    assert_corners(load_image(alpha), (WHITE,) * 4, tolerance=0)
    assert load_image(np.full((5, 6, 1), 9, np.uint8)).getpixel((0, 0)) == (9, 9, 9)
    assert load_image(np.ones((5, 6), bool)).getpixel((0, 0)) == WHITE
    for bad in (np.zeros((3, 32, 32)), np.zeros(5), np.zeros((4, 4), complex), np.zeros((0, 4), np.uint8)):
        with pytest.raises(ImageError):
            load_image(bad)
    with pytest.raises(TypeError, match="not int"):
        load_image(5)


def test_load_image_leaves_a_pillow_image_as_it_was():
    image = Image.new("RGBA", (9, 9), (1, 2, 3, 0))
    image.info["comment"] = "mine"
    loaded = load_image(image)
    assert loaded.info == {}
    loaded.paste(RED, (0, 0, 9, 9))
    assert image.getpixel((0, 0)) == (1, 2, 3, 0)
    assert image.info == {"comment": "mine"}


def test_thumbnails_are_small_upright_and_without_metadata(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "SecretCamera"
    path = written(tmp_path / "a.jpg", corners(800, 600), exif=exif, comment=b"SecretPlace", dpi=(300, 300), quality=95)
    assert thumbnail(path, 100).size == (75, 100)
    assert thumbnail(noise(20, 10), 100).size == (20, 10)
    data = thumbnail_jpeg(path, 100)
    assert b"Secret" not in data
    assert_corners(Image.open(io.BytesIO(data)), SEEN[6], tolerance=30)
    with pytest.raises(ImageError, match="is empty"):
        thumbnail(b"", 100)


# --- Warnings ---


def tiff_that_warns() -> bytes:
    data = bytearray(encoded(corners(), "TIFF", copyright="longer than the four bytes of a tag"))
    at = data.index(struct.pack("<HH", 33432, 2))
    data[at + 8 : at + 12] = struct.pack("<I", len(data) + 1000)
    return bytes(data)


def test_warnings_of_pillow_stay_inside():
    data = tiff_that_warns()
    with pytest.warns(UserWarning, match="Truncated"):  # What Pillow alone says of it.
        Image.open(io.BytesIO(data)).load()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_corners(load_image(data), tolerance=0)
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", stacklevel=1)


def test_warnings_of_other_threads_are_still_heard(monkeypatch):
    inside, go_on = threading.Event(), threading.Event()
    to_rgb = images._to_rgb

    def slow(image):
        inside.set()
        go_on.wait(5)
        return to_rgb(image)

    monkeypatch.setattr(images, "_to_rgb", slow)
    thread = threading.Thread(target=load_image, args=(encoded(corners()),))
    thread.start()
    assert inside.wait(5)
    with pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)
    go_on.set()
    thread.join()


def test_nothing_reaches_the_terminal_from_many_threads(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff_that_warns())
    program = (
        "import warnings\nfrom deephash.images import *\nbefore = list(warnings.filters)\n"
        f"file = next(find_images([{str(tmp_path)!r}]))\n"
        "items = [item for batch in ImageBatches([file] * 200, InputSpec(), workers=8) for item in batch]\n"
        "assert len(items) == 200 and all(isinstance(item, Decoded) for item in items)\n"
        "assert [f for f in warnings.filters if f in before] == before\n"
        "assert len(warnings.filters) <= len(before) + 8\n"
        "warnings.warn('still heard')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ""
    assert "still heard" in done.stderr
    assert "PIL" not in done.stderr


# --- Finding ---


class Skips(list):
    def __call__(self, path, reason):
        self.append((path, reason))


def touch(path: Path, data=b"x") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def found(*roots, skips=None) -> list[str]:
    return [file.path for file in find_images(roots, on_skip=skips)]


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


# --- Hashes ---


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


# --- Batches ---


def files_on_disk(folder: Path, n_good: int, bad=()) -> list[FileStat]:
    files = []
    for i in range(n_good + len(bad)):
        path = folder / f"{i:04}.png"
        if i in bad:
            path.write_bytes(b"no picture")
        else:
            Image.new("RGB", (40, 40), (i % 256, i // 256, 0)).save(path)
        files.append(file_stat(path))
    return files


def test_batches_keep_the_order_and_are_cut_by_what_could_be_decoded(tmp_path):
    bad = {0, 5, 6, 21}
    files = files_on_disk(tmp_path, 21, bad)
    batches = list(ImageBatches(iter(files), SPEC, batch_size=8, workers=3))
    items = list(itertools.chain.from_iterable(batches))
    assert [item.file for item in items] == files
    assert [isinstance(item, Failed) for item in items] == [i in bad for i in range(25)]
    assert [sum(isinstance(item, Decoded) for item in batch) for batch in batches] == [8, 8, 5]
    assert all((item.pixels == (i, 0, 0)).all() for i, item in enumerate(items) if isinstance(item, Decoded))


def test_slow_images_do_not_change_the_order(monkeypatch):
    def slow(file, spec, *, max_pixels):
        time.sleep(0.02 if file.n_bytes % 3 == 0 else 0)
        return Failed(file, "is a test")

    monkeypatch.setattr(images, "decode_file", slow)
    files = [FileStat(str(i), i, 0) for i in range(40)]
    items = [item for batch in ImageBatches(files, SPEC, batch_size=4, workers=8) for item in batch]
    assert [item.file for item in items] == files


def test_a_run_of_only_bad_images_comes_in_bounded_batches(tmp_path):
    files = files_on_disk(tmp_path, 0, range(70))
    batches = list(ImageBatches(files, SPEC, batch_size=8))
    assert [len(batch) for batch in batches] == [32, 32, 6]
    assert all(isinstance(item, Failed) and "not an image" in item.reason for batch in batches for item in batch)


def test_no_files_no_batches():
    assert list(ImageBatches([], SPEC)) == []


def test_batches_can_be_taken_twice_from_a_list(tmp_path):
    batches = ImageBatches(files_on_disk(tmp_path, 3), SPEC, batch_size=2)
    assert [len(batch) for batch in batches] == [len(batch) for batch in batches] == [2, 1]


def test_no_more_than_two_batches_are_ahead(tmp_path, monkeypatch):
    (file,) = files_on_disk(tmp_path, 1)
    taken, decoded = 0, 0
    lock = threading.Lock()
    decode = images.decode_file

    def counted(file, spec, *, max_pixels):
        nonlocal decoded
        with lock:
            decoded += 1
        return decode(file, spec)

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield file

    monkeypatch.setattr(images, "decode_file", counted)
    batches = iter(ImageBatches(endless(), SPEC, batch_size=8, workers=2))
    for n in range(1, 4):
        assert len(next(batches)) == 8
        time.sleep(0.1)
        assert taken <= 8 * (n + 1)
        assert 8 * n <= decoded <= 8 * (n + 1)
    batches.close()


def test_closing_stops_at_once(monkeypatch):
    started = 0
    lock, release = threading.Lock(), threading.Event()

    def stuck(file, spec, *, max_pixels):
        nonlocal started
        if file.n_bytes:
            with lock:
                started += 1
            release.wait(10)
        return Failed(file, "is a test")

    monkeypatch.setattr(images, "decode_file", stuck)
    files = [FileStat("quick", 0, 0)] * 32 + [FileStat("slow", 1, 0)] * 100
    batches = iter(ImageBatches(files, SPEC, batch_size=8, workers=2))
    assert len(next(batches)) == 32
    before = time.monotonic()
    batches.close()
    assert time.monotonic() - before < 1
    release.set()
    deadline = time.monotonic() + 5
    while any(thread.name.startswith("deephash-decode") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert started <= 2


@pytest.mark.parametrize("where", ["input", "loop"])
def test_an_error_leaves_no_threads_behind(tmp_path, where):
    files = files_on_disk(tmp_path, 20)

    def failing():
        yield from files
        raise ZeroDivisionError

    def run():
        for _ in ImageBatches(failing() if where == "input" else files, SPEC, batch_size=4, workers=3):
            if where == "loop":
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    gc.collect()
    deadline = time.monotonic() + 5
    while any(thread.name.startswith("deephash-decode") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_max_pixels_reaches_the_batches(tmp_path):
    ((item,),) = ImageBatches(files_on_disk(tmp_path, 1), SPEC, max_pixels=100)
    assert "max_pixels" in item.reason


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"workers": 0}, {"workers": -1}])
def test_batches_refuse_senseless_numbers(options):
    with pytest.raises(ValueError, match="at least 1"):
        ImageBatches([], SPEC, **options)


# --- InputSpec ---


def test_input_spec_round_trip_through_json_types():
    spec = InputSpec(size=32, resize=40, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), interpolation="lanczos")
    values = spec.to_dict()
    assert values["mean"] == [0.1, 0.2, 0.3]
    assert InputSpec.from_dict(values) == spec
    assert hash(InputSpec.from_dict(values)) == hash(spec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size .* 1 to 4096, not 0"),
        ({"size": "224"}, "size"),
        ({"size": True}, "size"),
        ({"resize": 10**9}, "resize"),
        ({"size": 300}, r"resize \(256\) must not be smaller than size \(300\)"),
        ({"mean": [0.5, 0.5]}, "mean .* three numbers"),
        ({"mean": [0.5, 0.5, float("nan")]}, "mean"),
        ({"std": [1, 1, 0]}, "std .* above 0"),
        ({"std": "abc"}, "std"),
        ({"interpolation": "nearest"}, "bilinear, bicubic, lanczos, not 'nearest'"),
        ({"interpolation": ["bicubic"]}, "interpolation"),
        ({"colour": 1}, "unknown fields: colour"),
    ],
)
def test_input_spec_from_a_damaged_header(change, message):
    with pytest.raises(ValueError, match=message):
        InputSpec.from_dict(InputSpec().to_dict() | change)


def test_input_spec_lacking_a_field():
    values = InputSpec().to_dict()
    del values["std"]
    with pytest.raises(ValueError, match="lacks std"):
        InputSpec.from_dict(values)
    with pytest.raises(ValueError, match="mapping"):
        InputSpec.from_dict([1])


# --- Real photographs ---


@pytest.mark.slow
def test_real_photographs_decode_and_draft_changes_little():
    folder = Path(os.environ.get("DEEPHASH_DATA", "")) / "photos"
    if "DEEPHASH_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("DEEPHASH_DATA names no folder with photos/")
    files = list(find_images([folder]))[:300]
    items = [item for batch in ImageBatches(files, InputSpec()) for item in batch]
    assert len(items) == len(files) > 0
    assert not [item for item in items if isinstance(item, Failed)]
    spec = InputSpec(size=48, resize=56)
    differences = []
    for file in files[:50]:
        drafted = decode_file(file, spec)
        assert isinstance(drafted, Decoded)
        whole = preprocess(load_image(file.path), spec)
        differences.append(np.abs(drafted.pixels.astype(int) - whole).mean())
    assert max(differences) < 6
    assert np.mean(differences) < 2
