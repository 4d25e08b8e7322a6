"""Every command that reads a user's images obeys `gates.query` of params.yaml as it is now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tans_core.errors import GateError
from tests.factories.query_cases import QUERY_CASES, change_params, copy_release
from tests.unit.cli.conftest import Tans

COMMANDS = {
    "tasks scan": (),
    "tasks add": ("--name", "mine", "--replace"),
    "retrieve": (),
    "finetune": ("--epochs", "1"),
}


@pytest.mark.parametrize(
    ("key", "command"),
    [*(("min_median_side_px", command) for command in COMMANDS), ("max_copy_share", "tasks add")],
)
def test_threshold_is_obeyed_after_publishing(
    key: str, command: str, tans: Tans, project: Path, tmp_path: Path
) -> None:
    case, root = QUERY_CASES[key], copy_release(project, tmp_path / "published")
    images = case.make(tmp_path / "images")
    call = (*command.split(), images, *COMMANDS[command], "--root", root)
    change_params(root, gates__query={key: case.lets_pass})
    done = tans(*call)
    assert done.code == 0 and case.words not in done.out + done.err, done.err
    change_params(root, gates__query={key: case.objects})
    done = tans(*call)
    assert done.code == (GateError.exit_code if case.stops else 0), done.err
    assert case.words in done.out + done.err and "Traceback" not in done.err
    pages = [page for page in root.glob("runs/*/scan.html") if case.words in page.read_text(encoding="utf-8")]
    # Of what is added the pipeline writes its own reports.
    assert bool(pages) == (command != "tasks add" or case.stops)
