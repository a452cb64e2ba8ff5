"""What is drawn without a terminal, and the pieces that a terminal's drawing is made of."""

import io
import json
import re
import sys

import pytest

from deephash import terminal
from deephash.json_lines import path_fields, write_json_line
from deephash.paths import display_path, printable, utf8_path
from deephash.progress import Progress
from deephash.terminal import counted, print_facts, print_skipped, print_table, progress_bar, size_text
from index import Skipped


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (9 << 40, "9216.0 GiB")],
)
def test_sizes(n_bytes, text):
    assert size_text(n_bytes) == text


def test_counts_with_their_nouns():
    assert counted(1, "image") == "1 image"
    assert counted(0, "image") == "0 images"
    assert counted(1200, "copy", "copies") == "1,200 copies"


def test_a_table_in_a_pipe_has_a_line_for_each_row(capsys):
    print_table(("a", "b"), [(1, "x\ny"), (None, "\t\x1b[31m\u2028\x9b\u202e")], title="no title here")
    assert capsys.readouterr().out == "a\tb\n1\tx\\ny\nNone\t\\t\\x1b[31m\\u2028\\x9b\\u202e\n"


def test_facts_stay_on_their_lines(capsys):
    print_facts({"a": 1, "long": "x\ny"})
    assert capsys.readouterr().out == "a     1\nlong  x\\ny\n"


def test_skipped_files_go_to_stderr(capsys):
    print_skipped([])
    print_skipped([Skipped("/a\nb.png", "is empty")])
    assert capsys.readouterr() == ("", "1 file skipped:\n  /a\\nb.png: is empty\n")


def test_paths_for_people_and_for_programs():
    odd = "/caf\udce9\n"
    assert utf8_path(odd) == "/caf\\xe9\n"
    assert display_path(odd) == "/caf\\xe9\\n"
    assert printable("a\udce9\rb é 日本") == "a\\udce9\\rb é 日本"
    assert path_fields("/é\n") == {"path": "/é\n"}
    assert path_fields(odd) == {"path": "/caf\\xe9\n", "path_hex": "2f636166e90a"}


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "utf8"])
def test_json_can_be_read_back_from_every_encoding(encoding):
    value = {"é": "日本 😀\n", "odd": "\udce9"}
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    write_json_line(file, value)
    write_json_line(file, 1)
    file.flush()
    first, second = raw.getvalue().decode(encoding).splitlines()
    assert json.loads(first) == value
    assert second == "1"
    assert ("é" in first) == encoding.startswith("utf")


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(terminal, "time", clock)
    return clock


def test_without_a_terminal_progress_is_a_line_now_and_then_with_rate_and_time_left(clock, capsys):
    with progress_bar() as on_progress:
        for step in range(41):
            on_progress(Progress("encode", 32 + step * 100, 6032))
            clock.now += 1
        on_progress(Progress("encode", 6032, 6032))
    assert capsys.readouterr().err.splitlines() == [
        "indexing: 1,032 of 6,032 (100 images/s, 50 s left)",
        "indexing: 2,032 of 6,032 (100 images/s, 40 s left)",
        "indexing: 3,032 of 6,032 (100 images/s, 30 s left)",
        "indexing: 4,032 of 6,032 (100 images/s, 20 s left)",
        "indexing: 6,032 of 6,032 (146 images/s)",
    ]


def test_a_stage_that_is_done_at_once_has_no_rate(clock, capsys):
    with progress_bar() as on_progress:
        on_progress(Progress("fit", 10, 10))
        on_progress(Progress("encode", 3, 3))
    assert capsys.readouterr().err == "reading a sample: 10 of 10\nindexing: 3 of 3\n"


def test_a_quiet_bar_says_nothing(capsys):
    with progress_bar(quiet=True) as on_progress:
        on_progress(Progress("encode", 1, 1))
    assert capsys.readouterr() == ("", "")


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_the_bar_shows_stage_count_rate_and_time_left(monkeypatch, clock):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress_bar() as on_progress:
        on_progress(Progress("encode", 32, 1032))
        clock.now += 10
        on_progress(Progress("encode", 532, 1032))
    text = screen.getvalue()
    assert re.search(r"starting\W+\r?\n?", text)
    assert "?" not in re.sub(r"\x1b\[\?", "", text)
    last = [line for line in text.replace("\r", "\n").splitlines() if "532" in line][-1]
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", last)
    assert re.search(r"indexing .* 532/1,032 +50 images/s \d:\d\d:\d\d", last)
    assert "starting" not in last


def test_on_a_terminal_empty_columns_and_empty_tables_are_left_out(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "80")
    print_table(("id", "label", "path"), [], title="nothing")
    assert screen.getvalue() == ""
    print_table(("id", "label", "path"), [(1, "", "[bold]a[/bold]\n"), (22, "", "b")], title="[red]t", right="id")
    text = screen.getvalue()
    assert "label" not in text
    assert "[bold]a[/bold]\\n" in text
    assert "[red]t" in text
    assert " 22 " in text
    assert "  1 " in text
