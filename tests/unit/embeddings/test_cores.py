from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tans_core.embeddings.cores import on_all_cores
from tans_core.embeddings.query import Backbone
from tans_core.networks.preprocess import EVAL_BATCH, Preprocess

PLAIN = Preprocess(image_size_px=16, mean=(0, 0, 0), std=(1, 1, 1))


@pytest.mark.parametrize("count", [1, EVAL_BATCH, 3 * EVAL_BATCH - 1])
def test_parts_give_the_features_of_the_whole(count: int) -> None:
    torch.manual_seed(0)
    network, images, sizes = torch.nn.Conv2d(3, 8, 3), torch.rand(count, 3, 16, 16), []

    def features(part: Tensor) -> Tensor:
        sizes.append(len(part))
        return network(part).mean(dim=(2, 3))  # type: ignore[no-any-return]

    threads = torch.get_num_threads()
    backbone = on_all_cores(Backbone("probe", features, PLAIN))
    with torch.no_grad():
        assert torch.allclose(backbone.features(images), network(images).mean(dim=(2, 3)), atol=1e-6)
    assert sum(sizes) == count and (sizes == [count] or min(sizes) >= EVAL_BATCH)
    assert torch.get_num_threads() == threads
