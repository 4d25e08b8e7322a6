"""Early layers that a fine-tuning leaves as they are at first.

They see the largest images, so training them takes much of the time. What they detect, edges and colours, suits most
images (Yosinski et al., "How transferable are features in deep neural networks?", 2014).

Axes: S side of the input in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tans_core.networks.family import Network
from tans_core.networks.preprocess import evaluating

EARLY_SIDE = 1 / 16
"""Early layers have outputs larger than this share of the input's side."""


@torch.no_grad()
def early_layers(network: Network, image_size_px: int) -> list[nn.Module]:
    """Return the modules whose outputs are images larger than `EARLY_SIDE * S`, and all modules inside them.

    Args:
        network: of any family, on any device; it does not change.
        image_size_px: S.

    Returns:
        In the network's order; empty for networks without such outputs.
    """
    smallest: dict[nn.Module, float] = {}

    def note(module: nn.Module, _: Any, output: Any) -> None:
        side = min(output.shape[-2:]) if isinstance(output, Tensor) and output.ndim == 4 else 0
        smallest[module] = min(side, smallest.get(module, side))

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    try:
        with evaluating(network):
            network(torch.zeros(1, 3, image_size_px, image_size_px, device=next(network.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    early = [module for module, side in smallest.items() if side > EARLY_SIDE * image_size_px]
    inside = {part for module in early for part in module.modules()}
    return [module for module in network.modules() if module in inside]


def train_mode(network: nn.Module, frozen: Sequence[nn.Module]) -> None:
    """Put a network into train mode, except layers `frozen`: their weights and BatchNorm statistics stay as they are.

    An empty `frozen` trains all again.
    """
    network.train()
    network.requires_grad_(True)
    for layer in frozen:
        layer.training = False
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad_(False)
