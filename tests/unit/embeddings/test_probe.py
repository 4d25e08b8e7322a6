import numpy as np
import pytest
import torch

from tans_core.embeddings.probe import probe, probe_sample
from tans_core.errors import TooFewImagesError, WeightsError
from tans_core.networks.elastic import ElasticNetwork
from tans_core.networks.head import features_of
from tans_core.networks.ridge import ridge_probe
from tans_core.tasks.task import Task
from tests.factories.networks import PREPROCESS, tiny_network
from tests.factories.tasks import grating_task


def network() -> ElasticNetwork:
    return tiny_network(num_classes=2, seed=3)


def test_separable_features_score_high_and_noise_scores_nothing() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(4), 20)
    clear = np.eye(4)[labels] + 0.05 * rng.normal(size=(80, 4))
    assert ridge_probe(clear, labels).accuracy == 1
    assert ridge_probe(clear, labels).fit > 0.9
    noise = rng.normal(size=(80, 30))
    assert ridge_probe(noise, labels).fit < 0.1
    assert ridge_probe(noise, labels).accuracy < 0.5


def test_a_constant_feature_and_constant_features_alone_are_survived() -> None:
    labels = np.repeat(np.arange(2), 10)
    features = np.random.default_rng(2).normal(size=(20, 5))
    with_constant = np.concatenate([features, np.full((20, 1), 7.0)], axis=1)
    assert ridge_probe(with_constant, labels) == ridge_probe(features, labels)
    assert ridge_probe(np.ones((20, 3)), labels).fit <= 0


def test_sample_is_balanced_and_neither_order_nor_seed_changes_it() -> None:
    task = grating_task()
    sample = probe_sample(task, images_per_class=5, most=100)
    assert np.bincount(sample.labels).tolist() == [5] * task.info.num_classes
    backwards = task.images.take(range(len(task.images) - 1, -1, -1))
    turned = Task(task.info, backwards, task.labels[::-1], task.splits[::-1], task.sha256, task.paths, task.sizes)
    assert torch.equal(probe_sample(turned, 5, 100).images(PREPROCESS), sample.images(PREPROCESS))
    assert len(probe_sample(task, 50, most=2 * task.info.num_classes).labels) == 2 * task.info.num_classes


def test_probing_leaves_the_network_as_it_was() -> None:
    task, model = grating_task(), network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = probe(model, PREPROCESS, probe_sample(task, 10, 100))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert probe(model, PREPROCESS, probe_sample(task, 10, 100)) == first


def test_each_network_is_asked_at_its_own_size_about_the_same_images() -> None:
    task = grating_task()
    sample = probe_sample(task, 5, 100)
    large = PREPROCESS.model_copy(update={"image_size_px": 24})
    assert sample.images(large).shape == (15, 3, 24, 24)
    small = torch.nn.functional.interpolate(sample.images(large), size=16, mode="bilinear", antialias=True)
    both = torch.stack([small.flatten(), sample.images(PREPROCESS).flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.95


class _WithDropout(ElasticNetwork):
    def features(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(super().features(images), 0.5, training=self.training)


def test_probing_switches_no_dropout_on() -> None:
    task = grating_task()
    model = _WithDropout(network().architecture, 2).eval()
    first, second = (features_of(model, probe_sample(task, 10, 100).images(PREPROCESS)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_broken_weights_are_named_and_a_single_class_is_refused() -> None:
    task, model = grating_task(), network()
    with torch.no_grad():
        model.stem.weight.fill_(float("nan"))
    with pytest.raises(WeightsError, match="NaN"):
        features_of(model, probe_sample(task, 5, 100).images(PREPROCESS))
    lonely = type(task)(
        task.info, task.images, np.zeros_like(task.labels), task.splits, task.sha256, task.paths, task.sizes
    )
    with pytest.raises(TooFewImagesError, match=r"needs 2 classes with 2 images or more.*got 1"):
        probe_sample(lonely, 5, 100)
