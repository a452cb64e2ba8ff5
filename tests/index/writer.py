"""A real writer process for the tests that kill it: `python -m tests.index.writer create|put|cache FOLDER [SEED]`.

Prints `ok FIRST COUNT` once a batch is committed: from then on it must never be lost.
"""

import sys

import numpy as np

import index.live
from index import Store
from tests.index.samples import entry
from tests.index.test_durability import code_of

BATCH = 50


def put(folder, seed):
    rng = np.random.default_rng(int(seed))
    with Store.open(folder, writable=True, timeout=30) as store:
        first = store._catalogue.last_id
        while True:
            n = int(rng.integers(1, BATCH))
            numbers = range(first, first + n)
            store.put([entry(i) for i in numbers], np.concatenate([code_of(i) for i in numbers]))
            if rng.random() < 0.1:
                store.refresh()
            print("ok", first, n, flush=True)
            first += n


def create(folder):
    print("start", flush=True)
    number = 0
    while True:
        Store.create(f"{folder}-{number}.dhx", n_bits=64, fingerprint="m", files={"model": b"m" * 300_000}).close()
        number += 1


def cache(folder):
    """Write the cache over and over, with ever new contents."""
    index.live._CACHE_ABOVE, index.live._CACHE_STALE_SHARE = 10, -1.0
    while True:
        with Store.open(folder, writable=True, timeout=30) as store:
            first = store._catalogue.last_id
            numbers = range(first, first + 20)
            store.put([entry(i) for i in numbers], np.concatenate([code_of(i) for i in numbers]))
            print("ok", first, 20, flush=True)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"put": put, "create": create, "cache": cache}[command](*arguments)
