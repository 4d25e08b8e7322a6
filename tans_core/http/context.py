"""What the addresses of one service share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast

import anyio
from fastapi import Depends, Request

from tans_core.http.jobs import Jobs
from tans_core.http.live import Live
from tans_core.http.settings import ApiOptions
from tans_core.http.uploads import Slots, Spool
from tans_core.service import Service


@dataclass
class Context:
    """One service.

    Attributes:
        project: its folder.
        options: its limits.
        live: the release in production.
        slots: of requests that read images.
        jobs: fine-tunings.
        spool: the folder for requests; there is none before the service starts.
        exporting: held while a network is exported.
        ending: whether the service ends, so that answers without an end have to.
    """

    project: Path
    options: ApiOptions
    live: Live
    slots: Slots
    jobs: Jobs
    spool: Spool | None = None
    exporting: anyio.Lock = field(default_factory=anyio.Lock)
    ending: Callable[[], bool] = lambda: False

    def opened(self, request: Request) -> Service:
        """Return the release in production, which the request keeps to its end."""
        service = self.live.current()
        request.state.release = service.release.id
        return service

    def room(self) -> AbstractAsyncContextManager[Path]:
        """Yield an empty folder for one request, and remove it with all that it holds."""
        assert self.spool is not None
        return self.spool.room()


def _of(request: Request) -> Context:
    return cast(Context, request.app.state.context)


Here = Annotated[Context, Depends(_of)]
"""The service that a request is for, as a parameter of its handler."""
