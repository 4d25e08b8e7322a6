"""Ctrl-C and SIGTERM during a training: the usual exit codes, and no partial files."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tans_core
from tests.factories.images import write_class_folders
from tests.factories.project import UNSEEN

_TRAIN = """
import sys, torch
import pytorch_lightning as pl
from tans_core.runtime import training

class Loop(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
    def training_step(self, batch, index):
        print("step", flush=True)
        return self.weight.sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

def main(root):
    trainer = pl.Trainer(max_steps=10**9, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                         enable_model_summary=False, accelerator="cpu")
    with training():
        trainer.fit(Loop(), torch.utils.data.DataLoader(torch.zeros(10**6, 1), batch_size=1))

from tans_core.stages._main import run_stage
run_stage(main, [])
"""


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a program that receives SIGINT as from a terminal, even if the tests run in the background."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    ) as run:
        try:
            yield run
        finally:
            run.kill()


CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def test_a_stage_that_is_stopped_while_it_trains_says_so_by_its_code(tmp_path: Path) -> None:
    script = tmp_path / "stage.py"
    script.write_text(_TRAIN)
    # Both at once: most of the time is their imports.
    with started([sys.executable, str(script)]) as one, started([sys.executable, str(script)]) as other:
        for run, (number, code) in zip((one, other), CODES.items(), strict=True):
            assert run.stdout is not None
            assert "step" in next(line for line in run.stdout if "step" in line)
            run.send_signal(number)
            _, said = run.communicate(timeout=60)
            assert run.returncode == code, said
            assert ("interrupted" in said) == (number == signal.SIGINT)


def test_fine_tuning_that_is_stopped_ends_with_its_code_and_keeps_nothing(project: Path, tmp_path: Path) -> None:
    photos = write_class_folders(tmp_path / "photos", {"ash": 40, "oak": 40}, side=32)
    # On a task, and on a user's images: the second takes longer to begin, and is stopped last.
    asked = [(UNSEEN, "--model", tans_core.list_models(project)[0].id), (photos,)]
    options = ("--epochs", "100000", "--root", project)
    of_task, own = ([sys.executable, "-m", "tans_core.cli", "finetune", *map(str, (*one, *options))] for one in asked)
    before = set(project.glob("runs/*"))

    def training() -> int:
        return sum("finetune" in folder.name for folder in set(project.glob("runs/*")) - before)

    with started(of_task) as one, started(own) as other:
        while training() < 2:
            assert one.poll() is None and other.poll() is None
            time.sleep(0.05)
        for run, (number, code) in zip((one, other), CODES.items(), strict=True):
            run.send_signal(number)
            _, said = run.communicate(timeout=60)
            assert run.returncode == code, said
            assert "Traceback" not in said
    assert training() == 0
