"""The one place where openvino is imported."""

import importlib
import sys
from types import ModuleType

__all__ = ["import_openvino"]

_TELEMETRY = "openvino_telemetry"


def import_openvino() -> ModuleType:
    """Returns openvino, which would report its import, and what is converted, to a server of its makers.

    It goes without ``openvino_telemetry`` where that is not installed: for as long as the import takes, it is not.

    Raises:
        ImportError: it is not installed, or not for this system.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
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
