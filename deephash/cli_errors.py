"""How the command line ends: exit codes, and errors as one sentence on stderr."""

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from .paths import display_path, printable
from .terminal import note

__all__ = ["EXIT_CODES_HELP", "EXIT_INCOMPLETE", "reports_errors", "usage_error"]

EXIT_FAILED, EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_PIPE_CLOSED = 1, 3, 130, 141
EXIT_CODES_HELP = (
    "Exit codes: 0 done; 1 failed, with one sentence why; 2 wrong usage; 3 done, but some files were skipped or "
    "problems were found; 130 interrupted (what was done is kept); 141 the reader of a pipe left early. "
    "DEEPHASH_DEBUG=1 shows tracebacks."
)


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turns errors that a user can mend into one sentence on stderr and an exit code."""

    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> None:
        from index.errors import DeepHashError

        try:
            command(*args, **options)
            sys.stdout.flush()  # a full disk or a closed pipe is told here, not by Python on its way out
        except KeyboardInterrupt as interrupt:
            note(str(interrupt) or "interrupted")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            _discard_stdout()
            raise typer.Exit(EXIT_PIPE_CLOSED) from None
        except (DeepHashError, OSError, ValueError) as error:
            if os.environ.get("DEEPHASH_DEBUG"):
                raise
            _fail(_sentence(error))

    return wrapped


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        why = os.strerror(error.errno).lower()
        if error.filename is None:
            return why
        return f"cannot use {display_path(os.fsdecode(error.filename))}: {why}"  # fsdecode: it may be bytes
    return str(error) or type(error).__name__


def _fail(message: str) -> NoReturn:
    _discard_unwritten()
    note(f"deephash: {printable(' '.join(message.split()))}")
    raise typer.Exit(EXIT_FAILED)


def _discard_unwritten() -> None:
    """Keeps Python from failing once more on its way out where stdout has failed, on a full disk for example."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard_stdout()


def _discard_stdout() -> None:
    with contextlib.suppress(OSError):  # a replaced stream has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def usage_error(message: str) -> NoReturn:
    """Ends the command with exit code 2, its usage and ``message``."""
    raise typer.BadParameter(message)
