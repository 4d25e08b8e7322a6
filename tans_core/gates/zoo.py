"""The gate after `zoo`: the cards and the weights of one task's models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tans_core.errors import DataError, WeightsError
from tans_core.gates import expect
from tans_core.gates.runner import Check, run_gate
from tans_core.networks.registry import get_family
from tans_core.params import load_params
from tans_core.runtime import derive_seed
from tans_core.tasks.task import read_info
from tans_core.zoo.build import sample_members
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import Base, calibration_file

CARD_FIELDS = (
    "id", "family", "home_task", "source", "image_size_px",
    "params_m", "macs_m", "val_accuracy", "test_accuracy", "weights",
)  # fmt: skip
USEFUL_SHARE = 0.85
"""One network of a task, or a few of many, may fail to learn; if more do, the training of a supernet failed."""


def check_zoo(tasks: Sequence[str], root: Path) -> None:
    """Gate `data/zoo/<task>` of each task.

    Raises:
        GateError: cards are missing, out of range or duplicate; models learned nothing; weights are not finite.
        DataError: `models.parquet` or a task is missing.
    """
    checks = [check for task in tasks for check in zoo_checks(task, root)]
    hint = "Look at metrics/zoo and the sections `zoo` and `gates` of params.yaml, then run `tans build` again."
    run_gate("zoo", checks, root, hint)


def zoo_checks(task: str, root: Path) -> list[Check]:
    """Return the checks of one task's zoo: its cards and its weights."""
    params = load_params(root)
    folder = root / "data/zoo" / task
    path = folder / "models.parquet"
    if not path.is_file():
        raise DataError(f"{path}: no such file. Run `tans build zoo@{task}`.")
    info, base = read_info(root / "data/tasks" / task), Base.open(root / "data/base")
    drawn = derive_seed(params.seed, "subnets", task)
    spaces = {family: base.space(family) for family in base.families}
    counts = {family: params.zoo.of_family(family).subnets for family in spaces}
    files = [Path(f"{family}.safetensors") for family in base.families]
    return [
        card_check(
            pq.read_table(path),
            where=f"data/zoo/{task}/models.parquet",
            task=task,
            count=sum(len(sample_members(space, counts[family], drawn)) for family, space in spaces.items()),
            sizes_px=sorted({size for family, space in spaces.items() for size in get_family(family).sizes_px(space)}),
            min_val_accuracy=1 / info.num_classes + params.gates.min_val_accuracy_over_chance,
        ),
        weights_check(
            folder, f"data/zoo/{task}", [str(name) for file in files for name in (file, calibration_file(file))]
        ),
    ]


def card_check(
    cards: pa.Table, *, where: str, task: str, count: int, sizes_px: Sequence[int], min_val_accuracy: float
) -> Check:
    """Return the check of one task's model cards, one a row, in the column `card` as JSON."""
    return Check(
        what=f"models of {task}",
        where=where,
        frame=_card_frame(cards),
        key="id",
        rows=(count, count),
        expectations=[
            expect.present("id"),
            expect.unique("id"),
            expect.one_of("problem", [""]),
            expect.true("columns_match"),
            expect.one_of("home_task", [task]),
            *[expect.matches(name, r"\S") for name in ("family", "source", "weights")],
            expect.one_of("unreadable_licence", [""]),
            expect.one_of("image_size_px", list(sizes_px)),
            *expect.number("params_m", 0, 1e4, above=True),
            *expect.number("macs_m", 0, 1e7, above=True),
            *expect.number("val_accuracy", 0, 1),
            *expect.number("test_accuracy", 0, 1),
            expect.between("val_accuracy", min_val_accuracy, None, mostly=min(USEFUL_SHARE, 1 - 1 / count)),
        ],
    )


def _card_frame(cards: pa.Table) -> pd.DataFrame:
    """Return one row a card: its scalar fields, whether it can be read, and whether the other columns agree."""
    rows: list[dict[str, Any]] = []
    for row in cards.to_pylist():
        try:
            card = ModelCard.from_json(row["card"])
        except (AttributeError, KeyError, TypeError, ValueError, WeightsError) as error:
            rows.append({"id": row.get("id"), "problem": f"{type(error).__name__}: {error}"})
            continue
        fields = {name: getattr(card, name) for name in CARD_FIELDS if name != "image_size_px"}
        fields["image_size_px"] = card.preprocess.image_size_px
        fields["unreadable_licence"] = ", ".join(map(repr, card.unreadable_licences))
        beside = all(row[name] == value or value != value for name, value in fields.items() if name in row)
        rows.append({**fields, "problem": "", "columns_match": beside})
    return pd.DataFrame(rows, columns=[*CARD_FIELDS, "unreadable_licence", "problem", "columns_match"])


def weights_check(folder: Path, where: str, names: Sequence[str]) -> Check:
    """Return the check of the tensors in some safetensors files of a folder."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    rows = []
    for name in names:
        try:
            tensors = load_file(folder / name)
        except (OSError, SafetensorError) as error:
            rows.append({"tensor": name, "elements": 0, "finite": False, "problem": str(error)})
            continue
        for key, value in tensors.items():
            finite = bool(np.isfinite(value).all())
            impossible = key.endswith("running_var") and finite and bool((value < 0).any())
            problem = "a variance below zero" if impossible else ""
            rows.append({"tensor": f"{name}:{key}", "elements": value.size, "finite": finite, "problem": problem})
        if not tensors:
            rows.append({"tensor": name, "elements": 0, "finite": False, "problem": "holds no tensor"})
    frame = pd.DataFrame(rows)
    return Check(
        what="weights",
        where=where,
        frame=frame,
        key="tensor",
        rows=(len(names), None),
        expectations=[
            expect.unique("tensor"),
            expect.one_of("problem", [""]),
            expect.between("elements", 1, None),
            expect.true("finite"),
        ],
    )
