"""An inbox of newcomers that must not be admitted, with one good newcomer, and refreshes that are killed."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tans_core.embeddings.store import read_table
from tans_core.inbox import refresh
from tans_core.index.releases import open_production
from tans_core.newcomers import newcomer_folders
from tans_core.zoo.admission import CARD_FILE, WEIGHTS_FILE, identify
from tans_core.zoo.card import ModelCard
from tests.factories.hostile_newcomers import BAD_CARDS, SPOILED
from tests.factories.newcomers import drop, tensors

LEAST = 40
PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def root(project: Path, tmp_path: Path) -> Path:
    shutil.copytree(project, tmp_path / "project")
    return tmp_path / "project"


def digests(folder: Path) -> dict[str, str]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def served(root: Path) -> set[str]:
    return set(read_table(open_production(root / "serving").store_dir, "index")["id"].to_pylist())


def test_each_hostile_newcomer_goes_to_quarantine_with_a_reason_of_its_own(root: Path) -> None:
    inbox, wanted = root / "inbox", {}
    for number, (spoil, words) in enumerate(SPOILED):
        spoil(drop(inbox, f"file-{number}"))
        wanted[f"file-{number}"] = words
    for number, (changes, words) in enumerate(BAD_CARDS):
        drop(inbox, f"card-{number}", **changes)
        wanted[f"card-{number}"] = words
    broken = {"nan": float("nan"), "huge": 1e30, "zero": 0.0}
    for name, value in broken.items():
        folder = drop(inbox, name)
        spoilt = {
            key: torch.full_like(one, value) if one.is_floating_point() else one for key, one in tensors().items()
        }
        save_file(spoilt, folder / WEIGHTS_FILE)
        wanted[name] = ""
    (inbox / "link").symlink_to(root / "data")
    (inbox / "..name").mkdir()
    wanted["link"] = "not a folder"
    drop(inbox, "good")
    assert len(wanted) >= LEAST
    before, built = served(root), digests(root / "data/zoo") | digests(root / "data/base")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = refresh(root, lambda newcomer, release: None, settle_s=0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 500_000  # KiB
    assert list(outcome.admitted) == ["good"]
    assert outcome.refused.keys() == wanted.keys()
    for name, words in wanted.items():
        assert words in outcome.refused[name]
        (told,) = [
            found
            for path in (root / "quarantine").glob("*/reason.json")
            if (found := json.loads(path.read_text()))["name"] == name
        ]
        assert told["reason"] == outcome.refused[name]
    assert not list(tmp_of(root)) and not Path("exploded").exists() and not (root / "exploded").exists()
    assert digests(root / "data/zoo") | digests(root / "data/base") == built
    assert served(root) == before | {one.id for one in outcome.admitted.values()}


def tmp_of(root: Path) -> list[Path]:
    return list((root / ".resume/admission").glob("*"))


KILLED = """
import sys, os, threading, time
from pathlib import Path
from tans_core.inbox import refresh
import tans_core.gates.arrivals, tans_core.retrieval.placement, tans_core.index.releases
for line in sys.stdin:
    # Each is a fork of this process, which has imported all and has no threads.
    if (pid := os.fork()) == 0:
        threading.Thread(target=lambda: (time.sleep(float(line)), os.kill(os.getpid(), 9)), daemon=True).start()
        refresh(Path(sys.argv[1]), lambda newcomer, release: None, settle_s=0)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3])
def test_of_an_admission_that_is_killed_again_and_again_nothing_is_half_admitted_or_lost(
    root: Path, kills: int
) -> None:
    """`benchmarks/admission_kills.py` does the same 200 times."""
    names = [f"newcomer-{number}" for number in range(5)]
    for number, name in enumerate(names):
        folder = drop(root / "inbox", name, val_accuracy=0.5 + number / 100)
        save_file(tensors(seed=number + 1), folder / WEIGHTS_FILE)
    before, ended = served(root), list[int]()
    command, pipe = [sys.executable, "-W", "ignore", "-c", KILLED, str(root)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=PROJECT) as program:
        assert program.stdin is not None and program.stdout is not None
        for kill in range(kills):
            print(0.2 + 0.8 * kill, file=program.stdin, flush=True)
            ended.append(int(program.stdout.readline()))
            check_whole(root, names, before)
        program.stdin.close()
    assert -signal.SIGKILL in ended
    refresh(root, lambda newcomer, release: None, settle_s=0)
    assert len(served(root)) == len(before) + len(names)
    check_whole(root, names, before)


def check_whole(root: Path, names: list[str], before: set[str]) -> None:
    """Check that each newcomer is complete in the inbox or in data/, and that served models have weights."""
    arrivals = newcomer_folders(root / "data")
    for folder in arrivals:
        card = ModelCard.from_dict(json.loads((folder / CARD_FILE).read_text()))
        assert identify(card, folder / WEIGHTS_FILE) == folder.name
    # Counted by their weights, so that a newcomer in both places does not hide one that is lost.
    kept = [path / WEIGHTS_FILE for path in (*arrivals, *(root / "inbox" / name for name in names))]
    assert len({path.read_bytes() for path in kept if path.is_file()}) == len(names)
    assert not (root / "quarantine").exists()
    release = open_production(root / "serving")
    release.check()
    cards = map(json.loads, read_table(release.store_dir, "index")["card"].to_pylist())
    assert all(release.resolve(card["weights"]).is_file() for card in cards)
    assert before <= served(root)
