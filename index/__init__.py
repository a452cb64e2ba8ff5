"""Stores and finds binary codes; knows no pixels, no torch, no model.

`HammingIndex` is exact search in memory, `Store` the same beside a catalogue of images in a folder, `CodeFile` over a
file of nothing but codes.
"""

from index.choice import Choice
from index.code_file import CodeFile, CodeFileWriter
from index.code_lists import CodeLists
from index.codes import check_codes, check_n_bits, hamming_distances, n_code_bytes, pack_bits, unpack_bits
from index.errors import (
    DeepHashError,
    ModelMismatch,
    NotAStore,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreTooNew,
    UnknownId,
)
from index.records import (
    DuplicateCluster,
    Entry,
    FileStat,
    Filter,
    Match,
    Problem,
    Record,
    Row,
    SearchStats,
    Skipped,
    StoreStats,
)
from index.search import HammingIndex
from index.store import Store
from index.trials import Trial

__all__ = [
    "Choice",
    "CodeFile",
    "CodeFileWriter",
    "CodeLists",
    "DeepHashError",
    "DuplicateCluster",
    "Entry",
    "FileStat",
    "Filter",
    "HammingIndex",
    "Match",
    "ModelMismatch",
    "NotAStore",
    "Problem",
    "Record",
    "Row",
    "SearchStats",
    "Skipped",
    "Store",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreStats",
    "StoreTooNew",
    "Trial",
    "UnknownId",
    "check_codes",
    "check_n_bits",
    "hamming_distances",
    "n_code_bytes",
    "pack_bits",
    "unpack_bits",
]
