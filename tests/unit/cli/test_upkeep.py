"""`tans prune`, `tans contribute`, and the page on operations: what it says works."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import tans_core
from tans_core.errors import NoModelFitsError
from tans_core.inbox import refresh
from tests.factories.project import UNSEEN, image_folder
from tests.unit.cli.conftest import PROJECT, Tans

RUN = "2026-01-01T10-00-00-{kind}-0a1b2c"
DAY_S = 24 * 3600


def put(root: Path, name: str, days: float) -> Path:
    """Write a file that has not changed for so many days, nor has its folder."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 1000)
    moment = time.time() - days * DAY_S
    for one in (path, path.parent):
        os.utime(one, (moment, moment))
    return path


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A project with a file of each kind that is 40 days old."""
    root = tmp_path / "old"
    for name in (
        f"runs/{RUN.format(kind='retrieve')}/candidates.json",
        f"runs/{RUN.format(kind='finetune')}/weights.safetensors",
        "runs/notes/mine.txt",
        "reports/gates/arrival-0123.json",
        "reports/gates/tasks.json",
        "reports/releases/one.png",
        "reports/evaluate.html",
        "quarantine/newcomer/reason.json",
        ".resume/scan/0123/part.arrow",
        ".resume/zoo/leaves/state.pt",
        ".resume/evaluate/one.json",
        ".resume/transfer/trial.json",
    ):
        put(root, name, 40)
    (root / "params.yaml").write_text("seed: 0\n")
    return root


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_old_runs_reports_and_checkpoints_go_and_results_stay(tans: Tans, old: Path) -> None:
    before = files(old)
    trial = json.loads(tans("prune", "--dry-run", "--json", "--root", old).out)
    assert files(old) == before
    done = json.loads(tans("prune", "--json", "--root", old).out)
    assert before - files(old) == {
        f"runs/{RUN.format(kind='retrieve')}/candidates.json",
        "reports/gates/arrival-0123.json",
        "reports/releases/one.png",
        ".resume/scan/0123/part.arrow",
        ".resume/zoo/leaves/state.pt",
        ".resume/evaluate/one.json",
    }
    assert trial["dry_run"] and not done["dry_run"]
    assert {**trial, "dry_run": False} == done
    assert done["before_bytes"][".resume"] - done["after_bytes"][".resume"] == 3000
    assert sum(one["size_bytes"] for one in done["removed"]) == 6000
    assert tans("prune", "--json", "--root", old).out.count('"path"') == 0


def test_what_exists_nowhere_else_goes_on_demand_alone(tans: Tans, old: Path) -> None:
    tans("prune", "--finetuned", "--quarantine", "--root", old)
    assert not (old / "runs" / RUN.format(kind="finetune")).exists()
    assert not (old / "quarantine/newcomer").exists()
    assert (old / "runs/notes/mine.txt").is_file()


@pytest.mark.parametrize(("days", "age", "stays"), [(30, 29, True), (30, 31, False), (0, 0.01, True), (0, 0.1, False)])
def test_what_is_young_or_in_use_stays(tans: Tans, tmp_path: Path, days: int, age: float, stays: bool) -> None:
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    path = put(tmp_path, f"runs/{RUN.format(kind='scan')}/scan.json", age)
    assert tans("prune", "--days", days, "--root", tmp_path).code == 0
    assert path.exists() == stays


def test_table_says_how_much_is_freed_and_a_dry_run_what(tans: Tans, old: Path) -> None:
    put(old, ".resume/space/checkpoint.pt", 40).write_bytes(b"x" * 3_000_000)
    os.utime(old / ".resume/space/checkpoint.pt", (0, 0))
    done = tans("prune", "--dry-run", "--root", old)
    rows = [line.split() for line in done.out.splitlines()]
    assert [".resume", "3.0", "0.0"] in rows
    assert f"resume {old / '.resume/space'}" in done.out
    assert "would be removed: run: 1, report: 2, resume: 4" in done.out


def test_half_a_folder_that_a_killed_prune_left_is_swept(tans: Tans, old: Path) -> None:
    put(old, "runs/.2026-01-01T10-00-00-scan-0a1b2c.removed/scan.json", 1)
    tans("prune", "--root", old)
    assert not list((old / "runs").glob(".*"))


def test_releases_are_pruned_and_requests_answered(tans: Tans, project: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(project, root)
    first = tans_core.list_releases(root)[0]["id"]
    (root / "data/space/space.json").write_text(json.dumps({**read(root / "data/space/space.json"), "note": 1}))
    second = tans_core.publish(root)
    pruning = tans_core.prune(root, keep=0, days=0)
    assert first != second and [one["id"] for one in tans_core.list_releases(root)] == [second]
    assert {one.kind for one in pruning.removed} == {"release", "weights"}
    assert all(not finding.problem for finding in tans_core.verify(root))
    assert tans_core.retrieve(UNSEEN, root=root).release == second


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture
def root(project: Path, tmp_path: Path) -> Path:
    # With its hard links, unlike `shutil.copytree`.
    subprocess.run(["cp", "-a", project, tmp_path / "project"], check=True)
    return tmp_path / "project"


@pytest.fixture(scope="module")
def tuned(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a fine-tuning on a user's images, in a project of its own."""
    folder = tmp_path_factory.mktemp("tuned")
    shutil.copytree(project, folder / "project")
    return tans_core.finetune(image_folder(folder / "photos"), epochs=2, root=folder / "project").folder


def card_after(tans: Tans, tuned: Path, *options: object) -> dict[str, Any]:
    done = tans("contribute", tuned, *options, "--json", "--root", tuned.parents[1])
    assert done.code == 0, done.err
    card: dict[str, Any] = read(Path(json.loads(done.out)["entry"]) / "card.json")
    return card


def test_a_tuned_network_joins_the_zoo_and_is_found_for_its_own_images(tans: Tans, tuned: Path) -> None:
    root, photos = tuned.parents[1], tuned.parents[2] / "photos"
    start, before = tans_core.model_card(read(tuned / "params.json")["model"], root), read(tuned / "card.json")
    options = ("--licence", "CC-BY-SA-4.0", "--name", "leaves", "--json", "--root", root)
    done = tans("contribute", tuned.name, *options)
    entry = Path(json.loads(done.out)["entry"])
    assert entry.parent == root / "inbox"
    assert {path.name for path in entry.iterdir()} == {"card.json", "weights.safetensors"}
    assert read(tuned / "card.json") == before
    outcome = refresh(root, lambda newcomer, release: None, settle_s=0)
    assert outcome.refused == {}
    card = outcome.admitted[entry.name].card
    images = {"kind": "task", "name": "leaves", "source": before["source"], "licence": "CC-BY-SA-4.0"}
    assert [one.model_dump() for one in card.lineage] == [*(one.model_dump() for one in start.lineage), images]
    assert card.home_task == "leaves" and card.class_names == ("ash", "elm", "oak")
    assert card.licence == "Apache-2.0 AND CC-BY-SA-4.0 AND CC0-1.0 AND MIT"
    assert "LicenseRef" not in card.to_json()
    found = tans_core.retrieve(photos, top_k=100, refine=30, root=root)
    assert card.id in [one.model for one in found]
    accepted = ["Apache-2.0", "CC0-1.0", "MIT"]
    assert card.id not in [one.model for one in tans_core.retrieve(photos, top_k=100, licences=accepted, root=root)]
    with pytest.raises(NoModelFitsError):
        tans_core.retrieve(photos, licences="CC-BY-SA-4.0", root=root)


def test_terms_in_words_or_in_a_file_are_kept(tans: Tans, tuned: Path, tmp_path: Path) -> None:
    words = card_after(tans, tuned, "--licence", "For use inside Acme only")["licences"]
    assert words["texts"] == {"LicenseRef-for-use-inside-acme-only": "For use inside Acme only"}
    (tmp_path / "terms.txt").write_text("Ask Acme first.\n")
    own = card_after(tans, tuned, "--licence", "LicenseRef-acme", "--terms", tmp_path / "terms.txt")["licences"]
    assert own["texts"] == {"LicenseRef-acme": "Ask Acme first."}
    assert own["data"] == "CC0-1.0 AND LicenseRef-acme AND MIT"
    assert own["weights"] == f"Apache-2.0 AND {own['data']}"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 2, "Name it by --licence"),
        (["--licence", "LicenseRef-users-own"], 2, "none is known for the images"),
        (["--licence", "MTI"], 2, "did you mean 'MIT'"),
        (["--licence", "LicenseRef-acme"], 2, "the terms of LicenseRef-acme are not known"),
        (["--licence", "MIT", "--terms", "params.yaml"], 2, "one licence of your own, but the licence is MIT"),
        (["--licence", "LicenseRef-acme", "--terms", "nowhere.txt"], 2, "cannot be read"),
        (["--licence", "MIT", "--name", UNSEEN], 2, "Pass another name"),
        (["--licence", "MIT", "--name", "a/b"], 7, "home_task"),
    ],
)
def test_what_cannot_be_contributed_is_said(
    tans: Tans, tuned: Path, options: list[str], code: int, message: str
) -> None:
    shutil.rmtree(tuned.parents[1] / "inbox", ignore_errors=True)
    done = tans("contribute", tuned, *options, "--root", tuned.parents[1])
    assert (done.code, message in done.err) == (code, True), done.err
    assert not list((tuned.parents[1] / "inbox").glob("*"))


def test_a_folder_that_is_no_fine_tuning_is_said(tans: Tans, tuned: Path, tmp_path: Path) -> None:
    root = tuned.parents[1]
    assert "no fine-tuning" in tans("contribute", tmp_path, "--licence", "MIT", "--root", root).err
    half = tmp_path / "half"
    shutil.copytree(tuned, half)
    (half / "provenance.json").unlink()
    assert "not a complete fine-tuning" in tans("contribute", half, "--licence", "MIT", "--root", root).err


def test_terms_that_contradict_those_of_an_ancestor_are_refused(tans: Tans, tuned: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tuned, copy)
    card = read(copy / "card.json")
    card["lineage"][0]["licence"] = "LicenseRef-acme"
    card["licences"]["texts"] = {"LicenseRef-acme": "Never."}
    (copy / "card.json").write_text(json.dumps(card))
    (tmp_path / "terms.txt").write_text("Ask Acme first.")
    options = ("--licence", "LicenseRef-acme", "--root", tuned.parents[1])
    assert "have other terms of this name" in tans("contribute", copy, *options, "--terms", tmp_path / "terms.txt").err
    assert tans("contribute", copy, *options).code == 0


def test_a_task_of_the_project_keeps_its_licence(tans: Tans, tuned: Path) -> None:
    root = tuned.parents[1]
    run = tans_core.finetune(UNSEEN, epochs=1, root=root).folder
    assert "has CC0-1.0" in tans("contribute", run, "--licence", "MIT", "--root", root).err
    assert "Leave out --name" in tans("contribute", run, "--name", "leaves", "--root", root).err
    assert card_after(tans, run)["lineage"][-1]["licence"] == "CC0-1.0"


OPERATIONS = (PROJECT / "docs/operations.md").read_text(encoding="utf-8")


def test_backup_and_restore_of_the_page_give_the_same_service(root: Path, tmp_path: Path) -> None:
    section = OPERATIONS.partition("## Backup and restore")[2].partition("## Disk space")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    backup, restore = (block for block in blocks if "BACKUP=" in block)
    bin_folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}

    def run(block: str, folder: Path) -> str:
        script = re.sub(r"BACKUP=.*", f"BACKUP={tmp_path / 'tans.tar'}", block)
        command = ["bash", "-euo", "pipefail", "-c", script]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout

    before = tans_core.retrieve(UNSEEN, root=root)
    run(backup, root)
    clone = tmp_path / "clone"
    clone.mkdir()
    shutil.copy(root / "params.yaml", clone)
    shutil.copytree(root / "data/tasks" / UNSEEN, clone / "data/tasks" / UNSEEN)
    shutil.rmtree(root)
    said = run(restore, clone)
    assert before.release in said and " 0 damaged" in said
    assert tans_core.retrieve(UNSEEN, root=clone).to_dicts() == before.to_dicts()
    # Releases still share their weights.
    release = tans_core.Service.open(clone).release
    assert all((release.root / name).stat().st_nlink > 1 for name in release.files)


def test_prefect_knows_every_setting_that_the_page_names() -> None:
    from prefect.settings import Settings
    from prefect.settings.legacy import _get_settings_fields

    named = set(re.findall(r"PREFECT_[A-Z_]+", OPERATIONS))
    assert len(named) >= 7
    assert named <= set(_get_settings_fields(Settings))


def test_prefect_is_told_to_remove_old_runs() -> None:
    code = "from prefect.settings import get_current_settings as now; print(now().server.services.db_vacuum)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
    assert "flow_runs" in done.stdout and "days=30" in done.stdout
