"""Jobs: starting a sync, looking at jobs, following and cancelling them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Depends, Path, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from ..errors import ApiError
from ..jobs import Job
from ..models import JobAnswer, JobList, SyncRequest
from .parameters import CHANGES, ERRORS, READS, json_answer, service_of

__all__ = ["router"]

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_JobId = Annotated[str, Path(max_length=64, description="Id of a job.", examples=["0123456789abcdef"])]


async def _job(request: Request, id: _JobId) -> Job:
    job = service_of(request).jobs.find(id)
    if job is None:
        raise ApiError(404, "unknown_job", "there is no such job: the server was started again, or it ended long ago")
    return job


@router.post(
    "", response_model=JobAnswer, status_code=202, responses=ERRORS(400, 404, 409), dependencies=CHANGES,
    summary="Sync with folders",
)  # fmt: skip
async def start_job(request: Request, wanted: SyncRequest) -> Response:
    """Queues a job that brings the index in step with folders on the server.

    The same job again goes on where one was cancelled or killed: what is indexed and unchanged is not read again.
    """
    service = service_of(request)
    await anyio.to_thread.run_sync(service.check_writable)
    job = service.sync(wanted.folders, prune=wanted.prune, with_folder_labels=wanted.folder_labels)
    return json_answer(job.to_dict(), 202)


@router.get("", response_model=JobList, responses=ERRORS(), dependencies=READS, summary="List jobs")
async def list_jobs(request: Request) -> Response:
    """Lists the last hundred jobs, newest first."""
    return json_answer({"jobs": [job.to_dict() for job in service_of(request).jobs.all()]})


@router.get("/{id}", response_model=JobAnswer, responses=ERRORS(404), dependencies=READS, summary="One job")
async def job(found: Annotated[Job, Depends(_job)]) -> Response:
    """Returns a job as it is now."""
    return json_answer(found.to_dict())


@router.get(
    "/{id}/events", response_class=EventSourceResponse, responses=ERRORS(404), dependencies=READS,
    summary="Follow a job",
)  # fmt: skip
async def job_events(request: Request, found: Annotated[Job, Depends(_job)]) -> AsyncIterator[ServerSentEvent]:
    """Sends server-sent events ``job``, whose data is the job, now and at every change, until it has ended."""
    async for job in service_of(request).jobs.follow(found.id):
        yield ServerSentEvent(raw_data=json.dumps(job.to_dict()), event="job", id=str(job.version))


@router.post(
    "/{id}/cancel", response_model=JobAnswer, responses=ERRORS(404), dependencies=CHANGES, summary="Cancel a job"
)
async def cancel_job(request: Request, found: Annotated[Job, Depends(_job)]) -> Response:
    """Has a job stop at its next commit; what it has done stays. One that has ended stays as it is."""
    return json_answer((service_of(request).jobs.cancel(found.id) or found).to_dict())
