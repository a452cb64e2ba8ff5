"""Writes a benchmark's raw result as JSON, with what is needed to read it later: config, versions, machine, commit."""

import datetime
import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from deephash.machine import count_processors, has_bf16_instructions

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "timm", "openvino", "onnxruntime", "faiss-cpu", "numpy", "Pillow")


def write_result(name: str, *, config: dict[str, Any], numbers: Any) -> Path:
    """Writes ``results/NAME.json`` and returns its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"benchmark": name, "config": config, "conditions": conditions(), "numbers": numbers}
    path.write_text(json.dumps(content, indent=1, sort_keys=False) + "\n", encoding="utf-8")
    return path


def name_here(name: str) -> str:
    """Returns the name of a result whose numbers hang on what the encoder computes in: NAME, or NAME-bf16."""
    return f"{name}-bf16" if has_bf16_instructions() else name


def load_numbers(name: str) -> Any:
    """Returns what was measured, or None when it was not."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["numbers"] if path.exists() else None


def conditions() -> dict[str, Any]:
    """Returns the time, the machine, the versions and the commit of a run."""
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "instructions": _instructions(),
        "cores": count_processors(),
        "gpu": _gpu(),
        "python": platform.python_version(),
        "packages": {package: found for package in _PACKAGES if (found := _version(package))},
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # what a benchmark does not need
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _gpu() -> str | None:
    """Returns the name of the GPU that torch computes on, if it does."""
    import torch  # what measures no network starts without it

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _instructions() -> list[str]:
    """Returns the vector instructions of the processor on which speeds hang most; none where nobody says."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return []
    return sorted(flags & {"avx2", "avx512f", "avx512_vpopcntdq", "avx512_vnni", "avx512_bf16", "amx_bf16"})


def _commit() -> str:
    run = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return run.stdout.strip() or "unknown"
