"""From a picture of any mode, or an array of any numbers, to upright RGB of 8 bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from .image_errors import ImageError
from .image_limits import check_size

__all__ = ["rgb_from_array", "to_rgb", "upright_rgb"]

_STRIP_PIXELS = 1 << 21
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112


def upright_rgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """Returns a loaded image as plain RGB with its EXIF orientation applied, and whether that turned it on its side."""
    orientation = 1
    try:
        # Not exif_transpose: it also writes the EXIF anew, which is what fails on a damaged one.
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
        method = _TRANSPOSE.get(orientation)
    except Exception:
        method = None
    rgb = to_rgb(image)
    if method is not None:
        rgb = rgb.transpose(method)
    rgb.info = {}
    return rgb, method is not None and orientation >= 5


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns a copy as RGB of 8 bits, transparency on white; `images.load_image` has the rule for deeper pictures."""
    if image.mode == "F" or image.mode.startswith("I"):
        low, high = _value_range(np.asarray(strip) for _, strip in _strips(image))
        return _by_strips(image, lambda strip: Image.fromarray(_to_8_bits(np.asarray(strip), low, high)).convert("RGB"))
    if image.has_transparency_data:
        return _by_strips(image, _on_white)
    if image.mode == "RGB":
        return image.copy()
    return _by_strips(image, lambda strip: strip.convert("RGB"))


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    n_rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, n_rows):
        yield top, image.crop((0, top, image.width, min(top + n_rows, image.height)))


def _by_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Converts some rows at a time: no second copy of a large picture beside its source and its result."""
    rgb = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        rgb.paste(convert(strip), (0, top))
    return rgb


def _value_range(pieces: Iterable[np.ndarray[Any, Any]]) -> tuple[float, float]:
    """Returns the values that become 0 and 255; see `images.load_image` for the rule."""
    low, high, is_float = math.inf, -math.inf, False
    for piece in pieces:
        is_float = is_float or piece.dtype.kind == "f"
        finite = piece[np.isfinite(piece)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        raise ImageError("holds no finite values")
    scales = (*((1.0,) if is_float else ()), 255.0, 1023.0, 4095.0, 16383.0, 65535.0)
    full_scale = next((scale for scale in scales if high <= scale), None)
    if low == high == 0 or (low >= 0 and full_scale is not None and high > full_scale / 16):
        return 0.0, full_scale or 1.0
    return low, high


def _to_8_bits(values: np.ndarray[Any, Any], low: float, high: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    # float64 and halves: the range of a float32 picture can be wider than float32.
    scaled = (values.astype(np.float64) / 2 - low / 2) / ((high / 2 - low / 2) or 1.0)
    scaled = np.nan_to_num(scaled, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
    return (np.clip(scaled, 0, 1) * 255 + 0.5).astype(np.uint8)


def rgb_from_array(values: np.ndarray[Any, Any], max_pixels: int) -> Image.Image:
    """Returns an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of any numbers as RGB of 8 bits."""
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise ImageError(f"is an array of shape {values.shape}: (H, W), (H, W, 3) or (H, W, 4) is needed")
    if values.dtype.kind not in "buif":
        raise ImageError(f"is an array of {values.dtype}: integers or floats are needed")
    check_size((values.shape[1], values.shape[0]), max_pixels)
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    elif values.dtype != np.uint8:
        values = _to_8_bits(values, *_value_range([values]))
    return to_rgb(Image.fromarray(np.ascontiguousarray(values)))
