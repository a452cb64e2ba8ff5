"""Processes of the stress test: `python -m tests.index.stress write|read FOLDER`. They go on until they are ended.

What each commit does is a function of its epoch, so that a reader knows what brute force finds at any of them.
"""

import sys
import threading

import numpy as np

import index.live
import index.segments
import index.structures
from index import Store, hamming_distances
from tests.index.samples import entry

N_BITS = 64
KIND = ["put", "change", "remove"]


class History:
    """The images (id: code) after every commit, from the first on."""

    def __init__(self):
        self.states, self.last_ids = [{}], [0]

    def commit(self, epoch):
        """What the commit with this epoch does: (kind, ids, codes)."""
        rng, live = np.random.default_rng(epoch), sorted(self.at(epoch - 1))
        kind = KIND[epoch % 3] if len(live) > 60 else "put"
        if kind == "remove":
            return kind, rng.choice(live, 20, replace=False).tolist(), None
        first = self.last_ids[epoch - 1] + 1
        ids = list(range(first, first + int(rng.integers(5, 25))))
        if kind == "change":
            ids += rng.choice(live, 10, replace=False).tolist()
        # Around few centres, so that there are equal codes and equal distances.
        codes = np.random.default_rng(0).integers(0, 256, (5, 8), dtype=np.uint8)[rng.integers(0, 5, len(ids))]
        return kind, ids, codes ^ (np.uint8(1) << rng.integers(0, 8, codes.shape, dtype=np.uint8))

    def at(self, epoch):
        while len(self.states) <= epoch:
            number = len(self.states)
            kind, ids, codes = self.commit(number)
            state = dict(self.states[-1])
            if kind == "remove":
                for id in ids:
                    del state[id]
            else:
                state.update(zip(ids, codes, strict=True))
            self.states.append(state)
            self.last_ids.append(max([self.last_ids[-1], *([] if kind == "remove" else ids)]))
        return self.states[epoch]

    def nearest(self, epoch, queries, k):
        """The (distances, ids) that brute force finds, by (distance, id)."""
        state = self.at(epoch)
        ids = np.array(sorted(state), np.int64)
        distances = hamming_distances(queries, np.array([state[id] for id in ids.tolist()], np.uint8).reshape(-1, 8))
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(distances, order, axis=1).tolist(), ids[order].tolist()


def small_limits():
    """Caches, tables and merges in the background for few codes."""
    index.live._CACHE_ABOVE = 50
    index.structures._TABLES_ABOVE = 150
    index.segments._REBUILD_ABOVE, index.segments._BACKGROUND_ABOVE = 16, 200


def write(folder):
    """Commit after commit, closing and opening now and then; prints the epoch of each."""
    history = History()
    while True:
        with Store.open(folder, writable=True, timeout=30) as store:
            for _ in range(15):
                epoch = store.epoch + 1
                kind, ids, codes = history.commit(epoch)
                if kind == "remove":
                    store.remove(ids)
                else:
                    assert store.put([entry(id) for id in ids], codes).tolist() == ids
                if epoch % 5 == 0:
                    store.refresh()
                print(epoch, flush=True)


def read(folder):
    """Search in two threads, opening anew now and then, until the input ends; prints how many answers were right."""
    history, counts, wrong = History(), [], []
    ended, lock = threading.Event(), threading.Lock()

    def search(seed):
        rng, n_right = np.random.default_rng(seed), 0
        while not (ended.is_set() or wrong):
            with Store.open(folder) as store:
                for _ in range(int(rng.integers(1, 40))):
                    queries = rng.integers(0, 256, (3, 8), dtype=np.uint8)
                    first = store.epoch
                    found = tuple(part.tolist() for part in store.search_ids(queries, 15))
                    last = store.epoch
                    with lock:
                        if not any(found == history.nearest(at, queries, 15) for at in range(first, last + 1)):
                            wrong.append((first, last))
                            return
                    n_right += 1
        counts.append(n_right)

    threads = [threading.Thread(target=search, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    print("started", flush=True)
    sys.stdin.read()
    ended.set()
    for thread in threads:
        thread.join()
    assert not wrong, f"no commit from epoch {wrong[0][0]} to {wrong[0][1]} has this answer"
    assert len(counts) == len(threads)
    print(sum(counts))


if __name__ == "__main__":
    command, folder = sys.argv[1:]
    small_limits()
    {"write": write, "read": read}[command](folder)
