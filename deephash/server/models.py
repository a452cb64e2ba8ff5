"""What calls take and answer, as OpenAPI shows it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from index import DuplicateCluster, Problem, Record, Row

from ..json_lines import path_fields
from .settings import MAX_IDS

__all__ = [
    "Annotation", "Clusters", "Codes", "ErrorAnswer", "ImageList", "ImageRecord", "JobAnswer", "JobList", "MatchRecord",
    "Removal", "Removed", "SearchAnswer", "StatsAnswer", "SyncRequest", "Verified", "cluster_dict", "image_dict",
    "match_dict", "problem_dict",
]  # fmt: skip

_Int64 = Annotated[StrictInt, Field(ge=-(2**63), le=2**63 - 1)]
Scalar = StrictStr | StrictBool | _Int64 | Annotated[StrictFloat, Field(allow_inf_nan=False)] | None
_IMAGE: dict[str, Any] = {
    "id": 17, "path": "/photos/2024/cat.jpg", "path_hex": None, "label": "cat", "metadata": {"year": 2024},
    "code": "5f0c9a3b17e2d480", "width": 640, "height": 480, "n_bytes": 91064, "mtime_ns": 1700000000000000000,
    "content_hash": "9a0364b9e99bb480dd25e1f0284c8555",
}  # fmt: skip


class _Example(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorFields(_Example):
    """Why a call failed: a code for programs, a sentence for people."""

    code: str = Field(examples=["unknown_id"])
    message: str = Field(examples=["photos.dhx has no image 17: it was removed, or never there"])


class ErrorAnswer(_Example):
    """What every call that fails answers."""

    error: ErrorFields


class ImageRecord(_Example):
    """What is known of an indexed image. ``path_hex``: its bytes, where the path is not UTF-8."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_IMAGE]})
    id: int
    path: str
    path_hex: str | None
    label: str | None
    metadata: dict[str, Any]
    code: str
    width: int
    height: int
    n_bytes: int
    mtime_ns: int
    content_hash: str


class MatchRecord(ImageRecord):
    """An indexed image and its Hamming distance to the query, or to the copy that is kept."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_IMAGE | {"distance": 3}]})
    distance: int


class QueryFields(_Example):
    """What was searched with; ``id`` of an indexed image only."""

    kind: Literal["id", "code", "image", "combined"]
    id: int | None
    code: str


class SearchResult(_Example):
    """A page of the matches of one query, by (distance, id); ``next_offset`` is null on the last one."""

    query: QueryFields
    total: int
    offset: int
    next_offset: int | None
    matches: list[MatchRecord]


class SearchAnswer(_Example):
    """A result for each query: ids first, then codes, then images. ``epoch`` grows as the index changes."""

    n_bits: int
    epoch: int
    results: list[SearchResult]


class Codes(_Example):
    """Codes in hexadecimal, most significant bit first, in the order of the images."""

    n_bits: int
    codes: list[str]


class ImageList(_Example):
    """A page of the images, by id."""

    total: int
    offset: int
    next_offset: int | None
    epoch: int
    images: list[ImageRecord]


class Cluster(_Example):
    """Copies of one picture: which to keep, and the others with their distance to it, nearest first."""

    kind: Literal["identical", "near"]
    keep: ImageRecord
    drop: list[MatchRecord]


class Clusters(_Example):
    """A page of clusters; ``n_copies`` counts what could be dropped in all of them."""

    total: int
    n_copies: int
    radius: int | None
    offset: int
    next_offset: int | None
    epoch: int
    clusters: list[Cluster]


class Annotation(_Example):
    """What to set; what is left out stays. Metadata is replaced whole."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"label": "cat", "metadata": {"year": 2024, "mine": True}}]}
    )
    label: Annotated[str, Field(max_length=1000)] | None = None
    metadata: dict[Annotated[str, Field(max_length=200)], Scalar] = Field(default={}, max_length=100)


class Removal(_Example):
    """Images to remove from the index; all of them or, where one is unknown, none."""

    ids: list[Annotated[int, Field(ge=1, le=2**63 - 1)]] = Field(min_length=1, max_length=MAX_IDS, examples=[[17, 18]])


class Removed(_Example):
    """How many images were removed."""

    removed: int


class SyncRequest(_Example):
    """Folders to bring the index in step with; null: all that it was made of. They lie on the server."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"folders": ["/photos/2024"]}, {}]})
    folders: list[Annotated[str, Field(min_length=1, max_length=4096)]] | None = Field(default=None, max_length=100)
    prune: bool = Field(default=False, description="Remove indexed images that are gone from disk.")
    folder_labels: bool = Field(default=False, description="The name of an image's folder is its label.")


class JobProgress(_Example):
    """So many of so many files are through."""

    done: int
    total: int


class SkippedFile(_Example):
    """A file that could not be read, and why."""

    path: str
    path_hex: str | None = None
    reason: str


class JobReport(_Example):
    """What a job did, in images; ``skipped`` shows the first hundred of ``n_skipped``."""

    found: int
    added: int
    updated: int
    moved: int
    touched: int
    copies: int
    unchanged: int
    removed: int
    vanished: int
    decoded: int
    fitted_to: int
    seconds: float
    n_images: int
    n_skipped: int
    skipped: list[SkippedFile]


class JobAnswer(_Example):
    """Work that takes longer than a call. A job that was cancelled, failed or killed keeps what it had committed."""

    id: str
    kind: Literal["sync", "add"]
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    folders: list[str]
    created: str
    started: str | None
    finished: str | None
    progress: JobProgress
    report: JobReport | None
    error: str | None


class JobList(_Example):
    """The last hundred jobs, newest first."""

    jobs: list[JobAnswer]


class ModelFields(_Example):
    """The model that the codes come from."""

    name: str
    method: str
    backbone: str


class Limits(_Example):
    """What one call may ask for."""

    max_body_bytes: int
    max_images: int
    max_pixels: int
    max_k: int
    max_limit: int
    max_ids: int


class StatsAnswer(_Example):
    """The index in numbers, and what this server takes. ``trouble``: why images cannot be encoded, if so.

    ``copy_bits`` and ``copy_radius`` are of the codes that copies are found by.
    """

    n_images: int
    n_skipped: int
    n_bits: int
    copy_bits: int
    copy_radius: int
    fingerprint: str
    epoch: int
    created: str
    index: str
    roots: list[str]
    catalogue_bytes: int
    cache_bytes: int
    model_bytes: int
    model: ModelFields | None
    trouble: str | None
    addable_roots: list[str]
    uploads: bool
    limits: Limits
    version: str


class ProblemFields(_Example):
    """Something that is not as it was written; ``path`` is of a file of the index or of an image."""

    kind: Literal["catalogue", "row", "cache", "model"]
    path: str
    path_hex: str | None
    message: str


class Verified(_Example):
    """What is wrong with the index."""

    problems: list[ProblemFields]


def problem_dict(problem: Problem) -> dict[str, Any]:
    """Returns a problem as `ProblemFields` describes it."""
    return {"kind": problem.kind, "path_hex": None, **path_fields(problem.where), "message": problem.message}


def image_dict(record: Record | Row) -> dict[str, Any]:
    """Returns an indexed image as `ImageRecord` describes it."""
    path, path_hex = record.path, None
    if not path.isascii():
        fields = path_fields(path)
        path, path_hex = fields["path"], fields.get("path_hex")
    return {
        "id": record.id, "path": path, "path_hex": path_hex, "label": _text(record.label),
        "metadata": dict(record.metadata), "code": record.code.hex(), "width": record.width, "height": record.height,
        "n_bytes": record.n_bytes, "mtime_ns": record.mtime_ns, "content_hash": record.content_hash.hex(),
    }  # fmt: skip


def match_dict(record: Record | Row, distance: int) -> dict[str, Any]:
    """Returns a match as `MatchRecord` describes it."""
    fields = image_dict(record)
    fields["distance"] = distance
    return fields


def cluster_dict(cluster: DuplicateCluster) -> dict[str, Any]:
    """Returns copies as `Cluster` describes them."""
    drop = [match_dict(record, distance) for record, distance in cluster.drop]
    return {"kind": cluster.kind, "keep": image_dict(cluster.keep), "drop": drop}


def _text(label: str | None) -> str | None:
    """A label from the name of a folder may hold what is not UTF-8."""
    return None if label is None else label.encode("utf-8", "backslashreplace").decode()
