import dataclasses
import os

import numpy as np
import pytest
from PIL import Image

from deephash.datasets import (
    PROTOCOLS,
    DatasetError,
    LabelledImages,
    RetrievalSplit,
    check_split,
    load_cifar10,
    load_labelled_folders,
    load_manifest,
    random_split,
    split_cifar10,
)

DATA = os.environ.get("DEEPHASH_DATA")


@pytest.fixture(scope="module")
def cifar_like() -> LabelledImages:
    """CIFAR-10's shape in labels and order, with pictures of one pixel."""
    rng = np.random.default_rng(0)
    targets = np.concatenate([rng.permutation(np.repeat(np.arange(10), n)) for n in (5000, 1000)])
    names = [str(i) for i in range(60_000)]
    is_test = np.repeat([False, True], [50_000, 10_000])
    return LabelledImages(np.zeros((60_000, 1, 1, 3), np.uint8), targets, [str(c) for c in range(10)], names, is_test)


@pytest.mark.parametrize(
    ("protocol", "n_query", "n_training", "n_database"),
    [
        ("cifar10-1", 1_000, 5_000, 59_000),
        ("cifar10", 1_000, 5_000, 54_000),
        ("cifar10-2", 10_000, 50_000, 50_000),
        ("cifar10-unseen", 300, 3_500, 59_700),
    ],
)
def test_protocol_sizes_and_no_query_elsewhere(cifar_like, protocol, n_query, n_training, n_database):
    split = split_cifar10(cifar_like, protocol)
    assert (len(split.query), len(split.training), len(split.database)) == (n_query, n_training, n_database)
    for positions in (split.query, split.training, split.database):
        assert (np.diff(positions) > 0).all()
    assert not np.intersect1d(split.query, split.database).size
    assert not np.intersect1d(split.query, split.training).size
    inside = np.isin(split.training, split.database)
    assert inside.all() if protocol != "cifar10" else not inside.any()


@pytest.mark.parametrize("protocol", ["cifar10-1", "cifar10"])
def test_queries_and_training_are_balanced(cifar_like, protocol):
    split = split_cifar10(cifar_like, protocol)
    assert np.bincount(cifar_like.targets[split.query]).tolist() == [100] * 10
    assert np.bincount(cifar_like.targets[split.training]).tolist() == [500] * 10


def test_unseen_classes_are_never_trained_on_and_all_queries_are_of_them(cifar_like):
    split = split_cifar10(cifar_like, "cifar10-unseen", seed=3)
    asked = np.unique(cifar_like.targets[split.query])
    assert len(asked) == 3
    assert not np.isin(cifar_like.targets[split.training], asked).any()
    of_asked = np.isin(cifar_like.targets, asked)
    assert np.isin(np.setdiff1d(np.flatnonzero(of_asked), split.query), split.database).all()


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_seed_decides_the_split(cifar_like, protocol):
    first, same, other = (split_cifar10(cifar_like, protocol, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.query, same.query)
    assert np.array_equal(first.training, same.training)
    assert np.array_equal(first.query, other.query) == (protocol == "cifar10-2")


def test_unknown_protocol_names_the_known(cifar_like):
    with pytest.raises(DatasetError, match=r"cifar10-1, cifar10, cifar10-2, cifar10-unseen"):
        split_cifar10(cifar_like, "cifar10-3")


def test_missing_cifar10_says_what_to_do(tmp_path):
    with pytest.raises(DatasetError, match="cifar-10-batches-py"):
        load_cifar10(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="DEEPHASH_DATA does not name the data sets' folder")
def test_real_cifar10_is_complete():
    images = load_cifar10(DATA)
    assert images.pixels.shape == (60_000, 32, 32, 3)
    assert np.bincount(images.targets).tolist() == [6_000] * 10
    assert images.class_names[3] == "cat"
    assert images.is_test.sum() == 10_000


def picture(path, colour, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_labelled_folders(tmp_path):
    picture(tmp_path / "red" / "a.png", (255, 0, 0))
    picture(tmp_path / "red" / "deep" / "b.png", (255, 0, 0))
    picture(tmp_path / "blue" / "c.png", (0, 0, 255), (30, 90))
    images = load_labelled_folders(tmp_path, size=16)
    assert images.class_names == ["blue", "red"]
    assert images.targets.tolist() == [0, 1, 1]
    assert images.pixels.shape == (3, 16, 16, 3)
    assert images.pixels[0, 8, 8].tolist() == [0, 0, 255]


def test_empty_class_one_class_and_broken_image_are_named(tmp_path):
    picture(tmp_path / "red" / "a.png", (255, 0, 0))
    with pytest.raises(DatasetError, match="two or more"):
        load_labelled_folders(tmp_path)
    (tmp_path / "blue").mkdir()
    with pytest.raises(DatasetError, match=r"blue holds no image"):
        load_labelled_folders(tmp_path)
    (tmp_path / "blue" / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match=r"bad\.png"):
        load_labelled_folders(tmp_path)


def test_manifest_with_several_labels_is_multi_hot(tmp_path):
    for name in "abc":
        picture(tmp_path / f"{name}.png", (9, 9, 9))
    manifest = tmp_path / "all.csv"
    manifest.write_text("path,labels\na.png,cat;outdoor\nb.png,dog\nc.png,cat\n")
    images = load_manifest(manifest, size=8)
    assert images.class_names == ["cat", "dog", "outdoor"]
    assert images.targets.tolist() == [[True, False, True], [False, True, False], [True, False, False]]
    manifest.write_text("path,labels\na.png,cat\nb.png,dog\n")
    assert load_manifest(manifest, size=8).targets.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,labels\na.png,x\n", "columns path and labels in its first line, which has file, labels"),
        ("path;labels\na.png;x\n", "which has path;labels"),
        ("", "which has nothing"),
        ("path,labels\n", "0 labels in all"),
        ("path,labels\na.png,\n", "line 2"),
        ("path,labels\na.png, ; \n", "at least one label"),
        ("path,labels\n,x\n", "line 2: every row needs a path"),
        ("path,labels\na.png\n", "line 2: every row needs a path and at least one label"),
        ("path,labels\na.png,x\n", "two or more"),
        ("path,labels\na.png,x\nnone.png,y\n", r"line 3: there is no image .*none\.png: paths are relative to the CSV"),
        ("path,labels\na.png,x,y\n", "line 2: more cells than columns: separate labels by ;"),
        ("path,labels\na.png,x\n./a.png,y\n", "line 3: ./a.png stands in an earlier row"),
        ("path,labels\na.png,x\n\0,y\n", "line 3: there is no image"),
    ],
)
def test_wrong_manifests_say_what_is_wrong(tmp_path, text, message):
    picture(tmp_path / "a.png", (9, 9, 9))
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        load_manifest(tmp_path / "m.csv", size=8)


def test_random_split_covers_everything_once(cifar_like):
    split = random_split(cifar_like, query_share=0.05, seed=1)
    assert len(split.query) == 3_000
    assert np.array_equal(np.sort(np.concatenate([split.query, split.database])), np.arange(60_000))


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0\xff", "path,labels\nä.png,x\n".encode("latin-1")])
def test_a_manifest_that_is_no_text_is_named(tmp_path, content):
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=r"m\.csv is not a CSV file of UTF-8 text"):
        load_manifest(tmp_path / "m.csv")


def test_a_manifest_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"cannot read .*none\.csv: No such file"):
        load_manifest(tmp_path / "none.csv")


def labelled(targets, class_names="abc"):
    targets = np.array(targets)
    pixels = np.zeros((len(targets), 1, 1, 3), np.uint8)
    return LabelledImages(pixels, targets, list(class_names), [str(i) for i in range(len(targets))])


def split_of(query, training, **fields):
    return RetrievalSplit("random", np.array(query, int), np.array(training, int), np.array(training, int), **fields)


ONE_LABEL = [0, 1, 2, 0, 1, 2]
MULTI_HOT = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize("targets", [ONE_LABEL, MULTI_HOT, np.array(MULTI_HOT, bool)])
def test_a_split_with_all_classes_in_training_and_a_relevant_image_is_accepted(targets):
    check_split(labelled(targets), split_of([0], [1, 2, 3]))
    check_split(labelled(targets), split_of([0, 2], [1, 3], unseen=(2,)))


@pytest.mark.parametrize("targets", [ONE_LABEL, MULTI_HOT])
@pytest.mark.parametrize(
    ("query", "training", "names", "message"),
    [
        ([2, 5], [0, 1, 3, 4], "abc", r"class 'c' \(4 training images, 2 queries\): use more"),
        ([0], [1, 2, 3, 4, 5], "abcd", "class 'd'"),
        ([0, 1], [], "abc", "class 'a', 'b', 'c'"),
        ([], [0, 1, 2, 3], "abc", r"no query shares a label .*\(0 queries, 4 images in the database\): use more"),
    ],
)
def test_a_class_without_training_images_and_queries_without_relevant_ones_are_named(
    targets, query, training, names, message
):
    targets = np.array(targets)
    if targets.ndim == 2:
        targets = np.hstack([targets, np.zeros((6, len(names) - 3), int)])
    with pytest.raises(DatasetError, match=message):
        check_split(labelled(targets, names), split_of(query, training), mend="use more")


def test_queries_of_unseen_classes_alone_need_them_in_the_database():
    with pytest.raises(DatasetError, match="no query shares a label"):
        check_split(labelled(ONE_LABEL), split_of([2, 5], [0, 1, 3], unseen=(2,)))


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_every_protocol_is_a_task(cifar_like, protocol):
    split = split_cifar10(cifar_like, protocol)
    check_split(cifar_like, split)
    assert len(split.unseen) == (3 if protocol == "cifar10-unseen" else 0)


def test_a_label_that_no_image_has_is_named(cifar_like):
    images = dataclasses.replace(cifar_like, class_names=[*cifar_like.class_names, "unicorn"])
    with pytest.raises(DatasetError, match="'unicorn'"):
        check_split(images, split_cifar10(images, "cifar10-1"))
