"""The compiled scaling gives the numbers of Pillow's, and leaves to Pillow what it cannot do."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL import __version__ as pillow_version

from deephash import image_resizing
from deephash.image_resizing import resize
from tests.deephash.pictures import noise

COMPILED = image_resizing._compiled
needs_compiled = pytest.mark.skipif(
    COMPILED is None or int(pillow_version.split(".")[0]) < 13,
    reason="needs the compiled module, and a Pillow that takes the passes in the same order",
)


def by_pillow(image, size, box, interpolation):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_resizing, "_compiled", None)
        return resize(image, size, box, interpolation)


def whole(image):
    return (0.0, 0.0, float(image.width), float(image.height))


@needs_compiled
@given(
    width=st.integers(1, 500),
    height=st.integers(1, 500),
    size=st.integers(1, 130),
    cut=st.none() | st.tuples(*[st.floats(0, 0.45)] * 4),
    interpolation=st.sampled_from(["bilinear", "bicubic", "lanczos"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=300, deadline=None)
def test_it_gives_the_numbers_of_pillow(width, height, size, cut, interpolation, seed):
    image = noise(width, height, seed=seed)
    box = whole(image)
    if cut is not None:
        box = (cut[0] * width, cut[1] * height, width - cut[2] * width, height - cut[3] * height)
    pixels = resize(image, size, box, interpolation)
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, by_pillow(image, size, box, interpolation))


@needs_compiled
@pytest.mark.parametrize("shape", [(1, 50_000), (50_000, 1), (3, 2000), (2000, 3), (1600, 1200), (64, 64), (64, 700)])
@pytest.mark.parametrize(("size", "interpolation"), [(64, "bilinear"), (224, "bicubic")])
def test_so_it_does_for_extreme_shapes_and_large_pictures(shape, size, interpolation):
    image = noise(*shape)
    expected = by_pillow(image, size, whole(image), interpolation)
    assert np.array_equal(resize(image, size, whole(image), interpolation), expected)


def test_the_numbers_are_those_of_a_slow_loop():
    image, size = noise(23, 17), 5
    source = np.asarray(image).astype(float)

    def weights(n_in):
        scale = n_in / size
        centres = (np.arange(size) + 0.5) * scale
        rows = np.maximum(0, 1 - np.abs(np.arange(n_in) + 0.5 - centres[:, None]) / scale)
        return rows / rows.sum(1, keepdims=True)

    across = np.floor(np.einsum("xi,yic->yxc", weights(23), source) + 0.5)
    both = np.floor(np.einsum("yj,jxc->yxc", weights(17), across) + 0.5)
    assert np.array_equal(resize(image, size, whole(image), "bilinear"), both)


def test_a_picture_in_several_blocks_of_memory_is_left_to_pillow():
    image = noise(2300, 2300)
    assert image_resizing._dense_pixels(image) is None
    assert np.array_equal(
        resize(image, 1024, whole(image), "bilinear"), by_pillow(image, 1024, whole(image), "bilinear")
    )


@needs_compiled
def test_the_module_refuses_sizes_that_do_not_fit():
    image = noise(8, 6)
    good = dict(width=8, height=6, box=(0.0, 0.0, 8.0, 6.0), bicubic=False, n_columns=2, n_rows=2, n_bytes=12)

    def call(*, n_bytes, **values):
        COMPILED.resize(image.__arrow_c_array__()[1], *values.values(), np.empty(n_bytes, np.uint8))

    call(**good)
    wrong = [
        dict(width=9), dict(height=7), dict(width=0), dict(n_columns=0), dict(n_rows=3), dict(n_bytes=11),
        dict(box=(0.0, 0.0, 8.5, 6.0)), dict(box=(-1.0, 0.0, 8.0, 6.0)), dict(box=(3.0, 0.0, 3.0, 6.0)),
        dict(box=(0.0, float("nan"), 8.0, 6.0)),
    ]  # fmt: skip
    for change in wrong:
        with pytest.raises(ValueError, match="do not fit"):
            call(**(good | change))
    with pytest.raises(ValueError, match="do not fit"):
        COMPILED.resize(Image.new("L", (8, 6)).__arrow_c_array__()[1], 8, 6, (0, 0, 8, 6), False, 2, 2, bytearray(12))


@needs_compiled
def test_what_is_used_can_be_turned_off():
    code = "from deephash import image_resizing; print(image_resizing.AVAILABLE)"
    environment = {"DEEPHASH_KERNEL": "0", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
