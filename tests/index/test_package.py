import subprocess
import sys

import index

FRESH = """
import sys
import index
assert "torch" not in sys.modules and "deephash" not in sys.modules and "faiss" not in sys.modules
searched = index.HammingIndex(64)
searched.add(index.hamming_distances(*[index.pack_bits([[1] * 64])] * 2).astype("uint8").repeat(8, axis=1))
assert searched.search(index.pack_bits([[0] * 64]), 1)[1].tolist() == [[0]]
with index.Store.create(sys.argv[1], n_bits=64, fingerprint="m") as store:
    store.stats()
assert not {"torch", "deephash", "faiss"} & set(sys.modules)
"""


def test_index_works_without_torch_and_loads_faiss_only_for_large_searches(tmp_path):
    subprocess.run([sys.executable, "-c", FRESH, str(tmp_path / "a.dhx")], check=True)


def test_all_lists_every_public_name():
    imported = {
        name
        for name, value in vars(index).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("index.")
    }
    assert imported == set(index.__all__)
    assert list(index.__all__) == sorted(index.__all__, key=lambda name: (not name[0].isupper(), name))


def test_every_error_has_the_one_root():
    errors = [getattr(index, name) for name in index.__all__ if isinstance(getattr(index, name), type)]
    errors = [error for error in errors if issubclass(error, Exception)]
    assert len(errors) == 9
    assert all(issubclass(error, index.DeepHashError) for error in errors)
    assert str(index.UnknownId("no image 7")) == "no image 7"
