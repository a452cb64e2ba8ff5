"""Plans are carried out on real files, each checked once more; and taken back."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from deephash import ImageSearch, PlanError, apply_plan, make_plan, undo_plan, write_plan
from deephash.plan_journal import Journal, journal_path
from index import Store
from tests.deephash.copies import make_copies
from tests.deephash.photos import python

ONE, TWO = b"content one", b"content two"
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX files")


@pytest.fixture
def copies(tmp_path):
    return make_copies(tmp_path, {"a": ONE, "cat/b": ONE, "dog/b": ONE, "other": TWO})


@pytest.fixture
def dropped(tmp_path):
    return tmp_path / "dropped"


def plan_all(copies, radius=None, **options):
    with ImageSearch.open(copies.index) as search:
        write_plan(make_plan(copies.index, search.duplicates(radius=radius), radius=radius, **options), copies.plan)


def write_actions(copies, *actions):
    """Writes a plan by hand: each action is a kept file and the dropped ones, as fields."""
    fields = {"deephash_plan": 1, "index": str(copies.index), "created": "2025-01-01"}
    fields["actions"] = [{"keep": keep, "drop": drop} for keep, *drop in actions]
    copies.plan.write_text(json.dumps(fields))


def outcomes(copies, report):
    return {os.path.relpath(item.path, copies.photos): item.outcome for item in report.files}


def only_reason(report):
    (item,) = [item for item in report.files if item.outcome == "skipped"]
    return item.reason


# --- dry run ---


def test_a_dry_run_says_what_would_be_done_and_touches_nothing(copies):
    plan_all(copies)
    before, indexed = copies.stats(), (copies.index / "catalogue.db").stat()
    report = apply_plan(copies.plan)
    assert report.dry_run
    assert outcomes(copies, report) == {"cat/b": "planned", "dog/b": "planned"}
    assert report.n_bytes("planned") == 2 * len(ONE)
    assert copies.stats() == before
    after = (copies.index / "catalogue.db").stat()
    assert (after.st_ino, after.st_mtime_ns) == (indexed.st_ino, indexed.st_mtime_ns)


def test_a_dry_run_checks_as_strictly_as_a_real_one(copies):
    plan_all(copies)
    (copies.photos / "cat/b").write_bytes(b"CONTENT ONE")
    report = apply_plan(copies.plan)
    assert outcomes(copies, report) == {"cat/b": "skipped", "dog/b": "planned"}
    assert only_reason(report) == "has changed since the plan was made"


# --- into a folder ---


def test_files_move_with_the_path_that_they_have_in_the_indexed_folder(copies, dropped):
    plan_all(copies)
    mtime = (copies.photos / "cat/b").stat().st_mtime_ns
    report = apply_plan(copies.plan, move_to=dropped)
    assert outcomes(copies, report) == {"cat/b": "moved", "dog/b": "moved"}
    assert copies.contents(under=copies.photos) == {"a": ONE, "other": TWO}
    assert copies.contents(under=dropped) == {"cat/b": ONE, "dog/b": ONE}
    assert (dropped / "cat/b").stat().st_mtime_ns == mtime
    assert copies.indexed() == {"a", "other"}
    assert report.left_in_index is None
    assert [item.to for item in report.files] == [str(dropped / "cat/b"), str(dropped / "dog/b")]


def test_the_same_call_again_has_nothing_left_to_do(copies, dropped):
    plan_all(copies)
    apply_plan(copies.plan, move_to=dropped)
    for again in (apply_plan(copies.plan, move_to=dropped), apply_plan(copies.plan)):
        assert outcomes(copies, again) == {"cat/b": "moved before", "dog/b": "moved before"}
    assert copies.contents(under=dropped) == {"cat/b": ONE, "dog/b": ONE}


def test_no_name_in_the_folder_is_overwritten(copies, dropped):
    plan_all(copies)
    (dropped / "cat").mkdir(parents=True)
    (dropped / "cat/b").write_bytes(b"mine")
    (dropped / "cat/b (2)").symlink_to("nowhere")
    (dropped / "dog").write_bytes(b"a file where a folder is needed")
    report = apply_plan(copies.plan, move_to=dropped)
    assert (dropped / "cat/b").read_bytes() == b"mine"
    assert (dropped / "cat/b (3)").read_bytes() == ONE
    assert (dropped / "cat/b (2)").readlink() == Path("nowhere")
    assert outcomes(copies, report)["dog/b"] == "skipped"
    assert only_reason(report).startswith("cannot be moved: ")
    assert (copies.photos / "dog/b").read_bytes() == ONE


def test_files_of_several_indexed_folders_may_have_the_same_name(tmp_path, dropped):
    more = tmp_path / "more"
    copies = make_copies(
        tmp_path, {"a": ONE, "cat.png": ONE, str(more / "cat.png"): ONE, str(more / "sub/cat.png"): ONE}
    )
    with Store.open(copies.index, writable=True) as store:
        store.add_root(str(more))
        store.add_root(str(more / "sub"))
    plan_all(copies)
    assert apply_plan(copies.plan, move_to=dropped).count("moved") == 3
    assert copies.contents(under=dropped) == {"cat.png": ONE, "cat (2).png": ONE, "sub/cat.png": ONE}


@pytest.mark.parametrize("name", ["photos", "photos/dropped", "link", "photos.dhx/x"])
def test_a_folder_that_would_be_indexed_next_is_refused(copies, name):
    plan_all(copies)
    (copies.folder / "link").symlink_to(copies.photos / "cat")
    with pytest.raises(PlanError, match="lies in the indexed folders"):
        apply_plan(copies.plan, move_to=copies.folder / name)
    assert copies.contents(under=copies.photos) == {"a": ONE, "cat/b": ONE, "dog/b": ONE, "other": TWO}
    assert not journal_path(copies.plan).exists()


def test_a_hidden_folder_among_the_images_is_fine_and_a_file_is_not(copies):
    plan_all(copies)
    with pytest.raises(PlanError, match="other is a file"):
        apply_plan(copies.plan, move_to=copies.photos / "other")
    apply_plan(copies.plan, move_to=copies.photos / ".dropped")
    assert (copies.photos / ".dropped/cat/b").read_bytes() == ONE


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")
def test_files_move_to_another_disk_with_their_times(copies, tmp_path):
    target = Path("/dev/shm") / f"deephash-{os.getpid()}"
    assert os.stat("/dev/shm").st_dev != os.stat(tmp_path).st_dev
    plan_all(copies)
    mtime = (copies.photos / "cat/b").stat().st_mtime_ns
    try:
        assert apply_plan(copies.plan, move_to=target).count("moved") == 2
        assert copies.contents(under=target) == {"cat/b": ONE, "dog/b": ONE}
        assert (target / "cat/b").stat().st_mtime_ns == mtime
        assert undo_plan(copies.plan).count("restored") == 2
        assert copies.contents(under=target) == {}
    finally:
        shutil.rmtree(target)
    assert copies.contents(under=copies.photos) == {"a": ONE, "cat/b": ONE, "dog/b": ONE, "other": TWO}


# --- what is refused, file by file ---


def near(copies, name, content):
    return copies.planned(name, content, distance=3, kind="near")


def test_what_is_not_as_planned_is_skipped_with_its_reason(tmp_path, dropped):
    files = {f"k{n}": b"kept %d" % n for n in range(8)} | {f"d{n}": b"drop %d" % n for n in range(8)}
    copies = make_copies(tmp_path, files)
    write_actions(
        copies, *((copies.planned(f"k{n}", files[f"k{n}"]), near(copies, f"d{n}", files[f"d{n}"])) for n in range(8))
    )
    photos = copies.photos
    (photos / "k0").unlink()
    (photos / "d1").unlink()
    (photos / "k2").write_bytes(b"KEPT 2")
    (photos / "d3").write_bytes(b"drop 3 and more")
    (photos / "k4").unlink()
    (photos / "k4").mkdir()
    (photos / "k5").unlink()
    (photos / "k5").symlink_to("d5")
    (photos / "d6").unlink()
    (photos / "d6").symlink_to("k6")
    report = apply_plan(copies.plan, move_to=dropped)
    assert {Path(item.path).name: item.reason for item in report.files} == {
        "d0": "the kept file is gone",
        "d1": "is gone",
        "d2": "the kept file has changed since the plan was made",
        "d3": "has changed since the plan was made",
        "d4": "the kept file is not a regular file",
        "d5": "the kept file is a symbolic link",
        "d6": "is a symbolic link",
        "d7": "",
    }
    assert copies.contents(under=dropped) == {"d7": b"drop 7"}
    assert (photos / "d0").read_bytes() == b"drop 0"


@posix
def test_other_names_of_a_kept_file_are_not_copies(tmp_path, dropped):
    copies = make_copies(tmp_path, {"a": ONE, "sub/b": ONE, "c": TWO})
    (copies.photos / "sub/b").unlink()
    os.link(copies.photos / "a", copies.photos / "sub/b")
    plan_all(copies)
    assert only_reason(apply_plan(copies.plan, move_to=dropped)) == "is another name of a file that the plan keeps"
    # Also when another action keeps it, and through a linked folder.
    copies.plan.unlink()
    write_actions(copies, (copies.planned("c", TWO), near(copies, "sub/b", ONE)), (copies.planned("a", ONE),))
    assert only_reason(apply_plan(copies.plan, move_to=dropped)) == "is another name of a file that the plan keeps"
    assert (copies.photos / "sub/b").exists()


@posix
def test_a_linked_folder_gives_no_second_copy(tmp_path, dropped):
    (tmp_path / "photos/real").mkdir(parents=True)
    (tmp_path / "photos/link").symlink_to("real")
    copies = make_copies(tmp_path, {"real/a": ONE, "link/a": ONE})
    plan_all(copies)
    assert only_reason(apply_plan(copies.plan, move_to=dropped)) == "is another name of a file that the plan keeps"
    assert (copies.photos / "real/a").read_bytes() == ONE


@posix
def test_files_outside_the_indexed_folders_are_refused(tmp_path, dropped):
    (tmp_path / "outside").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/link").symlink_to(tmp_path / "outside")
    copies = make_copies(tmp_path, {"a": ONE, "link/b": ONE, str(tmp_path / "beside"): ONE})
    plan_all(copies)
    report = apply_plan(copies.plan, move_to=dropped)
    assert [item.reason for item in report.files] == ["lies outside the folders of the index"] * 2
    assert (tmp_path / "outside/b").exists()
    assert (tmp_path / "beside").exists()
    copies.plan.unlink()
    write_actions(copies, (copies.planned("link/b", ONE), near(copies, "a", ONE)))
    assert only_reason(apply_plan(copies.plan)) == "the kept file lies outside the folders of the index"


def test_files_that_the_index_does_not_know_are_refused(copies, dropped):
    (copies.photos / "letter.txt").write_bytes(b"dear")
    write_actions(copies, (copies.planned("a", ONE), near(copies, "letter.txt", b"dear")))
    assert only_reason(apply_plan(copies.plan, move_to=dropped)).startswith("is not in the index: ")
    write_actions(copies, (copies.planned("letter.txt", b"dear"), near(copies, "a", ONE)))
    assert only_reason(apply_plan(copies.plan, move_to=dropped)).startswith("the kept file is not in the index: ")


@posix
def test_a_protected_folder_loses_nothing_under_any_name(copies, dropped):
    plan_all(copies)
    (copies.folder / "link").symlink_to(copies.photos / "cat")
    report = apply_plan(copies.plan, move_to=dropped, protect=[copies.folder / "link"])
    assert outcomes(copies, report) == {"cat/b": "skipped", "dog/b": "moved"}
    assert only_reason(report) == f"is protected: it lies beneath {copies.folder / 'link'}"
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        apply_plan(copies.plan, move_to=dropped, protect=[copies.photos / "catt"])


def test_a_file_that_is_read_only_to_us_is_skipped(copies, dropped):
    if os.name == "nt" or os.geteuid() == 0:
        pytest.skip("root may do everything")
    plan_all(copies)
    (copies.photos / "cat").chmod(0o500)
    try:
        report = apply_plan(copies.plan, move_to=dropped)
    finally:
        (copies.photos / "cat").chmod(0o700)
    assert only_reason(report) == "cannot be moved: permission denied"
    assert "cat/b" not in copies.contents(under=dropped)


# --- the whole run ---


def test_a_bad_plan_does_nothing_at_all(copies, dropped):
    bad = copies.planned("cat/b", ONE, distance=0, kind="identical")
    write_actions(copies, (copies.planned("a", ONE), bad), (copies.planned("other", TWO), bad | {"n_bytes": None}))
    before = copies.stats()
    with pytest.raises(PlanError, match=r"n_bytes of actions\[1\]\.drop\[0\] is not a whole number; nothing was done"):
        apply_plan(copies.plan, move_to=dropped)
    assert copies.stats() == before


def test_two_runs_at_once_are_refused(copies, dropped):
    plan_all(copies)
    code = (
        "import sys\nfrom deephash.applying import _alone\nfrom deephash import read_plan\n"
        "with _alone(read_plan(sys.argv[1]), sys.argv[1]):\n"
        "    from tests.deephash.photos import deephash\n"
        "    done = deephash('apply', sys.argv[1], '--move', sys.argv[2])\n"
        "    print(done.returncode, done.stderr)\n"
    )
    done = python(code, copies.plan, dropped)
    assert done.stdout.startswith("1 deephash: another process is carrying out a plan of"), done.stderr
    assert len(copies.contents(under=copies.photos)) == 4
    assert apply_plan(copies.plan, move_to=dropped).count("moved") == 2


def test_an_index_that_is_being_written_is_brought_up_to_date_later(copies, dropped):
    plan_all(copies)
    with Store.open(copies.index, writable=True):
        report = apply_plan(copies.plan, move_to=dropped)
    assert report.count("moved") == 2
    assert "is being written by another process" in report.left_in_index
    assert copies.indexed() == {"a", "cat/b", "dog/b", "other"}
    report = apply_plan(copies.plan, move_to=dropped)
    assert report.left_in_index is None
    assert copies.indexed() == {"a", "other"}


def test_trash_and_a_folder_exclude_each_other(copies, dropped):
    plan_all(copies)
    with pytest.raises(ValueError, match="pass trash or move_to"):
        apply_plan(copies.plan, trash=True, move_to=dropped)


# --- the trash ---

APPLY = (
    "import sys, deephash\n"
    "report = deephash.apply_plan(sys.argv[1], trash=True)\n"
    "print(*(item.outcome for item in report.files), report.files[0].reason)"
)


@pytest.fixture
def trash(tmp_path):
    """Settings under which this process's children have a trash of their own."""
    return {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "share")}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the trash of a desktop on Linux")
def test_files_go_to_the_trash_of_the_desktop(copies, trash):
    plan_all(copies)
    done = python(APPLY, copies.plan, **trash)
    assert done.stdout.split() == ["moved", "moved"], done.stderr
    files = copies.folder / "share/Trash/files"
    assert [path.read_bytes() for path in files.iterdir()] == [ONE, ONE]
    assert f"Path={copies.photos}/cat/b" in (copies.folder / "share/Trash/info/b.trashinfo").read_text()
    assert copies.indexed() == {"a", "other"}
    assert outcomes(copies, apply_plan(copies.plan)) == {"cat/b": "moved before", "dog/b": "moved before"}
    assert [item.reason for item in undo_plan(copies.plan).files] == ["is in the desktop's trash: restore it there"] * 2
    shutil.move(files / "b", copies.photos / "cat/b")
    assert len(undo_plan(copies.plan).files) == 1


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the trash of a desktop on Linux")
def test_a_trash_that_fails_leaves_the_file(copies, trash):
    plan_all(copies)
    (copies.folder / "share").write_text("no folder")
    done = python(APPLY, copies.plan, **trash)
    assert done.stdout.startswith("skipped skipped cannot be moved: "), done.stderr
    assert len(copies.contents(under=copies.photos)) == 4


def test_without_the_package_the_error_says_how_to_get_it(copies):
    plan_all(copies)
    before = copies.stats()
    code = "import sys\nsys.modules['send2trash'] = None\n" + APPLY
    done = python(code, copies.plan)
    assert "PlanError: the trash needs a package: pip install 'deephash[trash]'; or move" in done.stderr
    assert copies.stats() == before


# --- undo ---


def test_undo_moves_everything_back_and_the_plan_can_be_carried_out_again(copies, dropped):
    plan_all(copies)
    before = copies.contents(under=copies.photos)
    apply_plan(copies.plan, move_to=dropped)
    report = undo_plan(copies.plan)
    assert outcomes(copies, report) == {"cat/b": "restored", "dog/b": "restored"}
    assert copies.contents(under=copies.photos) == before
    assert copies.contents(under=dropped) == {}
    assert undo_plan(copies.plan).files == []
    assert apply_plan(copies.plan, move_to=dropped).count("moved") == 2
    assert undo_plan(copies.plan).count("restored") == 2
    assert copies.contents(under=copies.photos) == before


def test_undo_overwrites_nothing_and_brings_back_nothing_that_changed(copies, dropped):
    plan_all(copies)
    apply_plan(copies.plan, move_to=dropped)
    (copies.photos / "cat/b").write_bytes(b"a new picture")
    (dropped / "dog/b").write_bytes(b"edited")
    report = undo_plan(copies.plan)
    assert [item.reason for item in report.files] == [
        f"exists again; what was moved is still {dropped / 'cat/b'}",
        f"cannot be moved back: {dropped / 'dog/b'} is gone or has changed",
    ]
    assert (copies.photos / "cat/b").read_bytes() == b"a new picture"
    assert copies.contents(under=dropped) == {"cat/b": ONE, "dog/b": b"edited"}


def test_undo_makes_folders_again_and_needs_no_index(copies, dropped):
    plan_all(copies)
    apply_plan(copies.plan, move_to=dropped)
    (copies.photos / "cat").rmdir()
    shutil.rmtree(copies.index)
    assert undo_plan(copies.plan).count("restored") == 2
    assert (copies.photos / "cat/b").read_bytes() == ONE


def test_undo_of_a_plan_that_was_never_carried_out(copies):
    plan_all(copies)
    with pytest.raises(PlanError, match=r"copies\.json\.log does not exist: nothing of this plan was carried out"):
        undo_plan(copies.plan)


# --- the journal ---


def test_a_cut_last_line_of_the_journal_is_passed_over_and_a_damaged_one_is_not(copies, dropped):
    plan_all(copies)
    apply_plan(copies.plan, move_to=dropped)
    path = journal_path(copies.plan)
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    path.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    assert [event.event for event in Journal(path).last.values()] == ["moved", "moving"]
    report = apply_plan(copies.plan, move_to=dropped)
    assert outcomes(copies, report) == {"cat/b": "moved before", "dog/b": "moved before"}
    assert path.read_bytes().splitlines(keepends=True) == lines
    path.write_bytes(lines[0] + b"{}\n" + lines[2])
    for call in (undo_plan, apply_plan):
        with pytest.raises(PlanError, match=r"line 2 of .*copies\.json\.log is damaged"):
            call(copies.plan)
