"""Client: asks a server (``deephash serve``) what ``ImageSearch`` asks an index, in the same words and types.

Needs the extra: ``pip install 'deephash[client]'``. Loads neither torch nor faiss.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from types import EllipsisType, TracebackType
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from index.records import DuplicateCluster, Filter, Match, Metadata, Problem, Record

from .client_values import (
    RemoteJob,
    ServerStats,
    conditions,
    image_files,
    question,
    raise_error,
    sum_reports,
    to_cluster,
    to_job,
    to_match,
    to_problem,
    to_record,
)
from .errors import DeepHashError, ServerError
from .progress import OnProgress, Progress, ignore_progress
from .sync import SyncReport

try:
    import httpx
except ImportError as error:
    raise DeepHashError("deephash.Client needs httpx: pip install 'deephash[client]'") from error

__all__ = ["Client", "RemoteJob", "ServerStats"]

_QUERIES = 16  # of one call
_PAGE = 1_000
_CHANGE = {"X-DeepHash": "1"}


class Client:
    """Asks one server. A context manager; threads may share it.

    Args:
        url: as ``deephash serve`` prints it; a token behind ``#token=`` counts.
        token: what changes need, and reading from another machine.
        timeout: seconds for one answer.

    Raises:
        ServerError: (every method) the server refused, with its sentence, or cannot be reached.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 60.0) -> None:
        base, _, fragment = url.partition("#")
        token = token or fragment.removeprefix("token=") or None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = timeout
        self._http = httpx.Client(base_url=base.rstrip("/"), headers=headers, timeout=timeout)

    # Queries.

    def query(
        self,
        images: Any,
        k: int | None = 10,
        *,
        radius: int | None = None,
        where: Filter | None = None,
        combine: bool = False,
    ) -> list[list[Match]]:
        """Returns, for each query image, its nearest indexed images, ordered by (distance, id).

        Args:
            images: one image or a sequence: paths, bytes, binary files, PIL images, ``(H, W, 3) uint8`` arrays.
            k: how many at most; None with a radius: all within it.
            radius: Hamming distance 0 to n_bits, inclusive.
            where: only images that pass the filter.
            combine: all images together are one query; one list is returned.

        Raises:
            ImageError: a query image cannot be read.
        """
        files, asked, found = image_files(images), question(k, radius, where), []
        step = len(files) if combine else _QUERIES
        for start in range(0, len(files), step):
            part = _parts(files[start : start + step])
            parameters = [*asked, ("combine", json.dumps(combine)), ("limit", str(_PAGE))]
            for result in self._json("POST", "/v1/search", params=parameters, files=part)["results"]:
                rest = self._rest(result, [("code", result["query"]["code"]), *asked])
                found.append([to_match(match) for match in (*result["matches"], *rest)])
        return found

    def query_ids(
        self, ids: Iterable[int], k: int | None = 10, *, radius: int | None = None, where: Filter | None = None
    ) -> list[list[Match]]:
        """Returns, for each indexed image, its nearest others, ordered by (distance, id). Raises UnknownId."""
        return self._search([("id", str(int(id))) for id in ids], k, radius, where)

    def query_codes(
        self, codes: NDArray[np.uint8], k: int | None = 10, *, radius: int | None = None, where: Filter | None = None
    ) -> list[list[Match]]:
        """Returns, for each code ``(Q, ceil(n_bits / 8)) uint8``, its nearest images, ordered by (distance, id)."""
        table = np.atleast_2d(np.asarray(codes, np.uint8))
        return self._search([("code", code.tobytes().hex()) for code in table], k, radius, where)

    def encode(self, images: Any) -> NDArray[np.uint8]:
        """Returns codes ``(N, ceil(n_bits / 8)) uint8`` of images given as in ``query``; nothing is stored."""
        files, codes = image_files(images), []
        for start in range(0, len(files), _QUERIES):
            part = _parts(files[start : start + _QUERIES])
            codes += self._json("POST", "/v1/encode", files=part)["codes"]
        return np.stack([np.frombuffer(bytes.fromhex(code), np.uint8) for code in codes])

    def _search(
        self, queries: Sequence[tuple[str, str]], k: int | None, radius: int | None, where: Filter | None
    ) -> list[list[Match]]:
        asked, found = question(k, radius, where), []
        for start in range(0, len(queries), _QUERIES):
            part = queries[start : start + _QUERIES]
            answer = self._json("GET", "/v1/search", params=[*part, *asked, ("limit", str(_PAGE))])
            for query, result in zip(part, answer["results"], strict=True):
                rest = self._rest(result, [query, *asked])
                found.append([to_match(match) for match in (*result["matches"], *rest)])
        return found

    def _rest(self, result: dict[str, Any], parameters: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        while (offset := result["next_offset"]) is not None:
            page = [*parameters, ("limit", str(_PAGE)), ("offset", str(offset))]
            (result,) = self._json("GET", "/v1/search", params=page)["results"]
            yield from result["matches"]

    # Images.

    def __len__(self) -> int:
        return self.stats().n_images

    def stats(self) -> ServerStats:
        """Returns the server's index in numbers."""
        found = self._json("GET", "/v1/stats")
        found["roots"] = tuple(found["roots"])
        return ServerStats(**{field.name: found[field.name] for field in fields(ServerStats)})

    def records(self, ids: Iterable[int]) -> list[Record]:
        """Returns what is stored of these images, in the order of the ids. Raises UnknownId."""
        return [to_record(self._json("GET", f"/v1/images/{int(id)}")) for id in ids]

    def images(self, where: Filter | None = None) -> Iterator[Record]:
        """Yields the images that a filter lets through, by id; images that change meanwhile may be missed."""
        offset: int | None = 0
        while offset is not None:
            parameters = [*conditions(where), ("offset", str(offset)), ("limit", str(_PAGE))]
            page = self._json("GET", "/v1/images", params=parameters)
            yield from map(to_record, page["images"])
            offset = page["next_offset"]

    def file(self, id: int) -> bytes:
        """Returns the file of an image as it is."""
        return self._send("GET", f"/v1/images/{int(id)}/file").content

    def thumbnail(self, id: int, size: int = 256) -> bytes:
        """Returns a JPEG of an image, its longest side at most ``size``: 64, 128, 256, 512 or 1024."""
        return self._send("GET", f"/v1/images/{int(id)}/thumbnail", params={"size": size}).content

    def duplicates(
        self,
        *,
        radius: int | None = None,
        identical: bool = False,
        where: Filter | None = None,
        mirrored: bool = False,
    ) -> list[DuplicateCluster]:
        """Returns clusters of copies, each with the copy to keep: most pixels, then most bytes, then oldest id.

        Args:
            radius: near copies within this distance of their copy codes; by default the ``copy_radius`` of the stats.
            identical: files of identical content only.
            where: only images that pass the filter.
            mirrored: mirrored copies too.
        """
        parameters = [*conditions(where), ("limit", str(_PAGE))]
        parameters += [("identical", json.dumps(identical)), ("mirrored", json.dumps(mirrored))]
        if radius is not None:
            parameters.append(("radius", str(radius)))
        clusters, offset = [], 0
        until = time.monotonic() + self._timeout
        while offset is not None:
            try:
                page = self._json("GET", "/v1/duplicates", params=[*parameters, ("offset", str(offset))])
            except ServerError as error:
                if error.code != "computing" or time.monotonic() > until:
                    raise
                time.sleep(error.retry_after or 1)
                continue
            clusters += [to_cluster(cluster) for cluster in page["clusters"]]
            offset = page["next_offset"]
        return clusters

    def verify(self) -> list[Problem]:
        """Has the server read its whole index; returns what is not as it was written."""
        return [to_problem(found) for found in self._json("GET", "/v1/verify")["problems"]]

    # Changes.

    def annotate(
        self, id: int, *, label: str | EllipsisType | None = ..., metadata: Metadata | EllipsisType = ...
    ) -> Record:
        """Sets the label, the metadata (all of it), or both, of an image; what is not given stays."""
        given: dict[str, Any] = {} if isinstance(label, EllipsisType) else {"label": label}
        if not isinstance(metadata, EllipsisType):
            given["metadata"] = dict(metadata)
        return to_record(self._json("PATCH", f"/v1/images/{int(id)}", json=given, headers=_CHANGE))

    def remove(self, ids: Iterable[int]) -> int:
        """Removes images from the index (not from disk); returns how many. Raises UnknownId: then none is removed."""
        wanted = [int(id) for id in ids]
        if not wanted:
            return 0
        return int(self._json("POST", "/v1/images/remove", json={"ids": wanted}, headers=_CHANGE)["removed"])

    def add(
        self, images: Any, *, label: str | None = None, metadata: Metadata | None = None,
        on_progress: OnProgress = ignore_progress,
    ) -> SyncReport:  # fmt: skip
        """Sends images to be kept and indexed, and waits until they are; images as in ``query``.

        Raises:
            ImageError: one is no image; those before it may have been added.
        """
        values = {} if label is None else {"label": label}
        if metadata is not None:
            values["metadata"] = json.dumps(dict(metadata))
        files, reports = image_files(images), []
        for start in range(0, len(files), _QUERIES):
            part = _parts(files[start : start + _QUERIES])
            job = to_job(self._json("POST", "/v1/images", data=values, files=part, headers=_CHANGE))
            reports.append(self.wait(job, on_progress=on_progress))
        return sum_reports(reports)

    def sync(
        self, folders: Sequence[str | os.PathLike[str]] | None = None, *, prune: bool = False,
        folder_labels: bool = False, on_progress: OnProgress = ignore_progress,
    ) -> SyncReport:  # fmt: skip
        """Has the server bring its index in step with folders on its machine, and waits; None: all that it knows."""
        return self.wait(self.start_sync(folders, prune=prune, folder_labels=folder_labels), on_progress=on_progress)

    def start_sync(
        self, folders: Sequence[str | os.PathLike[str]] | None = None, *, prune: bool = False,
        folder_labels: bool = False,
    ) -> RemoteJob:  # fmt: skip
        """Starts what ``sync`` does and returns its job at once."""
        wanted = {
            "folders": None if folders is None else [os.fspath(folder) for folder in folders],
            "prune": prune,
            "folder_labels": folder_labels,
        }
        return to_job(self._json("POST", "/v1/jobs", json=wanted, headers=_CHANGE))

    def jobs(self) -> list[RemoteJob]:
        """Returns the server's last jobs, newest first."""
        return [to_job(job) for job in self._json("GET", "/v1/jobs")["jobs"]]

    def job(self, job: RemoteJob) -> RemoteJob:
        """Returns a job as it is now."""
        return to_job(self._json("GET", f"/v1/jobs/{job.id}"))

    def cancel(self, job: RemoteJob) -> RemoteJob:
        """Has a job stop at its next commit; what it has done stays."""
        return to_job(self._json("POST", f"/v1/jobs/{job.id}/cancel", headers=_CHANGE))

    def wait(self, job: RemoteJob, *, on_progress: OnProgress = ignore_progress) -> SyncReport:
        """Returns what a job did, once it has ended.

        Raises:
            ServerError: it failed or was cancelled, or the server stopped; what was committed stays.
        """
        try:
            with self._http.stream("GET", f"/v1/jobs/{job.id}/events") as answer:
                if answer.is_error:
                    answer.read()
                    _refuse(answer)
                for line in answer.iter_lines():
                    if line.startswith("data:"):
                        job = to_job(json.loads(line.removeprefix("data:")))
                        on_progress(Progress("encode", job.done, job.total))
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if job.state == "done" and job.report is not None:
            return job.report
        raise ServerError(job.error or f"the job was {job.state}, not done: what it committed stays; start it again")

    # The connection.

    def _json(self, method: str, path: str, **options: Any) -> Any:
        return self._send(method, path, **options).json()

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if answer.is_error:
            _refuse(answer)
        return answer

    def _unreachable(self, error: httpx.HTTPError) -> ServerError:
        return ServerError(f"no answer from {self._http.base_url} ({error}): does deephash serve run there?")

    def close(self) -> None:
        """Closes the connections; calling it twice does no harm."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _parts(files: Sequence[bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", ("image", data)) for data in files]


def _refuse(answer: httpx.Response) -> NoReturn:
    try:
        body = answer.json()
    except ValueError:
        body = None
    raise_error(answer.status_code, body, answer.headers.get("retry-after"))
