"""Which kinds of image files are read, and opening one: by its bytes, never by its name, from an allow-list."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

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

from .image_errors import ImageError, says_truncated

try:
    from pillow_heif import register_heif_opener
except ImportError:
    _HAS_HEIF = False
else:
    _HAS_HEIF = True
    register_heif_opener()

__all__ = ["IMAGE_SUFFIXES", "PILLOW_FORMATS", "open_image", "png_without_comments"]

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


def open_image(file: BinaryIO) -> ImageFile.ImageFile:
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
            if says_truncated(text) or _is_short_riff(file, head):
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


def png_without_comments(file: BinaryIO) -> BinaryIO | None:
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
