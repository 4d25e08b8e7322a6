"""Slices a smaller network's weights from those of a larger one: first channels, centre of the kernel."""

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
    """Slice a network's tensors from those of a supernet that contains it.

    Args:
        network: the smaller one.
        tensors: of the larger one, by the same names.
        elastic: name prefix of the parts that the smaller one may lack.

    Returns:
        The slices; `tensors` unchanged where they do not contain the network, so that `load_state` reports the problem.
    """
    wanted = network.state_dict()
    extra = [name for name in tensors if name not in wanted and not name.startswith(elastic)]
    if extra or not all(name in tensors and _contains(tensors[name], value) for name, value in wanted.items()):
        return tensors
    return {name: slice_weights(tensors[name], value.shape) for name, value in wanted.items()}


def batch_norm(norm: nn.BatchNorm2d, hidden: Tensor) -> Tensor:
    """Apply the first C channels of a BatchNorm to (B, C, H, W)."""
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


def _contains(full: Tensor, part: Tensor) -> bool:
    return full.ndim == part.ndim and all(have >= want for have, want in zip(full.shape, part.shape, strict=True))
