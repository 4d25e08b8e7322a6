"""The same seed gives the same index and the same ranking, for any number of reading processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tans_core.embeddings.store import read_digests
from tans_core.index.releases import open_pipeline
from tans_core.retrieval.retriever import Retriever
from tans_core.stages import base, embed, index, space, tasks, transfer, zoo
from tans_core.tasks.scan import scan
from tests.factories.project import PARAMS, image_folder

MADE_FROM = {
    "digits": {"source": "scikit-learn-digits"},
    "regions": {"source": "scikit-learn-photos", "options": {"patch_px": 18, "grey": True}},
}


def build(root: Path, workers: int) -> dict[str, str]:
    """Run every stage from the sources to the index; return the digests of all tables."""
    params: dict[str, Any] = yaml.safe_load(yaml.safe_dump(PARAMS))
    params["data"]["workers"] = workers
    params["tasks"] = {"meta_train": MADE_FROM, "meta_test": {}}
    params["base"]["tasks"] = list(MADE_FROM)
    params["gates"]["min_images_per_task"] = 1
    root.mkdir()
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    for name in MADE_FROM:
        tasks.main(root, name)
    base.main(root)
    for name in MADE_FROM:
        zoo.main(root, name)
    embed.main(root)
    transfer.main(root)
    space.main(root)
    index.main(root)
    return read_digests(root / "data/store", "models", "task_features", "transfer", "index")


@pytest.mark.slow
def test_index_and_ranking_are_the_same_with_0_and_with_2_workers(tmp_path: Path) -> None:
    photos = image_folder(tmp_path / "photos")
    digests, rankings = [], []
    for workers in (0, 2):
        root = tmp_path / f"workers-{workers}"
        digests.append(build(root, workers))
        with scan(photos, stored_size_px=16, workers=workers) as found:
            task = found.task("photos")
        rankings.append(Retriever.open(open_pipeline(root)).retrieve(task).candidates)
    assert digests[0] == digests[1]
    assert rankings[0] == rankings[1]
    assert len({candidate.score for candidate in rankings[0]}) == len(rankings[0])
