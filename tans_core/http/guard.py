"""What every request passes first: host, rate, token. It also counts and times requests, and ends slow readers."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable

import anyio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tans_core.http.page import FILES
from tans_core.http.problems import LAST, respond
from tans_core.http.settings import ApiOptions

OPEN = frozenset({"/", "/health/live", "/health/ready", "/metrics"})
"""The page, and what probes and monitoring ask: they need no token, and count for no rate. So do the page's files."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_CLIENTS = 10_000
_SEND_S = 60.0
_DROP_S, _DROPPED_BYTES = 0.5, 16 * 2**20
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Rates:
    """A bucket of requests for each client, which fills again at a steady rate."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, client: str) -> float:
        """Take one request from a client's bucket; return 0, or the seconds until there is one."""
        now, a_second = self._clock(), self._per_minute / 60
        left, at = self._buckets.pop(client, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - at) * a_second)
        allowed = left >= 1
        self._buckets[client] = (left - allowed, now)
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)  # the client that was longest silent
        return 0.0 if allowed else (1 - left) / a_second


class Figures:
    """What `/metrics` shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels, to = ("method", "route"), self.registry
        self.requests = Counter("tans_requests", "Requests, by their answer.", (*labels, "status"), registry=to)
        self.seconds = Histogram("tans_request_seconds", "Seconds from first byte to last.", labels, registry=to)
        self.running = Gauge("tans_requests_running", "Requests that are being answered.", registry=to)
        self.release = Gauge("tans_release_live", "1 for the release in production.", ("release",), registry=to)


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, options: ApiOptions, token: str | None, figures: Figures) -> None:
        self._app, self._figures = app, figures
        self._wanted = None if token is None else f"Bearer {token}".encode()
        # Without a token, a page in a browser could reach loopback by a name that leads there (DNS rebinding).
        self._hosts = None if token is not None else _LOOPBACK | {options.host.lower()}
        self._rates = Rates(options.per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began, unread = 500, time.perf_counter(), True

        async def receiving() -> Message:
            nonlocal unread
            message = await receive()
            unread = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            if message["type"] == "http.response.start" and status in LAST:
                # A connection that is closed while bytes arrive loses the answer: read some more, and drop them.
                left = 0 if Headers(scope=scope).get("expect") else _DROPPED_BYTES
                with anyio.move_on_after(_DROP_S):
                    while unread and left > 0:
                        left -= len((await receiving()).get("body", b""))
            with anyio.fail_after(_SEND_S):
                await send(message)

        with self._figures.running.track_inprogress():
            try:
                refusal = self._refusal(scope)
                await (refusal or self._app)(scope, receiving, sending)
            finally:
                # The pattern of the address, so that their number is bounded.
                route = getattr(scope.get("route"), "path", "other")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._figures.requests.labels(method, route, str(status)).inc()
                self._figures.seconds.labels(method, route).observe(time.perf_counter() - began)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._hosts is not None and _name(headers.get("host", "")) not in self._hosts:
            text = (
                f"Host: got {headers.get('host', '')!r}, want the address of this service.\nUse 127.0.0.1, or a token."
            )
            return respond(421, text, release=None)
        if scope["path"] in OPEN or scope["path"].startswith(FILES):
            return None
        given = headers.get("authorization", "").encode("latin-1")
        if self._wanted is not None and not hmac.compare_digest(given, self._wanted):
            text = "No token, or a wrong one.\nSend the header `Authorization: Bearer TOKEN`."
            return respond(401, text, headers={"WWW-Authenticate": "Bearer"}, release=None)
        # After the token: behind a proxy all clients have one address, and strangers must not use up its rate.
        wait = self._rates.wait_s(scope["client"][0] if scope.get("client") else "")
        if wait:
            text = "Too many requests from this client.\nSend it again later (Retry-After)."
            return respond(429, text, headers={"Retry-After": str(int(wait) + 1)}, release=None)
        return None


def _name(host: str) -> str:
    """Return a Host header without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()
