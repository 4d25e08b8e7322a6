"""What each stage, command and flow makes of a small project: outcomes that a changed setting has to change.

A run gets the folder of a project that it may change.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import yaml
from prefect.logging import disable_run_logger

import tans_core as tans
from flows.publishing import commit, push
from flows.triggers import due
from tans_core import yaml_file
from tans_core.io import sha256_file, write_json
from tans_core.publishing import Publication, publish_built
from tans_core.space.drift import Drift
from tans_core.stages import base, embed, evaluate, space, tasks, transfer, zoo
from tests.factories.challenges import SWAPPED
from tests.factories.challenges import built as made
from tests.factories.project import UNSEEN, image_folder

_COPIES = ("base.json", "space.json")
"""Files that copy settings: they differ whether or not anything else does."""


def files(root: Path, *parts: str) -> dict[str, str]:
    """Return a hash of each file of some folders, without copies of settings and Lance files: those always differ."""
    found = [path for part in parts for path in sorted((root / part).rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(root)): sha256_file(path)
        for path in found
        if ".lance" not in str(path) and path.name not in _COPIES
    }


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_seconds(inner) for key, inner in value.items() if key != "seconds"}
    return value


def metrics(root: Path, name: str) -> Any:
    return without_seconds(json.loads((root / f"metrics/{name}.json").read_text()))


def run_task(root: Path) -> Any:
    tasks.main(root, "regions")
    return files(root, "data/tasks/regions")


def run_task_beside_threads(root: Path) -> Any:
    seen: set[bool] = set()
    threading.setprofile(lambda *_: seen.add(threading.current_thread() is threading.main_thread()))
    try:
        run_task(root)
    finally:
        threading.setprofile(None)
    return seen


def run_base(root: Path) -> Any:
    base.main(root)
    return files(root, "data/base"), (root / "plots/base.csv").read_text()


def run_zoo(root: Path) -> Any:
    zoo.main(root, "stripes")
    return files(root, "data/zoo/stripes")


def run_embed(root: Path) -> Any:
    embed.main(root)
    return files(root, "data/store")


def run_transfer(root: Path) -> Any:
    shutil.rmtree(root / ".resume", ignore_errors=True)
    transfer.main(root)
    return (root / "data/store/transfer.digest").read_text()


def run_space(root: Path) -> Any:
    space.main(root)
    return files(root, "data/space"), metrics(root, "space"), (root / "plots/space.csv").read_text()


def run_evaluate(root: Path) -> Any:
    evaluate.main(root)
    return metrics(root, "evaluate"), files(root, "plots/evaluate")


def run_retrieve(root: Path) -> Any:
    tans.publish(root)
    return [one.model for one in tans.retrieve(UNSEEN, root=root)]


def run_finetune(root: Path) -> Any:
    tans.publish(root)
    run = tans.finetune(UNSEEN, tans.list_models(root)[0].id, root=root)
    return len(run.curve), sha256_file(run.folder / "weights.safetensors")


def run_finetune_fitted(root: Path) -> Any:
    params = yaml_file.read_yaml(root / "params.yaml")
    params["finetune"]["head"] = "fitted"
    (root / "params.yaml").write_text(json.dumps(params))
    return run_finetune(root)


def run_release(root: Path) -> Any:
    """Compare spaces that are worse in one way each, then one that is better on four tasks by the first network."""
    rule = yaml.safe_load((root / "params.yaml").read_text())["release"]
    far_apart = {"others": 76, "results": [0.99, 0.39, 0.2, 0.1, 0.0]}
    challenges: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "order": ({}, {"order": [5.0, 1, 2, 3, 4], "models": 9}),
        "first network": (far_apart, {"order": SWAPPED, "models": 9, **far_apart}),
        "recall": ({}, {"recall": 0.5, "models": 9}),
        "by chance": ({"order": SWAPPED}, {}),
    }
    outcomes = []
    for name, (champion, challenger) in challenges.items():
        folder = root / name
        folder.mkdir()
        publish_built(made(folder, **champion))
        made(folder, **challenger, name="space-2")
        params = yaml.safe_load((folder / "params.yaml").read_text())
        (folder / "params.yaml").write_text(yaml.safe_dump({**params, "release": rule}))
        outcomes.append(publish_built(folder, judged=True).outcome)
    return outcomes


def run_commit(root: Path, branch: str = "") -> Any:
    """Commit to the branch in params.yaml after a publication, and push it. Return both sides' branches."""
    folder, params = root / "recorded", yaml.safe_load((root / "params.yaml").read_text())
    params["release"]["branch"] = branch or params["release"]["branch"]
    folder.mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "dvc.lock").write_text("built\n")
    own = ["git", "-c", "user.name=someone", "-c", "user.email=someone@localhost"]
    for command in (["init", "-q"], ["init", "-q", "--bare", "remote.git"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*own, *command], cwd=folder, check=True)
    (folder / "dvc.lock").write_text("built again\n")
    with disable_run_logger():
        if made := commit(folder, Publication("published", "one", "one", None, "There was none before.")):
            push(folder, made)
    sides = (folder / ".git", folder / "remote.git")
    return [sorted(path.name for path in side.glob("refs/heads/r*")) for side in sides]


def run_push(root: Path) -> Any:
    return run_commit(root, "records")


def run_due(root: Path) -> Any:
    """Return why a retraining is due with some newcomers, with an old one, and with some that are far."""
    cases = {"some": (4, 0.0, None), "old": (1, 2 * 24 * 3600.0, None), "far": (4, 0.0, 1.0)}
    reasons = []
    for name, (count, age_s, quantile) in cases.items():
        folder, drifts = root / name, {}
        for number in range(count):
            card = folder / f"data/admitted/{number}/card.json"
            write_json({}, card)
            os.utime(card, (time.time() - age_s,) * 2)
            if quantile is not None:
                drifts[str(number)] = Drift(str(number), f"task {number}", False, 2.0, quantile, 0)
        shutil.copy(root / "params.yaml", folder)
        reasons.append(bool(due(folder, drifts)))
    return reasons


def run_scan(root: Path) -> Any:
    photos = image_folder(root / "photos")
    return tans.scan(photos, root=root).passed
