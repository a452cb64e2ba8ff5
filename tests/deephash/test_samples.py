"""The shipped sample: what its README promises, and that its script makes it again."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deephash import samples
from deephash.samples import CIFAR10_FILE, load_cifar10_sample

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sample():
    return load_cifar10_sample()


def test_shapes_and_types(sample):
    assert sample.database_images.shape == (1200, 32, 32, 3)
    assert sample.query_images.shape == (200, 32, 32, 3)
    assert sample.database_images.dtype == sample.query_images.dtype == np.uint8
    assert sample.database_labels.shape == (1200,)
    assert sample.query_labels.shape == (200,)
    assert sample.database_labels.dtype == sample.query_labels.dtype == np.int64
    assert sample.class_names.tolist() == [
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ]


def test_every_class_has_its_share_and_the_classes_stand_mixed(sample):
    assert np.bincount(sample.database_labels).tolist() == [120] * 10
    assert np.bincount(sample.query_labels).tolist() == [20] * 10
    assert (np.diff(sample.database_labels) != 0).mean() > 0.8


def test_images_are_distinct_and_no_query_is_in_the_database(sample):
    database = {image.tobytes() for image in sample.database_images}
    queries = {image.tobytes() for image in sample.query_images}
    assert len(database) == 1200
    assert len(queries) == 200
    assert not database & queries


def test_images_stand_upright_in_rgb(sample):
    images = sample.database_images.astype(int)
    # Neighbours are alike, as they are not when planes are read in a wrong order.
    assert np.abs(np.diff(images, axis=1)).mean() < 25
    assert np.abs(np.diff(images, axis=2)).mean() < 25
    # The sky behind planes and ships is above, bright and blue.
    outdoors = images[np.isin(sample.database_labels, (0, 8))]
    assert outdoors[:, :8, :, 2].mean() > outdoors[:, :8, :, 0].mean() + 10
    assert outdoors[:, :8].mean() > outdoors[:, -8:].mean() + 10


def test_the_file_is_small_and_its_readme_is_there():
    assert CIFAR10_FILE.stat().st_size <= 5_000_000
    assert "Krizhevsky" in (CIFAR10_FILE.parent / "README.md").read_text(encoding="utf-8")


def test_a_missing_file_is_an_error_that_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(samples, "CIFAR10_FILE", tmp_path / "cifar10.npz")
    with pytest.raises(FileNotFoundError, match="reinstall deephash"):
        load_cifar10_sample()


def run_script(data, output):
    command = [sys.executable, "-m", "benchmarks.make_samples", "--data", str(data), "--output", str(output)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_file_with_another_sum_is_never_unpickled(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    # This pickle would write a file if it were read.
    (folder / "batches.meta").write_bytes(f"cos\nmkdir\n(S'{tmp_path}/owned'\ntR.".encode())
    done = run_script(tmp_path, tmp_path / "sample.npz")
    assert done.returncode != 0
    assert "has MD5" in done.stderr
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "sample.npz").exists()


@pytest.mark.slow
def test_the_script_makes_the_same_sample_again(sample, tmp_path):
    data = os.environ.get("DEEPHASH_DATA")
    if not data:
        pytest.skip("set DEEPHASH_DATA to the folder that contains cifar-10-batches-py")
    done = run_script(data, tmp_path / "sample.npz")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "sample.npz", allow_pickle=False) as arrays:
        assert sorted(arrays.files) == sorted(vars(sample))
        for name, array in vars(sample).items():
            np.testing.assert_array_equal(arrays[name], array)
            assert arrays[name].dtype == array.dtype
