"""Slices a smaller network's weights from those of a larger one: first channels, centre of the kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

Convolution = Callable[[Tensor, Tensor, Tensor | None], Tensor]


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


def conv_norm(hidden: Tensor, weight: Tensor, norm: nn.BatchNorm2d, convolve: Convolution) -> Tensor:
    """Convolve (B, C, H, W) without bias, then apply the first channels of a BatchNorm.

    Args:
        hidden: the input.
        weight: (outputs, ...), of the convolution.
        norm: its first `outputs` channels are used.
        convolve: maps the input, a weight and a bias (outputs,) or None to the output.

    Returns:
        (B, outputs, H', W').
    """
    channels = len(weight)
    assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
    mean, variance = norm.running_mean[:channels], norm.running_var[:channels]
    scale, shift = norm.weight[:channels], norm.bias[:channels]
    trains = torch.is_grad_enabled() and any(one.requires_grad for one in (hidden, weight, scale, shift))
    # On the meta device, which computes shapes alone, each operation counts.
    if norm.training or trains or hidden.is_meta:
        hidden = convolve(hidden, weight, None)
        return F.batch_norm(hidden, mean, variance, scale, shift, norm.training, norm.momentum, norm.eps)
    # Fixed statistics are a factor of the weights and a bias: one pass over the output less.
    factor = scale / (variance + norm.eps).sqrt()
    return convolve(hidden, weight * factor.view(-1, 1, 1, 1), shift - mean * factor)


def _contains(full: Tensor, part: Tensor) -> bool:
    return full.ndim == part.ndim and all(have >= want for have, want in zip(full.shape, part.shape, strict=True))
