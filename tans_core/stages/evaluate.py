"""Stage `evaluate`: the picked model against its alternatives on unseen tasks, at one budget.

Reads data/space, data/store, data/base, data/zoo, data/arrivals, data/tasks, params `evaluate`, `finetune`,
`retrieval`, `tasks`, `seed`. Writes metrics/evaluate.json, plots/evaluate.csv, plots/evaluate/, reports/evaluate.html.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tans_core.evaluation.meta_test import meta_test
from tans_core.evaluation.output import write_evaluation
from tans_core.finetuning.fits import Budget
from tans_core.index.releases import open_pipeline
from tans_core.params import load_params
from tans_core.runtime import cores
from tans_core.stages._main import run_stage
from tans_core.tasks.task import read_task
from tans_core.zoo.weights import Base


def main(root: Path) -> None:
    """Fine-tune the picked model and its alternatives on each meta-test task, and write a report."""
    params = load_params(root)
    evaluate, precision = params.evaluate, Base.open(root / "data/base").precision
    resume = root / ".resume/evaluate"
    evaluation = meta_test(
        open_pipeline(root),
        [read_task(root / "data/tasks" / name) for name in params.tasks.meta_test],
        jobs=cores(),
        budget=Budget(evaluate.steps, params.finetune.batch_size, evaluate.points, precision),
        seeds=[params.seed + index for index in range(evaluate.seeds)],
        random_draws=evaluate.random_draws,
        longer=evaluate.longer,
        top_k=params.retrieval.top_k,
        seed=params.seed,
        resume=resume,
    )
    write_evaluation(evaluation, root)
    # Kept only to resume a killed run; DVC caches the results of a finished one.
    shutil.rmtree(resume, ignore_errors=True)


if __name__ == "__main__":
    run_stage(main)
