"""`make serve`: a Prefect server on loopback and a runner that serves the flows, until Ctrl-C or SIGTERM.

This process only starts and watches the two. It does not import Prefect, so it starts and can be stopped at once.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import http.client
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

import psutil

from tans_core.errors import ParamsError, TansError

HOST, DEFAULT_PORT = "127.0.0.1", 4200
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


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
    """Start the server and the runner, and watch them; return 1 when one ends by itself.

    Raises:
        ParamsError: the port is in use, or `root` is no project.
        Stop: a signal to stop was received. No process is left running.
    """
    if not (root / "params.yaml").is_file():
        raise ParamsError(f"{root / 'params.yaml'}: no such file. Run from the project's folder, or pass --root.")
    port = free_port(port)
    home = root / ".prefect"
    home.mkdir(exist_ok=True)
    environment = settings(home, port)
    log = home / "server.log"
    with reaping() as started, log.open("a", encoding="utf-8") as output:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
        server = start(command, root, environment, output)
        started.append(server)
        wait_for(lambda: healthy(port), "server", server, log)
        registered = home / "registered"
        registered.unlink(missing_ok=True)
        runner_environment = {**environment, "TANS_READY_FILE": str(registered)}
        runner = start([sys.executable, "-m", "flows.deployments"], root, runner_environment, None)
        started.append(runner)
        wait_for(registered.is_file, "runner", runner, log)
        ready = f"serving {root} at http://{HOST}:{port} (log of the server: {log})\n"
        if port != DEFAULT_PORT:
            ready += f"  in other shells: export PREFECT_API_URL=http://{HOST}:{port}/api\n"
        logger.info("%s  prefect deployment run retrieve/local -p dataset=FOLDER --watch\n  Ctrl-C ends it.", ready)
        while True:
            for name, process in (("server", server), ("runner", runner)):
                if process.poll() is not None:
                    logger.error("the %s ended with exit code %s; see %s", name, process.returncode, log)
                    return 1
            time.sleep(0.5)


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
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
        # Streams a run's log, above all why it failed, to the shell that watches it.
        "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",
        "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "DO_NOT_TRACK": "1",
        "NO_PROXY": loopback,
        "no_proxy": loopback,
        "PYTHONUNBUFFERED": "1",
    }


def start(
    command: Sequence[str], root: Path, environment: Mapping[str, str], output: IO[str] | None
) -> subprocess.Popen[bytes]:
    """Start a program in its own session, so that Ctrl-C reaches only this process, which ends them in order."""
    return subprocess.Popen(
        list(command),
        cwd=root,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )


def wait_for(ready: Callable[[], bool], name: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a started process is ready.

    Raises:
        TansError: it ended, or was not ready in time.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready():
        if process.poll() is not None:
            raise TansError(f"the {name} ended with exit code {process.returncode}; see {log}.")
        if time.monotonic() > deadline:
            raise TansError(f"the {name} was not ready within {START_TIMEOUT_S:.0f} s; see {log}.")
        time.sleep(0.2)


def healthy(port: int) -> bool:
    """Return whether the server answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.request("GET", "/api/health")
        return connection.getresponse().status == http.client.OK
    return False


@contextlib.contextmanager
def reaping() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Yield a list for processes. On exit, end them and all their descendants, the last started first."""
    # Runs are children of the runner. If it dies first, they become children of this process, not of init.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    started: list[subprocess.Popen[bytes]] = []
    try:
        yield started
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for process in reversed(started):
            end(process.pid)
        # Processes that outlived their parents.
        while orphans := children():
            for child in orphans:
                end(child, grace_s=5.0)


def children() -> list[int]:
    """Return the ids of this process's running children; those that ended are reaped."""
    running = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_ZOMBIE:
                process.wait()
            else:
                running.append(process.pid)
    return running


def end(pid: int, grace_s: float = STOP_TIMEOUT_S) -> None:
    """Ask a child to end; after `grace_s` kill it and its process group."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.terminate()
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(grace_s)
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) == pid:
                os.killpg(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def _die_with_parent() -> None:
    # If this process is killed, the server must not keep the port.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stop


if __name__ == "__main__":
    sys.exit(main())
