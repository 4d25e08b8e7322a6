"""`tans` run in this process: its output and exit code."""

from __future__ import annotations

import gc
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tans_core.cli import main

PROJECT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Tans = Callable[..., Done]


@pytest.fixture
def tans(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Tans]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["tans", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        streams = capsys.readouterr()
        code = ended.value.code
        return Done(code if isinstance(code, int) else int(code is not None), streams.out, streams.err)

    thresholds, threads = gc.get_threshold(), torch.get_num_threads()
    yield run
    gc.set_threshold(*thresholds)
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A folder with the project's own params.yaml and nothing built."""
    root = tmp_path / "fresh"
    root.mkdir()
    shutil.copy(PROJECT / "params.yaml", root)
    return root
