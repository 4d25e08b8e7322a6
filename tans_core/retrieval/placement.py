"""Embeds newcomers in a live space without retraining, and measures their drift."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from tans_core.embeddings.functional import Anchors
from tans_core.embeddings.models import embed_models
from tans_core.embeddings.store import ModelRows, read_table
from tans_core.errors import TansError, WeightsError
from tans_core.index.release import Release
from tans_core.index.schema import index_table
from tans_core.io import read_json
from tans_core.space.drift import Drift, DriftReference
from tans_core.space.encoders import CrossModalSpace, embed_in_space, space_digest
from tans_core.zoo.card import ModelCard


def place_models(release: Release, folders: Sequence[Path]) -> pa.Table:
    """Embed admitted models with a release's encoders.

    Args:
        release: whose space is used.
        folders: one a model, each with `card.json` and `weights.safetensors`.

    Returns:
        Rows for the release's index, in the order of the folders.

    Raises:
        WeightsError: a card or weights cannot be read, or do not match.
    """
    cards = [ModelCard.from_dict(read_json(folder / "card.json")) for folder in folders]
    files = {card.id: folder / "weights.safetensors" for card, folder in zip(cards, folders, strict=True)}
    models = _embed(release, cards, lambda card: files[card.id])
    space = CrossModalSpace.load(release.space_dir)
    places = embed_in_space(space, models.topology, models.functional)
    return index_table(cards, places, space_digest(release.space_dir))


def measure_drift(release: Release) -> tuple[Drift, ...]:
    """Measure how far a release's newcomers lie from the networks that its space was made from.

    A newcomer is a network of the index that was admitted after the space was made. Its functional embedding is
    computed again, since the index keeps vectors in the space only.

    Args:
        release: whose index and space are used.

    Returns:
        One for each newcomer, sorted by id.

    Raises:
        StoreError: the space was made before drift was measured.
        WeightsError: weights cannot be read.
    """
    reference = DriftReference.load(release.space_dir)
    known = set(reference.ids)
    rows = read_table(release.store_dir, "index").select(["id", "card"]).to_pylist()
    newcomers = [row for row in rows if row["id"] not in known]
    if not newcomers:
        return ()
    cards = sorted((ModelCard.from_json(row["card"]) for row in newcomers), key=lambda card: card.id)
    models = _embed(release, cards, lambda card: release.resolve(card.weights))
    homes = [card.home_task for card in cards]
    return reference.measure([card.id for card in cards], homes, models.topology, models.functional)


def _embed(release: Release, cards: Sequence[ModelCard], weights: Callable[[ModelCard], Path]) -> ModelRows:
    anchors = Anchors.load(release.space_dir)
    try:
        return embed_models(cards, weights, anchors)
    except TansError:
        raise
    except Exception as error:  # a family from outside may fail in any way
        names = ", ".join(card.id for card in cards)
        raise WeightsError(f"{names}: cannot be run on images ({type(error).__name__}: {error}).") from error
