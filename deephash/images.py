"""Finds image files, decodes them safely and prepares their pixels; every failure comes back with its reason.

Files and pictures come from strangers: nothing here trusts a name, a header or a size. No torch, no model, no index.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import os
import stat
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from typing import Any, BinaryIO, Literal, TypeAlias, cast

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from index import FileStat
from index.errors import DeepHashError

try:
    from pillow_heif import register_heif_opener
except ImportError:
    _HAS_HEIF = False
else:
    _HAS_HEIF = True
    register_heif_opener()

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "PILLOW_FORMATS",
    "Decoded",
    "Failed",
    "ImageBatches",
    "ImageError",
    "ImageSource",
    "InputSpec",
    "content_hash",
    "decode_file",
    "find_images",
    "hash_file",
    "load_image",
    "preprocess",
    "thumbnail",
    "thumbnail_jpeg",
]

# Importing a plugin registers its format in Image.OPEN. None of Pillow's thirty others is used: EPS starts Ghostscript.
_PLUGINS = (
    JpegImagePlugin, PngImagePlugin, WebPImagePlugin, GifImagePlugin, BmpImagePlugin, TiffImagePlugin, AvifImagePlugin,
    PpmImagePlugin, Jpeg2KImagePlugin,
)  # fmt: skip
PILLOW_FORMATS: tuple[str, ...] = (
    "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000", *(("HEIF",) if _HAS_HEIF else ()),
)  # fmt: skip
IMAGE_SUFFIXES: frozenset[str] = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"]
    + [".pbm", ".pgm", ".ppm", ".pnm", ".pfm", ".jp2", ".j2k"]
    + ([".heic", ".heif", ".hif"] if _HAS_HEIF else [])
)

# What one picture may cost: at most about 10 bytes a pixel while it is decoded, so about 1 GB. Photographs of 24 to 60
# megapixels and A4 scans at 1,000 dpi pass; see `load_image` for what is counted.
MAX_PIXELS = 100_000_000
# A JPEG that is shrunk while it is decoded still costs time in proportion to its full size.
_DRAFT_DISCOUNT = 4
# Pictures above this size are decoded one at a time, so that memory does not grow with the number of threads.
_LARGE_PIXELS = 25_000_000
_ONE_LARGE_IMAGE = threading.Lock()
# draft() is a coarse filter: leave the good one at least a factor of 2 to work on.
_DRAFT_MARGIN = 2
_STRIP_PIXELS = 1 << 21

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
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
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS_OF_THE_PICTURE = frozenset([b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"])
_FOREIGN = (
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript file"),
    (b"<!do", "a web page"),
    (b"<htm", "a web page"),
    (b"<svg", "an SVG drawing"),
    (b"PK\x03\x04", "a ZIP archive"),
)

ImageSource: TypeAlias = "str | os.PathLike[str] | BinaryIO | bytes | Image.Image | np.ndarray[Any, Any]"


class ImageError(DeepHashError, ValueError):
    """One image cannot be read. ``reason`` is one line that continues a sentence: "is empty", "is truncated"."""

    def __init__(self, reason: str, *, path: str | None = None) -> None:
        super().__init__(reason if path is None else f"{_shown(path)}: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a model wants to see: ``size`` x ``size`` pixels from the centre of an image of short side ``resize``.

    ``mean`` and ``std`` are per channel (RGB) for pixels in 0 … 1; `preprocess` leaves them to the model.

    Raises:
        ValueError: A value is out of its range; the text names it.
    """

    size: int = 224
    resize: int = 256
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = "bicubic"

    def __post_init__(self) -> None:
        for name in ("size", "resize"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096:
                raise ValueError(f"{name} of an InputSpec must be an integer from 1 to 4096, not {value!r}")
        if self.resize < self.size:
            raise ValueError(f"resize ({self.resize}) must not be smaller than size ({self.size})")
        for name in ("mean", "std"):
            numbers = getattr(self, name)
            if (
                not isinstance(numbers, tuple)
                or len(numbers) != 3
                or not all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers)
            ):
                raise ValueError(f"{name} of an InputSpec must be a tuple of three numbers, not {numbers!r}")
        if min(self.std) <= 0:
            raise ValueError(f"std of an InputSpec must be above 0, not {self.std!r}")
        if self.interpolation not in _RESAMPLING:
            raise ValueError(f"interpolation must be one of {', '.join(_RESAMPLING)}, not {self.interpolation!r}")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain numbers, lists and strings, for JSON; `from_dict` is the way back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputSpec:
        """Returns the spec that `to_dict` described; every field must be there.

        Raises:
            ValueError: A field is missing, unknown or out of its range.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"an input spec must be a mapping, not {type(values).__name__}")
        names = {field.name for field in fields(cls)}
        if missing := names - values.keys():
            raise ValueError(f"input spec lacks {', '.join(sorted(missing))}")
        if unknown := values.keys() - names:
            raise ValueError(f"input spec has unknown fields: {', '.join(sorted(map(str, unknown)))}")
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**plain)


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """An image ready for a model.

    ``width`` and ``height`` are those of the whole picture as a person sees it (after EXIF rotation);
    ``pixels`` is (size, size, 3) uint8; ``content_hash`` is that of the file's bytes.
    """

    file: FileStat
    content_hash: bytes
    width: int
    height: int
    pixels: np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that gave no image, and why: one line that continues a sentence ("is empty")."""

    file: FileStat
    reason: str


# --- Finding ---


def find_images(
    roots: Iterable[str | os.PathLike[str]], *, on_skip: Callable[[str, str], None] | None = None
) -> Iterator[FileStat]:
    """Returns an iterator over the image files at and under ``roots``, known by their suffix; no file is opened.

    Depth first, each folder in the order of the bytes of its names. Paths are absolute, symbolic links unresolved. A
    linked folder is walked after everything else, and no folder twice: loops end, and an image keeps the path of its
    real folder. Names that start with a dot and ``*.dhx`` folders are passed over in silence; what should have been an
    image or a folder and is not (broken links, FIFOs, unreadable folders) goes to ``on_skip(path, reason)``.

    Raises:
        FileNotFoundError: A root is missing (at the call, before anything is walked).
    """
    roots = [roots] if isinstance(roots, (str, os.PathLike)) else roots
    paths = [os.path.abspath(os.fsdecode(root)) for root in roots]
    for path in paths:
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(
                f"there is no file or folder {_shown(path)}: check its spelling, and that its drive is mounted"
            ) from None
        except OSError:
            pass  # It is there; why it cannot be read is said when the walk gets to it.
    return _walk(paths, on_skip if on_skip is not None else lambda path, reason: None)


def _walk(roots: list[str], skip: Callable[[str, str], None]) -> Iterator[FileStat]:
    walked: set[tuple[int, int]] = set()
    root_files = {path for path in roots if not os.path.isdir(path)}

    def entries(folder: str) -> Iterator[os.DirEntry[str]]:
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in walked:
                return iter(())
            with os.scandir(folder) as listing:
                found = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            skip(folder, _reason(error))
            return iter(())
        walked.add((status.st_dev, status.st_ino))
        return iter(found)

    pending = deque(dict.fromkeys(roots))
    while pending:
        path = pending.popleft()
        if not os.path.isdir(path):
            if _suffix(path) not in IMAGE_SUFFIXES:
                skip(path, _not_an_image_name(path))
            elif (file := _file_stat(path, path, skip)) is not None:
                yield file
            continue
        # Iterators instead of recursion: folders may be nested deeper than Python's stack.
        stack = [entries(path)]
        while stack:
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop()
                continue
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
                is_broken = entry.is_symlink() and not is_folder and not os.path.exists(entry.path)
            except OSError as error:
                skip(entry.path, _reason(error))
                continue
            if is_folder:
                if entry.name.lower().endswith(".dhx"):
                    continue
                if entry.is_symlink():
                    pending.append(entry.path)
                else:
                    stack.append(entries(entry.path))
            elif is_broken:
                skip(entry.path, "is a broken symbolic link")
            elif (
                _suffix(entry.name) in IMAGE_SUFFIXES
                and entry.path not in root_files
                and (file := _file_stat(entry.path, entry, skip)) is not None
            ):
                yield file


def _file_stat(path: str, source: str | os.DirEntry[str], skip: Callable[[str, str], None]) -> FileStat | None:
    try:
        status = os.stat(source) if isinstance(source, str) else source.stat()
    except OSError as error:
        skip(path, _reason(error))
        return None
    if not stat.S_ISREG(status.st_mode):
        skip(path, "is not a regular file")
        return None
    return FileStat(path, status.st_size, status.st_mtime_ns)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _not_an_image_name(path: str) -> str:
    if _suffix(path) in (".heic", ".heif", ".hif"):
        return "is a HEIC photo: pip install 'deephash[heic]' to read it"
    return f"has no suffix of an image ({_suffix(path) or 'none'}); known are {' '.join(sorted(IMAGE_SUFFIXES))}"


# --- Files ---


def content_hash(file: BinaryIO) -> bytes:
    """Returns the 16-byte BLAKE2b of what is left to read in ``file``, read in pieces."""
    digest = hashlib.blake2b(digest_size=16)
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.digest()


def hash_file(file: FileStat) -> bytes | Failed:
    """Returns the `content_hash` of a whole file, or why it cannot be read; an empty file has one too."""
    try:
        with _open_regular(file.path) as stream:
            return content_hash(stream)
    except Exception as error:
        return Failed(file, _reason(error))


def decode_file(file: FileStat, spec: InputSpec, *, max_pixels: int = MAX_PIXELS) -> Decoded | Failed:
    """Hashes, decodes and prepares one file, opened once. Whatever is wrong with it comes back as `Failed`."""
    try:
        with _open_regular(file.path) as stream:
            digest = content_hash(stream)
            image, (width, height) = _decode(stream, max_pixels=max_pixels, at_least=spec.resize)
        return Decoded(file, digest, width, height, preprocess(image, spec))
    except Exception as error:
        return Failed(file, _reason(error))


def _open_regular(path: str) -> BinaryIO:
    """Opens a file that may have been swapped for something else since it was listed: a FIFO would hang `open`."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise ImageError("is a folder", path=path)
        if not stat.S_ISREG(mode):
            raise ImageError("is not a regular file", path=path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


# --- Decoding ---


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None) -> Image.Image:
    """Returns one picture as RGB, as a person sees it: EXIF orientation applied, first frame, on white, no metadata.

    ``source`` is a path, an open binary file (read from its start), the bytes of a file, a Pillow image, or an array
    (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), RGB(A). More than 8 bits a channel are scaled, not clipped: from 0 to the
    smallest of 1 (floats), 255, 1023, 4095, 16383 or 65535 that holds the picture; from its minimum to its maximum
    where none fits (negative values, or everything in the lowest sixteenth).

    Args:
        source: What to read.
        max_pixels: The largest number of pixels to decode. A JPEG that is shrunk on the way counts with its smaller
            size, but never less than a quarter of its full one, and a progressive one in full.
        at_least: The short side that is wanted: a JPEG may be decoded smaller (several times faster), though never
            below twice this. The same file with the same ``at_least`` always gives the same pixels.

    Raises:
        ImageError: There is no picture in it; ``reason`` says why.
        TypeError: ``source`` is none of the above.
    """
    path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    try:
        if path is not None:
            with _open_regular(path) as stream:
                return _decode(stream, max_pixels=max_pixels, at_least=at_least)[0]
        if isinstance(source, Image.Image):
            _check_size(source.size, max_pixels)
            with _quiet():
                source.load()
                return _upright_rgb(source)[0]
        if isinstance(source, np.ndarray):
            return _from_array(source, max_pixels)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return _decode(io.BytesIO(source), max_pixels=max_pixels, at_least=at_least)[0]
        if hasattr(source, "read"):
            file = cast("BinaryIO", source)
            file = file if file.seekable() else io.BytesIO(file.read())
            return _decode(file, max_pixels=max_pixels, at_least=at_least)[0]
    except Exception as error:
        raise ImageError(_reason(error), path=path) from error
    raise TypeError(f"an image must be a path, a file, bytes, a Pillow image or an array, not {type(source).__name__}")


def _decode(file: BinaryIO, *, max_pixels: int, at_least: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """Returns the picture and the full (width, height) it has after rotation."""
    try:
        return _decode_once(file, max_pixels, at_least)
    except ValueError as error:
        # Pillow gives up a PNG for its comments (a text of more than 1 MB): try once more without them.
        if isinstance(error, ImageError) or (picture := _png_without_comments(file)) is None:
            raise
        return _decode_once(picture, max_pixels, at_least)


def _decode_once(file: BinaryIO, max_pixels: int, at_least: int | None) -> tuple[Image.Image, tuple[int, int]]:
    with _quiet():
        image = _open_image(file)
        size = image.size
        if at_least is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
            image.draft(None, (_DRAFT_MARGIN * at_least, _DRAFT_MARGIN * at_least))
        is_draft = image.size != size
        # The coefficients of a progressive JPEG are kept for the whole picture.
        discount = _DRAFT_DISCOUNT if is_draft and "progressive" not in image.info else 1
        n_pixels = max(image.width * image.height, size[0] * size[1] // discount)
        _check_size(size, max_pixels, n_pixels)
        with _ONE_LARGE_IMAGE if n_pixels > _LARGE_PIXELS else nullcontext():
            image.load()
            upright, is_on_its_side = _upright_rgb(image)
        if not is_draft:
            return upright, upright.size
        return upright, (size[1], size[0]) if is_on_its_side else size


def _open_image(file: BinaryIO) -> ImageFile.ImageFile:
    """Does what Image.open does, with our own limit on the size (Image.open's is a global and a warning)."""
    file.seek(0)
    head = file.read(32)
    if not head:
        raise ImageError("is empty")
    for name in PILLOW_FORMATS:
        if name not in Image.OPEN:
            continue
        factory, accepts = Image.OPEN[name]
        if accepts is not None and accepts(head[:16]) is not True:
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except (MemoryError, Image.DecompressionBombError):
            raise
        except Exception as error:
            text = str(error).lower()
            if text.startswith("not a"):
                continue
            if name == "PNG" and isinstance(error, ValueError):
                raise
            if isinstance(error, OSError) and error.errno is not None:
                raise
            if _says_truncated(text) or _is_short_riff(file, head):
                raise ImageError("is truncated") from error
            raise ImageError(f"is a damaged, truncated or unsupported {name} file") from error
    raise ImageError(_what_else(head))


def _what_else(head: bytes) -> str:
    if head[4:8] == b"ftyp" and not _HAS_HEIF and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"heim", b"heis"):
        return "is a HEIC photo: pip install 'deephash[heic]' to read it"
    start = head.lstrip()[:4]
    for prefix, name in _FOREIGN:
        if start[: len(prefix)].lower() == prefix.lower():
            return f"is not an image but {name}"
    return f"is not an image, or of a kind that is not read (these are: {', '.join(PILLOW_FORMATS)})"


def _is_short_riff(file: BinaryIO, head: bytes) -> bool:
    return head[:4] == b"RIFF" and file.seek(0, os.SEEK_END) < 8 + int.from_bytes(head[4:8], "little")


def _png_without_comments(file: BinaryIO) -> BinaryIO | None:
    """Returns a copy of a PNG with the chunks of the picture only, None when the file is no PNG."""
    file.seek(0)
    if file.read(8) != _PNG_SIGNATURE:
        return None
    kept = io.BytesIO()
    kept.write(_PNG_SIGNATURE)
    while len(head := file.read(8)) == 8:
        n_bytes = int.from_bytes(head[:4], "big") + 4
        if head[4:] in _PNG_CHUNKS_OF_THE_PICTURE:
            kept.write(head + file.read(n_bytes))
        else:
            file.seek(n_bytes, os.SEEK_CUR)
    kept.seek(0)
    return kept


def _check_size(size: tuple[int, int], max_pixels: int, n_pixels: int | None = None) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError("has no pixels")
    if (width * height if n_pixels is None else n_pixels) > max_pixels:
        raise ImageError(
            f"has {width * height / 1e6:,.0f} megapixels ({width} x {height}), more than the limit of "
            f"{max_pixels / 1e6:,.3g} megapixels: raise max_pixels to read it"
        )


def _upright_rgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """Returns a loaded image as plain RGB with its EXIF orientation applied, and whether that turned it on its side."""
    orientation = 1
    try:
        # Not exif_transpose: it also writes the EXIF anew, which is what fails on a damaged one.
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
        method = _TRANSPOSE.get(orientation)
    except Exception:
        method = None
    rgb = _to_rgb(image)
    if method is not None:
        rgb = rgb.transpose(method)
    rgb.info = {}
    return rgb, method is not None and orientation >= 5


def _to_rgb(image: Image.Image) -> Image.Image:
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
    """Returns the values that become 0 and 255; see `load_image` for the rule."""
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


def _from_array(values: np.ndarray[Any, Any], max_pixels: int) -> Image.Image:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise ImageError(f"is an array of shape {values.shape}: (H, W), (H, W, 3) or (H, W, 4) is needed")
    if values.dtype.kind not in "buif":
        raise ImageError(f"is an array of {values.dtype}: integers or floats are needed")
    _check_size((values.shape[1], values.shape[0]), max_pixels)
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    elif values.dtype != np.uint8:
        values = _to_8_bits(values, *_value_range([values]))
    return _to_rgb(Image.fromarray(np.ascontiguousarray(values)))


def _reason(error: BaseException) -> str:
    """Says in one line what an exception means to the owner of the file; it continues the sentence "photo.jpg …"."""
    if isinstance(error, ImageError):
        return error.reason
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if isinstance(error, Image.DecompressionBombError):
        return "has more pixels than Pillow decodes in this format"
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, PermissionError):
        return "cannot be read: permission denied"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {os.strerror(error.errno).lower()}"
    text = " ".join(str(error).split())[:160]
    if isinstance(error, EOFError) or _says_truncated(text):
        return "is truncated"
    return f"is damaged ({text})" if any(character.isalpha() for character in text) else "is damaged or truncated"


def _says_truncated(text: str) -> bool:
    return "truncated" in text.lower() or "end of file" in text.lower()


def _shown(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


# --- Pixels ---


def preprocess(image: Image.Image, spec: InputSpec) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Returns the centre of an image as (spec.size, spec.size, 3) uint8, its short side scaled to spec.resize.

    Only the crop is ever computed: an image of 1 x 50,000 costs no more than any other.
    """
    if image.mode != "RGB":
        image = _to_rgb(image)
    width, height = image.size
    side = min(width, height) * spec.size / spec.resize
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, min(left + side, width), min(top + side, height))
    # From a gap of 3 on the result cannot be told from the slow way (Pillow's documentation; a test measures it).
    crop = image.resize((spec.size, spec.size), _RESAMPLING[spec.interpolation], box=box, reducing_gap=3.0)
    return np.array(crop, dtype=np.uint8)


def thumbnail(source: ImageSource, size: int) -> Image.Image:
    """Returns a picture that fits into ``size`` x ``size``: RGB, upright, no metadata, never enlarged.

    Raises:
        ImageError: There is no picture in it; ``reason`` says why.
    """
    image = load_image(source, at_least=size)
    image.thumbnail((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return image


def thumbnail_jpeg(source: ImageSource, size: int, *, quality: int = 80) -> bytes:
    """Returns `thumbnail` as the bytes of a JPEG file, to be embedded in a page."""
    stream = io.BytesIO()
    thumbnail(source, size).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


# --- Batches ---


class ImageBatches:
    """Decodes files in threads, ahead of the one who iterates; gives lists of `Decoded` and `Failed` in input order.

    A list ends when it holds ``batch_size`` decoded images (or four times as many items, where most of them failed),
    and at the end of the input. At most two batches are in memory: the one handed out and the one being decoded.
    Closing the iterator, or an error in it, drops what is not yet decoded and returns at once.

    Args:
        files: What to decode; taken one by one, from the iterating thread.
        spec: What the model wants.
        batch_size: Decoded images in a batch.
        workers: Threads; by default one for each processor that the process may use, 16 at most.
        max_pixels: As in `load_image`.
    """

    def __init__(
        self,
        files: Iterable[FileStat],
        spec: InputSpec,
        *,
        batch_size: int = 32,
        workers: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self._files = files
        self._spec = spec
        self._batch_size = batch_size
        self._workers = workers or min(_n_processors(), 16)
        self._max_pixels = max_pixels

    def __iter__(self) -> Generator[list[Decoded | Failed], None, None]:
        files = iter(self._files)
        n_ahead = max(self._batch_size, self._workers)
        pending: deque[Future[Decoded | Failed]] = deque()
        batch: list[Decoded | Failed] = []
        n_decoded = 0
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="deephash-decode")
        try:
            while True:
                for file in itertools.islice(files, n_ahead - len(pending)):
                    pending.append(pool.submit(decode_file, file, self._spec, max_pixels=self._max_pixels))
                if not pending:
                    break
                item = pending.popleft().result()
                batch.append(item)
                n_decoded += isinstance(item, Decoded)
                if n_decoded == self._batch_size or len(batch) == 4 * self._batch_size:
                    yield batch
                    batch, n_decoded = [], 0
            if batch:
                yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _n_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- Warnings ---


class _WhileDecoding(threading.local):
    """Stands where a warnings filter has its pattern, and matches only in threads that are decoding."""

    depth = 0

    def match(self, *_: object) -> bool:
        return self.depth > 0


_WHILE_DECODING = _WhileDecoding()
_QUIET_FILTER: Any = ("ignore", _WHILE_DECODING, Warning, None, 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Pillow's warnings about a stranger's file from the terminal, in this thread only.

    warnings.catch_warnings swaps the filters of the whole process, and threads that overlap restore the wrong ones.
    """
    filters = cast("list[Any]", warnings.filters)
    if not filters or filters[0] is not _QUIET_FILTER:
        filters.insert(0, _QUIET_FILTER)
    _WHILE_DECODING.depth += 1
    try:
        yield
    finally:
        _WHILE_DECODING.depth -= 1
