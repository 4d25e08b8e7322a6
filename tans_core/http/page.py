"""The page at `/`: plain files of the folder `static`, which fetch nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles

FILES = "/static/"

_HERE = Path(__file__).parent / "static"
_HEADERS = {
    # `blob:` for thumbnails of the user's own files.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # asked again each time, so that page and service are of one version
}


class _Files(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(_HEADERS)
        return response


def install(app: FastAPI) -> None:
    """Serve the page and its files, `house.css` of all pages among them."""
    files = _Files(directory=_HERE, packages=[("tans_core", "templates")])
    app.mount(FILES.rstrip("/"), files, name="static")

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)
