"""The backbone of a search on all cores. Axes: n images, 3 channels, S pixels, F feature width."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from tans_core.embeddings.query import Backbone
from tans_core.networks.preprocess import EVAL_BATCH
from tans_core.runtime import cores, one_thread


def on_all_cores(backbone: Backbone) -> Backbone:
    """Return a backbone that runs a few images at a time, one such part a core; on a GPU, the backbone as it is.

    It takes a quarter of the time on two cores. Threads that wait for each other after each layer, as torch's own do,
    are no faster than one.
    """
    return backbone if backbone.device != "cpu" else replace(backbone, features=_in_parts(backbone.features))


def _in_parts(features: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    @torch.inference_mode()
    def part(images: Tensor) -> Tensor:
        return features(images)

    def all_parts(images: Tensor) -> Tensor:
        # No part is smaller, as torch may compute a few images in another way, which rounds otherwise.
        parts = images.tensor_split(max(1, len(images) // EVAL_BATCH))
        return torch.cat(list(_threads().map(part, parts)))

    return all_parts


@cache
def _threads() -> ThreadPoolExecutor:
    """The same for all searches of a process: each thread keeps memory."""
    return ThreadPoolExecutor(cores(), initializer=one_thread)
