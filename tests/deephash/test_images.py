"""Decoding one image: what it may cost, the pixels a model gets, thumbnails, and silence about it."""

import io
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deephash import image_pixels
from deephash.image_errors import ImageError
from deephash.image_files import Decoded, decode_file
from deephash.images import load_image, preprocess, thumbnail
from deephash.input_spec import InputSpec
from tests.deephash.pictures import (
    RED,
    SEEN,
    SPEC,
    assert_corners,
    corners,
    encoded,
    file_stat,
    noise,
    peak_megabytes,
    png_chunk,
    reason_of,
    tiff_that_warns,
    written,
)


def bomb_png(width: int, height: int) -> bytes:
    """A PNG of one colour: kilobytes on disk, gigabytes in memory."""
    rows = zlib.compressobj(1)
    row = b"\0" * (1 + width // 8 + 1)
    body = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


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
    stream = io.BytesIO()
    thumbnail(path, 100).save(stream, "JPEG")
    data = stream.getvalue()
    assert b"Secret" not in data
    assert_corners(Image.open(io.BytesIO(data)), SEEN[6], tolerance=30)
    with pytest.raises(ImageError, match="is empty"):
        thumbnail(b"", 100)


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
    to_rgb = image_pixels.to_rgb

    def slow(image):
        inside.set()
        go_on.wait(5)
        return to_rgb(image)

    monkeypatch.setattr(image_pixels, "to_rgb", slow)
    thread = threading.Thread(target=load_image, args=(encoded(corners()),))
    thread.start()
    assert inside.wait(5)
    with pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)
    go_on.set()
    thread.join()
