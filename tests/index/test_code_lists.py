"""Lists over a file of codes: exact when all are looked into, and refused when they are not as they were written."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import index.code_lists
import index.kernel
from index import CodeFile, CodeLists, StoreDamaged, StoreError
from tests.index.brute import csr_rows, nearest, random_codes, rows_of
from tests.index.compiled import needs_kernel
from tests.index.samples import code_file

pytestmark = needs_kernel


def file_of(path, codes, n_bits):
    return CodeFile.open(code_file(path, codes, n_bits, n_blocks=1))


@settings(max_examples=40)
@given(
    kind=st.sampled_from(["random", "clustered", "equal"]),
    n_bits=st.integers(8, 200),
    n=st.integers(1, 300),
    k=st.integers(1, 50),
    n_lists=st.one_of(st.none(), st.integers(1, 40)),
    chunk=st.integers(1, 400),
    seed=st.integers(0, 10_000),
)
def test_all_lists_together_equal_brute_force(tmp_path_factory, kind, n_bits, n, k, n_lists, chunk, seed):
    rng = np.random.default_rng(seed)
    codes = random_codes(rng, n, n_bits, kind)
    folder = tmp_path_factory.mktemp("lists")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(index.code_lists, "_CHUNK", chunk)
        lists = CodeLists.build(file_of(folder / "a.codes", codes, n_bits), folder / "a.lists", lists=n_lists)
    assert len(lists) == n
    queries = np.concatenate([codes[:3], random_codes(rng, 3, n_bits)])
    for opened in (lists, CodeLists.open(folder / "a.lists")):
        found = opened.search(queries, k, nprobe=opened.n_lists)
        assert rows_of(*found) == nearest(queries, codes, range(n), k)
        inside = opened.range_search(queries, 9, nprobe=1000)
        assert csr_rows(*inside) == nearest(queries, codes, range(n), None, 9)


@pytest.fixture
def lists(tmp_path):
    codes = random_codes(np.random.default_rng(0), 3000, 64, "clustered")
    return CodeLists.build(file_of(tmp_path / "a.codes", codes, 64), tmp_path / "a.lists"), codes


def test_more_probes_find_no_less(lists):
    opened, codes = lists
    queries = random_codes(np.random.default_rng(1), 50, 64)
    sums = [np.sort(opened.search(queries, 10, nprobe=n)[0]).sum() for n in (4, 16, 64, 4096)]
    assert sums == sorted(sums, reverse=True)
    assert sums[-1] < sums[0]
    distances, ids = opened.search(codes[:100], 1, nprobe=1)
    assert (distances == 0).all()
    assert np.array_equal(codes[ids[:, 0]], codes[:100])


def test_any_flipped_byte_is_found(lists):
    opened, _ = lists
    chance = random.Random(3)
    for path in sorted(opened.folder.iterdir()):
        whole = path.read_bytes()
        for _ in range(10):
            data = bytearray(whole)
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
            with pytest.raises(StoreDamaged, match="build it again"):
                CodeLists.open(opened.folder)
        path.write_bytes(whole)
    CodeLists.open(opened.folder)


def test_wrong_content_that_is_not_checked_is_searched_within_bounds(lists):
    opened, codes = lists
    for name in ("words", "ids", "starts", "radii", "centroids"):
        path = opened.folder / f"{name}.npy"
        whole = bytearray(path.read_bytes())
        path.write_bytes(whole[:128] + b"\xa5" * (len(whole) - 128))
        assert CodeLists.open(opened.folder, check=False).search(codes[:5], 3)[0].shape == (5, 3)
        path.write_bytes(whole)


def test_what_is_no_finished_folder_is_refused(lists, tmp_path):
    opened, _ = lists
    codes = CodeFile.open(tmp_path / "a.codes")
    with pytest.raises(StoreError, match="exists already"):
        CodeLists.build(codes, opened.folder)
    (opened.folder / "lists.json").unlink()
    with pytest.raises(StoreError, match="not finished"):
        CodeLists.open(opened.folder)
    with pytest.raises(ValueError, match="lists is 0"):
        CodeLists.build(codes, tmp_path / "b.lists", lists=0)
    with pytest.raises(ValueError, match="has no codes"):
        CodeLists.build(file_of(tmp_path / "none.codes", np.empty((0, 8), np.uint8), 64), tmp_path / "b.lists")
    assert not (tmp_path / "b.lists").exists()
