"""The gate after `transfer`: the table of networks that were tried on tasks other than their home task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import pandas as pd
import pyarrow as pa

from tans_core.embeddings.scores import Kind
from tans_core.embeddings.store import read_table
from tans_core.gates import expect
from tans_core.gates.derived import frame, need_columns
from tans_core.gates.runner import Check, run_gate
from tans_core.zoo.build import read_all_cards

STORE = Path("data/store")
WHERE = STORE / "transfer.lance"
COLUMNS = ["task", "model", "kind", "seed", "value"]
# Held-out images may be predicted worse than by their mean (0), but not without limit.
LEAST_PROBE = -100.0


def check_transfer(root: Path, tasks: Sequence[str]) -> None:
    """Gate the table that `transfer` wrote for the meta-train tasks.

    Args:
        root: the project's folder.
        tasks: names of the meta-train tasks: networks must have been fine-tuned and probed on each.

    Raises:
        GateError: rows are duplicate, of unknown task, network or kind, or out of range; or a task has none.
        StoreError: the table is missing or of another version.
    """
    run_gate("transfer", transfer_checks(root, tasks), root, "Run `tans build transfer` again.")


def transfer_checks(root: Path, tasks: Sequence[str]) -> list[Check]:
    """Return the checks of the table.

    The networks are read from the zoo's cards: the stage that writes their table may run at the same time.
    """
    homes = {card.id: card.home_task for card in read_all_cards(root / "data", tasks)}
    scores = read_table(root / STORE, "transfer")
    return [scores_check(scores, homes, tasks), coverage_check(scores, tasks)]


def scores_check(scores: pa.Table, homes: Mapping[str, str], tasks: Sequence[str]) -> Check:
    """Return the check of each row of the table `transfer`.

    Args:
        scores: the table.
        homes: home task by network.
        tasks: the meta-train tasks.
    """
    need_columns(scores, COLUMNS, WHERE)
    rows = scores.to_pylist()
    known = set(tasks)
    derived = {
        "trial": [f"{row['kind']} of {row['model']} on {row['task']}, seed {row['seed']}" for row in rows],
        "task_known": [row["task"] in known for row in rows],
        "model_known": [row["model"] in homes for row in rows],
        "away_from_home": [row["kind"] != "finetune" or homes.get(row["model"]) != row["task"] for row in rows],
        "accuracy": _of_kind(rows, "finetune"),
        "explained": _of_kind(rows, "probe"),
    }
    return Check(
        what="transfer scores",
        where=str(WHERE),
        frame=frame(derived, scores, COLUMNS),
        key="trial",
        expectations=[
            expect.unique("trial"),
            expect.present("kind"),
            expect.one_of("kind", get_args(Kind)),
            expect.true("task_known"),
            expect.true("model_known"),
            expect.true("away_from_home"),
            *expect.number("seed", 0, 2**63 - 1),
            expect.present("value"),
            expect.between("accuracy", 0, 1),
            expect.between("explained", LEAST_PROBE, 1),
        ],
    )


def coverage_check(scores: pa.Table, tasks: Sequence[str]) -> Check:
    """Return the check that networks were tried on each task, in both ways."""
    need_columns(scores, COLUMNS, WHERE)
    counts = Counter(zip(scores["task"].to_pylist(), scores["kind"].to_pylist(), strict=True))
    rows = pd.DataFrame(
        {
            "task": list(tasks),
            "finetunings": [counts[task, "finetune"] for task in tasks],
            "probes": [counts[task, "probe"] for task in tasks],
        }
    )
    return Check(
        what="meta-train tasks",
        where=str(WHERE),
        frame=rows,
        key="task",
        rows=(len(tasks), len(tasks)),
        expectations=[expect.between("finetunings", 1, None), expect.between("probes", 1, None)],
    )


def _of_kind(rows: Sequence[Mapping[str, object]], kind: Kind) -> list[object]:
    """Return the values of one kind, None for the other; `expect.present` finds values that are no numbers."""
    return [row["value"] if row["kind"] == kind else None for row in rows]
