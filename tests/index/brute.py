"""The slow, obvious search that the fast one must equal."""

import itertools

import numpy as np

from index.codes import hamming_distances


def nearest(queries, codes, ids, k=None, radius=None):
    """For each query the list of (distance, id), ordered."""
    ids = np.asarray(ids)
    rows = []
    for distances in hamming_distances(queries, codes):
        row = sorted((int(d), int(i)) for d, i in zip(distances, ids, strict=True) if radius is None or d <= radius)
        rows.append(row if k is None else row[:k])
    return rows


def random_codes(rng, n, n_bits, kind="random"):
    """Random codes, codes around a few centres (many equal ones), or one code n times."""
    if kind == "random":
        bits = rng.random((n, n_bits)) > 0.5
    elif kind == "equal":
        bits = np.repeat(rng.random((1, n_bits)) > 0.5, n, axis=0)
    else:
        bits = (rng.random((3, n_bits)) > 0.5)[rng.integers(0, 3, n)] ^ (rng.random((n, n_bits)) < 1 / n_bits)
    return np.packbits(bits, axis=1)


def rows_of(distances, ids):
    """The (distance, id) lists of a padded result."""
    assert distances.dtype == np.int32
    assert ids.dtype == np.int64
    assert np.array_equal(distances == -1, ids == -1)
    return [[(int(d), int(i)) for d, i in zip(*row, strict=True) if i >= 0] for row in zip(distances, ids, strict=True)]


def csr_rows(limits, distances, ids):
    pairs = list(zip(distances.tolist(), ids.tolist(), strict=True))
    return [pairs[a:b] for a, b in itertools.pairwise(limits.tolist())]
