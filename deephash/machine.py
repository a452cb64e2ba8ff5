"""What this machine computes with, asked of the system alone: loading torch to ask it would take seconds."""

from __future__ import annotations

import functools
import os
import platform
import sys
from pathlib import Path

__all__ = ["count_cores", "count_processors", "has_bf16_instructions", "may_have_gpu", "processor"]

_GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""What the drivers of NVIDIA, of Windows beneath WSL and of AMD make."""

_CPU_INFO = "/proc/cpuinfo"
_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
# What tells kinds of processors apart; the other lines of /proc/cpuinfo say how one is doing (its clock).
_OF_A_KIND = (
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU implementer", "CPU part",
)  # fmt: skip


def may_have_gpu() -> bool:
    """Returns False where torch can see no GPU for sure: on Linux, without the device of a driver, or with all hidden.

    ``CUDA_VISIBLE_DEVICES`` hides those of NVIDIA and of AMD when it is empty, or -1.
    """
    if sys.platform != "linux":
        return True
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    return not hidden and any(map(os.path.exists, _GPU_DEVICES))


def has_bf16_instructions() -> bool:
    """Returns whether the processor computes in bfloat16: AVX512-BF16 or AMX. Other systems than Linux ask torch."""
    if sys.platform == "linux":
        return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_cpu_info().get("flags", "").split())
    import torch

    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # which older versions of torch lack
    return any(map(capabilities.get, ("avx512_bf16", "amx_bf16")))


def processor() -> str:
    """Returns what kind of processor this is, with what it can do: text that another kind does not have."""
    facts = _cpu_info()
    known = [facts[name] for name in _OF_A_KIND if name in facts]
    return " | ".join(known) or platform.processor() or platform.machine()


def count_processors() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_cores() -> int:
    """Returns how many threads compute best, as torch counts: ``$OMP_NUM_THREADS``, or else the cores for this process.

    Two processors may be one core. Other systems than Linux ask torch.
    """
    wish = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if wish.isdecimal() and int(wish) > 0:
        return int(wish)
    if sys.platform != "linux":
        import torch

        return torch.get_num_threads()
    try:
        return len({Path(_TOPOLOGY.format(number)).read_text() for number in os.sched_getaffinity(0)})
    except OSError:  # hidden from a container
        return count_processors()


@functools.cache
def _cpu_info() -> dict[str, str]:
    """Returns what Linux says of the first processor."""
    try:
        first = Path(_CPU_INFO).read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
