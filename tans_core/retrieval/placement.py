"""Where newcomers stand in a live space: no retraining, their functional embedding places them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tans_core.embeddings.functional import NoiseProbe
from tans_core.embeddings.models import embed_model
from tans_core.index.releases import Release
from tans_core.index.schema import index_table
from tans_core.io import read_json
from tans_core.space.encoders import CrossModalSpace, embed_in_space, space_digest
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import load_model, read_space


def place_models(release: Release, folders: Sequence[Path]) -> pa.Table:
    """Embed admitted models with a release's encoders.

    Args:
        release: whose space places them.
        folders: one a model, each with `card.json` and `weights.safetensors`.

    Returns:
        Rows for the release's index, in the order of the folders.

    Raises:
        WeightsError: a card or weights cannot be read, or do not match.
    """
    architectures = read_space(release.base_dir)
    embed = release.params["embed"]
    probe = NoiseProbe(
        embed["noise_probes"], embed["projection_dim"], embed["noise_seed"], release.params["data"]["image_size_px"]
    )
    cards = [ModelCard.from_dict(read_json(folder / "card.json")) for folder in folders]
    parts = []
    for card, folder in zip(cards, folders, strict=True):
        network = load_model(card, folder / "weights.safetensors", architectures)
        parts.append(embed_model(network, probe))
    topology, functional = (np.stack(column) for column in zip(*parts, strict=True))
    space = CrossModalSpace.load(release.space_dir)
    embedded = embed_in_space(space, topology, functional)
    return index_table(cards, embedded, space_digest(release.space_dir))
