"""Other embeddings of the zoo: by anchors without a source's images, and by outputs for noise, as published."""

from __future__ import annotations

from pathlib import Path

import torch

from tans_core.embeddings import functional
from tans_core.embeddings.models import embed_models
from tans_core.embeddings.store import ModelRows
from tans_core.io import code_digest, resume_folder
from tans_core.params import Params
from tans_core.runtime import progress
from tans_core.space.data import SpaceData
from tans_core.tasks.task import read_task
from tans_core.zoo.weights import load_model, load_tensors, save_tensors


def embedded_without(root: Path, params: Params, data: SpaceData, source: str) -> torch.Tensor:
    """Return (M, E) functional embeddings by the anchors of all other sources, or read those of an earlier run."""
    # The digest of the rows of `embed` changes with weights, anchors and settings.
    made_from = [code_digest([functional.__file__, __file__]), (root / "data/store/models.digest").read_text(), source]
    path = resume_folder(root / f".resume/bench-transfer/without-{source}", made_from) / "functional.safetensors"
    if not path.is_file():
        others = [name for name, own in zip(data.tasks, data.sources, strict=True) if own != source]
        embed = params.embed
        anchors = functional.Anchors.of_tasks(
            (read_task(root / "data/tasks" / name) for name in others),
            embed.anchors_per_task,
            embed.projection_dim,
            embed.projection_seed,
        )
        models = ModelRows.read(root / "data/store")
        cards = list(models.cards)
        rows = embed_models(cards, lambda card: root / "data" / card.weights, anchors)
        save_tensors({"functional": torch.from_numpy(rows.functional)}, path)
    return load_tensors(path)["functional"]


@torch.no_grad()
def embedded_by_noise(root: Path, params: Params, data: SpaceData) -> torch.Tensor:
    """Return (M, E) outputs of the penultimate layer for one noise image, with the stored statistics of BatchNorm.

    That is the published functional embedding.
    """
    made_from = [code_digest([__file__]), (root / "data/store/models.digest").read_text(), params.seed]
    path = resume_folder(root / ".resume/bench-transfer/noise", made_from) / "functional.safetensors"
    if not path.is_file():
        noise = functional.Noise(1, params.seed)
        models = ModelRows.read(root / "data/store")
        cards = list(models.cards)
        outputs = []
        for card in progress(cards, "embedding models by noise"):
            outputs.append(load_model(card, root / "data" / card.weights).features(noise.images(card.preprocess))[0])
        save_tensors({"functional": torch.stack(outputs)}, path)
    return load_tensors(path)["functional"]
