"""The compiled kernel, turned on and off."""

import pytest

import index.kernel

KERNEL = index.kernel._kernel
needs_kernel = pytest.mark.skipif(KERNEL is None, reason="needs the compiled kernel")


def use_kernel(monkeypatch, wanted):
    """Has the kernel used, if it is there and wanted; else all goes without it."""
    compiled = wanted and KERNEL is not None
    monkeypatch.setattr(index.kernel, "AVAILABLE", compiled)
    monkeypatch.setattr(index.kernel, "_kernel", KERNEL if compiled else None)
