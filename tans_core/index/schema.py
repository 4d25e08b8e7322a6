"""The index: model embeddings and card columns, one row a model. Axes: M models, d space dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from tans_core.embeddings.store import card_columns, vectors
from tans_core.zoo.card import ModelCard

if TYPE_CHECKING:
    # Reading releases should not wait for torch.
    from tans_core.space.encoders import Places

SPACE_KEY = b"tans.space"


def index_table(cards: Sequence[ModelCard], places: Places, space_digest: str) -> pa.Table:
    """Return the rows of the index.

    Args:
        cards: M cards.
        places: of the M models in the space.
        space_digest: of the space that embedded them; kept in the schema, since vectors of different spaces never meet.
    """
    numbers = {"capacity": places.capacity, "start": places.start}
    table = pa.table({**card_columns(cards), **numbers, "vector": vectors(places.vectors)})
    return table.replace_schema_metadata({SPACE_KEY: space_digest.encode()})


def space_of(table_schema: pa.Schema) -> str:
    """Return the digest of the space that a table's vectors belong to; empty where none is named."""
    return str((table_schema.metadata or {}).get(SPACE_KEY, b"").decode())
