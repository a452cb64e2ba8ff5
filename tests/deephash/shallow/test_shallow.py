"""What holds for every shallow method: one front, bounded memory, clear errors; labels help those that take them."""

import tracemalloc

import numpy as np
import pytest
from clusters import clusters, expected_map, hidden_clusters

from deephash import shallow
from deephash.shallow import LSH, SHALLOW, ShallowHash, base
from tests.deephash.photos import python

SUPERVISED = [name for name, method in SHALLOW.items() if method.supervised]
X, LABELS = clusters(n=200)


def fitted(name, n_bits=16, x=X, labels=LABELS, **options):
    return SHALLOW[name](n_bits, **options).fit(x, labels)


def test_registry_holds_every_method():
    classes = {
        value
        for value in vars(shallow).values()
        if isinstance(value, type) and issubclass(value, ShallowHash) and value is not ShallowHash
    }
    assert set(SHALLOW.values()) == classes
    assert list(SHALLOW) == ["lsh", "itq", "sh", "sdh", "ksh", "flyhash"]
    assert SUPERVISED == ["sdh", "ksh"]
    assert set(shallow.__all__) == {method.__name__ for method in classes} | {"SHALLOW", "ShallowHash"}


@pytest.mark.parametrize("method", SHALLOW.values())
def test_every_docstring_names_its_source(method):
    assert "Source: " in method.__doc__


def test_the_package_is_numpy_only():
    done = python("import sys, deephash.shallow\nassert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("n_bits", [8, 12, 48])
@pytest.mark.parametrize("name", SHALLOW)
def test_bits_are_positive_logits_of_any_number_of_bits(name, n_bits):
    method = SHALLOW[name](n_bits, seed=1)
    assert method.fit(X, LABELS) is method
    logits = method.logits(X[:50])
    assert logits.dtype == np.float32
    assert logits.shape == (50, n_bits)
    assert np.isfinite(logits).all()
    bits = method.bits(X[:50])
    assert bits.dtype == np.bool_
    np.testing.assert_array_equal(bits, logits > 0)
    assert method.bits(X[:0]).shape == (0, n_bits)


@pytest.mark.parametrize("name", SHALLOW)
def test_a_fit_repeats_for_a_seed_and_differs_for_another(name):
    options = {"n_anchors": 50} if name == "ksh" else {}  # with all samples for anchors KSH draws nothing
    first, second, other = (fitted(name, seed=seed, **options).logits(X) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert np.array_equal(first, other) == (name == "sh")  # nothing is drawn there


@pytest.mark.parametrize("name", SHALLOW)
def test_a_fit_neither_needs_nor_moves_the_global_generator(name):
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first = fitted(name).logits(X)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    np.random.seed(1)
    np.testing.assert_array_equal(fitted(name).logits(X), first)


@pytest.mark.parametrize("name", SHALLOW)
def test_features_of_other_float_types_are_taken(name):
    for dtype in (np.float16, np.float64):
        logits = fitted(name, x=X.astype(dtype)).logits(X.astype(dtype))
        assert logits.dtype == np.float32
        assert logits.shape == (200, 16)


@pytest.mark.parametrize("name", SHALLOW)
def test_logits_do_not_depend_on_the_blocks_they_are_computed_in(name, monkeypatch):
    method = fitted(name)
    whole = method.logits(X)
    monkeypatch.setattr(base, "ROWS", 7)
    np.testing.assert_allclose(method.logits(X), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SHALLOW)
def test_logits_of_many_rows_need_memory_for_a_block_only(name, monkeypatch):
    monkeypatch.setattr(base, "ROWS", 256)
    method = fitted(name)
    many = np.tile(X.astype(np.float16), (300, 1))
    tracemalloc.start()
    method.logits(many)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    logits, as_float32 = len(many) * 16 * 4, many.size * 4
    assert peak < logits + as_float32 / 3


@pytest.mark.parametrize("name", SHALLOW)
def test_two_samples_are_enough(name):
    method = fitted(name, x=X[:2], labels=LABELS[:2])
    assert np.isfinite(method.logits(X)).all()


@pytest.mark.parametrize("name", SHALLOW)
@pytest.mark.parametrize(
    ("features", "text"),
    [
        (np.ones(4, np.float32), r"\(N, D\) float, not \(4,\)"),
        (np.ones((4, 0), np.float32), r"\(N, D\) float"),
        (np.ones((4, 4), np.int64), "int64"),
        (np.array([[1, np.nan], [1, 2]]), "NaN"),
        (np.array([[1, np.inf], [1, 2]]), "infinite"),
        (np.ones((0, 4), np.float32), "too few"),
    ],
)
def test_wrong_features_are_an_error(name, features, text):
    with pytest.raises(ValueError, match=text):
        SHALLOW[name](8).fit(features, np.arange(len(features)))


@pytest.mark.parametrize("name", [name for name in SHALLOW if name not in ("lsh", "flyhash")])
def test_nothing_to_learn_from_is_an_error(name):
    with pytest.raises(ValueError, match="1 features are too few to fit: at least 2"):
        SHALLOW[name](8).fit(np.ones((1, 4), np.float32), [0])
    for value in (0, 0.1, 1000.3):
        for n in (3, 50):
            with pytest.raises(ValueError, match=r"all .* features are equal"):
                SHALLOW[name](8).fit(np.full((n, 7), value, np.float32), np.arange(n))


@pytest.mark.parametrize("name", ["lsh", "flyhash"])
def test_methods_that_only_draw_take_one_sample(name):
    assert not fitted(name, x=X[:1]).bits(X[:1]).any()
    assert fitted(name, x=X[:1]).bits(X[1:]).any()


@pytest.mark.parametrize("name", SHALLOW)
def test_logits_need_a_fit_its_dimensions_and_finite_values(name, monkeypatch):
    with pytest.raises(ValueError, match="call fit first"):
        SHALLOW[name](8).logits(np.ones((2, 4), np.float32))
    method = fitted(name)
    with pytest.raises(ValueError, match=r"5 dimensions, this .* was fitted on 48"):
        method.logits(np.ones((2, 5), np.float32))
    monkeypatch.setattr(base, "ROWS", 100)
    late = X.copy()
    late[150, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        method.logits(late)


@pytest.mark.parametrize("n_bits", [7, 1025, 8.0])
@pytest.mark.parametrize("name", SHALLOW)
def test_a_wrong_number_of_bits_is_an_error(name, n_bits):
    with pytest.raises(ValueError, match=f"n_bits is {n_bits}"):
        SHALLOW[name](n_bits)


MULTI_HOT = np.eye(10, dtype=np.int64)[LABELS]


@pytest.mark.parametrize("name", [name for name in SHALLOW if name not in SUPERVISED])
def test_methods_without_supervision_do_not_look_at_targets(name):
    want = fitted(name, labels=None).logits(X)
    for targets in (LABELS, MULTI_HOT, "nonsense", [-1]):
        np.testing.assert_array_equal(fitted(name, labels=targets).logits(X), want)


@pytest.mark.parametrize("name", SUPERVISED)
def test_classes_and_their_one_hot_rows_mean_the_same(name):
    want = fitted(name).logits(X)
    gaps = LABELS * 7 + 3  # classes without an image are no classes
    for targets in (MULTI_HOT, MULTI_HOT.astype(bool), gaps, LABELS.astype(np.uint8), LABELS.tolist()):
        np.testing.assert_array_equal(fitted(name, labels=targets).logits(X), want)


@pytest.mark.parametrize("name", SUPERVISED)
@pytest.mark.parametrize(
    ("targets", "text"),
    [
        (None, r"(SDH|KSH) learns from labels: call fit\(features, targets\)"),
        (LABELS[1:], r"are \(199,\) int64: give integers, classes \(200,\) or multi-hot rows \(200, n_classes\)"),
        (LABELS.astype(float), r"\(200,\) float64"),
        (MULTI_HOT[:, :, None], r"\(200, 10, 1\)"),
        (LABELS - 1, "targets hold -1: classes count from 0"),
        (MULTI_HOT * 2, "hold other values than 0 and 1"),
        (MULTI_HOT[:, 1:], "an image has no label"),
        (MULTI_HOT[:, :0], "an image has no label"),
        (LABELS * 0 + 4, r"all 200 targets are the same: (SDH|KSH) needs two classes"),
        (np.ones((200, 3), bool), "all 200 targets are the same"),
    ],
)  # fmt: skip
def test_wrong_targets_are_an_error(name, targets, text):
    with pytest.raises(ValueError, match=text):
        SHALLOW[name](8).fit(X, targets)


@pytest.mark.parametrize("n_bits", [12, 32])
@pytest.mark.parametrize("name", SUPERVISED)
def test_labels_find_clusters_that_lsh_does_not(name, n_bits):
    x, labels = hidden_clusters()
    lsh, chance = expected_map(LSH(n_bits), x, labels)
    assert expected_map(SHALLOW[name](n_bits), x, labels)[0] > lsh + 0.25
    assert lsh > chance


@pytest.mark.parametrize("name", SUPERVISED)
def test_several_labels_an_image_help_too(name):
    x, labels = hidden_clusters()
    rows = np.eye(6, dtype=np.int64)[labels]
    rows[:, 0] |= labels == 3  # class 3 is similar to class 0, which is not similar to it in its features
    lsh, _ = expected_map(LSH(24), x, rows)
    both, _ = expected_map(SHALLOW[name](24), x, rows)
    assert both > lsh + 0.25


@pytest.mark.parametrize("name", ["itq", "sh"])
def test_the_directions_of_most_variance_beat_random_ones_on_clusters(name):
    lsh, chance = expected_map(LSH(16), X, LABELS)
    assert expected_map(SHALLOW[name](16), X, LABELS)[0] > lsh + 0.05
    assert lsh > chance + 0.05


def test_lsh_is_centred_and_its_directions_have_length_one():
    lsh = LSH(1024).fit(X)
    np.testing.assert_allclose(lsh.mean, X.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(lsh.projection, axis=0), 1, rtol=1e-5)
    # Charikar 2002: two vectors differ in a bit with probability angle / pi.
    a, b = X[0] - lsh.mean, X[1] - lsh.mean
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    bits = lsh.bits(X[:2])
    assert (bits[0] != bits[1]).mean() == pytest.approx(angle / np.pi, abs=0.05)
