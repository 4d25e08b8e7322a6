"""Transfer scores in LanceDB: how networks perform on tasks other than their home task. Axes: n scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tans_core.embeddings.store import read_table

Kind = Literal["finetune", "probe"]


@dataclass(frozen=True)
class ScoreRows:
    """The table `transfer`.

    Attributes:
        tasks: (n,) str, the task that a network was tried on.
        models: (n,) str, ids.
        kinds: (n,) str: `finetune`, the accuracy on held-out images after a short fine-tuning, 0..1; or `probe`, the
            share of the labels' variance that the network's features explain, at most 1.
        seeds: (n,) int64, of the fine-tuning; 0 for a probe, which is deterministic.
        values: (n,) float64.
    """

    tasks: npt.NDArray[np.str_]
    models: npt.NDArray[np.str_]
    kinds: npt.NDArray[np.str_]
    seeds: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    def to_table(self) -> pa.Table:
        columns = {"task": self.tasks.tolist(), "model": self.models.tolist(), "kind": self.kinds.tolist()}
        return pa.table({**columns, "seed": self.seeds, "value": self.values})

    @classmethod
    def read(cls, store: Path) -> ScoreRows:
        table = read_table(store, "transfer")
        tasks, models, kinds = (np.array(table[name].to_pylist(), dtype=np.str_) for name in ("task", "model", "kind"))
        return cls(tasks, models, kinds, table["seed"].to_numpy(), table["value"].to_numpy())

    def of(self, kind: Kind) -> ScoreRows:
        """Return the scores of one kind, in their order."""
        chosen = self.kinds == kind
        return ScoreRows(
            self.tasks[chosen], self.models[chosen], self.kinds[chosen], self.seeds[chosen], self.values[chosen]
        )
