"""One file is moved, and nothing else is touched; what changes between a check and a move is seen."""

import hashlib
import os

import pytest

from deephash import read_plan
from deephash.moving import move_file
from deephash.plan_checks import Changed, DropChecks
from tests.deephash.copies import make_copies
from tests.deephash.test_applying import near, write_actions


def digest(content):
    return hashlib.blake2b(content, digest_size=16).digest()


def test_a_name_that_is_taken_meanwhile_is_not_overwritten(tmp_path):
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"mine")
    for content in (b"theirs", b""):
        target.write_bytes(content)
        with pytest.raises(FileExistsError):
            move_file(str(source), str(target), digest(b"mine"), reuse=False, still_right=lambda: None)
        assert (source.read_bytes(), target.read_bytes()) == (b"mine", content)


def test_a_name_is_used_again_only_when_nothing_or_the_same_content_is_there(tmp_path):
    source, target = tmp_path / "a", tmp_path / "b"
    for content in (b"", b"mine"):
        source.write_bytes(b"mine")
        target.write_bytes(content)
        move_file(str(source), str(target), digest(b"mine"), reuse=True, still_right=lambda: None)
        assert not source.exists()
        assert target.read_bytes() == b"mine"
    source.write_bytes(b"mine")
    target.write_bytes(b"this")
    with pytest.raises(FileExistsError):
        move_file(str(source), str(target), digest(b"mine"), reuse=True, still_right=lambda: None)
    assert (source.read_bytes(), target.read_bytes()) == (b"mine", b"this")


def test_what_is_not_right_any_more_stays(tmp_path):
    source = tmp_path / "a"
    source.write_bytes(b"mine")

    def wrong():
        raise Changed("changed")

    with pytest.raises(Changed):
        move_file(str(source), str(tmp_path / "sub/b"), digest(b"mine"), reuse=False, still_right=wrong)
    assert source.read_bytes() == b"mine"
    assert [*tmp_path.rglob("b")] == []


@pytest.mark.parametrize("name", ["keep", "drop"])
def test_a_change_after_the_check_is_seen(tmp_path, name):
    copies = make_copies(tmp_path, {"keep": b"one", "drop": b"two"})
    write_actions(copies, (copies.planned("keep", b"one"), near(copies, "drop", b"two")))
    plan = read_plan(copies.plan)
    (action,) = plan.actions
    known = {str(copies.photos / "keep"), str(copies.photos / "drop")}
    checks = DropChecks(plan, roots=[str(copies.photos)], known=known)
    seen = checks.check(action.keep, action.drop[0])
    checks.check_unchanged(action.keep, action.drop[0], seen)
    os.utime(copies.photos / name, ns=(1, 1))
    with pytest.raises(Changed, match="while they were compared"):
        checks.check_unchanged(action.keep, action.drop[0], seen)


def test_nothing_is_kept_in_the_folder_that_files_are_moved_to(tmp_path):
    copies = make_copies(tmp_path, {".old/keep": b"one", "drop": b"two"})
    write_actions(copies, (copies.planned(".old/keep", b"one"), near(copies, "drop", b"two")))
    plan = read_plan(copies.plan)
    (action,) = plan.actions
    known = {str(copies.photos / ".old/keep"), str(copies.photos / "drop")}
    checks = DropChecks(plan, roots=[str(copies.photos)], known=known, outside=str(copies.photos / ".old"))
    with pytest.raises(Changed, match="the kept file lies in the folder that dropped files are moved to"):
        checks.check(action.keep, action.drop[0])
