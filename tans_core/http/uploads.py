"""Bodies of requests: streamed to a private folder on disk, within limits of size, time and number."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import anyio
from anyio import to_thread
from filelock import FileLock, Timeout
from starlette.exceptions import HTTPException
from starlette.requests import Request

from tans_core.errors import DataError
from tans_core.http.settings import ApiOptions
from tans_core.retrieval.query import MAX_BYTES, Query

ARCHIVES = ("application/zip", "application/x-zip-compressed")
TABLES = ("application/vnd.apache.parquet", "application/x-parquet")
ANY = "application/octet-stream"
JSON = "application/json"

_SUFFIXES = {b"PK\x03\x04": ".zip", b"PK\x05\x06": ".zip", b"PAR1": ".parquet"}
_PREFIX = "tans-api-"
_LOCK = "in-use.lock"
_WRITTEN_AT_ONCE = 2**20
_LEAST_RATE = 16 * 2**10
_COME_BACK_S = 2
_Result = TypeVar("_Result")


class Spool:
    """A folder for requests that only this user can read; what a killed service left behind is removed first."""

    def __init__(self) -> None:
        for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            # The lock of a killed process is free.
            try:
                if left.is_symlink() or left.stat().st_uid != os.getuid():
                    continue
                with FileLock(left / _LOCK, timeout=0):
                    shutil.rmtree(left, ignore_errors=True)
            except (Timeout, OSError):
                continue
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
        self._lock = FileLock(self.folder / _LOCK, thread_local=False)  # closed by another thread
        self._lock.acquire()

    @asynccontextmanager
    async def room(self) -> AsyncIterator[Path]:
        """Yield an empty folder for one request, and remove it with all that it holds."""
        room = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield room
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(lambda: shutil.rmtree(room, ignore_errors=True))

    def close(self) -> None:
        self._lock.release()
        shutil.rmtree(self.folder, ignore_errors=True)


class Slots:
    """How many requests with images are admitted, and how many of them work at a time, in threads."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._working = anyio.CapacityLimiter(at_once)
        self._free = at_once + waiting

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request, from its first byte to its answer.

        Raises:
            HTTPException: 429, too many are at work or wait.
        """
        if self._free == 0:
            text = "The service is busy: too many uploads at a time.\nSend it again later (Retry-After)."
            raise HTTPException(429, text, {"Retry-After": str(_COME_BACK_S)})
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    async def work(self, function: Callable[[], _Result]) -> _Result:
        """Run a function in a thread, once it is its turn."""
        return await to_thread.run_sync(function, limiter=self._working)


async def receive(request: Request, room: Path, options: ApiOptions, pictures: bool = False) -> Path:
    """Write the body of a request to a file, whose name says what it is: `upload.zip` or `upload.parquet`.

    The file is in a folder of its own: paths in a table lead to nothing else.

    Args:
        request: with the body.
        room: a folder for the file's folder, `body`.
        options: the limits.
        pictures: also take one image, by its `Content-Type`; its file is `upload`.

    Raises:
        HTTPException: 408 too slow, 413 too large, 415 neither a zip nor Parquet.
        DataError: it is empty.
    """
    picture = pictures and _media_type(request).startswith("image/")
    _check_type(request, (_media_type(request),) if picture else (*ARCHIVES, *TABLES, ANY))
    folder = room / "body"
    folder.mkdir()
    part = folder / "part"
    start, held = b"", bytearray()
    async with await anyio.open_file(part, "wb") as file:
        async for chunk in chunks(request, options.max_bytes, options.patience_s):
            if len(start) < 4:
                start = (start + chunk)[:4]
                if len(start) == 4 and start not in _SUFFIXES and not picture:
                    raise _unsupported("The body is neither a zip nor Parquet, by its first bytes.")
            held += chunk
            if len(held) >= _WRITTEN_AT_ONCE:
                await file.write(held)
                held.clear()
        await file.write(held)
    if not start:
        raise DataError("The body is empty.\n  Send the file itself: curl --data-binary @photos.zip …")
    if start not in _SUFFIXES and not picture:
        raise _unsupported("The body is neither a zip nor Parquet, by its first bytes.")
    return part.rename(folder / f"upload{_SUFFIXES.get(start, '')}")


async def read_query(request: Request, patience_s: float) -> Query:
    """Read a body that is a query.

    Raises:
        HTTPException: as `chunks`.
        DataError: it is no query.
    """
    return Query.parse(b"".join([chunk async for chunk in chunks(request, MAX_BYTES, patience_s)]), "query.json")


async def chunks(request: Request, most: int, patience_s: float) -> AsyncIterator[bytes]:
    """Yield a body as it comes.

    Raises:
        HTTPException: 408 if it comes too slowly, 413 if it is, or says that it is, larger than `most` bytes.
    """
    stream = request.stream()
    received, began = 0, anyio.current_time()
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > most:
        raise _too_large(most)
    while True:
        with anyio.move_on_after(began + patience_s + received / _LEAST_RATE - anyio.current_time()) as scope:
            chunk = await anext(stream, None)
        if scope.cancelled_caught:
            raise HTTPException(
                408, f"The body came too slowly: {received:,} bytes so far.\nSend it again, or less of it."
            )
        if chunk is None:
            return
        received += len(chunk)
        if received > most:
            raise _too_large(most)
        yield chunk


def is_json(request: Request) -> bool:
    return _media_type(request) == JSON


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _check_type(request: Request, wanted: tuple[str, ...]) -> None:
    # A page of another site can send no request with these types without being asked (CORS): one without a type can.
    given = _media_type(request)
    if given not in wanted:
        raise _unsupported(f"Content-Type: got {given or 'none'!r}.")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise _unsupported("Content-Encoding: got one, want none.")


def _unsupported(text: str) -> HTTPException:
    wanted = ", ".join((ARCHIVES[0], TABLES[0], ANY))
    advice = f"Send a zip of class folders or a Parquet file with images, with a Content-Type of {wanted}."
    return HTTPException(415, f"{text}\n{advice}", {"Accept-Post": wanted})


def _too_large(most: int) -> HTTPException:
    advice = "Send fewer images: a few hundred are enough for a search. Or send what `tans embed` makes of them."
    return HTTPException(413, f"The body has more than {most:,} bytes.\n{advice}")
