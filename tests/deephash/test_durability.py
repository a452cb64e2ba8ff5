"""Real `deephash index` processes, really killed at random moments; real limits, really hit."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from deephash import ImageSearch
from deephash.cli_errors import interrupts_end_the_program, press_dropped_ctrl_c_again, reports_errors
from index import Store
from tests.deephash.photos import ROOT, codes, deephash, records, write_photos

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
N_PHOTOS = 500


class Forks:
    """Starts `deephash` processes, one at a time; see tests/deephash/forks.py."""

    def __init__(self, folder):
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.deephash.forks"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.out, self.err = folder / "out", folder / "err"
        os.mkfifo(self.out)
        self.lines = None

    def start(self, *arguments, pause=0.0, file_limit=0):
        """Starts a process and returns when its main() begins."""
        task = {"arguments": [*map(str, arguments)], "pause": pause, "file_limit": file_limit}
        task |= {"out": str(self.out), "err": str(self.err)}
        self.server.stdin.write(json.dumps(task) + "\n")
        self.server.stdin.flush()
        self.pid = int(self.server.stdout.readline())
        self.lines = self.out.open()
        assert self.lines.readline() == "started\n"
        self.n_committed = 0

    def read_until(self, n_batches):
        """Reads until so many batches are committed."""
        while n_batches and (line := self.lines.readline()):
            if line.startswith("committed"):
                self.n_committed, n_batches = int(line.split()[1]), n_batches - 1

    def end(self, how=None):
        """Sends a signal, or lets the process end by itself; returns its exit code, its output and its errors."""
        if how is not None:
            with contextlib.suppress(ProcessLookupError):  # it was faster
                os.kill(self.pid, how)
        rest = self.lines.read()
        self.lines.close()
        for line in rest.splitlines():
            if line.startswith("committed"):
                self.n_committed = int(line.split()[1])
        return int(self.server.stdout.readline()), rest, self.err.read_text()

    def run(self, *arguments, **options):
        self.start(*arguments, **options)
        return self.end()

    def close(self):
        # The server's processes end with their commands; it ends with its input.
        self.server.communicate(timeout=60)


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    forks = Forks(tmp_path_factory.mktemp("forks"))
    yield forks
    forks.close()


@pytest.fixture(scope="module")
def collection(tmp_path_factory, tiny_file):
    """A folder of photographs, and the codes that an undisturbed run gives them: with the real command."""
    folder = tmp_path_factory.mktemp("durability")
    write_photos(folder / "photos", 0, N_PHOTOS)
    done = deephash("index", folder / "photos", "--index", folder / "whole.dhx", "--model", tiny_file)
    assert done.returncode == 0, done.stderr
    return folder / "photos", codes(folder / "whole.dhx")


@pytest.fixture
def command(collection, tiny_file, tmp_path):
    """The command that is interrupted and run again."""
    return ["index", collection[0], "--index", tmp_path / "a.dhx", "--model", tiny_file]


def check_valid(index, collection, at_least):
    """The index is healthy and holds the right codes of at least so many images."""
    if not index.exists():
        assert at_least == 0
        return 0
    with ImageSearch.open(index) as search:
        assert search.verify() == []
        found = {record.path: record.code for record in search.store.iterate()}
    assert len(found) >= at_least
    assert found.items() <= collection[1].items()
    return len(found)


def finish(forks, command, collection):
    """Runs the same command again: it finishes, with every image once and the codes of an undisturbed run."""
    code, _, errors = forks.run(*command)
    assert code == 0, errors
    index = Path(command[3])
    found = records(index)
    assert {path: record.code for path, record in found.items()} == collection[1]
    assert len({record.id for record in found.values()}) == N_PHOTOS
    assert check_valid(index, collection, N_PHOTOS) == N_PHOTOS


@pytest.mark.parametrize("seed", range(6))
def test_kill_9_at_random_moments_loses_no_committed_batch(forks, command, collection, tmp_path, seed):
    index, rng = tmp_path / "a.dhx", random.Random(seed)
    known = 0
    for _ in range(4):
        forks.start(*command, pause=0.02)
        # Up to a fifth of the images in each run.
        forks.read_until(rng.randint(0, 3))
        time.sleep(rng.random() * 0.05)
        code, _, _ = forks.end(signal.SIGKILL)
        assert code == -signal.SIGKILL
        known = check_valid(index, collection, known + forks.n_committed)
        if index.exists():
            # The lock is free, and an index that has lost nothing says so to the next writer too.
            with Store.open(index, writable=True) as store:
                assert len(store) == known
    finish(forks, command, collection)


def test_kill_9_while_the_index_is_being_made_leaves_all_or_nothing(forks, command, collection, tmp_path):
    index, rng = tmp_path / "a.dhx", random.Random(9)
    outcomes = set()
    for _ in range(25):
        forks.start(*command, pause=1)
        time.sleep(rng.random() * 0.12)
        forks.end(signal.SIGKILL)
        check_valid(index, collection, forks.n_committed)
        outcomes.add(index.exists())
        shutil.rmtree(index, ignore_errors=True)
    finish(forks, command, collection)


@pytest.mark.parametrize("seed", range(4))
def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(forks, command, collection, tmp_path, seed):
    rng = random.Random(seed)
    forks.start(*command, pause=0.02)
    forks.read_until(rng.randint(1, 9))
    time.sleep(rng.random() * 0.05)
    code, _, errors = forks.end(signal.SIGINT)
    assert code == 130, errors
    assert "Traceback" not in errors
    n_images = check_valid(tmp_path / "a.dhx", collection, forks.n_committed)
    assert f"interrupted: the index holds {n_images} images; the same call goes on from there" in errors
    code, out, _ = forks.run(*command, "--json")
    report = json.loads(out.splitlines()[-1])
    assert (code, report["unchanged"], report["decoded"]) == (0, n_images, N_PHOTOS - n_images)
    finish(forks, command, collection)


def test_ctrl_c_before_anything_is_indexed_is_no_traceback_either(forks, command, collection, tmp_path):
    rng = random.Random(3)
    for _ in range(20):
        forks.start(*command, pause=1)
        time.sleep(0.005 + rng.random() * 0.12)
        code, _, errors = forks.end(signal.SIGINT)
        # Python may end itself by the signal where an eval() was interrupted; a shell sees 130 either way.
        assert code in (130, -signal.SIGINT), errors
        assert "Traceback" not in errors
        assert "deephash: " not in errors
        check_valid(tmp_path / "a.dhx", collection, forks.n_committed)
        shutil.rmtree(tmp_path / "a.dhx", ignore_errors=True)
        # Nothing half-made is left beside it.
        assert list(tmp_path.iterdir()) == []


def test_an_interrupt_that_became_an_error_is_an_interrupt(capsys):
    @reports_errors
    def command():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            # As torch does, in the middle of a conversion.
            raise TypeError("could not determine the shape of object type 'torch.storage.UntypedStorage'") from None

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(TypeError):
        reports_errors(lambda: len(5))()


def test_sigterm_ends_it_and_loses_nothing(forks, command, collection, tmp_path):
    forks.start(*command, pause=0.01)
    forks.read_until(3)
    code, _, errors = forks.end(signal.SIGTERM)
    assert code == -signal.SIGTERM
    assert "Traceback" not in errors
    assert forks.n_committed >= 96
    check_valid(tmp_path / "a.dhx", collection, forks.n_committed)
    finish(forks, command, collection)


def assert_one_sentence_about_a_full_disk(code, errors):
    assert code == 1, errors
    assert "Traceback" not in errors
    sentences = [line for line in errors.splitlines() if line.startswith("deephash: ")]
    assert len(sentences) == 1
    assert "the disk is full" in sentences[0]
    assert "free space and run again" in sentences[0]


def test_a_full_disk_keeps_the_batches_before_it(forks, command, collection, tiny_file, tmp_path):
    some = sorted(collection[1])[:40]
    forks.run("index", *some, "--index", tmp_path / "a.dhx", "--model", tiny_file)
    code, _, errors = forks.run(*command, file_limit=200_000)
    assert_one_sentence_about_a_full_disk(code, errors)
    assert forks.n_committed > 0
    assert check_valid(tmp_path / "a.dhx", collection, 40 + forks.n_committed) < N_PHOTOS
    finish(forks, command, collection)


def test_no_room_for_a_new_index_leaves_nothing(forks, command, tmp_path):
    for n_bytes in (10_000, 300_000):
        code, _, errors = forks.run(*command, file_limit=n_bytes)
        assert_one_sentence_about_a_full_disk(code, errors)
        assert list(tmp_path.iterdir()) == []


def test_ctrl_c_is_not_lost_in_a_destructor():
    class Late:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    @reports_errors
    def command():
        press_dropped_ctrl_c_again()
        late = Late()
        del late  # Python drops what is raised here
        time.sleep(30)

    hook = sys.unraisablehook
    try:
        with pytest.raises(typer.Exit) as caught:
            command()
    finally:
        sys.unraisablehook = hook
    assert caught.value.exit_code == 130


def test_an_interrupt_that_became_an_error_before_a_command_begins_is_one_too():
    class PressesCtrlC:
        def __set_name__(self, owner, name):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(SystemExit) as caught, interrupts_end_the_program():
        # Python 3.11 makes a RuntimeError of it; it happens while the libraries of the command line are imported.
        class _Imported:
            name = PressesCtrlC()

    assert caught.value.code == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_before_a_command_begins_stays_one():
    with pytest.raises(RuntimeError, match="broken"), interrupts_end_the_program():
        raise RuntimeError("broken")
