"""Traces a network's operations: gives its exact costs, and a topology code that is comparable between families.

The trace is one forward pass of one image on torch's meta device, which computes only shapes. A family's own
architecture description is not used, so networks of different families get comparable codes.

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

from tans_core.networks.preprocess import evaluating

_LEVELS = 7
"""Resolutions: the input's, half, a quarter, and so on; smaller ones count as the last."""
_DECAY = 0.8
"""Decay of a layer's weight with its position inside its resolution. The same layers in another order get another
code, since no sum of small integer multiples of powers of 4/5 is zero."""
_PER_LEVEL = 8
_WHOLE = 5
TOPOLOGY_DIM = _LEVELS * _PER_LEVEL + _WHOLE
COSTS = 2
"""How many values at the end of a code are costs."""


@dataclass(frozen=True)
class Cost:
    """The cost of one forward pass of one image, in millions.

    Attributes:
        params_m: parameters.
        macs_m: multiply-accumulates of convolutions and matrix products.
        largest_layer_m: output values of the layer with the most; memory grows with it.
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
        channels: of its output.
        side_px: of its output; 1 for a matrix product.
        values: number of output values.
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
    """The layers of one forward pass.

    Attributes:
        layers: in order of computation.
        params: number of trainable parameters.
    """

    layers: tuple[Layer, ...]
    params: int

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)


def trace(network: nn.Module, function: Callable[[Tensor], Tensor], image_size_px: int) -> Trace:
    """Trace one image through a function of a network, in eval mode; afterwards the network's modes are as before.

    Args:
        network: its parameters are counted; on the meta device, or on any other.
        function: takes images (1, 3, S, S): the network itself, or its `features`.
        image_size_px: S.
    """
    network_device = next(network.parameters()).device
    with evaluating(network), torch.no_grad(), _Recorder() as recorder:
        function(torch.zeros(1, 3, image_size_px, image_size_px, device=network_device))
    return Trace(tuple(recorder.layers), sum(parameter.numel() for parameter in network.parameters()))


def cost_of(network: nn.Module, image_size_px: int) -> Cost:
    """Count the cost of a network, classifier included; the network does not change."""
    # Always on the meta device: on real ones, layers such as attention use other operations.
    outline = copy.deepcopy(network).to("meta")
    traced = trace(outline, outline, image_size_px)
    largest = max((layer.values for layer in traced.layers), default=0)
    return Cost(traced.params / 1e6, traced.macs / 1e6, largest / 1e6)


def topology_code(traced: Trace, image_size_px: int, feature_dim: int) -> npt.NDArray[np.float32]:
    """Describe a network by its layers, resolution by resolution.

    For each resolution: the number of layers, the logarithm of their MACs, the means of kernels, strides, channels
    (log2) and depthwise layers, then the sums of kernels and channels (log2) weighted by position. For the whole: the
    logarithms of the input's side and of the feature width, the number of layers, and last (`COSTS`) the logarithms of
    parameters and MACs.

    Returns:
        (T,) float32; zeros for a resolution without layers.
    """
    levels: list[list[Layer]] = [[] for _ in range(_LEVELS)]
    for layer in traced.layers:
        level = round(math.log2(max(1.0, image_size_px / max(1, layer.side_px))))
        levels[min(level, _LEVELS - 1)].append(layer)
    code = [value for layers in levels for value in _level_code(layers)]
    code += [math.log2(image_size_px), math.log2(feature_dim), float(len(traced.layers))]
    code += [math.log(max(traced.params, 1)), math.log(max(traced.macs, 1))]
    return np.array(code, dtype=np.float32)


def _level_code(layers: Sequence[Layer]) -> list[float]:
    if not layers:
        return [0.0] * _PER_LEVEL
    columns = np.array(
        [(one.kernel, one.stride, math.log2(one.channels), float(one.groups > 1)) for one in layers], dtype=np.float64
    )
    weights = _DECAY ** np.arange(len(layers))
    weighted = weights @ columns
    macs = math.log1p(sum(layer.macs for layer in layers))
    return [float(len(layers)), macs, *columns.mean(axis=0).tolist(), float(weighted[0]), float(weighted[2])]


_LIKE_FIRST = {
    getattr(torch.ops.aten, name) for name in ("relu", "hardtanh", "hardswish", "silu", "gelu", "add", "mul")
}
"""Operations whose result has the shape of their first argument, if the other arguments have it too."""


class _Recorder(TorchDispatchMode):
    """Records each operation that torch's table of costs contains."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[Layer] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func._overloadpacket
        out = _shape_alone(func, packet, args)
        if out is None:
            out = func(*args, **(kwargs or {}))
        if packet in flop_registry:
            # That table counts a multiply-accumulate as two operations.
            macs = int(flop_registry[packet](*args, **(kwargs or {}), out_val=out)) // 2
            self.layers.append(_layer(packet, args, out, macs))
        return out


def _shape_alone(func: Any, packet: Any, args: Sequence[Any]) -> Any:
    """Return the result of a simple operation on the meta device, 20 times as fast as torch; None for other ones."""
    first = args[0] if args else None
    if not isinstance(first, Tensor) or first.device.type != "meta":
        return None
    if packet is torch.ops.aten.native_batch_norm:
        empty = first.new_empty(0)
        return torch.empty_like(first), empty, empty
    if packet in _LIKE_FIRST and not func._schema.is_mutable:
        others = [other for other in args[1:] if isinstance(other, Tensor)]
        if all(other.shape == first.shape and other.dtype == first.dtype for other in others):
            return torch.empty_like(first)  # strides included
    return None


def _layer(packet: Any, args: Sequence[Any], out: Any, macs: int) -> Layer:
    if packet is torch.ops.aten.convolution:
        weight, stride, groups = args[1], args[3], args[8]
        shape = (int(weight.shape[-1]), int(stride[-1]), int(groups), int(out.shape[1]), int(out.shape[-1]))
        return Layer(*shape, out.numel(), macs)
    output = out[0] if isinstance(out, tuple | list) else out
    return Layer(1, 1, 1, int(output.shape[-1]), 1, output.numel(), macs)
