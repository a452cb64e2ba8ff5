"""Codes in a file: searched as brute force would, safe against kills, cuts and flipped bytes."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import index.code_file
from index import CodeFile, CodeFileWriter, StoreError, StoreLocked, StoreTooNew
from tests.index.brute import csr_rows, nearest, random_codes, rows_of
from tests.index.compiled import use_kernel
from tests.index.samples import code_file, filled
from tests.index.samples import codes as codes_of_samples

ROOT = Path(__file__).parents[2]
HEAD = index.code_file._CODES_AT


@pytest.fixture
def file(tmp_path):
    codes = random_codes(np.random.default_rng(0), 3000, 64, "clustered")
    return code_file(tmp_path / "a.codes", codes, 64), codes


@settings(max_examples=60)
@given(
    kind=st.sampled_from(["random", "clustered", "equal"]),
    n_bits=st.integers(8, 300),
    n=st.integers(0, 200),
    k=st.integers(1, 250),
    radius=st.one_of(st.none(), st.integers(0, 40)),
    with_kernel=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_search_equals_brute_force(tmp_path_factory, kind, n_bits, n, k, radius, with_kernel, seed):
    rng = np.random.default_rng(seed)
    codes = random_codes(rng, n, n_bits, kind)
    path = code_file(tmp_path_factory.mktemp("codes") / "a.codes", codes, n_bits)
    queries = np.concatenate([codes[:3], random_codes(rng, 3, n_bits)])
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_kernel(monkeypatch, with_kernel)
        opened = CodeFile.open(path)
        assert len(opened) == n
        assert np.array_equal(opened.codes(np.arange(n)), codes)
        assert rows_of(*opened.search(queries, k, radius=radius)) == nearest(queries, codes, range(n), k, radius)
        if radius is not None:
            assert csr_rows(*opened.range_search(queries, radius)) == nearest(queries, codes, range(n), None, radius)


def test_a_writer_goes_on_where_another_ended(file):
    path, codes = file
    with CodeFileWriter(path, 64) as writer:
        assert len(writer) == 3000
        before = CodeFile.open(path)
        writer.append(codes[:7])
        assert len(writer) == 3007
    assert len(before) == 3000
    assert np.array_equal(CodeFile.open(path).codes(range(3007)), np.concatenate((codes, codes[:7])))


def test_large_appends_are_safe_block_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr(index.code_file, "_BLOCK_BYTES", 800)
    codes = random_codes(np.random.default_rng(0), 350, 64)
    writer = CodeFileWriter(tmp_path / "a.codes", 64)
    buffer = codes.copy()
    for start in range(0, 350, 50):
        buffer[:50] = codes[start : start + 50]
        writer.append(buffer[:50])
    assert len(CodeFile.open(tmp_path / "a.codes")) == 300
    writer.close()
    writer.close()
    assert np.array_equal(CodeFile.open(tmp_path / "a.codes").codes(range(350)), codes)


def test_an_error_leaves_what_was_safe(file):
    path, codes = file

    def fail():
        with CodeFileWriter(path, 64) as writer:
            writer.append(codes[:1000])
            writer.flush()
            writer.append(codes)
            raise KeyError("something")

    with pytest.raises(KeyError, match="something"):
        fail()
    assert len(CodeFile.open(path)) == 4000


def test_two_writers_and_other_bits_are_refused(file):
    path, _ = file
    with CodeFileWriter(path, 64), pytest.raises(StoreLocked, match="another process"):
        CodeFileWriter(path, 64)
    with pytest.raises(StoreError, match="has codes of 64 bits, not 48"):
        CodeFileWriter(path, 48)
    CodeFileWriter(path, 64).close()


@pytest.mark.parametrize("content", [b"", b"hello", b"x" * 5000, None])
def test_other_files_are_refused_and_not_touched(tmp_path, content):
    path = tmp_path / "notes.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=r"cannot be opened|not a file of codes"):
        CodeFile.open(path)
    if content:
        with pytest.raises(StoreError, match="not a file of codes"):
            CodeFileWriter(path, 64)
        assert path.read_bytes() == content


def test_a_newer_format_is_told(file):
    path, _ = file
    data = bytearray(path.read_bytes())
    data[8] = 9
    path.write_bytes(data)
    with pytest.raises(StoreTooNew, match="format 9"):
        CodeFile.open(path)


def test_any_flipped_byte_is_found(file):
    """Except in the room that is left between header, records and codes, which is not read."""
    path, _ = file
    whole, chance = path.read_bytes(), random.Random(1)
    used = [*range(24), *range(4096, 4096 + 24), *range(4096 + 32, 4096 + 56), *range(4096 + 64, 4096 + 88)]
    places = [*used, *range(4096 + 96, 4096 + 99), *(chance.randrange(HEAD, len(whole)) for _ in range(60))]
    for place in places:
        data = bytearray(whole)
        data[place] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        with pytest.raises(StoreError):
            CodeFile.open(path)
    wrong = CodeFile.open(path, check=False).verify()
    assert [block for block in wrong if HEAD + 8 * block.start <= places[-1] < HEAD + 8 * block.stop]
    assert len(wrong) == 1


def test_a_file_cut_off_is_told_unless_only_what_never_counted_is_missing(file):
    path, codes = file
    with path.open("ab") as opened:
        opened.write(b"x" * 999)
    assert len(CodeFile.open(path)) == 3000
    whole = path.read_bytes()
    for size in (HEAD + 8 * 3000 - 1, HEAD + 5, HEAD - 1, 4000, 24, 3):
        path.write_bytes(whole[:size])
        with pytest.raises(StoreError):
            CodeFile.open(path)
    path.write_bytes(whole)
    with CodeFileWriter(path, 64) as writer:
        writer.append(codes)
    assert np.array_equal(CodeFile.open(path).codes(range(6000)), np.concatenate((codes, codes)))


WRITER = """
import sys, numpy as np, index.code_file
from index import CodeFileWriter
from tests.index.test_durability import code_of
index.code_file._BLOCK_BYTES = 400
with CodeFileWriter(sys.argv[1], 64) as writer:
    number = len(writer)
    while True:
        writer.append(code_of(number))
        number += 1
        if number % 7 == 0:
            writer.flush()
            print(number, flush=True)
"""


def test_a_store_writes_its_codes(tmp_path):
    with filled(tmp_path / "a.dhx", 50) as store:
        store.remove([7, 8])
        ids = store.export_codes(tmp_path / "a.codes")
        assert ids.tolist() == store.ids().tolist()
        with pytest.raises(StoreError, match="exists already"):
            store.export_codes(tmp_path / "a.codes")
        opened, queries = CodeFile.open(tmp_path / "a.codes"), codes_of_samples(10)
        distances, positions = opened.search(queries, 20)
        for found, true in zip((distances, ids[positions]), store.search_ids(queries, 20), strict=True):
            assert np.array_equal(found, true)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_writers_lose_nothing_that_was_safe(tmp_path):
    from tests.index.test_durability import code_of

    path, chance, safe = tmp_path / "a.codes", random.Random(5), 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        lines = [process.stdout.readline() for _ in range(chance.randrange(1, 15))]
        process.kill()
        lines += process.stdout.readlines()
        process.wait()
        safe = max(safe, *(int(line) for line in lines if line.endswith("\n")))
        codes = CodeFile.open(path)
        assert len(codes) >= safe
        assert np.array_equal(codes.codes(range(len(codes))), np.concatenate([code_of(i) for i in range(len(codes))]))
