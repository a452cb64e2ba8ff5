"""Many files in threads: their order, what is in memory, how it ends."""

import gc
import itertools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deephash import image_batches, image_limits, image_pixels
from deephash.image_batches import ImageBatches
from deephash.image_files import Decoded, Failed, decode_file, find_images
from deephash.images import load_image, preprocess
from deephash.input_spec import InputSpec
from index import FileStat
from tests.deephash.pictures import SPEC, file_stat, noise, tiff_that_warns, written


def test_large_images_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(image_limits, "_LARGE_PIXELS", 100)
    running, most = 0, 0
    to_rgb = image_pixels.to_rgb

    def watched(image):
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.01)
        running -= 1
        return to_rgb(image)

    monkeypatch.setattr(image_pixels, "to_rgb", watched)
    files = [file_stat(written(tmp_path / f"{i}.png", noise())) for i in range(8)]
    list(ImageBatches(files, SPEC, workers=4))
    assert most == 1


def test_nothing_reaches_the_terminal_from_many_threads(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff_that_warns())
    program = (
        "import warnings\nfrom deephash.image_batches import *\nfrom deephash.image_files import *\n"
        "from deephash.input_spec import *\nbefore = list(warnings.filters)\n"
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

    monkeypatch.setattr(image_batches, "decode_file", slow)
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
    decode = image_batches.decode_file

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

    monkeypatch.setattr(image_batches, "decode_file", counted)
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

    monkeypatch.setattr(image_batches, "decode_file", stuck)
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
