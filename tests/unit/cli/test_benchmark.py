"""`tans benchmark` on the small project."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tans_core.benchmark import pool
from tans_core.benchmark.orders import BLIND, IMAGENET, OURS, REFINED_OURS
from tans_core.benchmark.pool import SCORES
from tans_core.tasks.task import write_task
from tests.factories.project import UNSEEN, make_task
from tests.unit.cli.conftest import Tans

SECOND = "blots"


@pytest.fixture
def root(project: Path, tmp_path: Path) -> Path:
    """A copy of the small project with a second unseen task."""
    shutil.copytree(project, tmp_path / "project")
    write_task(make_task(SECOND, "made-of-blots", "meta-test", 7), tmp_path / "project/data/tasks" / SECOND)
    path = tmp_path / "project/params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["tasks"]["meta_test"][SECOND] = {"source": "made-of-blots", "options": {}}
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    return tmp_path / "project"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_benchmark_judges_every_ranking_and_goes_on_where_it_ended(
    tans: Tans, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--seeds", "2", "--points", "2", "--jobs", "1", "--json", "--root", root)
    fits: list[str] = []
    fit_once = pool.fit_once

    def counted(*arguments: object) -> object:
        fits.append("one")
        if len(fits) == 6:
            raise KeyboardInterrupt
        return fit_once(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pool, "fit_once", counted)
    assert tans("benchmark", "--networks", "6", *options).code != 0
    done = tans("benchmark", "--networks", "6", *options)
    assert done.code == 0, done.err
    # 6 networks on 2 tasks, twice; the five that were finished are not repeated, the sixth is.
    assert len(fits) == 24 + 1
    record = json.loads(done.out)
    files = [Path(path) for path in record.pop("files")]
    assert all(path.is_file() for path in files)
    assert json.loads(files[0].read_text(encoding="utf-8")) == record
    unseen = record["unseen"]
    assert (unseen["networks"], unseen["tasks"], unseen["seeds"], unseen["fits"]) == (6, 2, 2, 24)
    rankings = unseen["rankings"]
    assert {OURS, REFINED_OURS, BLIND, "random", "largest", "nearest task", "best at home", *SCORES} <= set(rankings)
    assert IMAGENET not in rankings  # this zoo has none
    assert rankings[OURS]["forward_passes"] == 0 and rankings["LogME"]["forward_passes"] == 6
    assert rankings[OURS]["regret_at_1"] >= rankings[OURS]["regret_at_3"] >= 0
    assert rankings["LEEP"]["defined"] == pytest.approx(1 - unseen["without_classifier"] / 6)
    assert set(unseen["against"][OURS]) == set(rankings) - {OURS}
    best = rows_of(root / "reports/benchmark-scores.csv")
    of_task = [row for row in best if row["task"] == UNSEEN and row["judged_by"] == "fine-tuned pool"]
    first = max(of_task, key=lambda row: float(row[OURS]))
    regret = 100 * (max(float(row["truth"]) for row in of_task) - float(first["truth"]))
    assert unseen["by_task"][UNSEEN][OURS]["regret_at_1"] == pytest.approx(regret)
    assert len(rows_of(root / "reports/benchmark-fits.csv")) == 24 * 2
    page = (root / "reports/benchmark.html").read_text(encoding="utf-8")
    assert page.count("<table>") == 2 * (1 + ("trials" in record)) and "://" not in page
    with Image.open(root / "plots/benchmark.png") as picture:
        assert picture.size[0] == 1216
    # More networks add trials, and repeat none; time that is over leaves them out.
    again = tans("benchmark", "--networks", "9", "--minutes", "0", *options)
    for name, of_task in json.loads(again.out)["unseen"]["by_task"].items():
        for ranking, row in of_task.items():
            assert row["regret_at_1"] == unseen["by_task"][name][ranking]["regret_at_1"], (name, ranking)
    assert len(fits) == 25
    other = tans("benchmark", "--networks", "9", "--minutes", "0", "--steps", "3", *options)
    assert other.code == 2
    assert "fewer than 4 networks were fine-tuned on each task" in other.err


def test_trials_of_the_build_need_no_fine_tuning(tans: Tans, root: Path) -> None:
    space = root / "data/space/elsewhere.json"
    done = tans("benchmark", "--networks", "0", "--jobs", "1", "--root", root)
    assert done.code == 0, done.err
    record = json.loads((root / "metrics/benchmark.json").read_text(encoding="utf-8"))
    assert "unseen" not in record
    tried = json.loads(space.read_text(encoding="utf-8"))
    assert record["trials"]["trials"] <= len(tried)
    assert "LogME" in done.out and "plots/benchmark.png" not in done.out


def test_unknown_task_is_named_with_those_there_are(tans: Tans, root: Path) -> None:
    done = tans("benchmark", "--task", "patchs", "--root", root)
    assert done.code == 4
    assert "'patchs' (did you mean 'patches'?)" in done.err and SECOND in done.err
