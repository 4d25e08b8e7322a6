"""What a network computes, operation by operation: its exact costs, and a code of its topology that any family's has.

One forward pass of one image on torch's meta device, which computes shapes alone: nothing is read off a family's own
description, so that networks of different families are described in the same terms.

Axes: T = `TOPOLOGY_DIM`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_LEVELS = 7
"""Resolutions: the input's, its half, its quarter, and so on; what is smaller still counts to the last."""
_DECAY = 0.8
"""Of a layer's weight with its place inside its resolution: the same layers in another order have another code, since
no sum of small whole multiples of powers of 4/5 vanishes."""
_PER_LEVEL = 8
_WHOLE = 5
TOPOLOGY_DIM = _LEVELS * _PER_LEVEL + _WHOLE
COSTS = 2
"""How many of the last values of a code are costs."""


@dataclass(frozen=True)
class Cost:
    """What one forward pass of one image costs, in millions.

    Attributes:
        params_m: parameters.
        macs_m: multiply-accumulates of convolutions and matrix products.
        largest_layer_m: values that the layer of most values gives; memory grows with it.
    """

    params_m: float
    macs_m: float
    largest_layer_m: float


@dataclass(frozen=True)
class Layer:
    """One convolution or matrix product.

    Attributes:
        kernel: side of a convolution's kernel in pixels; 1 for a matrix product.
        stride: of a convolution.
        groups: of a convolution.
        channels: that it gives.
        side_px: of what it gives; 1 for a matrix product.
        values: how many numbers it gives.
        macs: multiply-accumulates.
    """

    kernel: int
    stride: int
    groups: int
    channels: int
    side_px: int
    values: int
    macs: int


@dataclass(frozen=True)
class Trace:
    """What one forward pass does.

    Attributes:
        layers: in the order in which they are computed.
        params: how many numbers the network has that are trained.
    """

    layers: tuple[Layer, ...]
    params: int

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)


def trace(network: nn.Module, function: Callable[[Tensor], Tensor], image_size_px: int) -> Trace:
    """Follow one image through a function of a network, in eval mode; the network's modes stay as they were.

    Args:
        network: whose parameters are counted; on the meta device, or on any other.
        function: takes images (1, 3, S, S), the network itself or its features.
        image_size_px: S.
    """
    modes = [(module, module.training) for module in network.modules()]
    place = next(network.parameters()).device
    network.eval()
    try:
        with torch.no_grad(), _Recorder() as recorder:
            function(torch.zeros(1, 3, image_size_px, image_size_px, device=place))
    finally:
        for module, training in modes:
            module.training = training
    return Trace(tuple(recorder.layers), sum(parameter.numel() for parameter in network.parameters()))


def cost_of(network: nn.Module, image_size_px: int) -> Cost:
    """Count what a network costs, classifier included; it stays where and as it was."""
    # On the meta device whatever it is on: layers such as attention compute in other steps on real ones.
    outline = copy.deepcopy(network).to("meta")
    found = trace(outline, outline, image_size_px)
    largest = max((layer.values for layer in found.layers), default=0)
    return Cost(found.params / 1e6, found.macs / 1e6, largest / 1e6)


def topology_code(found: Trace, image_size_px: int, feature_dim: int) -> npt.NDArray[np.float32]:
    """Describe a network by its layers, resolution by resolution.

    Of each resolution: how many layers, the logarithm of their MACs, and of kernels, strides, channels (log2) and the
    share of depthwise layers the means; kernels and channels once more with weights by place. Of the whole: the
    logarithms of the input's side and of the feature width, the number of layers, and last (`COSTS`) the logarithms of
    parameters and MACs.

    Returns:
        (T,) float32; zeros where a network has no layer of a resolution.
    """
    levels: list[list[Layer]] = [[] for _ in range(_LEVELS)]
    for layer in found.layers:
        level = round(math.log2(max(1.0, image_size_px / max(1, layer.side_px))))
        levels[min(level, _LEVELS - 1)].append(layer)
    code = [value for layers in levels for value in _level_code(layers)]
    code += [math.log2(image_size_px), math.log2(feature_dim), float(len(found.layers))]
    code += [math.log(max(found.params, 1)), math.log(max(found.macs, 1))]
    return np.array(code, dtype=np.float32)


def _level_code(layers: Sequence[Layer]) -> list[float]:
    if not layers:
        return [0.0] * _PER_LEVEL
    columns = np.array(
        [(one.kernel, one.stride, math.log2(one.channels), float(one.groups > 1)) for one in layers], dtype=np.float64
    )
    weights = _DECAY ** np.arange(len(layers))
    placed = weights @ columns
    macs = math.log1p(sum(layer.macs for layer in layers))
    return [float(len(layers)), macs, *columns.mean(axis=0).tolist(), float(placed[0]), float(placed[2])]


_LIKE_FIRST = {
    getattr(torch.ops.aten, name) for name in ("relu", "hardtanh", "hardswish", "silu", "gelu", "add", "mul")
}
"""Operations whose result is like their first argument, where the others are of the same shape."""


class _Recorder(TorchDispatchMode):
    """Notes each operation that torch's own table of costs knows."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[Layer] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func._overloadpacket
        out = _shape_alone(func, packet, args)
        if out is None:
            out = func(*args, **(kwargs or {}))
        if packet in flop_registry:
            # A multiply-accumulate is two operations there.
            macs = int(flop_registry[packet](*args, **(kwargs or {}), out_val=out)) // 2
            self.layers.append(_layer(packet, args, out, macs))
        return out


def _shape_alone(func: Any, packet: Any, args: Sequence[Any]) -> Any:
    """Return what an operation gives on the meta device where its shape is plain: 20 times as fast as torch's way."""
    first = args[0] if args else None
    if not isinstance(first, Tensor) or first.device.type != "meta":
        return None
    if packet is torch.ops.aten.native_batch_norm:
        nothing = first.new_empty(0)
        return torch.empty_like(first), nothing, nothing
    if packet in _LIKE_FIRST and not func._schema.is_mutable:
        others = [one for one in args[1:] if isinstance(one, Tensor)]
        if all(one.shape == first.shape and one.dtype == first.dtype for one in others):
            return torch.empty_like(first)  # strides included
    return None


def _layer(packet: Any, args: Sequence[Any], out: Any, macs: int) -> Layer:
    if packet is torch.ops.aten.convolution:
        weight, stride, groups = args[1], args[3], args[8]
        shape = (int(weight.shape[-1]), int(stride[-1]), int(groups), int(out.shape[1]), int(out.shape[-1]))
        return Layer(*shape, out.numel(), macs)
    shaped = out[0] if isinstance(out, tuple | list) else out
    return Layer(1, 1, 1, int(shaped.shape[-1]), 1, shaped.numel(), macs)
