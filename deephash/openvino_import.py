"""The one place where openvino is imported."""

import importlib
import sys
import threading
from types import ModuleType

__all__ = ["import_openvino"]

_TELEMETRY = "openvino_telemetry"

_importing = threading.Lock()
_imported: ModuleType | None = None


def import_openvino() -> ModuleType:
    """Returns openvino, which would report its import, and what is converted, to a server of its makers.

    It goes without ``openvino_telemetry`` where that is not installed: for as long as the import takes, it is not.

    Raises:
        ImportError: it is not installed, or not for this system.
    """
    global _imported
    with _importing:
        if _imported is None:
            openvino = _import_without_telemetry()
            # Its table of NumPy's types is made at the first use, in calls of Python, which let other threads run. One
            # that comes to the table meanwhile would wait for it, and keep Python's lock from the one that makes it.
            openvino.Type.u8.to_dtype()
            _imported = openvino
        return _imported


def _import_without_telemetry() -> ModuleType:
    had = _TELEMETRY in sys.modules
    before = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's own way to say that there is none
    try:
        return importlib.import_module("openvino")
    finally:
        if had:
            sys.modules[_TELEMETRY] = before  # type: ignore[assignment]
        else:
            del sys.modules[_TELEMETRY]
