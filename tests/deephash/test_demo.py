"""The demo, from nothing to the contact sheet."""

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import deephash.demo
from deephash import ImageSearch
from deephash.demo import run_demo
from deephash.samples import load_cifar10_sample


def smaller_sample(n_database, n_queries):
    """The first images of the real sample, which is balanced and mixed."""
    whole = load_cifar10_sample()
    return replace(
        whole,
        database_images=whole.database_images[:n_database],
        database_labels=whole.database_labels[:n_database],
        query_images=whole.query_images[:n_queries],
        query_labels=whole.query_labels[:n_queries],
    )


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory):
    """A demo of 220 images, which is enough to fit a model to, and what its progress was."""
    folder, seen = tmp_path_factory.mktemp("demo") / "out", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deephash.demo, "load_cifar10_sample", lambda: smaller_sample(220, 40))
        return run_demo(folder, on_progress=seen.append), seen


def test_the_demo_indexes_what_it_writes(small_demo):
    result, seen = small_demo
    assert (result.sync.added, result.sync.n_images, result.sync.fitted_to, result.sync.skipped) == (220, 220, 220, [])
    assert result.model == "images-128"
    assert len(list((result.folder / "images").rglob("*.png"))) == 220
    assert len(list((result.folder / "queries").rglob("*.png"))) == 40
    assert seen[-1].done == seen[-1].total
    sample = load_cifar10_sample()
    with ImageSearch.open(result.index) as search:
        assert search.verify() == []
        for record in search.store.iterate():
            assert record.path.split("/")[-2] == record.label
            number = int(record.path[-8:-4])
            assert record.label == sample.class_names[sample.database_labels[number]]
            assert np.array_equal(np.asarray(Image.open(record.path)), sample.database_images[number])


def test_the_demo_finds_more_than_chance(small_demo):
    quality = small_demo[0].quality
    assert (quality.n_queries, quality.n_database, quality.n_bits) == (40, 220, 128)
    assert quality.chance == pytest.approx(0.1, abs=0.02)
    assert quality.map > 3 * quality.chance
    assert quality.precision_at[10] > 4 * quality.chance
    assert quality.map_pessimistic <= quality.map <= quality.map_optimistic


def test_the_demo_shows_one_query_of_each_class(small_demo):
    result, _ = small_demo
    labels = [path.split("/")[-2] for path, _ in result.shown]
    assert sorted(labels) == sorted(load_cifar10_sample().class_names)
    for path, matches in result.shown:
        assert "/queries/" in path
        assert len(matches) == 10
        assert all("/images/" in match.path and match.path.split("/")[-2] == match.label for match in matches)
        assert [match.distance for match in matches] == sorted(match.distance for match in matches)


def test_the_contact_sheets_stand_alone(small_demo):
    result, _ = small_demo
    page = result.html.read_text(encoding="utf-8")
    assert len(re.findall(r"data:image/(?:png|jpeg);base64,", page)) == 110
    # Links lead to the image files; nothing is fetched from anywhere.
    assert not re.search(r"https?:|//cdn|<script|@import|url\(", page)
    assert set(re.findall(r'(?:src|href)="([a-z]+):', page)) == {"data", "file"}
    assert page.count("<section>") == 10
    assert f"mAP {result.quality.map:.3f}" in page
    right = sum(match.label == path.split("/")[-2] for path, matches in result.shown for match in matches)
    assert (page.count('class="hit"'), page.count('class="miss"')) == (right, 100 - right)
    picture = Image.open(result.png)
    assert picture.width > 1000
    assert picture.height > 1000
    assert len(picture.convert("RGB").getcolors(2**24)) > 5000


@pytest.fixture
def fast(monkeypatch, tiny_model):
    """Lets the demo run in a blink: a few images and a tiny model."""
    from deephash import fitting

    monkeypatch.setattr(deephash.demo, "load_cifar10_sample", lambda: smaller_sample(40, 40))
    monkeypatch.setattr(fitting, "load_encoding_model", lambda name: tiny_model)


def test_a_second_demo_replaces_the_first_and_nothing_else(fast, tmp_path):
    first = run_demo(tmp_path / "out")
    (tmp_path / "out" / "images" / "cat" / "stray.png").write_bytes(b"")
    (tmp_path / "out" / "mine.txt").write_text("mine")
    (first.index / "of the first").touch()
    # As after a demo that was killed.
    first.html.unlink()
    second = run_demo(tmp_path / "out")
    assert second.sync.added == 40
    assert second.sync.skipped == []
    assert second.html.is_file()
    assert not (second.index / "of the first").exists()
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_folder_of_somebody_else_is_left_alone(fast, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "images").mkdir()
    (tmp_path / "file").write_text("mine")
    for name in ("mine", "file"):
        with pytest.raises(FileExistsError, match=rf"{name} exists and is not an earlier demo's: .*--output"):
            run_demo(tmp_path / name)
    assert (tmp_path / "mine" / "images").is_dir()
    assert (tmp_path / "file").read_text() == "mine"
    # An empty folder, or none, is as good as any.
    (tmp_path / "empty").mkdir()
    assert run_demo(tmp_path / "empty").sync.added == 40
    assert run_demo(tmp_path / "a" / "b").sync.added == 40


@pytest.mark.slow
def test_the_whole_demo(tmp_path):
    result = run_demo(tmp_path / "demo")
    assert (result.sync.n_images, result.quality.n_queries) == (1200, 200)
    assert result.quality.map > 0.35
    assert result.quality.precision_at[10] > 0.6


def test_the_demo_takes_a_model(monkeypatch, tmp_path):
    monkeypatch.setattr(deephash.demo, "load_cifar10_sample", lambda: smaller_sample(40, 40))
    result = run_demo(tmp_path / "out", model="general-64")
    assert (result.model, result.fitted, result.quality.n_bits) == ("general-64", False, 64)
    page = result.html.read_text()
    assert "Model: general-64." in page
    assert "Fitted without labels" not in page
