"""The service as a process: uvicorn, with a limit on the time that a client takes for its headers."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import torch  # noqa: F401  for `one_thread`
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tans_core.errors import ParamsError
from tans_core.http.app import make_app
from tans_core.http.settings import ApiOptions
from tans_core.runtime import collect_rarely, keep_freed_memory, one_thread

_GRACE_S = 30
_KEEP_ALIVE_S = 60


class Serving:
    """A service that listens already: clients that connect wait until `run` answers.

    Attributes:
        address: its URL; the port is the one that was given, or a free one.

    Raises:
        ParamsError: the address is not loopback and there is no token, or the port is taken.
    """

    def __init__(self, project: Path, options: ApiOptions) -> None:
        token = options.token()
        self._listening = _listen(options)
        host, port = self._listening.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        app = make_app(project, options, token)
        config = uvicorn.Config(
            app,
            http=_patient(options.patience_s),
            ws="none",
            proxy_headers=False,  # the address of a client counts for its rate: nobody else may write it
            server_header=False,
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=_GRACE_S,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        self._server = server = uvicorn.Server(config)
        app.state.context.ending = lambda: server.should_exit

    def run(self) -> None:
        """Answer until SIGINT, SIGTERM or `stop`; requests that are being answered then are answered."""
        collect_rarely()
        keep_freed_memory()
        one_thread()  # requests run side by side
        with self._listening:
            self._server.run(sockets=[self._listening])

    def stop(self) -> None:
        """End `run`, from another thread."""
        self._server.should_exit = True


def _listen(options: ApiOptions) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ParamsError(
            f"--host {options.host} --port {options.port}: {reason}. Choose another port; 0 takes a free one."
        ) from error
    return listening


def _patient(patience_s: float) -> type[asyncio.Protocol]:
    class Patient(H11Protocol):
        """Closes a connection whose headers take longer than some seconds; uvicorn would wait for ever.

        Between requests a connection may be idle for longer (keep-alive): it is closed only if headers have begun.
        """

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def _watch(self) -> None:
            answering = self.cycle is not None and not self.cycle.response_complete
            if answering and self._timer is not None:
                self._timer.cancel()
                self._timer = None
            elif not answering and self._timer is None:
                self._timer = self.loop.call_later(patience_s, self.transport.close)

    return Patient
