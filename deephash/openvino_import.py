"""The one place where openvino is imported."""

import contextlib
import importlib
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

__all__ = ["import_openvino"]

_CONVERTER, _TELEMETRY = "openvino.tools.ovc", "openvino_telemetry"

_importing = threading.Lock()
_imported: ModuleType | None = None


def import_openvino() -> ModuleType:
    """Returns openvino, whose ``convert_model`` is imported at its first use: it takes as long as all the rest.

    It would report its import, and what is converted, to a server of its makers: for as long as it is imported,
    ``openvino_telemetry`` is not installed, without which it goes as well.

    Raises:
        ImportError: it is not installed, or not for this system.
    """
    global _imported
    with _importing:
        if _imported is None:
            with _not_installed(_CONVERTER):
                openvino = importlib.import_module("openvino")
            if not hasattr(openvino, "convert_model"):
                vars(openvino)["__getattr__"] = _imported_late  # PEP 562; whoever else imports openvino has it too
            # Its table of NumPy's types is made at the first use, in calls of Python, which let other threads run. One
            # that comes to the table meanwhile would wait for it, and keep Python's lock from the one that makes it.
            openvino.Type.u8.to_dtype()
            _imported = openvino
        return _imported


def _imported_late(name: str) -> Any:
    if name != "convert_model":
        raise AttributeError(f"module 'openvino' has no attribute {name!r}")
    with _importing, _not_installed(_TELEMETRY):
        return importlib.import_module(_CONVERTER).convert_model


@contextlib.contextmanager
def _not_installed(name: str) -> Iterator[None]:
    had = name in sys.modules
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # Python's own way to say that there is none
    try:
        yield
    finally:
        if had:
            sys.modules[name] = before  # type: ignore[assignment]
        else:
            del sys.modules[name]
