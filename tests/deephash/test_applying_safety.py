"""Whatever the plan and whenever the kill, nothing is lost: hostile plans by the hundred, SIGKILL at every step."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deephash import PlanError, apply_plan, make_plan, undo_plan, write_plan
from deephash.engine import ImageSearch
from deephash.plan_journal import journal_path
from index import Store
from tests.deephash.copies import make_copies
from tests.deephash.photos import ROOT, command
from tests.deephash.test_applying import write_actions

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs links and SIGKILL")
CONTENTS = (b"first", b"second", b"other")  # two of the same length
NAMES = ("a", "b", "c", "sub/a", "sub/b", "link/a", "link/b")  # link leads to sub
N_PLANS = 2

# --- hostile plans ---

# What lies at a name of photos/ itself: a content, or a hard or symbolic link to another name.
FILES = st.fixed_dictionaries(
    {
        name: st.one_of(
            st.sampled_from(CONTENTS),
            st.sampled_from(CONTENTS),
            st.tuples(st.sampled_from(["hard", "soft"]), st.sampled_from(NAMES[:5])),
        )
        for name in NAMES[:5]
    }
)
# A file of a plan: its name, and the content that the plan gives it; None: the true one, as far as there is one.
FILE = st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), st.none(), st.none(), st.sampled_from(CONTENTS)))


@st.composite
def actions(draw):
    """Draws [(kept file, dropped files), ...]: most often each name once, sometimes with one that contradicts."""
    names = [(name, None) for name in draw(st.permutations(NAMES))]
    sizes = draw(st.sampled_from([(2,), (3,), (7,), (2, 2), (3, 2), (3, 4), (2, 3, 2)]))
    drawn = []
    for size in sizes:
        (keep, *drop), names = names[:size], names[size:]
        drawn.append((keep, drop + draw(st.lists(FILE, max_size=1)) * draw(st.sampled_from([0, 0, 0, 1]))))
    return drawn


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "photos/sub").mkdir(parents=True)
    (folder / "photos/link").symlink_to("sub")
    made = make_copies(folder, dict.fromkeys(NAMES, CONTENTS[0]))
    # While another has it open for writing, what was dropped stays in the index: all examples share it.
    with Store.open(made.index, writable=True):
        yield made


def lay_out(copies, files):
    for path in copies.folder.rglob("*"):
        if (path.is_file() or path.is_symlink()) and copies.index not in path.parents and path.name != "link":
            path.unlink()
    for name, value in files.items():
        if isinstance(value, bytes):
            (copies.photos / name).write_bytes(value)
    for name, value in files.items():
        if not isinstance(value, bytes):
            kind, other = value
            target = copies.photos / other
            if kind == "soft":
                (copies.photos / name).symlink_to(target)
            elif target.is_file() and not target.is_symlink():
                os.link(target, copies.photos / name)


def regular_files(folder):
    """Inode -> content of every regular file, however many names it has."""
    return {
        path.lstat().st_ino: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    }


def fields_of(copies, file, keep=None):
    name, content = file
    path = copies.photos / name
    if content is None:
        content = path.read_bytes() if path.is_file() else CONTENTS[0]
    fields = copies.planned(name, content)
    if keep is not None:
        same = keep["content_hash"] == fields["content_hash"]
        fields |= {"distance": 0, "kind": "identical" if same else "near"}
    return fields


N_MOVED = Counter()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(FILES, st.lists(actions(), min_size=1, max_size=N_PLANS))
def test_whatever_the_plans_no_content_is_lost_and_every_kept_file_stays(copies, files, plans):
    lay_out(copies, files)
    before = regular_files(copies.photos)
    places = [copies.folder / f"dropped{number}" for number in range(N_PLANS)]
    lost_on_purpose = set()
    for drawn, place in zip(plans, places, strict=False):
        made = []
        for keep, drops in drawn:
            kept = fields_of(copies, keep)
            made.append((kept, *(fields_of(copies, drop, kept) for drop in drops)))
        journal_path(copies.plan).unlink(missing_ok=True)
        write_actions(copies, *made)
        state = copies.contents()
        try:
            report = apply_plan(copies.plan, move_to=place)
        except PlanError:
            assert copies.contents() == state
            continue
        for item in report.files:
            N_MOVED[item.outcome] += 1
            if item.outcome == "moved":
                kept = next(path for path in copies.photos.rglob("*") if str(path) == real(item.keep.path))
                assert kept.is_file()
                assert not kept.is_symlink()
                if item.drop.kind == "near":
                    lost_on_purpose.add(item.drop.content_hash)
    # No file was overwritten: they are all somewhere, each with its content.
    after = {}
    for place in (copies.photos, *places):
        after |= regular_files(place)
    assert after == before
    # And where they were one is left of each content, but of those whose plan was to drop a merely similar picture.
    there = set(regular_files(copies.photos).values())
    for content in set(before.values()) - there:
        assert bytes.fromhex(copies.planned("a", content)["content_hash"]) in lost_on_purpose


def real(path):
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def test_the_hostile_plans_were_not_all_refused():
    if not N_MOVED:
        pytest.skip("runs after the test above")
    assert N_MOVED["moved"] > 100
    assert N_MOVED["skipped"] > 100


# --- kills ---


@pytest.fixture(scope="module")
def run_until():
    """A function that runs a call and returns whether it was killed before its n-th step."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.deephash.kill_at_step"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip

        def run(n, call, plan, folder):
            server.stdin.write(json.dumps([n, call, str(plan), str(folder)]) + "\n")
            server.stdin.flush()
            code = int(server.stdout.readline())
            assert code in (0, -signal.SIGKILL)
            return code != 0

        yield run
        server.stdin.close()


def planned_copies(folder, n_copies):
    files = {"keep": b"one"} | {f"sub/{number}.png": b"one" for number in range(n_copies)}
    copies = make_copies(folder, files)
    with ImageSearch.open(copies.index) as search:
        write_plan(make_plan(copies.index, search.duplicates()), copies.plan)
    return copies, files


@pytest.fixture(params=["same disk", "other disk"])
def target(request, tmp_path):
    """A folder with room for folders to move files into."""
    if request.param == "same disk":
        yield tmp_path / "targets"
        return
    if not os.path.isdir("/dev/shm"):
        pytest.skip("needs a second file system")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_killed_before_any_step_the_same_call_finishes(tmp_path, target, run_until):
    killed, n = True, 0
    while killed:
        n += 1
        copies, files = planned_copies(tmp_path / f"apply{n}", 2)
        folder = target / str(n)
        killed = run_until(n, "apply", copies.plan, folder)
        here, there = copies.contents(under=copies.photos), copies.contents(under=folder)
        for name in files:
            assert b"one" in (here.get(name), there.get(name))
        assert here["keep"] == b"one"
        report = apply_plan(copies.plan, move_to=folder)
        assert report.count("moved", "moved before") == 2
        assert copies.contents(under=copies.photos) == {"keep": b"one"}
        assert copies.contents(under=folder) == {"sub/0.png": b"one", "sub/1.png": b"one"}
        assert copies.indexed() == {"keep"}
    assert n > 12


def test_killed_before_any_step_of_taking_it_back_the_same_call_finishes(tmp_path, target, run_until):
    killed, n = True, 0
    while killed:
        n += 1
        copies, files = planned_copies(tmp_path / f"undo{n}", 2)
        apply_plan(copies.plan, move_to=target / str(n))
        killed = run_until(n, "undo", copies.plan, target / str(n))
        undo_plan(copies.plan)
        assert copies.contents(under=copies.photos) == files
        assert copies.contents(under=target / str(n)) == {}
    assert n > 8


def test_a_real_command_killed_between_files_goes_on(tmp_path):
    n_copies = 60
    copies, _ = planned_copies(tmp_path, n_copies)
    arguments = command("apply", copies.plan, "--move", tmp_path / "dropped")
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = journal_path(copies.plan)
    while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 20):
        pass
    process.kill()
    assert process.wait() == -signal.SIGKILL
    n_left = len(copies.contents(under=copies.photos)) - 1
    assert 0 < n_left < n_copies
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{n_left} files, " in done.stderr or f"{n_copies - n_left:,} dropped before" in done.stderr
    assert len(copies.contents(under=copies.photos)) == 1
    assert len(copies.contents(under=tmp_path / "dropped")) == n_copies
    assert copies.indexed() == {"keep"}
