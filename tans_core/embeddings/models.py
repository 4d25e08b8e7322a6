"""Embedding models: each one's topology code and functional embedding. Axes: M models, T topology, E functional width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tans_core.embeddings.functional import Anchors
from tans_core.embeddings.store import ModelRows
from tans_core.networks.elastic import ElasticNetwork, ElasticSpace
from tans_core.runtime import progress
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import load_model


def embed_model(network: ElasticNetwork, anchors: Anchors) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the topology code (T,) and the functional embedding (E,) of a network."""
    return network.space.topology(network.architecture), anchors.embed(network)


def embed_models(
    cards: Sequence[ModelCard], weights: Callable[[ModelCard], Path], space: ElasticSpace, anchors: Anchors
) -> ModelRows:
    """Embed many models.

    Args:
        cards: M cards.
        weights: gives the file that a card's weights lie in.
        space: the search space of the zoo.
        anchors: the images that networks are asked about.

    Raises:
        WeightsError: weights are missing, damaged, or answer with NaN.
    """
    rows = [
        embed_model(load_model(card, weights(card), space), anchors) for card in progress(cards, "embedding models")
    ]
    topology, functional = zip(*rows, strict=True)
    return ModelRows(tuple(cards), np.stack(topology), np.stack(functional))
