"""The weights of a smaller network inside those of a larger one: first channels, centre of the kernel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def slice_weights(full: Tensor, shape: torch.Size) -> Tensor:
    """Return the part of a supernet's tensor that a subnet of this shape uses."""
    if full.shape == shape:
        return full
    for axis, (have, want) in enumerate(zip(full.shape, shape, strict=True)):
        start = (have - want) // 2 if axis >= 2 else 0
        full = full.narrow(axis, start, want)
    return full


def cut(network: nn.Module, tensors: Mapping[str, Tensor], elastic: str = "stages.") -> Mapping[str, Tensor]:
    """Cut a network's tensors out of those of a supernet that holds it.

    Args:
        network: the smaller one.
        tensors: of the larger one, by the same names.
        elastic: what the names of parts begin with that the smaller one may lack.

    Returns:
        The tensors as they came where they hold no such network: `load_state` says what is wrong.
    """
    wanted = network.state_dict()
    more = [name for name in tensors if name not in wanted and not name.startswith(elastic)]
    if more or not all(name in tensors and _holds(tensors[name], value) for name, value in wanted.items()):
        return tensors
    return {name: slice_weights(tensors[name], value.shape) for name, value in wanted.items()}


def batch_norm(norm: nn.BatchNorm2d, hidden: Tensor) -> Tensor:
    """Apply the first channels of a BatchNorm to (B, C, H, W), of which C may be fewer than it has."""
    channels = hidden.shape[1]
    assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
    return F.batch_norm(
        hidden,
        norm.running_mean[:channels],
        norm.running_var[:channels],
        norm.weight[:channels],
        norm.bias[:channels],
        training=norm.training,
        momentum=norm.momentum,
        eps=norm.eps,
    )


def _holds(full: Tensor, part: Tensor) -> bool:
    return full.ndim == part.ndim and all(have >= want for have, want in zip(full.shape, part.shape, strict=True))
