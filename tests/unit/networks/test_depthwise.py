"""Depthwise convolutions against torch's own, and BatchNorm folded into convolutions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from tans_core.networks.depthwise import depthwise_conv
from tans_core.networks.slicing import conv_norm


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("size", "padded"), [(3, True), (12, True), (13, False)])
def test_gradients_are_those_of_torch(kernel: int, stride: int, size: int, padded: bool) -> None:
    padding = kernel // 2 if padded else 0
    torch.manual_seed(0)
    images = torch.randn(4, 10, size, size).contiguous(memory_format=torch.channels_last)
    weights = torch.randn(10, 1, kernel, kernel)
    results = []
    for convolve in (depthwise_conv, F.conv2d):
        given = images.clone().requires_grad_(), weights.clone().requires_grad_()
        groups = {} if convolve is depthwise_conv else {"groups": 10}
        output = convolve(*given, None, stride=stride, padding=padding, **groups)  # type: ignore[operator]
        output.backward(torch.arange(output.numel()).view_as(output).sin())
        results.append((output.detach(), given[0].grad, given[1].grad))
    for ours, wanted in zip(*results, strict=True):
        torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=1e-5)


def test_fixed_statistics_folded_into_the_weights_change_no_answer() -> None:
    torch.manual_seed(0)
    norm, weight, images = nn.BatchNorm2d(12), torch.randn(8, 3, 3, 3), torch.randn(5, 3, 9, 9)
    with torch.no_grad():
        norm.running_mean, norm.running_var = torch.randn(12), torch.rand(12) + 0.1
        norm.weight.copy_(torch.randn(12))
        norm.bias.copy_(torch.randn(12))
    norm.eval()
    wanted = conv_norm(images, weight, norm, F.conv2d)
    with torch.no_grad():
        folded = conv_norm(images, weight, norm, F.conv2d)
    torch.testing.assert_close(folded, wanted.detach(), atol=1e-4, rtol=1e-5)
