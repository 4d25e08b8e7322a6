"""The index: a row of embedding and card columns for each model. Axes: M models, d space dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from tans_core.embeddings.store import card_columns, vectors
from tans_core.zoo.card import ModelCard

if TYPE_CHECKING:
    # Imported here, so that reading releases does not import torch.
    from tans_core.space.encoders import Places

SPACE_KEY = b"tans.space"


def index_table(cards: Sequence[ModelCard], places: Places, space_digest: str) -> pa.Table:
    """Return the rows of the index.

    Args:
        cards: M cards.
        places: of the M models in the space.
        space_digest: of the space that embedded them; kept in the schema, since spaces must not be mixed.
    """
    numbers = {"capacity": places.capacity, "start": places.start}
    table = pa.table({**card_columns(cards), **numbers, "vector": vectors(places.vectors)})
    return table.replace_schema_metadata({SPACE_KEY: space_digest.encode()})


def space_of(table_schema: pa.Schema) -> str:
    """Return the digest of the space that embedded a table's vectors; empty if there is none."""
    return str((table_schema.metadata or {}).get(SPACE_KEY, b"").decode())
