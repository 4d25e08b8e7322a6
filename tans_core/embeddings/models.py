"""Embeds models: topology code and functional embedding of each. Axes: M models, T topology, E functional width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tans_core.embeddings.functional import Anchors
from tans_core.embeddings.store import ModelRows
from tans_core.errors import WeightsError
from tans_core.networks.registry import get_family
from tans_core.runtime import progress
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import load_model


def embed_models(cards: Sequence[ModelCard], weights: Callable[[ModelCard], Path], anchors: Anchors) -> ModelRows:
    """Embed many models.

    Args:
        cards: M cards.
        weights: returns the path of a card's weights.
        anchors: the images that networks are run on.

    Raises:
        WeightsError: weights are missing, damaged, or give features that are not finite.
    """
    topology, functional = [], []
    for card in progress(cards, "embedding models"):
        topology.append(get_family(card.family).topology(card.architecture, card.preprocess.image_size_px))
        network = load_model(card, weights(card))
        try:
            functional.append(anchors.embed(network, card.preprocess))
        except WeightsError as error:
            raise WeightsError(f"model {card.id!r}: {error}") from error
    return ModelRows(tuple(cards), np.stack(topology), np.stack(functional))
