"""The shared entry point of the stage scripts, run as programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = '''
from pathlib import Path
from tans_core.errors import GateError, ParamsError
from tans_core.stages._main import run_stage

def main({parameters}) -> None:
    """Do what the test wants."""
    {body}

run_stage(main)
'''


def run(folder: Path, parameters: str, body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = folder / "probe.py"
    script.write_text(SCRIPT.format(parameters=parameters, body=body))
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_root_and_key_reach_main(tmp_path: Path) -> None:
    body = '(root / "seen").write_text(task)'
    done = run(tmp_path, "root: Path, task: str", body, "leaves", "--root", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "seen").read_text() == "leaves"


def test_missing_key_is_a_usage_error(tmp_path: Path) -> None:
    done = run(tmp_path, "root: Path, task: str", "pass")
    assert done.returncode == 2
    assert "the following arguments are required: task" in done.stderr


def test_unwanted_key_is_a_usage_error(tmp_path: Path) -> None:
    done = run(tmp_path, "root: Path", "pass", "leaves")
    assert done.returncode == 2
    assert "unrecognized arguments: leaves" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [("GateError('2 models are not finite', ('a', 'b'))", 3), ("ParamsError('2 models are not finite')", 2)],
)
def test_expected_error_is_a_message_with_its_exit_code_and_no_trace(tmp_path: Path, error: str, code: int) -> None:
    done = run(tmp_path, "root: Path", f"raise {error}")
    assert done.returncode == code
    assert done.stderr == f"{error.split('(')[0]}: 2 models are not finite\n"


def test_bug_keeps_its_trace(tmp_path: Path) -> None:
    done = run(tmp_path, "root: Path", "raise KeyError('oops')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_interrupt_ends_without_a_trace(tmp_path: Path) -> None:
    done = run(tmp_path, "root: Path", "raise KeyboardInterrupt")
    assert done.returncode == 130
    assert done.stderr == "stage probe: interrupted\n"
