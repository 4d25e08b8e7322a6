"""`make serve`: a Prefect server on loopback and a runner that serves the flows, until Ctrl-C or SIGTERM.

This process only starts and watches the two, and starts one again that ends by itself. It does not import Prefect, so
it starts and can be stopped at once.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from flows.processes import Program, end_noted, note, reaping
from tans_core.errors import ParamsError, TansError
from tans_core.io import read_json

HOST, DEFAULT_PORT = "127.0.0.1", 4200
# In .prefect/: who serves the project, and the lock that one service holds.
NOTE_FILE, LOCK_FILE = "serving.json", "serving.lock"

logger = logging.getLogger(__name__)


class Stop(Exception):  # noqa: N818
    """SIGINT or SIGTERM was received."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="tans serve", description="Serve the flows from a Prefect server on loopback."
    )
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help=f"port of the server (default: {DEFAULT_PORT}; 0: a free one)"
    )
    parser.add_argument("--root", type=Path, default=Path(), help="the project's folder (default: here)")
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # Background jobs of a non-interactive shell ignore SIGINT, and their children inherit that.
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    try:
        return run(parsed.root.resolve(), parsed.port)
    except TansError as error:
        logger.error("%s: %s", type(error).__name__, error)
        return error.exit_code
    except Stop:
        logger.info("stopped")
        return 0


def run(root: Path, port: int) -> int:
    """Start the server and the runner, and watch them until a signal to stop.

    Raises:
        ParamsError: the port is in use, or `root` is no project, or is served already.
        TansError: one of the two does not start, or ends again and again.
        Stop: a signal to stop was received. No process is left running.
    """
    if not (root / "params.yaml").is_file():
        raise ParamsError(f"{root / 'params.yaml'}: no such file. Run from the project's folder, or pass --root.")
    home = root / ".prefect"
    home.mkdir(exist_ok=True)
    with only_service(root, home), reaping() as programs:
        end_noted(home / NOTE_FILE)
        port = free_port(port)
        log, registered = home / "server.log", home / "registered"
        environment = settings(home, port)
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
        server = Program("server", command, root, environment, lambda: healthy(port), log)
        command = [sys.executable, "-m", "flows.runner"]
        environment = {**environment, "TANS_READY_FILE": str(registered)}
        runner = Program("runner", command, root, environment, registered.is_file, log, own_output=True)

        def start(program: Program) -> None:
            registered.unlink(missing_ok=True)
            program.start()
            note(home / NOTE_FILE, url(port), programs)

        for program in (server, runner):
            programs.append(program)
            start(program)
        ready = f"serving {root} at {url(port)} (log of the server: {log})\n"
        if port != DEFAULT_PORT:
            ready += f"  in other shells: export PREFECT_API_URL={url(port)}/api\n"
        logger.info("%s  prefect deployment run retrieve/local -p dataset=FOLDER --watch\n  Ctrl-C ends it.", ready)

        def again(program: Program) -> None:
            try:
                start(program)
            except TansError:
                if program.process is None or program.process.poll() is None:
                    raise  # it hangs; one that ended is counted and started by the next look

        while True:
            if server.ended():
                # A runner that meets no server for some seconds would never again notice that a run is cancelled.
                with runner.halted():
                    again(server)
            if runner.ended():
                again(runner)
            time.sleep(0.5)


@contextlib.contextmanager
def only_service(root: Path, home: Path) -> Iterator[None]:
    """Hold the project's lock: two services would share one database, and end each other's runs.

    Raises:
        ParamsError: another process holds it.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(home / LOCK_FILE, timeout=0):
            yield
    except Timeout:
        serving: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            serving = read_json(home / NOTE_FILE)
        raise ParamsError(
            f"{root} is served already, at {serving.get('url', 'an unknown address')} by process "
            f"{serving.get('pid', 'unknown')}. Use that service, or stop it first."
        ) from None


def url(port: int) -> str:
    """Return the address of the server, without /api."""
    return f"http://{HOST}:{port}"


def free_port(port: int) -> int:
    """Return the port, or a free one for 0.

    Raises:
        ParamsError: it is in use or out of range.
    """
    if not 0 <= port <= 65535:
        raise ParamsError(f"--port: got {port}, want 0 to 65535.")
    with socket.socket() as probe:
        # Bound as the server binds it: a port that only waits for old connections to close counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ParamsError(
                f"port {port} of {HOST} cannot be used ({error.strerror}). Is `tans serve` running already? "
                f"Stop it, or pick another port: --port {port + 1}."
            ) from error
        bound: int = probe.getsockname()[1]
        return bound


def settings(home: Path, port: int) -> dict[str, str]:
    """Return the environment of the server, the runner and the runs. Nothing is sent off this machine."""
    loopback = ",".join(filter(None, (os.environ.get("NO_PROXY"), HOST, "localhost")))
    return {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"{url(port)}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        # Streams a run's log, above all why it failed, to the shell that watches it.
        "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",
        "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "DO_NOT_TRACK": "1",
        "NO_PROXY": loopback,
        "no_proxy": loopback,
        "PYTHONUNBUFFERED": "1",
    }


def healthy(port: int) -> bool:
    """Return whether the server answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.request("GET", "/api/health")
        return connection.getresponse().status == http.client.OK
    return False


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stop


if __name__ == "__main__":
    sys.exit(main())
