"""A collection with copies for the tests of plans: real files in an index whose codes are chosen, without a model."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index import Entry, Store

N_BITS = 64


@dataclass(frozen=True)
class Copies:
    """An index and its folder of files; plans lie beside them."""

    folder: Path
    photos: Path
    index: Path

    @property
    def plan(self):
        return self.folder / "copies.json"

    def contents(self, *, under=None):
        """Path from the folder -> content of every file beneath it, without the index, the plan and its journal."""
        under = under or self.folder
        return {
            os.path.relpath(path, under): path.read_bytes()
            for path in sorted(under.rglob("*"))
            if path.is_file() and self.index not in path.parents and path.parent != self.folder
        }

    def stats(self):
        """Path -> everything that a write would change, of the files and folders."""
        found = {}
        for path in (self.photos, *self.photos.rglob("*"), *self.folder.glob("*.json*"), self.folder):
            status = path.lstat()
            found[path] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_nlink)
        return found

    def indexed(self):
        with Store.open(self.index) as store:
            return {os.path.relpath(path, self.photos) for _, path in store.paths()}

    def planned(self, name, content, **more):
        """The fields of a plan for a file of the photos folder."""
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        path = self.photos / name if isinstance(name, str) else name
        return {"path": str(path), "path_hex": None, "content_hash": digest, "n_bytes": len(content)} | more


def code_of(value):
    """Returns the code whose integer is ``value``: their distance is the number of bits that differ."""
    return np.frombuffer(value.to_bytes(N_BITS // 8), np.uint8)


def make_copies(folder, files):
    """Writes files {name: content} or {name: (content, code as an integer)} and indexes them.

    Without a code equal contents have equal ones, and others are far apart.
    """
    made = Copies(folder, folder / "photos", folder / "photos.dhx")
    made.photos.mkdir(parents=True, exist_ok=True)
    for name, given in files.items():
        path = made.photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(given[0] if isinstance(given, tuple) else given)
    index_copies(made, files)
    return made


def index_copies(made, files):
    entries, codes = [], []
    for name, given in files.items():
        content, value = given if isinstance(given, tuple) else (given, None)
        if value is None:
            value = int.from_bytes(hashlib.blake2b(content, digest_size=N_BITS // 8).digest())
        path = os.path.join(made.photos, name)
        status = os.stat(path)
        digest = hashlib.blake2b(content, digest_size=16).digest()
        entries.append(Entry(path, status.st_size, status.st_mtime_ns, digest, 10, 10))
        codes.append(code_of(value))
    with Store.create(made.index, n_bits=N_BITS, fingerprint="none") as store:
        store.add_root(str(made.photos))
        store.put(entries, np.stack(codes))
