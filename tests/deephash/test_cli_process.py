"""The installed command as a real process: streams, pipes, signals, encodings, what start-up loads, file names."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from index import Store
from tests.deephash.command_line import make_collection, run
from tests.deephash.photos import pixels_of, python, write_photos

DEEPHASH = Path(sys.executable).with_name("deephash")
# Output in blocks, as users have it: what fails may fail as late as Python's own end.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
ODD_NAMES = [b"caf\xe9.png", b"new\nline.png", b"tab\t.png", b"\x1b[31mred.png", "日本語 😀.png".encode()]


@pytest.fixture(scope="module")
def collection(tmp_path_factory, tiny_file):
    """As elsewhere, with file names that are not UTF-8, hold newlines, tabs and terminal codes."""
    folder = tmp_path_factory.mktemp("process")
    (folder / "photos" / "odd").mkdir(parents=True)
    for number, name in enumerate(ODD_NAMES):
        source = write_photos(folder / "source", 50 + number, 51 + number)[0]
        shutil.copy(os.fsencode(source), os.path.join(os.fsencode(folder), b"photos/odd", name))
    return make_collection(folder, tiny_file)


def deephash(*arguments, **environment):
    return subprocess.run(
        [DEEPHASH, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        timeout=60,
    )


# --- Start-up ---


def test_help_needs_no_heavy_library():
    code = (
        "import sys; sys.argv = ['deephash', '--help']\nfrom deephash.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert end.code == 0\n"
        "print(sorted({'torch', 'faiss', 'timm', 'numpy', 'PIL', 'sqlite3'} & set(sys.modules)))"
    )
    done = python(code)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["info", "{index}"], {"torch", "timm"}),
        (["models"], {"torch", "timm", "PIL", "faiss"}),
        (["query", "{index}", "--id", "1", "--json"], {"torch", "timm"}),
        (["export", "{index}"], {"torch", "timm"}),
        (["duplicates", "{index}"], {"torch", "timm"}),
        (["index", "{photos}", "-i", "{index}"], {"torch", "timm"}),
    ],
)
def test_commands_load_what_they_need(collection, arguments, unwanted):
    words = [word.format(**vars(collection)) for word in arguments]
    code = (
        "import sys\nfrom deephash.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert end.code == 0, end.code\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.decode().split())
    assert "deephash.cli" in loaded
    assert loaded & unwanted == set()


# --- Streams ---


def test_results_are_on_stdout_and_the_rest_on_stderr(collection, tmp_path):
    shutil.copytree(collection.index, tmp_path / "a.dhx")
    (tmp_path / "photos").mkdir()
    done = deephash("query", tmp_path / "a.dhx", "--id", 1, "--json", "--html", tmp_path / "a.html")
    assert done.returncode == 0
    assert list(json.loads(done.stdout)) == ["query_id", "matches"]
    assert done.stderr.decode() == f"contact sheet: {tmp_path}/a.html\n"


@pytest.mark.parametrize("command", ["export", "info"])  # more and less than a block
def test_a_reader_that_leaves_early_ends_the_command_quietly(collection, command):
    done = subprocess.run(
        ["bash", "-c", f'"{DEEPHASH}" {command} "{collection.index}" | true; echo "${{PIPESTATUS[0]}}"'], env=BUFFERED,
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout == "141\n"


@pytest.mark.parametrize("command", ["export", "info"])
def test_a_full_disk_behind_stdout_is_one_sentence(collection, command):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with open("/dev/full", "wb") as full:
        done = subprocess.run([DEEPHASH, command, collection.index], env=BUFFERED, stdout=full, stderr=-1, check=False)
    assert done.returncode == 1
    assert done.stderr == b"deephash: no space left on device\n"


def test_ctrl_c_ends_with_130_and_keeps_what_is_done(collection, tmp_path):
    index = shutil.copytree(collection.index, tmp_path / "a.dhx")
    code = (
        "from deephash import cli, indexing\nreal = indexing.ImageSearch.open\n"
        "def opened(*arguments, **options):\n    print('ready', flush=True)\n    return real(*arguments, **options)\n"
        "indexing.ImageSearch.open = opened\ncli.main()"
    )
    with Store.open(index, writable=True):  # so that the command waits
        words = ["index", collection.photos, "-i", index, "--wait", "50"]
        waiting = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert waiting.stdout.readline() == b"ready\n"
        waiting.send_signal(signal.SIGINT)
        stdout, stderr = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert stdout == b""
    assert re.fullmatch(rb"interrupted: nothing was changed; [^\n]*\n", stderr), stderr
    assert deephash("verify", index).returncode == 0


def drawn(*arguments):
    """Runs a command in a wide pseudo-terminal without colours and returns what it draws, both streams, as text."""
    main, side = pty.openpty()
    environment = {**os.environ, "COLUMNS": "250", "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen([DEEPHASH, *map(str, arguments)], stdout=side, stderr=side, env=environment)
    os.close(side)
    pieces = []
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:
            break
        if not piece:
            break
        pieces.append(piece)
    process.wait(timeout=60)
    os.close(main)
    text = b"".join(pieces).decode("utf-8")
    assert "\x1b[3" not in text.replace("\x1b[3m", "")  # italics are ours, colours would be a file name's
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_terminal_sees_a_table_and_a_bar_that_ends_full(collection, tmp_path, tiny_file):
    table = drawn("query", collection.index, "--id", 1, "-k", 99)
    assert re.search(r"id 1 *\r\n", table)
    assert re.search(r"distance +id +label +path", table)
    for name in (r"caf\xe9.png", r"new\nline.png", r"tab\t.png", r"\x1b[31mred.png", "日本語 😀.png"):
        assert name in table
    empty = drawn("query", collection.index, "--id", 1, "--label", "unicorn")
    assert empty == "id 1: no match\r\n"
    bar = drawn("index", collection.photos, "-i", tmp_path / "b.dhx", "--model", tiny_file)
    n_images = collection.n_images + len(ODD_NAMES)
    assert "starting" in bar
    assert re.search(rf"indexing .*{n_images}/{n_images}", bar)
    assert f"b.dhx: {n_images} images; " in bar
    without_label = drawn("query", tmp_path / "b.dhx", "--id", 1)
    assert "path" in without_label
    assert "label" not in without_label


# --- File names and encodings ---


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, {"PYTHONUTF8": "1"}],
)
def test_every_name_survives_every_encoding(collection, environment):
    done = deephash("query", collection.index, "--id", 1, "-k", 99, "--json", **environment)
    assert done.returncode == 0, done.stderr
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
    (line,) = done.stdout.decode(encoding).splitlines()
    paths = {
        bytes.fromhex(match["path_hex"]) if "path_hex" in match else match["path"].encode()
        for match in json.loads(line)["matches"]
    }
    assert {os.path.join(os.fsencode(collection.photos), b"odd", name) for name in ODD_NAMES} <= paths
    table = deephash("query", collection.index, "--id", 1, "-k", 99, **environment)
    assert table.returncode == 0
    assert len(table.stdout.splitlines()) == 1 + len(paths)
    exported = deephash("export", collection.index, **environment).stdout.decode(encoding).splitlines()
    hexes = [json.loads(line).get("path_hex") for line in exported]
    assert [bytes.fromhex(text).rpartition(b"/")[2] for text in hexes if text] == [b"caf\xe9.png"]
    csv = deephash("export", collection.index, "--format", "csv", **environment)
    assert csv.returncode == 0


def test_query_images_of_every_name(collection, tmp_path):
    images = [os.fsdecode(os.path.join(os.fsencode(collection.photos), b"odd", name)) for name in ODD_NAMES]
    sheets = ["--html", tmp_path / "a.html", "--png", tmp_path / "a.png"]
    done = run("query", collection.index, *images, "-k", 1, *sheets)
    assert done.exit_code == 0
    heads = [line for line in done.stdout.splitlines() if line.startswith("#")]
    assert heads[0].endswith(r"/odd/caf\xe9.png")
    assert heads[1].endswith(r"/odd/new\nline.png")
    page = (tmp_path / "a.html").read_text("utf-8")
    assert page.count("<img ") == 2 * len(ODD_NAMES)
    assert r"<figcaption>caf\xe9.png</figcaption>" in page
    assert "/odd/caf%E9.png" in page
    assert "\x1b" not in page


def test_a_label_that_is_not_utf8_is_json_all_the_same(tmp_path, tiny_file):
    folder = os.path.join(os.fsencode(tmp_path), b"l\xe9")
    Path(os.fsdecode(folder)).mkdir()
    for number in range(2):
        Image.fromarray(pixels_of(number)).save(
            os.path.join(folder, b"%d.png" % number).decode("utf-8", "surrogateescape")
        )
    index = tmp_path / "a.dhx"
    assert run("index", os.fsdecode(folder), "-i", index, "--model", tiny_file, "--folder-labels").exit_code == 0
    done = deephash("query", index, "--id", 1, "--json")
    assert done.returncode == 0, done.stderr
    (match,) = json.loads(done.stdout)["matches"]
    assert match["label"].startswith("l")
    assert deephash("export", index, "--format", "csv").returncode == 0
