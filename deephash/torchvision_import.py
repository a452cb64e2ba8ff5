"""The one place where torchvision is imported: ``torchvision = import_torchvision()``.

PyPI's torchvision for Linux is built for CUDA. Beside a CPU build of torch its C++ operators do not load, and
``import torchvision`` (so also ``import timm``) dies because the schema of ``nms`` is not declared. We need none of
those operators: declare the two schemas that torchvision's Python files refer to, and import again.
"""

import importlib
import sys
from types import ModuleType

_MISSING_OPERATOR = "operator torchvision::nms does not exist"
_libraries: list[object] = []  # a torch.library.Library takes its schemas with it when it is collected


def import_torchvision() -> ModuleType:
    """Returns the module ``torchvision``, also when its compiled operators do not match torch's build."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if _MISSING_OPERATOR not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    from torch.library import Library

    library = Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
    return importlib.import_module("torchvision")


def import_timm() -> ModuleType:
    """Returns the module ``timm``, which imports torchvision itself."""
    import_torchvision()
    return importlib.import_module("timm")
