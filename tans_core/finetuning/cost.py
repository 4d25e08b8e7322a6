"""What a network costs, counted on the network itself."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def measure_cost(model: nn.Module, image_size_px: int) -> tuple[float, float]:
    """Return parameters and multiply-accumulates of one image, both in millions.

    One forward pass of one image in eval mode; torch counts convolutions and matrix products, and a multiply-accumulate as two
    operations. The model's mode and buffers stay as they were.
    """
    params = sum(parameter.numel() for parameter in model.parameters())
    place = next(model.parameters()).device
    training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, image_size_px, image_size_px, device=place))
    model.train(training)
    return params / 1e6, counter.get_total_flops() / 2e6
