"""Errors as problem documents (RFC 9457), made here alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tans_core.classes import LEAVE_OUT
from tans_core.errors import DataError, GateError, NoModelFitsError, ParamsError, StoreError, TansError, problems
from tans_core.options import FinetuneOptions, RetrieveOptions
from tans_core.retrieval.constraints import Options

MEDIA_TYPE = "application/problem+json"

_STATUS: dict[type[TansError], int] = {
    ParamsError: HTTPStatus.UNPROCESSABLE_ENTITY,
    DataError: HTTPStatus.UNPROCESSABLE_ENTITY,
    GateError: HTTPStatus.UNPROCESSABLE_ENTITY,
    NoModelFitsError: HTTPStatus.UNPROCESSABLE_ENTITY,
    StoreError: HTTPStatus.SERVICE_UNAVAILABLE,
    TansError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
LAST = frozenset({401, 408, 413, 415, 421, 429})
"""After these the connection is closed: the rest of a body is not read."""
_FLAGS = {
    (field.json_schema_extra or {}).get("option", "--" + name.replace("_", "-")): name  # type: ignore[union-attr]
    for options in (RetrieveOptions, FinetuneOptions)
    for name, field in options.model_fields.items()
}


_ELSEWHERE = {
    LEAVE_OUT: "Add images, or delete the classes.",
    "Run `tans ": "On the service's machine, run `tans ",
}
"""Advice for who sits at the machine, and its words for who calls the service."""


class Problem(BaseModel):
    """A problem document of RFC 9457. Its media type is application/problem+json."""

    type: str = Field(description="`urn:tans:error:` and the class in docs/errors.md; else `about:blank`.")
    title: str = Field(description="The kind of problem; the same text each time.")
    status: int = Field(description="The status of the response.")
    detail: str = Field(description="What happened, what was got, and what is wanted.")
    advice: list[str] = Field(default=[], description="What to do, or what the problem consists of; a line each.")
    release: str | None = Field(default=None, description="The release that was asked, if one was.")

    model_config = {
        "json_schema_extra": {
            "example": {
                "type": "urn:tans:error:NoModelFitsError",
                "title": "No model in the index satisfies the constraints.",
                "status": 422,
                "detail": "0 of 240 models satisfy max_params_m 0.01. The nearest, and what would let it in:",
                "advice": ["elastic.optdigits.001 (0.05 M parameters, 1.2 M MACs): raise max_params_m to 0.05"],
                "release": "20261129T101530-1a2b3c4d5e6f",
            }
        }
    }


def respond(
    status: int, text: str, *, kind: type[TansError] | None = None, headers: Mapping[str, str] = {}, release: str | None
) -> Response:
    """Return an answer that is a problem document; see `_problem`."""
    closing = {"Connection": "close"} if status in LAST else {}
    content = _problem(status, text, kind, release).model_dump_json(exclude_none=True)
    return Response(content, status, {**headers, **closing}, MEDIA_TYPE)


def _problem(status: int, text: str, kind: type[TansError] | None, release: str | None) -> Problem:
    """Return a problem document. The first line of the text is the detail, the others are advice."""
    detail, *advice = (line.strip() for line in text.strip().splitlines() or [""])
    return Problem(
        type="about:blank" if kind is None else f"urn:tans:error:{kind.__name__}",
        title=HTTPStatus(status).phrase if kind is None else (kind.__doc__ or "").strip().splitlines()[0],
        status=status,
        detail=detail,
        advice=advice,
        release=release,
    )


def described(error: TansError, hidden: Mapping[Path, str], release: str | None = None) -> Problem:
    """Return the problem document of an error.

    Args:
        error: of this process or of another one.
        hidden: folders of this machine that texts must not show, each with a pattern of what follows it.
        release: that was asked.
    """
    status = next(_STATUS[one] for one in type(error).__mro__ if one in _STATUS)
    text = str(error)
    for folder, shown in hidden.items():
        text = re.sub(re.escape(str(folder)) + shown, "", text)
    return _problem(status, for_callers(text), type(error), release)


def for_callers(text: str) -> str:
    """Return a message with the service's names of options, and with advice that a caller can follow."""
    for here, elsewhere in _ELSEWHERE.items():
        text = text.replace(here, elsewhere)
    return re.sub(r"--[a-z][a-z-]*[a-z]", lambda match: _FLAGS.get(match[0], match[0]), text)


class _Values:
    """The errors of a request's values, each without the part of the request that it is in."""

    def __init__(self, error: RequestValidationError) -> None:
        self._errors = [{**one, "loc": one["loc"][1:]} for one in error.errors()]

    def errors(self) -> list[dict[str, Any]]:
        return self._errors


def install(app: FastAPI, hidden: Mapping[Path, str], options: Mapping[str, type[Options]]) -> None:
    """Let an application answer every error with a problem document.

    Args:
        app: the application.
        hidden: as for `described`.
        options: the parameters of each address, for the words on a wrong one.
    """

    def release_of(request: Request) -> str | None:
        return getattr(request.state, "release", None)

    def of_tans(request: Request, error: TansError) -> Response:
        problem = described(error, hidden, release_of(request))
        return Response(problem.model_dump_json(exclude_none=True), problem.status, media_type=MEDIA_TYPE)

    def of_http(request: Request, error: HTTPException) -> Response:
        text = error.detail
        if error.status_code == HTTPStatus.NOT_FOUND and text == HTTPStatus.NOT_FOUND.phrase:
            text = f"{request.url.path}: no such address.\nGET /openapi.json lists all of them."
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (error.headers or {}).get("Allow", "another method")
            text = f"{request.url.path}: got {request.method}, want {allowed}.\nGET /openapi.json lists all addresses."
        return respond(error.status_code, text, headers=error.headers or {}, release=release_of(request))

    def of_values(request: Request, error: RequestValidationError) -> Response:
        model = options.get(getattr(request.scope.get("route"), "path", ""), Options)
        lines = problems(cast(ValidationError, _Values(error)), model)
        text = "\n".join([f"{len(lines)} wrong in the request:", *lines])
        return respond(422, text, kind=ParamsError, release=release_of(request))

    def of_rest(request: Request, error: Exception) -> Response:
        text = "An error of the service itself. Its log has the reason.\nPlease report it."
        return respond(500, text, release=release_of(request))

    def of_gone(request: Request, error: ClientDisconnect) -> Response:
        return respond(400, "The connection ended before the body did.", release=release_of(request))

    app.add_exception_handler(TansError, of_tans)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, of_http)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, of_values)  # type: ignore[arg-type]
    app.add_exception_handler(ClientDisconnect, of_gone)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, of_rest)
