import numpy as np
import pytest
import torch
from torch import nn

from tans_core.embeddings.functional import NoiseProbe, functional_dim
from tans_core.errors import WeightsError
from tans_core.networks.elastic import ElasticNetwork, ElasticSpace


def network(width: int, seed: int = 0) -> ElasticNetwork:
    torch.manual_seed(seed)
    space = ElasticSpace(8, (8, width), (2, 2), 1, (3,), (1.0,))
    return space.build(space.smallest(), 3).eval()


@pytest.mark.parametrize("width", [16, 24, 40])
def test_embedding_has_one_size_whatever_the_penultimate_width(width: int) -> None:
    embedding = NoiseProbe(6, 32, 0, 16).embed(network(width))
    assert embedding.shape == (functional_dim(6, 32),) == (32 + 15,)
    assert embedding.dtype == np.float32


def test_embedding_depends_on_the_weights_and_on_the_stored_seed_alone() -> None:
    first = NoiseProbe(6, 32, 0, 16).embed(network(16))
    torch.rand(3)
    np.testing.assert_array_equal(first, NoiseProbe(6, 32, 0, 16).embed(network(16)))
    assert not np.allclose(first, NoiseProbe(6, 32, 1, 16).embed(network(16)))
    assert not np.allclose(first, NoiseProbe(6, 32, 0, 16).embed(network(16, seed=1)))


class _Permuted(nn.Module):
    def __init__(self, inner: ElasticNetwork) -> None:
        super().__init__()
        self.inner = inner

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.inner.features(images).flip(1)


def test_gram_form_is_the_cosines_of_centred_answers_and_ignores_the_order_of_channels() -> None:
    probe, plain = NoiseProbe(5, 8, 0, 16), network(16)
    with torch.no_grad():
        answers = plain.features(probe.images).double().numpy()
    centred = answers - answers.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    wanted = [centred[i] @ centred[j] for i in range(5) for j in range(i + 1, 5)]
    np.testing.assert_allclose(probe.embed(plain)[8:], wanted, atol=1e-4)
    np.testing.assert_allclose(probe.embed(_Permuted(plain))[8:], wanted, atol=1e-4)


def test_network_that_answers_nan_is_refused() -> None:
    broken = network(16)
    with torch.no_grad():
        broken.stem.weight.fill_(float("nan"))
    with pytest.raises(WeightsError, match="NaN"):
        NoiseProbe(4, 8, 0, 16).embed(broken)
