"""Runs the command line in this process, and makes the collection that its tests ask."""

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from deephash.cli import app
from tests.deephash.photos import write_photos

N_PHOTOS = 30


@dataclass(frozen=True)
class Collection:
    """30 photographs in labelled folders and a copy of the first, indexed by 64 bits; ``cat`` is a query image."""

    folder: Path
    photos: Path
    index: Path
    cat: Path
    n_images: int = N_PHOTOS + 1


def make_collection(folder: Path, model: Path) -> Collection:
    first, *_ = write_photos(folder / "photos", 0, N_PHOTOS)
    shutil.copy(first, first.with_name("copy of it.png"))
    cat = write_photos(folder, 40, 41)[0]
    made = Collection(folder, folder / "photos", folder / "photos.dhx", cat)
    done = run("index", made.photos, "--index", made.index, "--model", model, "--folder-labels")
    assert done.exit_code == 0, done.output
    return made


def run(*arguments, **environment):
    """Invokes a command; an exception that is not an exit is raised."""
    result = CliRunner(env=environment).invoke(
        app, [os.fspath(a) if isinstance(a, Path) else str(a) for a in arguments]
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def lines(*arguments):
    """Invokes a command with --json and returns the values of its lines."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def one_sentence(result):
    """Returns the one line that a failed command says."""
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert re.match(r"deephash: \S", line)
    assert "Traceback" not in line
    assert "Errno" not in line
    return line


def lines_of(result):
    """Returns the values of a command's lines of JSON."""
    return [json.loads(line) for line in result.stdout.splitlines()]
