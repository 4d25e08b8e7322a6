"""Addresses of fine-tunings: ask for one, watch it, cancel it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from anyio import to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi import Query as Parameters
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from tans_core.errors import ParamsError, did_you_mean
from tans_core.http import examples
from tans_core.http.context import Here
from tans_core.http.job_store import Job, Record
from tans_core.http.uploads import receive
from tans_core.options import FinetuneOptions
from tans_core.reporting import FINAL
from tans_core.service import Service

router = APIRouter(tags=["fine-tuning"])
_LOOK_S = 0.3


class JobList(BaseModel):
    jobs: list[Job] = Field(description="The newest first; of those that have ended, the last hundred.")


def _found(here: Here, job: str) -> Record:
    record = here.jobs.get(job)
    if record is None:
        raise HTTPException(404, f"There is no job {job!r}.\nGET /v1/jobs lists them.")
    return record


Found = Annotated[Record, Depends(_found)]


@router.post(
    "/v1/finetune", status_code=202, openapi_extra=examples.IMAGES, responses={202: examples.JOB}, response_model=Job
)
async def finetune(
    here: Here, request: Request, response: Response, chosen: Annotated[FinetuneOptions, Parameters()]
) -> Record:
    """Fine-tune a network on the images of a zip or a Parquet file. They are kept in the project until the job ends."""
    most = min(chosen.max_images or here.options.max_images, here.options.max_images)
    options = FinetuneOptions.read(**{**chosen.model_dump(exclude_unset=True), "max_images": most})
    with here.slots.admitted():
        await to_thread.run_sync(lambda: _check(here.opened(request), options))
        await here.jobs.own()
        with here.jobs.place() as room:
            record = await here.jobs.add(room, await receive(request, room, here.options), options)
    response.headers["Location"] = f"/v1/jobs/{record.id}"
    return record


def _check(service: Service, options: FinetuneOptions) -> None:
    cards = service.retriever.cards
    if options.model is not None and options.model not in cards:
        guess = did_you_mean(options.model, cards)
        raise ParamsError(f"model: got {options.model!r}, no such network{guess}.\nGET /v1/models lists them.")
    service.check(options)


@router.get("/v1/jobs")
def jobs(here: Here) -> JobList:
    """List the fine-tunings."""
    return JobList(jobs=[_shown(record) for record in here.jobs.all()])


@router.get("/v1/jobs/{job}", responses={200: examples.JOB}, response_model=Job)
def job(record: Found) -> Record:
    """Return how far a fine-tuning is."""
    return record


@router.delete("/v1/jobs/{job}", status_code=202, response_model=Job)
async def cancel(here: Here, record: Found) -> Record:
    """Cancel a fine-tuning: one that runs ends within seconds. 409 if it has ended already."""
    await here.jobs.own()
    return await here.jobs.cancel(record.id)


@router.get("/v1/jobs/{job}/events", response_class=EventSourceResponse)
async def events(here: Here, record: Found) -> AsyncIterator[ServerSentEvent]:
    """Send an event `job`, whose data is the job, at once and after each change, until it has ended."""
    last = None
    while not here.ending():
        now = await to_thread.run_sync(here.jobs.get, record.id)
        if now is None:
            return
        if (shown := _shown(now)) != last:
            yield ServerSentEvent(event="job", data=shown)
            last = shown
        if shown.state in FINAL:
            return
        await anyio.sleep(_LOOK_S)


def _shown(record: Record) -> Job:
    return Job.model_validate(record.model_dump(include=set(Job.model_fields)))
