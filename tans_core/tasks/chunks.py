"""Decoded images, chunk by chunk: kept on disk while a scan that can be resumed runs, else in memory."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from filelock import FileLock, Timeout

from tans_core.runtime import progress
from tans_core.tasks.inputs.base import Entry, Input
from tans_core.tasks.pixels import SquareImages
from tans_core.tasks.reading import VERSION, Content, OnDisk
from tans_core.tasks.workers import Job, decode_all, write_chunk

CHUNK = 256
PROCESSES_FROM = 1024
"""With fewer files, starting processes takes longer than it saves."""

_SMALL_CHUNK = 16
_JOB_BYTES = 16 * 2**20


class Chunks:
    """The decoded rows (`tans_core.tasks.reading.SCHEMA`) of entries, in their order.

    Args:
        entries: the files to decode.
        stored_size_px: the largest side that is kept.
        folder: where chunks are kept. They stay in memory if it is None, read-only, or used by another scan.
        held_bytes: the first chunks stay in memory, too, up to this size: they cannot be resumed.
    """

    def __init__(self, entries: Sequence[Entry], stored_size_px: int, folder: Path | None, held_bytes: int = 0) -> None:
        self._entries, self._stored_size_px, self._room = entries, stored_size_px, held_bytes
        self._size = CHUNK if len(entries) >= PROCESSES_FROM else _SMALL_CHUNK
        self._parts = [entries[start : start + self._size] for start in range(0, len(entries), self._size)]
        self._held: dict[int, pa.Table] = {}
        self._facts: dict[int, pa.Table] = {}
        self._folder = folder
        self._lock: FileLock | None = None
        if folder is not None:
            lock = FileLock(folder / "in-use.lock")
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=0)
            except (Timeout, OSError):  # another scan uses the folder, or it is read-only
                self._folder = None
            else:
                self._lock = lock
        self._names = [self._name(part) for part in self._parts] if self._folder else []

    def fill(self, source: Input, workers: int) -> None:
        """Decode every chunk that is not on disk already."""
        wanted = [number for number in range(len(self._parts)) if not (self._folder and self._is_whole(number))]
        for number, table in self._decoded(source, wanted, workers):
            self._facts[number] = self._keep(number, table) if "pixels" in table.column_names else table

    def stream(self, source: Input, workers: int) -> Iterator[tuple[Sequence[Entry], pa.Table]]:
        """Yield the entries and the rows of each chunk, in order; nothing is kept."""
        for number, table in self._decoded(source, range(len(self._parts)), workers):
            yield self._parts[number], table

    def facts(self) -> pa.Table:
        """Return all rows without their pixels."""
        numbers = range(len(self._parts))
        return pa.concat_tables(
            [self._facts.pop(one, None) or self._table(one).drop_columns(["pixels"]) for one in numbers]
        )

    def pixels(self, indices: npt.NDArray[np.int64]) -> SquareImages:
        """Return the images of some entries."""
        images: list[npt.NDArray[np.uint8]] = [np.empty(0, dtype=np.uint8)] * len(indices)
        chunk_of = indices // self._size
        for number in np.unique(chunk_of).tolist():
            column = self._table(number)["pixels"]
            for position in np.flatnonzero(chunk_of == number).tolist():
                # A view: `SquareImages.of` makes the only copy.
                images[position] = square(column[int(indices[position]) % self._size])
        return SquareImages.of(images)

    def close(self, finished: bool) -> None:
        """Release the folder; it is deleted if the scan is finished."""
        if self._lock is not None and self._folder is not None:
            if finished:
                # All files: a killed scan may have left half-written ones.
                for path in self._folder.iterdir():
                    if path != Path(self._lock.lock_file):
                        path.unlink(missing_ok=True)
            self._lock.release()
            if finished:
                # Another scan of the same path may have begun: its files stay.
                with suppress(OSError):
                    Path(self._lock.lock_file).unlink(missing_ok=True)
                    self._folder.rmdir()
        self._held.clear()
        self._facts.clear()

    def _decoded(self, source: Input, numbers: Sequence[int], workers: int) -> Iterator[tuple[int, pa.Table]]:
        total = sum(len(self._parts[number]) for number in numbers)
        processes = len(self._entries) >= PROCESSES_FROM
        batches: list[pa.RecordBatch] = []
        results = decode_all(self._jobs(source, numbers), self._stored_size_px, workers, processes)
        for job, batch in progress(results, "Reading images", total, advance=lambda result: len(result[1])):
            batches.append(batch)
            if job.last:
                yield job.chunk, pa.Table.from_batches(batches)
                batches = []

    def _jobs(self, source: Input, numbers: Sequence[int]) -> Iterator[Job]:
        for number in numbers:
            part = self._parts[number]
            if all(entry.path is not None for entry in part):
                # Not from threads: a file gets its permissions by the umask, which they share.
                path = self._path(number) if self._folder and self._room <= 0 and self._size == CHUNK else None
                yield Job(number, True, [OnDisk(entry.path) for entry in part if entry.path is not None], path)
                continue
            contents: list[Content] = []
            size = 0
            for count, content in enumerate(source.read(part), start=1):
                contents.append(content)
                size += len(content)
                if count == len(part) or size >= _JOB_BYTES:
                    yield Job(number, count == len(part), contents)
                    contents, size = [], 0

    def _name(self, part: Sequence[Entry]) -> str:
        key = json.dumps([VERSION, self._stored_size_px, [[entry.name, entry.stamp] for entry in part]])
        return f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.arrow"

    def _path(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / self._names[number]

    def _keep(self, number: int, table: pa.Table) -> pa.Table:
        """Keep rows in memory or on disk; return them without their pixels."""
        self._room -= table.nbytes
        if self._folder is not None and self._room < 0:
            return write_chunk(table, self._path(number))
        self._held[number] = table
        return table.drop_columns(["pixels"])

    def _load(self, number: int) -> pa.Table | None:
        """Return a chunk from disk; None if it is missing, or damaged as by a loss of power."""
        with suppress(OSError, pa.ArrowInvalid), pa.memory_map(str(self._path(number))) as file:
            table = pa.ipc.open_file(file).read_all()
            if len(table) == len(self._parts[number]):
                return table
        return None

    def _is_whole(self, number: int) -> bool:
        """Return whether a chunk is on disk and all its files could be read: failed ones are tried again."""
        table = self._load(number)
        return table is not None and table["sha256"].null_count == 0

    def _table(self, number: int) -> pa.Table:
        if number in self._held:
            return self._held[number]
        table = self._load(number)
        assert table is not None, "read before it was filled"
        return table


def square(pixels: pa.LargeBinaryScalar) -> npt.NDArray[np.uint8]:
    """Return a value of the column `pixels` as an image (3, s, s), without a copy."""
    data = np.frombuffer(pixels.as_buffer(), dtype=np.uint8)
    side = math.isqrt(len(data) // 3)
    return data.reshape(3, side, side)
