"""Early layers that a fine-tuning leaves as they are.

The first layers see the largest images, so training them takes much of the time. What they detect, edges and colours,
suits most images (Yosinski et al., "How transferable are features in deep neural networks?", 2014).

Axes: B images, S side of the input in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tans_core.networks.family import Network
from tans_core.networks.preprocess import evaluating


@torch.no_grad()
def early_layers(network: Network, image_size_px: int, trained_side: float) -> list[nn.Module]:
    """Return the modules with larger outputs than a share of the input's side, and all modules inside them.

    Args:
        network: of any family, on any device; it does not change.
        image_size_px: S.
        trained_side: layers with outputs of at most `trained_side * S` pixels a side are late ones.

    Returns:
        In the network's order; empty where `trained_side` is 1, and for networks without such outputs.
    """
    if trained_side >= 1:
        return []
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
    early = [module for module, side in smallest.items() if side > trained_side * image_size_px]
    inside = {part for module in early for part in module.modules()}
    return [module for module in network.modules() if module in inside]


@contextmanager
def frozen(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Keep the parameters of layers from training; afterwards they can be trained again."""
    parameters = [one for layer in layers for one in layer.parameters(recurse=False) if one.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def train_mode(network: nn.Module, fixed: Sequence[nn.Module]) -> None:
    """Put a network into train mode, but not its layers `fixed`: their BatchNorm keeps its statistics."""
    network.train()
    for layer in fixed:
        layer.training = False
