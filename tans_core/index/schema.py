"""The index: model embeddings and card columns, one row a model. Axes: M models, d space dimension."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tans_core.embeddings.store import card_columns, vectors
from tans_core.zoo.card import ModelCard

SPACE_KEY = b"tans.space"


def index_table(cards: Sequence[ModelCard], embedded: npt.NDArray[np.float32], space_digest: str) -> pa.Table:
    """Return the rows of the index.

    Args:
        cards: M cards.
        embedded: (M, d) float32, rows of unit norm.
        space_digest: of the space that embedded them; kept in the schema, since vectors of different spaces never meet.
    """
    table = pa.table({**card_columns(cards), "vector": vectors(embedded)})
    return table.replace_schema_metadata({SPACE_KEY: space_digest.encode()})


def space_of(table_schema: pa.Schema) -> str:
    """Return the digest of the space that a table's vectors belong to; empty where none is named."""
    return str((table_schema.metadata or {}).get(SPACE_KEY, b"").decode())
