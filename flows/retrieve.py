"""Flow `retrieve`: the networks to start from for a data set."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import acreate_link_artifact, acreate_markdown_artifact

from flows.common import artifact_key, failed, json_block, markdown_table, project
from tans_core.errors import TansError
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


# Asynchronous, since Prefect's heartbeat keeps a synchronous flow a second longer.
@flow(name="retrieve", description="Find the networks to start from for a data set.")
@takes(RetrieveOptions)
async def retrieve(dataset: str, options: RetrieveOptions) -> Any:
    """Find networks, and leave a table, JSON and a link to `runs/<id>`.

    Args:
        dataset: a folder with one folder of images a class, or the name of a task of the project.
        {options}
    """
    try:
        found = Service.open(project()).retrieve(dataset, options)
    except TansError as error:
        return failed(error)
    table = markdown_table(COLUMNS, found.to_dicts())
    text = f"# Where to start for {found.task.name}\n\n{table}\n\nRelease {found.release}.\n\n{json_block(found.to_dict())}\n"
    key = artifact_key("retrieve", found.task.name)
    await acreate_markdown_artifact(text, key=key, description=f"Networks for {dataset}")
    await acreate_link_artifact(found.folder.as_uri(), key=f"{key}-run", link_text=f"runs/{found.folder.name}")
    return str(found.folder)
