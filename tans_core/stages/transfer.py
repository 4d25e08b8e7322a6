"""Stage `transfer`: zoo, arrivals, meta-train tasks -> how networks perform on tasks other than their home task.

Reads data/zoo, data/arrivals, data/base, data/tasks, params `transfer`, `finetune`, `tasks`, `seed`. Writes data/store:
the table transfer and its digest.
"""

from __future__ import annotations

from pathlib import Path

from tans_core.embeddings.store import write_table
from tans_core.finetuning.fits import Budget
from tans_core.finetuning.transfer import TransferBudget, transfer_scores
from tans_core.gates import check_transfer
from tans_core.params import load_params
from tans_core.runtime import cores
from tans_core.stages._main import run_stage
from tans_core.zoo.build import read_all_cards
from tans_core.zoo.weights import Base


def main(root: Path) -> None:
    """Try a planned sample of networks on each meta-train task."""
    params = load_params(root)
    data, tasks, transfer = root / "data", list(params.tasks.meta_train), params.transfer
    precision = Base.open(data / "base").precision
    budget = TransferBudget(
        networks_per_task=transfer.networks_per_task,
        general_per_task=transfer.general_per_task,
        cover=transfer.cover,
        probes_per_home=transfer.probes_per_home,
        seeds=tuple(params.seed + index for index in range(transfer.seeds)),
        fit=Budget(transfer.steps, params.finetune.batch_size, eval_points=1, precision=precision),
        recipes=params.finetune.model_dump(),
        probe_images=transfer.probe_images,
        probe_images_per_class=transfer.probe_images_per_class,
    )
    # Kept between runs: a new task or network adds only its own trials.
    done = root / ".resume/transfer"
    scores = transfer_scores(data, read_all_cards(data, tasks), tasks, budget, params.seed, cores(), done)
    write_table(data / "store", "transfer", scores.to_table(), key=None)
    check_transfer(root, tasks)


if __name__ == "__main__":
    run_stage(main)
