"""How the command line ends: exit codes, and errors as one sentence on stderr."""

import _thread
import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

import typer

from .paths import display_path, printable
from .terminal import note

__all__ = [
    "EXIT_CODES_HELP",
    "EXIT_INCOMPLETE",
    "interrupts_end_the_program",
    "press_dropped_ctrl_c_again",
    "reports_errors",
    "usage_error",
]

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

        ctrl_c = _CtrlC()
        try:
            with _noticing(ctrl_c) as ctrl_c:
                command(*args, **options)
                sys.stdout.flush()  # a full disk or a closed pipe is told here, not by Python on its way out
        except KeyboardInterrupt as interrupt:
            note(str(interrupt) or "interrupted")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            _discard_stdout()
            raise typer.Exit(EXIT_PIPE_CLOSED) from None
        except (DeepHashError, OSError, ValueError, TypeError, RuntimeError) as error:
            if os.environ.get("DEEPHASH_DEBUG") or isinstance(error, typer.Exit):
                raise
            if ctrl_c.pressed:
                note("interrupted")
                raise typer.Exit(EXIT_INTERRUPTED) from None
            if not isinstance(error, DeepHashError | OSError | ValueError):
                raise
            _fail(_sentence(error))

    return wrapped


@contextlib.contextmanager
def interrupts_end_the_program() -> Iterator[None]:
    """Ends the program by Ctrl-C before a command has begun, while it is parsed; within commands, they say more."""
    ctrl_c = _CtrlC()
    try:
        with _noticing(ctrl_c):
            yield
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except Exception:
        # Python itself makes a RuntimeError of an interrupt in __set_name__, where a class is made in an import.
        if os.environ.get("DEEPHASH_DEBUG") or not ctrl_c.pressed:
            raise
        sys.exit(EXIT_INTERRUPTED)


class _CtrlC:
    """A handler of SIGINT that notes it: C++ in torch turns a KeyboardInterrupt into errors of its own."""

    def __init__(self) -> None:
        self.pressed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        raise KeyboardInterrupt


@contextlib.contextmanager
def _noticing(ctrl_c: _CtrlC) -> Iterator[_CtrlC]:
    """Handles SIGINT by ``ctrl_c``, or by one that is there already; yields the one that does."""
    # Not in a thread, not where interrupts are ignored (nohup) or somebody else's.
    handler = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or handler is not signal.default_int_handler:
        yield handler if isinstance(handler, _CtrlC) else ctrl_c
        return
    signal.signal(signal.SIGINT, ctrl_c)
    try:
        yield ctrl_c
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def press_dropped_ctrl_c_again() -> None:
    """Interrupts again where a KeyboardInterrupt fell into a destructor or a call from C, where Python drops them."""
    previous_hook = sys.unraisablehook

    def hook(dropped: "sys.UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            previous_hook(dropped)
            return
        timer = threading.Timer(0.02, _thread.interrupt_main)  # at once, it would fall into the same call
        timer.daemon = True
        timer.start()

    sys.unraisablehook = hook


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
