"""A file that is written appears whole or not at all, and its folder holds nothing else."""

import os

import pytest

from deephash.writing import replacing


@pytest.mark.parametrize(("mode", "data"), [("wb", b"\0new\r\n"), ("w", "new é\r\n")])
def test_the_new_content_takes_the_place_of_the_old(tmp_path, mode, data):
    path = tmp_path / "a"
    path.write_text("old")
    with replacing(path, mode) as file:
        file.write(data)
        assert path.read_text() == "old"
    assert path.read_bytes() == (data if mode == "wb" else data.encode("utf-8"))
    assert os.listdir(tmp_path) == ["a"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), OSError("mine")])
def test_an_error_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a"
    path.write_text("old")

    def fail():
        with replacing(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_errors_of_the_target_name_it(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "no" / "a\n"):
        pass
    assert str(caught.value) == rf"cannot write {tmp_path}/no/a\n: its folder does not exist"
    with pytest.raises(IsADirectoryError, match=r"cannot write .*: is a directory"), replacing(tmp_path):
        pass
    with pytest.raises(OSError, match=r"cannot write .*/a: no space left on device"), replacing(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    with pytest.raises(FileNotFoundError, match="other"), replacing(tmp_path / "a"):
        (tmp_path / "other").read_text()
    assert os.listdir(tmp_path) == []


def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path):
    path = tmp_path / ("a" * 255)
    with replacing(path, "w") as file:
        file.write("x")
    assert path.read_text() == "x"


def test_text_that_is_not_unicode_is_escaped(tmp_path):
    with replacing(tmp_path / "a", "w") as file:
        file.write("caf\udce9")
    assert (tmp_path / "a").read_bytes() == rb"caf\udce9"
