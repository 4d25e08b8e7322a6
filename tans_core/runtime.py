"""The machine: seeds, precision, memory, progress bars, and programs that leave no orphan processes."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import logging
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from tans_core.leash import die_with_parent

if TYPE_CHECKING:
    import torch

_T = TypeVar("_T")
Precision = Literal["fp32", "bf16"]
logger = logging.getLogger(__name__)


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends only on `seed` and the names, not on the process or the machine."""
    text = "\0".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def device() -> torch.device:
    """Return the first CUDA device, or the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks: returning them to the system at each step costs up to half the time."""
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)


def collect_rarely() -> None:
    """Collect cyclic garbage less often: objects made by imports and file lists stay, so searching them is wasted."""
    gc.set_threshold(50_000, 20, 20)


def quiet_lightning() -> None:
    """Silence the notices that Lightning prints at each fit; real warnings stay."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Batches are in memory already: workers would only copy them.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # Checkpoint folders exist so that training can resume.
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    # Lightning's own use of torch.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*Trainer already configured with model summary.*")


def cores(most: int = 8) -> int:
    """Return how many processes to run at a time: one per core that this process may use, at most `most`."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(most, usable)


def one_thread() -> None:
    """Compute on one thread: programs run side by side, and results do not depend on the number of cores.

    Two threads are at best 1.6 times as fast as one. Beside another busy process they are ten times slower, since each
    spins while it waits for the other.
    """
    torch = sys.modules.get("torch")  # without torch there are no threads to limit
    if torch is not None:
        torch.set_num_threads(1)


def begin_worker() -> None:
    """Set a worker process up: it computes on one thread, keeps freed memory, and ends with its parent."""
    import torch  # noqa: F401  for `one_thread`

    die_with_parent()
    one_thread()
    keep_freed_memory()


def show_progress() -> bool:
    """Return whether to show progress bars: only if stderr is a terminal, and only in the main process and thread."""
    main = multiprocessing.parent_process() is None and threading.current_thread() is threading.main_thread()
    return sys.stderr.isatty() and main


def progress(
    items: Iterable[_T], description: str, total: int | None = None, advance: Callable[[_T], int] = lambda _: 1
) -> Iterator[_T]:
    """Yield the items with a progress bar on stderr, or without one if stderr is not a terminal.

    Args:
        items: the items to yield.
        description: label of the bar.
        total: the bar's end; by default the number of items.
        advance: how far one item advances the bar.
    """
    if not show_progress():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task(description, total=total)
        for item in items:
            yield item
            bar.advance(shown, advance(item))


def run_program(
    arguments: Sequence[str], cwd: Path, on_line: Callable[[str], None], environment: Mapping[str, str] | None = None
) -> int:
    """Run one program as `run_programs` does, and return its exit code."""
    return run_programs([arguments], cwd, on_line, environment)[0]


def run_programs(
    commands: Sequence[Sequence[str]],
    cwd: Path,
    on_line: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
    limit_s: float | None = None,
) -> list[int]:
    """Run programs side by side, pass their output on line by line, and return their exit codes.

    Each has its own process group. If this call ends early (Ctrl-C, a timeout, a cancelled flow), the groups are ended:
    `dvc repro` alone would leave its stage running. On Linux they are also killed when this process is killed.

    Args:
        commands: one list of arguments per program.
        cwd: their working folder.
        on_line: called from this thread with each line of stdout or stderr.
        environment: variables in addition to this process's own.
        limit_s: seconds after which they are ended.

    Raises:
        TimeoutError: they took longer.
    """
    binaries = str(Path(sys.executable).parent)
    variables = {
        **os.environ,
        "PATH": binaries + os.pathsep + os.environ.get("PATH", ""),
        "DVC_NO_ANALYTICS": "1",
        "PYTHONUNBUFFERED": "1",
        **(environment or {}),
    }
    lines: queue.Queue[str | None] = queue.Queue()
    processes: list[subprocess.Popen[str]] = []
    try:
        for command in commands:
            process = subprocess.Popen(
                [sys.executable, "-m", "tans_core.leash", *command],
                cwd=cwd,
                env=variables,
                text=True,
                errors="replace",
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            processes.append(process)
            threading.Thread(target=_read_lines, args=(process, lines), daemon=True).start()
        running = len(processes)
        end = None if limit_s is None else time.monotonic() + limit_s
        while running:
            try:
                line = lines.get(timeout=None if end is None else max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"not done after {limit_s:g} s") from None
            if line is None:
                running -= 1
            else:
                on_line(line)
        return [process.wait() for process in processes]
    except BaseException:
        for process in processes:
            _end_group(process)
        raise


def _read_lines(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    with process.stdout as output:
        for line in output:
            lines.put(line.rstrip("\n"))
    lines.put(None)


def _end_group(process: subprocess.Popen[str], grace_s: float = 5.0) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=grace_s)
    # The group's leader may have ended while a child still runs.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def training() -> Iterator[None]:
    """Raise KeyboardInterrupt for Ctrl-C during a training: Lightning exits with code 1 and ignores the next Ctrl-C."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            with contextlib.suppress(ValueError):  # raised outside the main thread, which receives no signals
                signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None
        raise


def clock() -> Callable[[], float]:
    """Return a function that returns the seconds since this call."""
    start = time.perf_counter()
    return lambda: time.perf_counter() - start


def choose_precision(wanted: str) -> Precision:
    """Return `fp32` or `bf16`; for `auto`, `bf16` if this machine's processor has instructions for it.

    With them (AVX-512 BF16, AMX, tensor cores) bf16 trains 1.7 times as fast; without them it is several times slower.

    Args:
        wanted: `auto`, `fp32` or `bf16`.
    """
    if wanted != "auto":
        return cast(Precision, wanted)
    chosen: Precision = "bf16" if computes_bf16() else "fp32"
    logger.info("precision auto: %s", chosen)
    return chosen


def computes_bf16() -> bool:
    """Return whether the device has bf16 instructions: a GPU of compute capability 8.0 or more, a CPU with AVX-512
    BF16 or AMX.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
