"""Parallel decoding: threads for a few files, processes for many. A file that crashes its process is left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

# Unlike multiprocessing, loky does not import the caller's script again, and it reports when a process died.
from loky import ProcessPoolExecutor
from loky.backend.context import get_context

from tans_core.io import atomic_path
from tans_core.tasks.reading import Content, begin_reading, read_chunk, unusable

CRASHED = "its decoder ended the process that ran it"


class Job(NamedTuple):
    """Some files of one chunk; `last` marks the chunk's last job. With a path, the worker keeps the pixels there."""

    chunk: int
    last: bool
    contents: Sequence[Content]
    path: Path | None = None


def decode_all(
    jobs: Iterable[Job], stored_size_px: int, workers: int, processes: bool
) -> Iterator[tuple[Job, pa.RecordBatch]]:
    """Decode jobs, in their order; at most two a worker are in memory at a time.

    Args:
        jobs: read as workers become free.
        stored_size_px: the largest side that is kept.
        workers: number of jobs decoded at a time; 0 and 1 decode in this process.
        processes: use processes instead of threads.
    """
    if workers <= 1:
        for job in jobs:
            yield job, _decode(job, stored_size_px)
        return
    pool = reading_processes(workers) if processes else ThreadPoolExecutor(workers)
    pending: deque[tuple[Job, Future[pa.RecordBatch]]] = deque()
    source = iter(jobs)
    try:
        while True:
            while len(pending) < 2 * workers and (new := next(source, None)) is not None:
                pending.append((new, pool.submit(_decode, new, stored_size_px)))
            if not pending:
                return
            job, future = pending.popleft()
            try:
                yield job, future.result()
            except BrokenProcessPool:
                # All pending jobs are lost with the process. Decode them one by one to find the file that crashed it.
                lost = [job, *(other for other, _ in pending)]
                pending.clear()
                _end(pool)
                for one in lost:
                    yield one, _apart(one.contents, stored_size_px)
                pool = reading_processes(workers)
    finally:
        _end(pool)


def write_chunk(rows: pa.RecordBatch | pa.Table, path: Path) -> pa.RecordBatch | pa.Table:
    """Write rows to a file, and return them without their pixels."""
    with (
        atomic_path(path, sync=False) as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_file(file, rows.schema) as writer,
    ):
        writer.write(rows)
    return rows.drop_columns(["pixels"])


def _decode(job: Job, stored_size_px: int) -> pa.RecordBatch:
    rows = read_chunk(job.contents, stored_size_px)
    return rows if job.path is None else write_chunk(rows, job.path)


def reading_processes(workers: int) -> Executor:
    """Start processes for decoding, set up by `tans_core.tasks.reading.begin_reading`."""
    # If a process dies, its whole pool ends, so that no other process waits for a lock it held.
    lock = get_context().RLock()
    pool: Executor = ProcessPoolExecutor(workers, initializer=begin_reading, initargs=(lock,), timeout=60)
    return pool


def _end(pool: Executor) -> None:
    if isinstance(pool, ProcessPoolExecutor):
        pool.shutdown(kill_workers=True)
    else:
        pool.shutdown(cancel_futures=True)


def _apart(contents: Sequence[Content], stored_size_px: int) -> pa.RecordBatch:
    """Decode files in a separate process; if it crashes, halve them until the file that crashes it is alone."""
    pool = reading_processes(1)
    try:
        return pool.submit(read_chunk, contents, stored_size_px).result()
    except BrokenProcessPool:
        if len(contents) == 1:
            return unusable([CRASHED])
    finally:
        _end(pool)
    half = len(contents) // 2
    return pa.concat_batches([_apart(contents[:half], stored_size_px), _apart(contents[half:], stored_size_px)])
