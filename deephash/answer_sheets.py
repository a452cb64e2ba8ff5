"""What an index answered, as contact sheets: which pictures stand where, and what is said under them."""

import os
from collections.abc import Sequence
from pathlib import Path

from index import DuplicateCluster

from .answers import Answer
from .paths import display_path
from .report import Picture, Row, Sheet

__all__ = ["cluster_sheet", "query_sheet"]


def query_sheet(index: str | os.PathLike[str], answers: Sequence[Answer]) -> Sheet:
    """Returns a row for each query: the query, then its matches with their distances."""
    rows = []
    for answer in answers:
        caption = answer.name if answer.picture is None else Path(answer.picture).name
        first = Picture(answer.picture, display_path(caption), "query", answer.picture)
        rows.append(Row(first, [_found(match.distance, match.path) for match in answer.matches]))
    return Sheet(f"{display_path(index)}: similar images", rows)


def cluster_sheet(index: str | os.PathLike[str], clusters: Sequence[DuplicateCluster]) -> Sheet:
    """Returns a row for each cluster: the copy to keep, then the others with their distances from it."""
    rows = []
    for cluster in clusters:
        keep = cluster.keep.path
        first = Picture(keep, f"keep · {display_path(Path(keep).name)}", "hit", keep)
        rows.append(Row(first, [_found(distance, record.path) for record, distance in cluster.drop]))
    return Sheet(f"{display_path(index)}: copies", rows, () if rows else ("no copies were found",))


def _found(distance: int, path: str) -> Picture:
    return Picture(path, f"{distance} · {display_path(Path(path).name)}", None, path)
