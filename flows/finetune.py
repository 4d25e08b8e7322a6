"""Flow `finetune`: train one network on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact

from flows.common import artifact_key, json_block, markdown_table, project
from flows.declared import declared
from tans_core.contributing import contribute
from tans_core.errors import ParamsError
from tans_core.options import FinetuneOptions, takes
from tans_core.project import find_task_folder
from tans_core.service import Service

CURVE = {"epoch": "epoch", "step": "step", "train_loss": "train loss", "val_accuracy": "val accuracy", "seconds": "s"}


# `prefect deployment run -p dataset=2024` sends a number for a folder of this name.
@declared("finetune")
@takes(FinetuneOptions)
def finetune(
    dataset: str | int,
    options: FinetuneOptions,
    *,
    to_inbox: bool = False,
    licence: str | None = None,
    progress: str | None = None,
) -> Any:
    """Fine-tune, and write a report, JSON and a link to `runs/<id>`, which contains the weights.

    Args:
        dataset: a folder with one folder of images per class, or the name of a task of the project.
        {options}
        to_inbox: also hand the result to the inbox, so that it can join the zoo, as `tans contribute` does.
        licence: of the images, for `to_inbox`: needed unless they are a task of the project.
        progress: a file to append to, as lines of JSON, how far the fine-tuning is.
    """
    root = project()
    if to_inbox and licence is None and find_task_folder(root, str(dataset)) is None:
        raise ParamsError("licence: missing; a network for the zoo needs the licence of its images, such as CC-BY-4.0.")
    progress_file = Path(progress) if progress else None
    log = get_run_logger()
    log.info(
        "fine-tuning on %s; if this run is killed, another one with the same parameters goes on from there", dataset
    )
    run = Service.open(root).finetune(str(dataset), options, progress_file=progress_file)
    if to_inbox:
        contribute(run.folder, licence=licence, root=root)
    log.info("%s on %s: test accuracy %.4f", run.model, run.task.name, run.test_accuracy)
    summary = run.to_dict()
    curve = markdown_table(CURVE, summary.pop("curve"))
    # Without the lists by class: `test.json` of the run has them.
    summary["test"] = {name: value for name, value in summary["test"].items() if not isinstance(value, list)}
    text = (
        f"# {run.model} on {run.task.name}\n\n"
        f"Test accuracy **{run.test_accuracy:.4f}**, best validation accuracy {run.best_val_accuracy:.4f}, "
        f"{run.seconds:.1f} s.\n\n{run.warning}\n\n{curve}\n\n{json_block(summary)}\n"
    )
    key = artifact_key("finetune", run.task.name)
    create_markdown_artifact(text, key=key, description=f"{run.model} on {dataset}")
    create_link_artifact(run.folder.as_uri(), key=f"{key}-run", link_text=f"runs/{run.folder.name}")
    return str(run.folder)
