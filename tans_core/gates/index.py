"""The gate after `index`: the table that is searched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from tans_core.embeddings.store import read_table
from tans_core.gates import expect
from tans_core.gates.derived import frame, need_columns, unit_vectors, vector_columns
from tans_core.gates.runner import Check, run_gate
from tans_core.params import load_params

STORE = Path("data/store")
SCALARS = ["id", "card", "home_task", "source", "licence", "params_m", "macs_m", "val_accuracy", "capacity", "start"]


def check_index(root: Path, tasks: Sequence[str]) -> None:
    """Gate the table that `index` wrote.

    Args:
        root: the project's folder.
        tasks: names of the meta-train tasks: each must have a model in the index.

    Raises:
        GateError: a model of the table `models` is missing or duplicate; vectors lack unit length or the space's width.
        StoreError: a table is missing or of another version.
    """
    run_gate("index", index_checks(root, tasks), root, "Run `tans build index` again.")


def index_checks(root: Path, tasks: Sequence[str]) -> list[Check]:
    """Return the check of the index, in a list as the other gates' are."""
    ids = read_table(root / STORE, "models")["id"].to_pylist()
    return [index_check(read_table(root / STORE, "index"), ids, tasks, dim=load_params(root).space.dim)]


def index_check(index: pa.Table, ids: Sequence[str], tasks: Sequence[str], dim: int) -> Check:
    """Return the check of the table `index`.

    Args:
        index: the table.
        ids: the models that it must contain, and no others.
        tasks: the home tasks that must occur in it.
        dim: the width of the space.
    """
    where = STORE / "index.lance"
    need_columns(index, ["vector", *SCALARS], where)
    return Check(
        what="indexed models",
        where=str(where),
        frame=frame(vector_columns("vector", index["vector"]), index, SCALARS),
        key="id",
        rows=(len(ids), len(ids)),
        expectations=[
            expect.present("id"),
            expect.unique("id"),
            expect.covers("id", ids),
            expect.covers("home_task", tasks),
            expect.is_json("card"),
            *[expect.matches(name, r"\S") for name in ("source", "licence", "home_task")],
            *expect.number("params_m", 0, 1e4, above=True),
            *expect.number("macs_m", 0, 1e7, above=True),
            # General features, without a home task, have none.
            expect.between("val_accuracy", 0, 1),
            # In standard deviations of a task's models around their mean.
            *expect.number("capacity", -100, 100),
            *expect.number("start", -100, 100),
            *unit_vectors("vector", dim),
        ],
    )
