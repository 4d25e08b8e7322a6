"""The application: its addresses, what they take and what they answer."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi import Query as Parameters
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from tans_core.errors import TansError, did_you_mean
from tans_core.http import examples, page, problems
from tans_core.http.context import Context
from tans_core.http.guard import Figures, Guard
from tans_core.http.job_routes import router as job_router
from tans_core.http.job_store import JOBS
from tans_core.http.jobs import Jobs
from tans_core.http.live import Live
from tans_core.http.map_routes import router as map_router
from tans_core.http.run_routes import router as run_router
from tans_core.http.settings import ApiOptions
from tans_core.http.uploads import Slots, Spool, is_json, read_query, receive
from tans_core.index.history import production_id
from tans_core.index.listing import ReleaseInfo, list_releases
from tans_core.options import GROUP_HELP, FinetuneOptions, RetrieveOptions
from tans_core.results import Retrieval
from tans_core.retrieval.candidate import Candidate
from tans_core.retrieval.constraints import Constraints, Options
from tans_core.retrieval.limits import check_homes, timed_profiles
from tans_core.retrieval.query import Query
from tans_core.service import Service
from tans_core.tasks.task import TaskInfo

logger = logging.getLogger(__name__)


class ScanOptions(Options):
    """Options of a scan."""

    max_images: int | None = Field(None, ge=1, description="Open at most so many files, evenly over classes.")
    drop_empty_classes: bool = Field(False, description="Leave out classes without a usable image.")
    group: str | None = Field(None, description=GROUP_HELP)
    query: bool = Field(False, description="Also return the query of these images, as `tans embed` makes it.")


class ModelOptions(Constraints):
    """Which models to list."""

    task: str | None = Field(None, description="Only the networks of this home task.")
    limit: int = Field(100, ge=1, le=1000, description="How many at most.")
    offset: int = Field(0, ge=0, description="How many to leave out before the first.")


class Answer(BaseModel):
    release: str = Field(description="The release that answered, alone.")


class Scan(Answer):
    passed: bool = Field(description="Whether a search takes these images.")
    scan: dict[str, Any] = Field(description="As `tans tasks scan --json` prints it (docs/scan.md).")
    query: Query | None = Field(description="For POST /v1/retrieve; null unless asked for and passed.")


class Found(Answer):
    candidates: list[Candidate] = Field(description="The networks to start from, best first (docs/cli.md).")
    task: TaskInfo | None = Field(description="The data set as the search saw it; null for a query.")
    scan: dict[str, Any] | None = Field(description="Of the images, as POST /v1/scan answers; null for a query.")
    known: dict[str, int] = Field(description="By task of the zoo, how many of the images the zoo was trained on.")


class Models(Answer):
    total: int = Field(description="How many networks are within the limits.")
    models: list[dict[str, Any]] = Field(description="Their cards (docs/cards.md), ordered by id.")
    latency_profiles: tuple[str, ...] = Field(description="The profiles under which networks were timed.")


class Model(Answer):
    model: dict[str, Any] = Field(description="Its card (docs/cards.md).")


class Releases(BaseModel):
    release: str | None = Field(description="The release in production.")
    releases: list[ReleaseInfo] = Field(description="All of them, by the time that they first went live.")


class State(BaseModel):
    status: Literal["live", "ready"]
    release: str | None = None


def make_app(project: Path, options: ApiOptions, token: str | None = None) -> FastAPI:
    """Return the service of a project as an ASGI application.

    Args:
        project: its folder.
        options: the limits.
        token: that requests must send; None for none.
    """
    figures = Figures()
    # A job's folder first: it is below the project.
    hidden = {project / JOBS: "/[^/]+/(body/)?", project: "/"}
    jobs = Jobs(project, options.jobs, options.waiting_jobs, lambda error: problems.described(error, hidden))
    context = Context(project, options, Live(project), Slots(options.slots, options.waiting), jobs)
    slots, opened = context.slots, context.opened

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        context.spool = await to_thread.run_sync(Spool)
        hidden[context.spool.folder] = "/[^/]+/(body/)?"
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(to_thread.run_sync, functools.partial(_warm, context.live))
                tasks.start_soon(jobs.run)
                yield
                tasks.cancel_scope.cancel()
        finally:
            context.spool.close()

    app = FastAPI(
        title="TANS",
        version=metadata.version("tans"),
        summary="Which pretrained network should I start from for this image data set, within these limits?",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from the network
        redoc_url=None,
        responses={"default": examples.PROBLEM},
    )
    app.add_middleware(Guard, options=options, token=token, figures=figures)
    problems.install(
        app,
        hidden,
        {
            "/v1/scan": ScanOptions,
            "/v1/retrieve": RetrieveOptions,
            "/v1/models": ModelOptions,
            "/v1/finetune": FinetuneOptions,
        },
    )
    app.state.context = context
    app.include_router(job_router)
    app.include_router(run_router)
    app.include_router(map_router)
    page.install(app)

    @app.post("/v1/scan", tags=["images"], openapi_extra=examples.IMAGES, response_description="The report")
    async def scan(request: Request, chosen: Annotated[ScanOptions, Parameters()]) -> Scan:
        """Check the images of a zip or a Parquet file: classes, bad files, copies, leaks. Nothing of them is kept."""
        with slots.admitted():
            async with context.room() as room:
                path = await receive(request, room, options)
                most = min(chosen.max_images or options.max_images, options.max_images)
                limited = chosen.model_copy(update={"max_images": most})
                return await slots.work(lambda: _scan(opened(request), path, room / "scan", limited))

    @app.post("/v1/retrieve", tags=["images"], openapi_extra=examples.IMAGES_OR_QUERY, responses=examples.FOUND)
    async def retrieve(request: Request, chosen: Annotated[RetrieveOptions, Parameters()]) -> Found:
        """Find the networks to start from for a zip, a Parquet file, or a query of `tans embed`. Nothing is kept."""
        with slots.admitted():
            if is_json(request):
                query = await read_query(request, options.patience_s)
                return await slots.work(lambda: _found(opened(request).search(query, chosen)))
            async with context.room() as room:
                path = await receive(request, room, options)
                return await slots.work(
                    lambda: _found(opened(request).search(path, chosen, room / "scan", options.max_images))
                )

    @app.get("/v1/models", tags=["release"])
    def models(request: Request, chosen: Annotated[ModelOptions, Parameters()]) -> Models:
        """List the networks in production."""
        service = opened(request)
        if chosen.task is not None:
            check_homes(service.retriever.index, Constraints(home=(chosen.task,)))
        fitting = service.retriever.cards_within(chosen)
        cards = [card for card in fitting if chosen.task in (None, card.home_task)]
        shown = cards[chosen.offset : chosen.offset + chosen.limit]
        profiles = timed_profiles(project / "latency", service.retriever.cards)
        listed = [card.to_dict() for card in shown]
        return Models(release=service.release.id, total=len(cards), models=listed, latency_profiles=profiles)

    @app.get("/v1/models/{model}", tags=["release"])
    def model(request: Request, model: str) -> Model:
        """Return one network's card."""
        service = opened(request)
        cards = service.retriever.cards
        if model not in cards:
            text = f"Release {service.release.id} has no model {model!r}{did_you_mean(model, cards)}."
            raise HTTPException(404, f"{text}\nGET /v1/models lists them.")
        return Model(release=service.release.id, model=cards[model].to_dict())

    @app.get("/v1/releases", tags=["release"])
    def releases() -> Releases:
        """List the releases, and which one is in production."""
        serving = project / "serving"
        return Releases(release=production_id(serving), releases=list_releases(serving))

    @app.get("/health/live", tags=["operation"])
    async def alive() -> State:
        """Answer as long as the process runs."""
        return State(status="live")

    @app.get("/health/ready", tags=["operation"])
    def ready(request: Request) -> State:
        """Answer 200 once the release in production is in memory; 503 if there is none."""
        return State(status="ready", release=opened(request).release.id)

    @app.get("/metrics", tags=["operation"], response_class=Response)
    def metrics() -> Response:
        """Return counts and times for Prometheus."""
        figures.release.clear()
        figures.release.labels(production_id(project / "serving") or "").set(1)
        return Response(generate_latest(figures.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _warm(live: Live) -> None:
    try:
        live.warm()
    except TansError as error:
        logger.warning("not ready: %s", error)
    except Exception:  # requests are told
        logger.exception("not ready")


def _scan(service: Service, path: Path, scratch: Path, options: ScanOptions) -> Scan:
    scanned, query = service.scan(path, scratch=scratch, **options.model_dump())
    report = scanned.to_dict()
    report["gate"]["failures"] = [problems.for_callers(one) for one in report["gate"]["failures"]]
    return Scan(release=service.release.id, passed=scanned.verdict.passed, scan=report, query=query)


def _found(retrieval: Retrieval) -> Found:
    plain = retrieval.to_dict()
    return Found.model_validate({name: plain[name] for name in Found.model_fields})
