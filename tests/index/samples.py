"""Entries, stores and files of codes for the tests."""

import numpy as np

from index import CodeFileWriter, Entry, FileStat, Store, pack_bits

N_BITS = 20


def entry(number, path=None, **changes):
    fields = {
        "path": path or f"/photos/{'abc'[number % 3]}/{number}.jpg",
        "n_bytes": 1000 + number,
        "mtime_ns": 1_700_000_000_000_000_000 + number,
        "content_hash": number.to_bytes(16),
        "width": 320,
        "height": 200,
        "label": None,
        "metadata": {},
    }
    return Entry(**(fields | changes))


def stat(entry):
    return FileStat(entry.path, entry.n_bytes, entry.mtime_ns)


def codes(n, seed=0, n_bits=N_BITS):
    return pack_bits(np.random.default_rng(seed).random((n, n_bits)) > 0.5)


def filled(folder, n=10, *, n_bits=N_BITS, **files):
    store = Store.create(folder, n_bits=n_bits, fingerprint="model-a", files=files)
    if n:
        store.put([entry(i) for i in range(n)], codes(n, n_bits=n_bits))
    return store


def code_file(path, codes, n_bits, *, n_blocks=3):
    """Writes the codes to a file, in some blocks."""
    with CodeFileWriter(path, n_bits) as writer:
        for part in np.array_split(codes, n_blocks):
            writer.append(part)
            writer.flush()
    return path
