"""What an index answered, and its fields for JSON. As contact sheets: ``answer_sheets.py``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from index import DuplicateCluster, Match

from .json_lines import path_fields

__all__ = ["Answer", "answer_fields", "cluster_fields"]


@dataclass(frozen=True)
class Answer:
    """The matches of one query: ``asked`` names it for JSON, ``name`` for people; ``picture`` is its file, if any."""

    asked: Mapping[str, str | int]
    name: str
    picture: str | None
    matches: Sequence[Match]


def answer_fields(answer: Answer) -> dict[str, Any]:
    """Returns what was asked and ``matches``: each with id, distance, path, label, metadata.

    Re-ranked ones have an asymmetric_distance, too.
    """
    matches: list[dict[str, Any]] = [
        {"id": match.id, "distance": match.distance}
        | ({} if match.asymmetric_distance is None else {"asymmetric_distance": match.asymmetric_distance})
        | path_fields(match.path)
        | {"label": match.label, "metadata": dict(match.metadata)}
        for match in answer.matches
    ]
    return {**answer.asked, "matches": matches}


def cluster_fields(cluster: DuplicateCluster) -> dict[str, Any]:
    """Returns kind, ``keep`` (id, path) and ``drop`` (a list of id, distance, path)."""
    drop = [{"id": record.id, "distance": distance} | path_fields(record.path) for record, distance in cluster.drop]
    return {"kind": cluster.kind, "keep": {"id": cluster.keep.id} | path_fields(cluster.keep.path), "drop": drop}
