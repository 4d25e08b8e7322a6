"""`elsewhere.json` of a space: predicted scores on tasks whose whole source was left out, beside the results there.

Each score is that of a space of one fold, which never saw the task's source. So two spaces can be compared on tasks
that neither learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tans_core.errors import StoreError
from tans_core.io import read_json, write_json

ELSEWHERE_FILE = "elsewhere.json"
LEAST_NETWORKS = 4
"""An order of fewer networks is not measured."""


@dataclass(frozen=True)
class Prediction:
    """One network on one task of a source that the space of the fold never saw.

    Attributes:
        task: its name.
        model: id of the network, of another source than the task.
        fold: number of the fold, from 0.
        predicted: score, in standard deviations around a task's mean network.
        tuned: accuracy after a short fine-tuning, 0..1.
    """

    task: str
    model: str
    fold: int
    predicted: float
    tuned: float


def write_predictions(predictions: Sequence[Prediction], folder: Path) -> None:
    """Write `elsewhere.json` to the folder of a space."""
    write_json([asdict(one) for one in predictions], folder / ELSEWHERE_FILE)


def read_predictions(folder: Path) -> list[Prediction] | None:
    """Read `elsewhere.json` of a space; None if the space was made before there was such a file.

    Raises:
        StoreError: the file is damaged.
    """
    path = folder / ELSEWHERE_FILE
    if not path.is_file():
        return None
    try:
        return [Prediction(**row) for row in read_json(path)]
    except (TypeError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}). Run `tans build space`, then `tans publish`.") from error
