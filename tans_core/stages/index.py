"""Stage `index`: space + models -> the index that retrieval searches.

Reads data/space, data/store/models. Writes data/store: index and its digest.
"""

from __future__ import annotations

from pathlib import Path

from tans_core.embeddings.store import ModelRows, write_table
from tans_core.gates import check_index
from tans_core.index.schema import index_table
from tans_core.params import load_params
from tans_core.space.encoders import CrossModalSpace, embed_in_space, space_digest
from tans_core.stages._main import run_stage


def main(root: Path) -> None:
    """Embed every model into the space."""
    store, folder = root / "data/store", root / "data/space"
    models = ModelRows.read(store)
    places = embed_in_space(CrossModalSpace.load(folder), models.topology, models.functional)
    write_table(store, "index", index_table(models.cards, places, space_digest(folder)))
    check_index(root, list(load_params(root).tasks.meta_train))


if __name__ == "__main__":
    run_stage(main)
