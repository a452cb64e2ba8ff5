"""``deephash duplicates --plan`` and ``deephash apply``, as people and scripts see them."""

import json
import os
import re

import pytest

from tests.deephash.command_line import lines, one_sentence, run
from tests.deephash.copies import make_copies

ONE = b"content one"


@pytest.fixture
def copies(tmp_path):
    return make_copies(tmp_path, {"a": ONE, "cat/b": ONE, "best/c": ONE, "other": b"two"})


def plan(copies, *options):
    done = run("duplicates", copies.index, "--identical", "--plan", copies.plan, *options)
    assert done.exit_code == 0, done.output
    return done


def table(done):
    head, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_duplicates_writes_a_plan_beside_what_it_says(copies):
    done = plan(copies)
    assert len(table(done)) == 3
    assert f"plan: {copies.plan}, 2 files to drop; look at it: deephash apply {copies.plan}\n" in done.stderr
    (action,) = json.loads(copies.plan.read_text())["actions"]
    assert action["keep"]["path"] == str(copies.photos / "a")
    plan(copies, "--protect", copies.photos / "best")
    (action,) = json.loads(copies.plan.read_text())["actions"]
    assert action["keep"]["path"] == str(copies.photos / "best/c")
    (cluster,) = lines("duplicates", copies.index, "--identical", "--plan", copies.plan)
    assert cluster["kind"] == "identical"


def test_protect_needs_a_plan_and_a_folder_that_exists(copies):
    assert run("duplicates", copies.index, "--protect", copies.photos).exit_code == 2
    done = run("duplicates", copies.index, "--plan", copies.plan, "--protect", copies.folder / "nothing")
    assert done.exit_code == 1
    assert "there is no folder" in done.stderr
    assert not copies.plan.exists()


def test_apply_alone_is_a_dry_run(copies):
    plan(copies)
    before = copies.stats()
    done = run("apply", copies.plan)
    assert done.exit_code == 0
    assert table(done)[0] == {
        "outcome": "planned", "kind": "identical", "distance": "0", "size": "11 B", "now at": "", "reason": "",
        "path": str(copies.photos / "cat/b"), "kept": str(copies.photos / "a"),
    }  # fmt: skip
    assert "2 files, 22 B would be dropped\n" in done.stderr
    assert f"nothing was changed: deephash apply {copies.plan} --trash (or --move DIR) does it" in done.stderr
    assert copies.stats() == before


def test_apply_moves_and_undo_moves_back(copies, tmp_path):
    plan(copies)
    done = run("apply", copies.plan, "--move", tmp_path / "dropped")
    assert done.exit_code == 0
    assert [row["now at"] for row in table(done)] == [str(tmp_path / "dropped" / name) for name in ("cat/b", "best/c")]
    assert "2 files, 22 B dropped\n" in done.stderr
    again = run("apply", copies.plan, "--move", tmp_path / "dropped")
    assert "0 files, 0 B dropped, 2 dropped before\n" in again.stderr
    back = run("apply", "--undo", copies.plan)
    assert back.exit_code == 0
    assert "2 files, 22 B restored\n" in back.stderr
    assert len(copies.contents(under=copies.photos)) == 4


def test_apply_as_json_lines_and_its_exit_code_when_something_was_skipped(copies, tmp_path):
    plan(copies)
    done = run("apply", copies.plan, "--move", tmp_path / "d", "--protect", copies.photos / "best", "--json")
    assert done.exit_code == 3
    moved, skipped = [json.loads(line) for line in done.stdout.splitlines()]
    assert moved == {
        "outcome": "moved", "path": str(copies.photos / "cat/b"), "n_bytes": 11, "to": str(tmp_path / "d/cat/b"),
        "kind": "identical", "distance": 0, "keep": {"path": str(copies.photos / "a")},
    }  # fmt: skip
    assert skipped["outcome"] == "skipped"
    assert skipped["reason"] == f"is protected: it lies beneath {copies.photos / 'best'}"
    assert "1 file, 11 B dropped, 1 skipped\n" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="names are bytes only on POSIX")
def test_names_that_no_terminal_should_see_are_moved_as_they_are(tmp_path):
    name = os.fsdecode(b"\xff\x1b[31m.png")
    copies = make_copies(tmp_path, {"a": ONE, name: ONE})
    plan(copies)
    done = run("apply", copies.plan, "--move", tmp_path / "d", "--json")
    (moved,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert bytes.fromhex(moved["to_hex"]) == os.fsencode(tmp_path / "d" / name)
    assert (tmp_path / "d" / name).read_bytes() == ONE
    shown = run("apply", "--undo", copies.plan).stdout
    assert "\x1b" not in shown
    assert r"\xff\x1b[31m.png" in shown


def test_an_index_in_use_is_said_to_need_a_run_later(copies, tmp_path):
    from index import Store

    plan(copies)
    with Store.open(copies.index, writable=True):
        done = run("apply", copies.plan, "--move", tmp_path / "d")
    assert done.exit_code == 0
    assert re.search(r"still in the index \(.* by another process.*\): later, deephash index with --prune", done.stderr)


@pytest.mark.parametrize(
    "options", [("--trash", "--move", "d"), ("--undo", "--yes"), ("--undo", "--trash"), ("--undo", "--protect", "d")]
)
def test_options_that_exclude_each_other(copies, options):
    assert run("apply", copies.plan, *options).exit_code == 2


def test_what_is_wrong_is_one_sentence(copies, tmp_path):
    missing = run("apply", tmp_path / "none.json")
    assert missing.exit_code == 1
    assert "none.json" in one_sentence(missing)
    plan(copies)
    fields = json.loads(copies.plan.read_text())
    copies.plan.write_text(json.dumps(fields | {"deephash_plan": 9}))
    assert "a plan of version 9" in one_sentence(run("apply", copies.plan, "--trash"))
    copies.plan.write_text(json.dumps(fields | {"index": str(tmp_path / "gone.dhx")}))
    assert "gone.dhx does not exist: name an existing index" in one_sentence(run("apply", copies.plan, "--trash"))
    assert len(copies.contents(under=copies.photos)) == 4
