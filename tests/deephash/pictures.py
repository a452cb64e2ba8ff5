"""Test pictures and files, made on the spot, and what is asked of them."""

import io
import os
import struct
import subprocess
import sys
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deephash.image_files import Failed, decode_file, find_images
from deephash.input_spec import InputSpec
from index import FileStat

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
        "import re\nimport numpy as np\nfrom deephash.image_files import *\nfrom deephash.images import *\n"
        "from deephash.input_spec import *\nfrom index import FileStat\n"
        "def peak(): return int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]) / 1024\n"
        "thumbnail(np.zeros((9, 9)), 9)\n"
        "before = peak()\n" + code + "\nprint(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])


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


def tiff_that_warns() -> bytes:
    data = bytearray(encoded(corners(), "TIFF", copyright="longer than the four bytes of a tag"))
    at = data.index(struct.pack("<HH", 33432, 2))
    data[at + 8 : at + 12] = struct.pack("<I", len(data) + 1000)
    return bytes(data)


class Skips(list):
    def __call__(self, path, reason):
        self.append((path, reason))


def touch(path: Path, data=b"x") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def found(*roots, skips=None) -> list[str]:
    return [file.path for file in find_images(roots, on_skip=skips)]
