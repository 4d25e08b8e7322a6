"""Stage `embed`: zoo, arrivals, meta-train tasks -> embeddings in LanceDB.

Reads data/base, data/zoo, data/arrivals, data/tasks, params `embed`, `tasks`. Writes data/store: the tables models and
task_features, their digests, the anchors of the models' embeddings, and hashes of the tasks' images.
"""

from __future__ import annotations

from pathlib import Path

from tans_core.embeddings.functional import Anchors
from tans_core.embeddings.images import Hashes, noting, write_hashes
from tans_core.embeddings.models import embed_models
from tans_core.embeddings.query import embed_tasks, load_backbone
from tans_core.embeddings.store import write_table
from tans_core.gates import check_embeddings
from tans_core.params import load_params
from tans_core.stages._main import run_stage
from tans_core.tasks.task import read_task
from tans_core.zoo.build import read_all_cards


def main(root: Path) -> None:
    """Embed every model and every meta-train task."""
    params = load_params(root)
    data, store, tasks = root / "data", root / "data/store", list(params.tasks.meta_train)
    embed = params.embed
    folders = [data / "tasks" / name for name in tasks]
    hashes: dict[str, Hashes] = {}
    anchors = Anchors.of_tasks(
        noting(map(read_task, folders), hashes), embed.anchors_per_task, embed.projection_dim, embed.projection_seed
    )
    write_hashes(hashes, store)
    cards = read_all_cards(data, tasks)
    models = embed_models(cards, lambda card: data / card.weights, anchors)
    anchors.save(store)
    write_table(store, "models", models.to_table())
    backbone = load_backbone(embed.backbone, data / "base")
    features = embed_tasks(folders, backbone, embed.images_per_class, root / ".resume/features")
    write_table(store, "task_features", features.to_table(), key=None)
    check_embeddings(root, tasks)


if __name__ == "__main__":
    run_stage(main)
