import json
import os
import resource
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tans_core.cli.pipeline import _count_stages
from tans_core.io import read_json
from tests.factories.challenges import REVERSED, built
from tests.factories.processes import wait_until_gone
from tests.factories.releases import build
from tests.factories.repository import init_repository
from tests.unit.cli.conftest import Tans

PROGRAM = [sys.executable, "-m", "tans_core.cli"]


def spawn(*arguments: str, **options: object) -> "subprocess.Popen[str]":
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*PROGRAM, *arguments], **{**streams, **options})  # type: ignore[call-overload, no-any-return]


def make_pipeline(root: Path, command: str) -> Path:
    init_repository(root)
    (root / "dvc.yaml").write_text(f"stages:\n  only:\n    cmd: {command}\n")
    return root


def test_version_is_the_distributions(tans: Tans) -> None:
    assert tans("version").out == f"tans {metadata.version('tans')}\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["retrieve", "--help"], ["tasks", "-h"], ["models", "list", "--help"]]
)
def test_help_ends_with_examples_at_every_level(tans: Tans, arguments: list[str]) -> None:
    done = tans(*arguments)
    assert done.code == 0
    head, _, examples = done.out.partition("Examples")
    assert "Usage: tans" in head
    assert "tans " in examples


def cpu_seconds(*command: str) -> float:
    """The least processor time of three runs: the machine may be busy."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def test_help_imports_little_more_than_the_libraries_of_a_command() -> None:
    """About 2.5 times; with torch, 8 times."""
    libraries = cpu_seconds(sys.executable, "-c", "import pydantic, rich.markdown, typer")
    assert cpu_seconds(*PROGRAM, "--help") < 4 * libraries


def test_misspelt_command_is_answered_with_the_right_one(tans: Tans) -> None:
    done = tans("retriev", "photos")
    assert done.code == 2
    assert "Did you mean 'retrieve'?" in done.err


@pytest.mark.parametrize(
    "arguments", [["retrieve"], ["retrieve", "x", "--top-k", "0"], ["finetune", "x", "--epochs", "many"]]
)
def test_wrong_usage_ends_with_2(tans: Tans, arguments: list[str]) -> None:
    done = tans(*arguments)
    assert done.code == 2
    assert done.out == ""


def test_colours_are_off_where_asked(project: Path) -> None:
    plain = {**os.environ, "NO_COLOR": "1", "FORCE_COLOR": ""}
    done = spawn("tasks", "list", "--root", str(project), env=plain).communicate(timeout=60)
    assert "\x1b[" not in done[0] + done[1]
    assert "stripes" in done[0]


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_reader_that_leaves_early_sees_no_trace(project: Path, extra: list[str]) -> None:
    running = spawn("tasks", "list", "--root", str(project), *extra)
    assert running.stdout is not None
    # Long before the first byte: the program still imports.
    running.stdout.close()
    assert running.stderr is not None
    assert running.stderr.read() == ""
    running.stderr.close()
    assert running.wait(timeout=60) == 141


def test_publish_names_the_release_that_is_listed_as_production(tans: Tans, project: Path) -> None:
    published = tans("publish", "--root", project)
    assert published.code == 0
    rows = json.loads(tans("releases", "--json", "--root", project).out)
    assert next(row["id"] for row in rows if row["production"]) in published.out
    shown = tans("releases", "--root", project).out
    recorded = read_json(project / "data/space/space.json")["metrics"]
    figures = [recorded["elsewhere"]["weighted_tau"], recorded["elsewhere"]["regret_at_1"]]
    figures.append(recorded["heldout"]["recall_at_1"])
    wanted = [str(rows[0]["models"]), *(f"{one:.3f}" for one in figures), "live"]
    assert [line.split()[1:] for line in shown.splitlines() if rows[0]["id"] in line] == [wanted]


def test_publish_of_what_was_rolled_back_ends_with_6_until_it_is_asked_for_again(tans: Tans, tmp_path: Path) -> None:
    assert tans("publish", "--root", build(tmp_path)).code == 0
    assert tans("publish", "--root", build(tmp_path, models=4)).code == 0
    assert tans("rollback", "--root", tmp_path).code == 0
    refused = tans("publish", "--root", tmp_path)
    assert (refused.code, refused.out) == (6, "")
    assert refused.err.startswith("WithdrawnReleaseError: release ") and "tans publish --again" in refused.err
    listed = json.loads(tans("releases", "--json", "--root", tmp_path).out)
    assert [(one["models"], one["production"], one["withdrawn"]) for one in listed] == [
        (3, True, False),
        (4, False, True),
    ]
    shown = tans("releases", "--root", tmp_path).out
    words = [line.split() for line in shown.splitlines() if line.split()[:1] == [listed[1]["id"]]]
    assert words == [[listed[1]["id"], listed[0]["id"].split("-")[1], "4", "withdrawn"]]
    assert listed[1]["id"] in tans("publish", "--again", "--root", tmp_path).out


def test_publish_shows_the_comparison_and_publishes_all_the_same(tans: Tans, tmp_path: Path) -> None:
    assert tans("publish", "--root", built(tmp_path)).out.startswith("published ")
    done = tans("publish", "--root", built(tmp_path, REVERSED, name="space-2"))
    assert done.code == 0
    row = next(line for line in done.out.splitlines() if "weighted tau" in line)
    assert row.split()[2:] == ["1.000", "-1.000", "-2.000", "1"]
    assert "by the rule it is refused\nWorse: weighted tau fell from 1.000 to -1.000" in done.out
    picture = next(line for line in done.out.splitlines() if line.startswith("task by task: "))
    assert Path(picture.partition(": ")[2]).is_file()
    assert done.out.rstrip().endswith("it is in production")


def test_publish_by_the_rule_ends_with_6_and_says_how_to_publish_it_anyway(tans: Tans, tmp_path: Path) -> None:
    assert tans("publish", "--judge", "--root", built(tmp_path)).code == 0
    done = tans("publish", "--judge", "--root", built(tmp_path, REVERSED, name="space-2"))
    assert done.code == 6
    assert "by the rule it is refused" in done.out and "published" not in done.out
    assert (
        done.err.startswith("RefusedReleaseError: ") and "`tans publish`, which publishes it all the same" in done.err
    )
    again = tans("publish", "--judge", "--root", tmp_path)
    assert (again.code, again.out) == (6, "")
    assert "Refused on 20" in again.err and "Its content has not changed." in again.err
    assert "by the rule it is refused" in tans("publish", "--judge", "--again", "--root", tmp_path).out
    assert tans("publish", "--root", tmp_path).code == 0


def test_rollback_to_nowhere_ends_with_6(tans: Tans, project: Path) -> None:
    done = tans("rollback", "--to", "yesterday", "--root", project)
    assert (done.code, done.out) == (6, "")


def test_build_passes_the_code_of_a_gate_on(tans: Tans, tmp_path: Path) -> None:
    root = make_pipeline(tmp_path, "echo the gate speaks && exit 3")
    done = tans("build", "--jobs", "1", "--root", root)
    assert done.code == 3
    assert "the gate speaks" in done.out
    assert done.err.startswith("GateError: stage 'only' failed with exit code 3")


def test_progress_counts_every_stage_of_the_projects_pipeline() -> None:
    root = Path(__file__).resolve().parents[3]
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert _count_stages(root) == len(listed.stdout.split())


@pytest.mark.parametrize(
    "text", ["stages: [", "", "stages:\n  a:\n    foreach: ${nothing.here}\n    do: {cmd: echo}\n"]
)
def test_pipeline_that_cannot_be_read_has_no_count(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text("seed: 0")
    (tmp_path / "dvc.yaml").write_text(text)
    assert _count_stages(tmp_path) is None


def test_build_of_a_good_pipeline_ends_with_0(tans: Tans, tmp_path: Path) -> None:
    done = tans("build", "--jobs", "1", "--root", make_pipeline(tmp_path, "echo fine"))
    assert done.code == 0
    assert "fine" in done.out.splitlines()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_the_build_and_the_stage_at_work(tmp_path: Path, number: signal.Signals, code: int) -> None:
    root = make_pipeline(tmp_path, "echo pid $$ && exec sleep 600")
    # A shell that starts a job in the background has it ignore SIGINT; a terminal does not.
    running = spawn(
        "build",
        "--jobs",
        "1",
        "--root",
        str(root),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert running.stdout is not None
    pid = next(int(line.split()[1]) for line in running.stdout if line.startswith("pid "))
    running.send_signal(number)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == code
    assert "Traceback" not in errors
    assert wait_until_gone(pid)


def test_serve_becomes_the_flows_program_in_the_projects_folder(tmp_path: Path) -> None:
    # A module of that name in the folder is found first; it reports its process and folder.
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/__init__.py").touch()
    (tmp_path / "flows/serve.py").write_text("import os, sys; print(os.getpid(), os.getcwd(), *sys.argv[1:])")
    running = spawn("serve", "--port", "4321", "--root", str(tmp_path))
    out, _ = running.communicate(timeout=60)
    assert out.split() == [str(running.pid), str(tmp_path.resolve()), "--port", "4321"]
