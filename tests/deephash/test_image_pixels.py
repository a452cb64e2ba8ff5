"""Pictures of every mode, depth and orientation become upright RGB of 8 bits."""

import warnings

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from deephash.image_errors import ImageError
from deephash.image_files import Decoded, decode_file
from deephash.images import load_image
from deephash.input_spec import InputSpec
from tests.deephash.pictures import (
    BLUE,
    GREEN,
    RED,
    SEEN,
    SPEC,
    WHITE,
    assert_corners,
    corners,
    encoded,
    file_stat,
    near,
    reason_of,
    written,
)


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
