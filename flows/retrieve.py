"""Flow `retrieve`: the networks to start from for a data set."""

from __future__ import annotations

from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact

from flows.common import artifact_key, json_block, markdown_table, project
from flows.declared import declared
from tans_core.options import RetrieveOptions, takes
from tans_core.service import Service

COLUMNS = {
    "rank": "rank",
    "model": "model",
    "home_task": "home task",
    "score": "score",
    "capacity": "capacity",
    "start": "start",
    "fit": "fit",
    "home_accuracy": "home accuracy",
    "params_m": "params (M)",
    "macs_m": "MACs (M)",
    "licence": "licence",
}


# `prefect deployment run -p dataset=2024` sends a number for a folder of this name.
@declared("retrieve")
@takes(RetrieveOptions)
def retrieve(dataset: str | int, options: RetrieveOptions) -> Any:
    """Find networks, and write a table, JSON and a link to `runs/<id>`.

    Args:
        dataset: a folder with one folder of images per class, or the name of a task of the project.
        {options}
    """
    retrieval = Service.open(project()).retrieve(str(dataset), options)
    assert retrieval.task is not None and retrieval.folder is not None  # they are missing for a query alone
    task, folder = retrieval.task.name, retrieval.folder
    columns = COLUMNS | ({"latency_ms": "latency (ms)"} if options.latency_profile else {})
    table, block = markdown_table(columns, retrieval.to_dicts()), json_block(retrieval.to_dict())
    warning = f"{retrieval.warning}\n\n" if retrieval.warning else ""
    text = f"# Where to start for {task}\n\n{warning}{table}\n\nRelease {retrieval.release}.\n\n{block}\n"
    key = artifact_key("retrieve", task)
    create_markdown_artifact(text, key=key, description=f"Networks for {dataset}")
    create_link_artifact(folder.as_uri(), key=f"{key}-run", link_text=f"runs/{folder.name}")
    return str(folder)
