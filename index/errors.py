"""Every error of the two packages has one root; deephash re-exports it.

The tree::

    DeepHashError
    └── StoreError                  something is wrong with an index folder
        ├── NotAStore               the folder is missing, or is not an index
        ├── StoreDamaged            a file of the index cannot be trusted
        ├── StoreTooNew             written by a newer version of the program
        ├── StoreLocked             another process is writing
        ├── StoreFull               the disk is full; nothing committed is lost
        ├── ModelMismatch           codes of another model, or another n_bits
        └── UnknownId               an id that is not in the index (also a KeyError)
"""

from __future__ import annotations


class DeepHashError(Exception):
    """The root of every error that deephash and index raise on purpose."""


class StoreError(DeepHashError):
    """An index folder cannot do what was asked."""


class NotAStore(StoreError):
    """The folder is missing, or it is not an index."""


class StoreDamaged(StoreError):
    """A file of the index cannot be trusted; the text names it and says what to do."""


class StoreTooNew(StoreError):
    """The index was written by a newer version of the program."""


class StoreLocked(StoreError):
    """Another process is writing to the index."""


class StoreFull(StoreError):
    """The disk is full. Everything committed before is safe: free space and run again."""


class ModelMismatch(StoreError):
    """Codes of another model or of another length: their distances would mean nothing."""


class UnknownId(StoreError, KeyError):
    """An id that is not (or no longer) in the index."""

    def __str__(self) -> str:
        # KeyError would print the repr of its argument.
        return str(self.args[0]) if self.args else ""
