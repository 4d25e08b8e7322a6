"""The release in production, warm; another one that goes live takes its place with the next request."""

from __future__ import annotations

import threading
from pathlib import Path

from tans_core.errors import ParamsError, StoreError
from tans_core.gates.query import warm_up
from tans_core.index.history import production_id
from tans_core.service import Service

_KEPT = 2
"""Releases that stay in memory: the live one, and the one before it, so that a rollback is instant."""


class Live:
    """Gives each request the service of one release, which the request keeps to its end."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self._services: dict[str, Service] = {}
        self._turn = threading.Lock()

    def warm(self) -> None:
        """Read the release in production, and import what the first request needs."""
        warm_up()
        self.current()

    def current(self) -> Service:
        """Return the service of the release in production; a new release is read first, which takes about a second.

        Raises:
            NoReleaseError: nothing was published yet.
            StoreError: the release, or the project's params.yaml, cannot be read.
            WeightsError: the release is damaged.
        """
        service = self._services.get(production_id(self.project / "serving") or "")
        if service is None:
            with self._turn:
                service = Service.open(self.project)
                service = self._services.get(service.release.id) or service.load()
                recent = {name: one for name, one in self._services.items() if name != service.release.id}
                names = list(recent)[-(_KEPT - 1) :]
                self._services = {name: recent[name] for name in names} | {service.release.id: service}
        try:
            _ = service.limits
        except ParamsError as error:  # it is not the client's
            raise StoreError(str(error)) from error
        return service
