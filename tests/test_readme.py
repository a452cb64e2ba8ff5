"""Every block of README.md runs, in the order of the page, on real images; its tables are those of the raw results."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.tables import fill_tables
from deephash.samples import load_cifar10_sample

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"(<!-- setup -->\n)?```(\w+)\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README's reader has it: photos/, with cats of 2024, and two query images."""
    folder = tmp_path_factory.mktemp("readme")
    sample = load_cifar10_sample()
    (folder / "photos" / "2024").mkdir(parents=True)
    for number in range(204):
        Image.fromarray(sample.database_images[number]).save(folder / "photos" / "2024" / f"{number:03}.png")
    for number in range(24):
        path = folder / "by-class" / str(sample.class_names[number % 3]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.database_images[sample.database_labels == number % 3][number]).save(path)
    for name, number in (("cat", 0), ("dog", 1)):
        Image.fromarray(sample.query_images[number]).save(folder / f"{name}.jpg")
    return folder


DEEPHASH = [sys.executable, "-c", "from deephash.cli import main; main()"]


@pytest.fixture
def served(folder: Path) -> Iterator[Callable[[list[str]], str]]:
    """A function that runs `deephash serve` until the test ends, on a free port, and returns its address."""
    processes = []

    def serve(words: list[str]) -> str:
        command = [*DEEPHASH, *words, "--port", "0"]
        processes.append(subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout is not None
        return processes[-1].stdout.readline().partition("/#token=")[0]

    yield serve
    for process in processes:
        process.terminate()
        assert process.wait(timeout=40) == 0


def test_shell_and_python_blocks_run(folder: Path, served: Callable[[list[str]], str]) -> None:
    n_run, address = 0, ""
    for setup, language, text in BLOCKS:
        if language == "sh" and not setup:
            for line in text.splitlines():
                words = shlex.split(line.replace("http://127.0.0.1:8000", address), comments=True)
                assert words[0] in ("deephash", "curl")
                n_run += 1
                if words[:2] == ["deephash", "serve"]:
                    address = served(words[1:])
                elif words[0] == "deephash" or shutil.which("curl"):
                    command = [*DEEPHASH, *words[1:]] if words[0] == "deephash" else [words[0], "-sSf", *words[1:]]
                    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
                    assert run.returncode == 0, f"{line}\n{run.stderr}"
        elif language == "python":
            block = text.replace("http://127.0.0.1:8000", address or "http://127.0.0.1:8000")
            run = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, check=False)
            assert run.returncode == 0, f"{block}\n{run.stderr}"
            n_run += 1
    assert n_run >= 17
    assert address.startswith("http://127.0.0.1:")
    for written in ("cats.html", "cats.png", "copies.html", "photos.csv"):
        assert (folder / written).stat().st_size > 0


def test_setup_commands_are_the_two_that_ci_runs() -> None:
    blocks = [block for setup, _, block in BLOCKS if setup]
    assert len(blocks) == 1
    commands = blocks[0].splitlines()
    assert len(commands) == 2
    assert all("-c constraints.txt" in command for command in commands)
    assert commands[0].endswith("deephash demo")
    assert "pytest" in commands[1]


def test_tables_are_generated() -> None:
    assert fill_tables(TEXT) == TEXT


def test_first_forty_lines_show_what_it_is() -> None:
    head = "\n".join(TEXT.splitlines()[:40])
    assert "<img" in head
    assert "<!-- setup -->" in head
    assert "```python" in head
    assert "| P@10 / mAP |" in head


def test_local_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)|src=\"(?!http)([^\"]+)\"", TEXT)
    assert links
    for link in (a or b for a, b in links):
        assert (README.parent / link).exists(), link
