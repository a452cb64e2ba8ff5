"""The store as a server uses it: connections for reading apart from the one that writes, so that none waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index import Store

__all__ = ["Stores"]


class Stores:
    """One store, opened up to three times.

    ``quick`` answers what takes milliseconds; ``patient`` what may take seconds (filters, copies, listings), so that
    the quick need not wait for it; `writing` gives the one that writes, opened while somebody needs it: between
    writes, other processes may write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.quick = Store.open(folder)
        self._patient: Store | None = None
        self._opening = threading.Lock()
        self._writer: Store | None = None
        self._n_writers = 0
        self._writers = threading.Lock()

    @property
    def patient(self) -> Store:
        """For what may take seconds; opened at first use."""
        with self._opening:
            if self._patient is None:
                self._patient = Store.open(self.folder)
            return self._patient

    @contextmanager
    def writing(self, *, timeout: float = 0.0) -> Iterator[Store]:
        """Yields the store that writes; any number of threads share it.

        Raises:
            StoreLocked: another process is writing, and did not end within ``timeout`` seconds.
        """
        with self._writers:
            if self._writer is None:
                self._writer = Store.open(self.folder, writable=True, timeout=timeout)
            store = self._writer
            self._n_writers += 1
        try:
            yield store
        finally:
            with self._writers:
                self._n_writers -= 1
                if not self._n_writers:
                    self._writer = None
                    store.close()

    def close(self) -> None:
        """Closes what reads; writers close theirs."""
        self.quick.close()
        if self._patient is not None:
            self._patient.close()
